// SPDX-License-Identifier: Apache-2.0
// Any bytes to the GGUF reader: an error, or a file whose every view and typed read is sound and which the writer
// reproduces. A broken promise traps, which the fuzzer and the corpus test report.
#include "formats/gguf.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../formats/views.h"
#include "formats/gguf_write.h"

namespace quern {
namespace {

void require(bool promise) {
    if (!promise) __builtin_trap();
}

void decode_first_rows(const gguf::File& f) {
    std::vector<float> block(256);
    for (const gguf::Tensor& t : f.tensors()) {
        const QuantInfo& q = info(t.type);
        q.decode(t.data.data(), block.data(), q.block_elements);
        q.decode(t.data.data() + t.data.size() - q.block_bytes, block.data(), q.block_elements);
    }
}

void write_again(const gguf::File& f) {
    gguf::Writer w(static_cast<std::uint32_t>(f.alignment()));
    for (const gguf::Value& v : f.metadata()) w.add(v);
    for (const gguf::Tensor& t : f.tensors()) w.add_tensor(t.name, t.type, {t.ne, t.n_dims}, t.data);
    const auto bytes = w.to_bytes();
    require(bytes.ok());
    const auto again = gguf::File::parse(*bytes, "again");
    require(again.ok() && again->tensors().size() == f.tensors().size());
    for (const gguf::Tensor& t : f.tensors()) {
        const gguf::Tensor* other = again->find_tensor(t.name);
        require(other && other->type == t.type && std::equal(t.ne, t.ne + 4, other->ne) &&
                std::equal(t.data.begin(), t.data.end(), other->data.begin(), other->data.end()));
    }
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace quern;
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
    const auto f = gguf::File::parse(bytes, "fuzz");
    if (!f) {
        require(f.error().message.rfind("fuzz: ", 0) == 0 && f.error().message.find("(at byte ") != std::string::npos);
        return 0;
    }
    require(test::view_outside(*f, bytes).empty());
    test::read_all_keys(*f);
    decode_first_rows(*f);
    write_again(*f);
    return 0;
}
