// SPDX-License-Identifier: Apache-2.0
// A session in a file: its tokens, and the pages of the KV cache that they fill.
//
//   head    magic, format, byte order; model, KV format, page size in tokens and bytes, vocabulary: what must agree
//           numbers of tokens, of pages, of bytes of the note, of exact pages; zeros up to 64 bytes
//   body    tokens (int32), the caller's note, zeros up to a multiple of 64; the pages, page_bytes each; the exact pages
//   tail    hash of all that
//
// Tokens behind the last full page have none: they are run again, which is at most a page's worth unless more were left to run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quern/result.hpp"

namespace quern {

struct SessionFile {
    // What the reader must share with the writer:
    std::uint64_t model = 0;         // hash of what the keys and values depend on
    std::uint32_t kv_format = 0;
    std::uint32_t page_tokens = 0;   // not 0
    std::uint64_t page_bytes = 0;
    std::uint32_t n_vocab = 0;
    std::uint64_t exact_bytes = 0;   // of an exact page; follows from the others, and is not in the file

    // The content; views into the caller's memory or, after read(), into the file.
    std::vector<std::int32_t> tokens;
    std::string_view note;
    std::uint32_t n_pages = 0;       // n_pages * page_tokens <= tokens.size()
    std::uint32_t n_exact = 0;       // a cache of two tiers: pages of the positions that are not quantized
    std::span<const std::byte> pages, exact;   // read() sets them: [n_pages][page_bytes], [n_exact][exact_bytes]

    /// Compares `file` with what must agree here, checks all of it, and takes its content. Errc::bad_file says what is wrong
    /// and changes nothing.
    Status read(std::span<const std::byte> file);
    /// Writes the file, complete or not at all; page(i, to) puts page i in place, exact pages being numbered from n_pages on.
    Status write(const std::string& path, const std::function<Status(std::uint32_t, std::span<std::byte>)>& page) const;
    /// All before the pages.
    std::vector<std::byte> front() const;
};

}  // namespace quern
