// SPDX-License-Identifier: Apache-2.0
#include "formats/session_file.h"

#include <algorithm>
#include <cstring>

#include "formats/atomic_file.h"
#include "formats/bytes.h"
#include "formats/hash.h"
#include "formats/text.h"

namespace quern {
namespace {

constexpr std::string_view kMagic("quern\0ss", 8);
constexpr std::uint32_t kFormat = 1, kByteOrder = 0x01020304;
constexpr std::size_t kHead = 64, kAgreed = 44, kHash = 8;   // bytes: of the head, of what must agree in it, of the tail

std::uint64_t front_bytes(std::uint64_t n_tokens, std::uint64_t n_note) { return (kHead + 4 * n_tokens + n_note + 63) / 64 * 64; }

void put(std::vector<std::byte>& out, std::uint64_t v, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<std::byte>(v >> (8 * i)));
}
template <class T>
void append(std::vector<std::byte>& out, const T& values) {
    const auto bytes = std::as_bytes(std::span(values.data(), values.size()));
    out.insert(out.end(), bytes.begin(), bytes.end());
}

Error bad(std::string_view what) { return {Errc::bad_file, std::string(what)}; }

/// The first byte that must agree and does not, in words.
Error difference(std::size_t at) {
    if (at < 8) return bad("it is no session of Quern");
    if (at < 16) return bad("it was written by another version of Quern");
    if (at < 24) return bad("it belongs to another model");
    if (at < 40) return bad("its KV cache has another format");
    return bad("its model has another vocabulary");
}

}  // namespace

std::vector<std::byte> SessionFile::front() const {
    std::vector<std::byte> out;
    out.reserve(front_bytes(tokens.size(), note.size()));
    append(out, kMagic);
    for (const std::uint64_t v : {std::uint64_t{kFormat}, std::uint64_t{kByteOrder}}) put(out, v, 4);
    put(out, model, 8);
    put(out, kv_format, 4);
    put(out, page_tokens, 4);
    put(out, page_bytes, 8);
    put(out, n_vocab, 4);
    put(out, tokens.size(), 4);
    put(out, n_pages, 4);
    put(out, note.size(), 4);
    put(out, n_exact, 4);
    out.resize(kHead);
    append(out, tokens);
    append(out, note);
    out.resize(front_bytes(tokens.size(), note.size()));
    return out;
}

Status SessionFile::read(std::span<const std::byte> file) {
    SessionFile agreed = *this;
    agreed.tokens.clear();
    agreed.note = {};
    const std::vector<std::byte> want = agreed.front();
    const std::size_t n = std::min(kAgreed, file.size());
    const auto at = std::mismatch(want.begin(), want.begin() + static_cast<std::ptrdiff_t>(n), file.begin()).first - want.begin();
    if (static_cast<std::size_t>(at) < n) return difference(static_cast<std::size_t>(at));
    if (file.size() < kHead) return bad(cat("it is cut short at ", file.size(), " bytes"));
    const std::uint64_t n_tokens = load_le(file.data() + kAgreed, 4), n_page = load_le(file.data() + kAgreed + 4, 4);
    const std::uint64_t n_note = load_le(file.data() + kAgreed + 8, 4), n_ex = load_le(file.data() + kAgreed + 12, 4);
    if (n_page * page_tokens > n_tokens) return bad(cat("it has ", n_page, " pages for ", n_tokens, " tokens"));
    if (n_ex > 0 && exact_bytes == 0) return bad(cat("it has ", n_ex, " exact pages, and the cache none"));
    // Numbers of pages below 2^32, and no page is larger than memory, so that only the products need a look.
    const std::uint64_t front_size = front_bytes(n_tokens, n_note), rest = file.size() - kHead;
    const auto too_many = [&](std::uint64_t n, std::uint64_t bytes) { return bytes && n > (file.size() - front_size) / bytes; };
    if (front_size - kHead > rest || too_many(n_page, page_bytes) || too_many(n_ex, exact_bytes) || file.size() != front_size + n_page * page_bytes + n_ex * exact_bytes + kHash)
        return bad(cat("it has ", file.size(), " bytes, which is not what ", n_tokens, " tokens and ", n_page + n_ex, " pages take"));
    const auto page_part = file.subspan(front_size, n_page * page_bytes), exact_part = file.subspan(front_size + page_part.size(), n_ex * exact_bytes);
    std::uint64_t h = hash_bytes(file.first(front_size));
    for (std::uint64_t i = 0; i < n_page; ++i) h = hash_bytes(page_part.subspan(i * page_bytes, page_bytes), h);
    for (std::uint64_t i = 0; i < n_ex; ++i) h = hash_bytes(exact_part.subspan(i * exact_bytes, exact_bytes), h);
    if (h != load_le(file.data() + file.size() - kHash, kHash)) return bad("it is damaged: its checksum is another");
    std::vector<std::int32_t> ids(n_tokens);
    if (n_tokens) std::memcpy(ids.data(), file.data() + kHead, 4 * n_tokens);
    for (const std::int32_t t : ids)
        if (t < 0 || static_cast<std::uint32_t>(t) >= n_vocab) return bad(cat("its token ", t, " is outside the vocabulary of ", n_vocab));
    tokens = std::move(ids);
    note = as_text(file.subspan(kHead + 4 * n_tokens, n_note));
    n_pages = static_cast<std::uint32_t>(n_page);
    n_exact = static_cast<std::uint32_t>(n_ex);
    pages = page_part;
    exact = exact_part;
    return {};
}

Status SessionFile::write(const std::string& path, const std::function<Status(std::uint32_t, std::span<std::byte>)>& page) const {
    AtomicFile file;
    if (Status s = file.create(path); !s) return s;
    std::vector<std::byte> bytes = front();
    std::uint64_t h = hash_bytes(bytes);
    if (Status s = file.write(bytes); !s) return s;
    for (std::uint32_t i = 0; i < n_pages + n_exact; ++i) {
        bytes.resize(i < n_pages ? page_bytes : exact_bytes);
        if (auto s = page(i, bytes); !s) return s;
        h = hash_bytes(bytes, h);
        if (Status s = file.write(bytes); !s) return s;
    }
    bytes.clear();
    put(bytes, h, kHash);
    if (Status s = file.write(bytes); !s) return s;
    return file.finish();
}

}  // namespace quern
