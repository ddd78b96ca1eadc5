// SPDX-License-Identifier: Apache-2.0
// Reads everything that a parsed file offers. The sanitizers see every byte, and the first view outside of the
// file's bytes is reported.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"
#include "formats/text.h"

namespace quern::test {

/// Empty if all views of `file` lie inside `bytes`; else which one does not.
inline std::string view_outside(const gguf::File& file, std::span<const std::byte> bytes) {
    unsigned sum = 0;
    const auto inside = [&](const void* data, std::size_t size) {
        const auto* p = static_cast<const std::byte*>(data);
        if (size == 0) return true;
        if (p < bytes.data() || size > bytes.size() || p > bytes.data() + (bytes.size() - size)) return false;
        for (std::size_t i = 0; i < size; ++i) sum += std::to_integer<unsigned>(p[i]);
        return true;
    };
    for (const gguf::Value& v : file.metadata()) {
        bool good = inside(v.key.data(), v.key.size()) && inside(v.string.data(), v.string.size()) &&
                    inside(v.array.bytes.data(), v.array.bytes.size());
        for (const std::string_view s : v.array.strings) good = good && inside(s.data(), s.size());
        if (!good) return cat("key ", quoted(v.key));
        if (file.find(v.key) != &v) return cat("look-up of key ", quoted(v.key));
    }
    for (const gguf::Tensor& t : file.tensors()) {
        if (!inside(t.name.data(), t.name.size()) || !inside(t.data.data(), t.data.size()) ||
            t.data.size() != row_bytes(t.type, t.n_elements())) {
            return cat("tensor ", quoted(t.name));
        }
        if (file.find_tensor(t.name) != &t) return cat("look-up of tensor ", quoted(t.name));
    }
    return {};
}

/// Runs every typed read on every key; gives the number that succeeded.
inline std::size_t read_all_keys(const gguf::File& file) {
    std::size_t good = 0;
    for (const gguf::Value& v : file.metadata()) {
        good += file.get_uint(v.key).ok() + file.get_int(v.key).ok() + file.get_float(v.key).ok();
        good += file.get_bool(v.key).ok() + file.get_string(v.key).ok() + file.get_int_array(v.key).ok();
        good += file.get_float_array(v.key).ok() + file.get_string_array(v.key).ok();
    }
    return good;
}

}  // namespace quern::test
