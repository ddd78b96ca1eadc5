// SPDX-License-Identifier: Apache-2.0
// What the units of the C interface share: errors, structs with a size in front, memory that the caller owns.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "formats/text.h"
#include "quern/quern.h"
#include "quern/quern.hpp"

struct quern_model {
    quern::Model model;
    std::vector<std::string> keys;
};
namespace quern::c_api {

inline quern_status report(quern_error* error, Errc code, std::string_view message) noexcept {
    const auto status = static_cast<quern_status>(code);
    if (error == nullptr) return status;
    error->status = status;
    std::size_t n = std::min(message.size(), sizeof error->message - 1);
    if (n < message.size()) {
        while (n > 0 && (static_cast<unsigned char>(message[n]) & 0xc0) == 0x80) --n;  // no half of a character
    }
    std::memcpy(error->message, message.data(), n);
    error->message[n] = '\0';
    return status;
}

/// Runs f, which returns a Status, and turns failures and exceptions into a quern_status.
template <class F>
quern_status guarded(quern_error* error, F f) noexcept {
    try {
        const Status s = f();
        return s ? QUERN_OK : report(error, s.error().code, s.error().message);
    } catch (const std::bad_alloc&) {
        return report(error, Errc::out_of_memory, "the system has no memory left for this call");
    } catch (const std::exception& e) {
        return report(error, Errc::internal, e.what());
    } catch (...) {
        return report(error, Errc::internal, "an exception of unknown type");
    }
}

inline Error null_argument(std::string_view name) { return {Errc::invalid_argument, cat(name, " is NULL")}; }

/// Copies what caller and library both know of a struct with a size in front; `out` has the defaults of the rest.
template <class T>
Status read_struct(const T* in, T& out, std::string_view name) {
    if (in == nullptr) return {};
    // No version had less than these; a struct that was never initialised is likely to show here.
    if (in->size < sizeof in->size + sizeof(void*) || in->size > 65536) {
        return Error{Errc::invalid_argument,
                     cat(name, ".size is ", in->size, "; set the struct up with ", name, "_init, giving its sizeof")};
    }
    std::memcpy(static_cast<void*>(&out), in, std::min(in->size, sizeof out));
    return {};
}

/// Fills a caller's output struct as far as the caller knows it.
template <class T>
Status write_struct(T* out, T value, std::string_view name) {
    if (out == nullptr) return null_argument("out");
    if (out->size < sizeof out->size + sizeof(void*) || out->size > 65536) {
        return Error{Errc::invalid_argument,
                     cat(name, ".size is ", out->size, "; set it to sizeof(", name, ") before the call")};
    }
    value.size = out->size;
    std::memcpy(static_cast<void*>(out), &value, std::min(out->size, sizeof value));
    return {};
}

/// `options` with everything past the size field set from `defaults`, as far as struct_size reaches.
template <class T>
void init_struct(T* options, std::size_t struct_size, T defaults) {
    if (options == nullptr || struct_size < sizeof defaults.size) return;
    std::memset(static_cast<void*>(options), 0, struct_size);
    defaults.size = struct_size;
    std::memcpy(static_cast<void*>(options), &defaults, std::min(struct_size, sizeof defaults));
}

/// A copy that the caller owns, one zero element longer. Throws bad_alloc.
template <class T>
T* copy_out(const T* data, std::size_t n) {
    auto* p = static_cast<T*>(std::malloc((n + 1) * sizeof(T)));
    if (p == nullptr) throw std::bad_alloc();
    if (n != 0) std::memcpy(p, data, n * sizeof(T));
    p[n] = T{};
    return p;
}
inline char* copy_out(std::string_view s) { return copy_out(s.data(), s.size()); }

inline const char* or_empty(const char* s) { return s != nullptr ? s : ""; }

Status convert(const quern_generate_options* in, GenerateOptions& out);
/// Asks for the answer once `out` is known to be sound, and writes it there.
quern_status write_result(quern_generate_result* out, quern_error* error,
                          const std::function<Result<GenerateResult>()>& answer) noexcept;

}  // namespace quern::c_api

// A pointer that must be there; for use in a function that returns Status.
#define QUERN_NEED(pointer) \
    if ((pointer) == nullptr) return null_argument(#pointer)
