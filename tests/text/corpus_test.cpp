// SPDX-License-Identifier: Apache-2.0
// The fuzzer's corpus, and truncations of it, without the fuzzer.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/text/check_tokenizers.h"

namespace quern::test {
namespace {

TEST(TokenizerCorpus, NothingIsWrong) {
    std::size_t files = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(QUERN_SOURCE_DIR) / "tests/fuzz/corpus/tokenizer")) {
        std::ifstream in(entry.path(), std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
        const auto all = std::as_bytes(std::span(bytes));
        for (std::size_t n = all.size(), step = 1; n > 0; n -= std::min(n, step), step += all.size() / 64) {
            EXPECT_EQ(check_tokenizers(all.first(n)), "") << entry.path() << ", first " << n << " bytes";
        }
        ++files;
    }
    EXPECT_GT(files, 10u);
}

}  // namespace
}  // namespace quern::test
