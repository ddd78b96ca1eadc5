// SPDX-License-Identifier: Apache-2.0
// Errors as values. Part of the public interface: quern.hpp includes it.
#ifndef QUERN_RESULT_HPP
#define QUERN_RESULT_HPP

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace quern {

enum class Errc {
    invalid_argument = 1,  ///< the caller passed something that cannot be right
    io,                    ///< the operating system refused a read, a mapping, a thread
    bad_file,              ///< the file's bytes contradict each other or its size
    unsupported,           ///< well formed, but this build or machine cannot do it
    out_of_memory,         ///< a limit set by the caller or the system would be passed
    cancelled,             ///< a callback asked to stop
    context_full,          ///< no room for another token
    internal,              ///< a bug in Quern
    queue_full,            ///< as many requests wait as may; try again later
    deadline_exceeded,     ///< the time that the caller allowed has passed
    device_lost,           ///< a GPU or its driver gave up; what lay on it is gone
};

/// What went wrong. `message` names the file, key, tensor or offset, and says what to do.
struct Error {
    Errc code = Errc::internal;
    std::string message;
};

/// A value or an Error. Reading the value of a failed result is a programming error (assert).
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}
    explicit operator bool() const noexcept { return v_.index() == 0; }
    bool ok() const noexcept { return v_.index() == 0; }
    T& operator*() & { assert(ok()); return *std::get_if<0>(&v_); }
    const T& operator*() const& { assert(ok()); return *std::get_if<0>(&v_); }
    T&& operator*() && { assert(ok()); return std::move(*std::get_if<0>(&v_)); }
    T* operator->() { assert(ok()); return std::get_if<0>(&v_); }
    const T* operator->() const { assert(ok()); return std::get_if<0>(&v_); }
    const Error& error() const& { assert(!ok()); return *std::get_if<1>(&v_); }
    Error&& error() && { assert(!ok()); return std::move(*std::get_if<1>(&v_)); }

private:
    std::variant<T, Error> v_;
};

/// Success or an Error.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), ok_(false) {}
    explicit operator bool() const noexcept { return ok_; }
    bool ok() const noexcept { return ok_; }
    const Error& error() const& { assert(!ok_); return error_; }
    Error&& error() && { assert(!ok_); return std::move(error_); }

private:
    Error error_;
    bool ok_ = true;
};

using Status = Result<void>;

}  // namespace quern
#endif
