// SPDX-License-Identifier: Apache-2.0
// Any bytes as text for each kind of tokenizer, or as a vocabulary file; see tests/text/check_tokenizers.h.
// The checks are compiled in here, since libFuzzer targets are one source file each.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/text/check_tokenizers.cpp"  // NOLINT(bugprone-suspicious-include)
#include "tests/text/tiny_vocab.cpp"        // NOLINT(bugprone-suspicious-include)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string wrong = quern::test::check_tokenizers(std::as_bytes(std::span(data, size)));
    if (!wrong.empty()) {
        std::fprintf(stderr, "%s\n", wrong.c_str());
        std::abort();
    }
    return 0;
}
