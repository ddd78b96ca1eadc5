// SPDX-License-Identifier: Apache-2.0
// Any bytes into the reader of session files: a refusal that changes nothing, or content that lies inside the file and that
// would be written the same. The first byte chooses the description; an odd one sets the checksum right, which no fuzzer finds.
#include "tests/fuzz/session_file.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/bytes.h"
#include "formats/hash.h"

namespace {

void require(bool promise) {
    if (!promise) __builtin_trap();
}

/// The file with the hash that its own numbers ask for, as far as they make sense.
std::vector<std::byte> with_hash(std::span<const std::byte> file, const quern::SessionFile& f) {
    std::vector<std::byte> out(file.begin(), file.end());
    if (file.size() < 72) return out;
    const std::uint64_t n_tokens = quern::load_le(out.data() + 44, 4), n_note = quern::load_le(out.data() + 52, 4);
    const std::uint64_t front = (64 + 4 * n_tokens + n_note + 63) / 64 * 64, end = out.size() - 8;
    if (front > end) return out;
    std::uint64_t h = quern::hash_bytes(std::span(out).first(front));
    std::uint64_t at = front;
    const auto pages = [&](std::uint64_t n, std::uint64_t bytes) {
        for (; bytes && n > 0 && bytes <= end - at; --n, at += bytes) h = quern::hash_bytes(std::span(out).subspan(at, bytes), h);
    };
    pages(quern::load_le(out.data() + 48, 4), f.page_bytes);
    pages(quern::load_le(out.data() + 56, 4), f.exact_bytes);
    for (int i = 0; i < 8; ++i) out[end + static_cast<std::size_t>(i)] = static_cast<std::byte>(h >> (8 * i));
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace quern;
    if (size == 0) return 0;
    SessionFile f = test::session_file(data[0] / 2 % test::kSessionFiles);
    std::vector<std::byte> file(size - 1);
    std::transform(data + 1, data + size, file.begin(), [](std::uint8_t b) { return static_cast<std::byte>(b); });
    if (data[0] % 2) file = with_hash(file, f);
    const Status s = f.read(file);
    if (!s) {
        require(s.error().code == Errc::bad_file && !s.error().message.empty());
        require(f.tokens.empty() && f.n_pages == 0 && f.n_exact == 0 && f.note.empty() && f.pages.empty() && f.exact.empty());
        return 0;
    }
    for (const std::int32_t t : f.tokens) require(t >= 0 && t < 512);
    require(std::uint64_t{f.n_pages} * f.page_tokens <= f.tokens.size() && f.pages.size() == f.n_pages * f.page_bytes);
    require(f.exact.size() == f.n_exact * f.exact_bytes);
    const std::vector<std::byte> front = f.front();
    require(front.size() + f.pages.size() + f.exact.size() + 8 == file.size());
    require(f.pages.empty() || f.pages.data() == file.data() + front.size());
    require(f.exact.empty() || f.exact.data() == file.data() + front.size() + f.pages.size());
    // Zeros of the writer may be anything in a file whose hash fits; all else must be the same.
    require(std::equal(front.begin(), front.begin() + 60, file.begin()));
    require(std::equal(front.begin() + 64, front.begin() + 64 + static_cast<std::ptrdiff_t>(4 * f.tokens.size() + f.note.size()), file.begin() + 64));
    return 0;
}
