// SPDX-License-Identifier: Apache-2.0
#include "tools/infer/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tools/common/process.h"

namespace quern::tools {

namespace {
sigset_t only_sigint() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    return set;
}
}  // namespace

Interrupts::Interrupts() {
    const sigset_t set = only_sigint();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    thread_ = std::thread([this] { wait_for_signals(); });
}

Interrupts::~Interrupts() {
    closing_ = true;
    pthread_kill(thread_.native_handle(), SIGINT);
    thread_.join();
}

void Interrupts::wait_for_signals() {
    const sigset_t set = only_sigint();
    for (int signal = 0; sigwait(&set, &signal) == 0 && !closing_;) {
        const std::lock_guard lock(mutex_);
        if (!session_ || requested_) {
            const char newline = '\n';  // the shell's prompt starts on a line of its own
            if (isatty(STDERR_FILENO)) [[maybe_unused]] const auto n = write(STDERR_FILENO, &newline, 1);
            _exit(kExitInterrupted);
        }
        requested_ = true;
        session_->cancel();
    }
}

Interrupts::Answer::Answer(Interrupts& owner, Session& session) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    owner_.requested_ = false;
    owner_.session_ = &session;
}

Interrupts::Answer::~Answer() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.session_ = nullptr;
}

}  // namespace quern::tools
