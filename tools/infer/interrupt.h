// SPDX-License-Identifier: Apache-2.0
// Ctrl-C: the first ends the answer under way, the next (or one while no answer is under way) ends the program.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "quern/quern.hpp"

namespace quern::tools {

/// Takes SIGINT on a thread of its own, so nothing runs inside a signal handler. Construct before any other thread
/// starts: they inherit the blocked signal.
class Interrupts {
public:
    Interrupts();
    ~Interrupts();
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

    /// While an Answer lives, Ctrl-C cancels `session` instead of ending the program.
    class Answer {
    public:
        Answer(Interrupts& owner, Session& session);
        ~Answer();
        Answer(const Answer&) = delete;
        Answer& operator=(const Answer&) = delete;

    private:
        Interrupts& owner_;
    };

    /// True if Ctrl-C came during this Answer or, once it has ended, the last one.
    bool requested() const { return requested_; }

private:
    void wait_for_signals();

    std::atomic<bool> requested_{false}, closing_{false};
    std::mutex mutex_;
    Session* session_ = nullptr;  // guarded by mutex_; set while an answer is under way
    std::thread thread_;
};

}  // namespace quern::tools
