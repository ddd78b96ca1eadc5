// SPDX-License-Identifier: Apache-2.0
// The fuzzer's kept inputs, replayed by its own target without libFuzzer.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

TEST(GgufCorpus, EveryKeptInputRuns) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(QUERN_SOURCE_DIR "/tests/fuzz/corpus/gguf")) {
        SCOPED_TRACE(entry.path().string());
        std::ifstream in(entry.path(), std::ios::binary);
        const std::string s((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()), 0);
        ++files;
    }
    EXPECT_GE(files, 5) << "the corpus is gone";
}
