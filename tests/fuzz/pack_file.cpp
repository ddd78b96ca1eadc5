// SPDX-License-Identifier: Apache-2.0
// Any bytes into the reader of packed caches: a refusal that changes nothing, or a file that is what the description would
// write, matrices inside. The first byte chooses the description, the rest is the file.
#include "tests/fuzz/pack_file.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

void require(bool promise) {
    if (!promise) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace quern;
    if (size == 0) return 0;
    PackFile f = test::pack_file(data[0] % test::kPackFiles);
    const std::vector<std::byte> before = f.head();
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
    const Status s = f.read(file);
    const std::vector<std::byte> after = f.head();
    if (!s) {
        require(before == after && s.error().code == Errc::bad_file && !s.error().message.empty());
        return 0;
    }
    require(after.size() <= file.size() && std::equal(after.begin(), after.end(), file.begin()));
    std::uint64_t end = after.size();
    for (const PackFile::Matrix& m : f.matrices) {
        require(m.offset == end && m.offset % 64 == 0 && m.bytes <= file.size() - m.offset);
        end += m.bytes;
    }
    require(end == file.size());
    return 0;
}
