// SPDX-License-Identifier: Apache-2.0
// Real vocabularies against the token ids that the models' own tokenizers give.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/text/tokenizer.h"

namespace quern::text {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
}

std::vector<std::string> split(const std::string& text, const std::string& by) {
    std::vector<std::string> out;
    for (std::size_t at = 0;;) {
        const std::size_t hit = text.find(by, at);
        out.push_back(text.substr(at, hit - at));
        if (hit == std::string::npos) return out;
        at = hit + by.size();
    }
}

std::vector<Token> numbers(const std::string& line) {
    std::istringstream in(line);
    std::vector<Token> out;
    for (Token t; in >> t;) out.push_back(t);
    return out;
}

std::shared_ptr<const Tokenizer> open(const fs::path& path) {
    auto file = gguf::File::open(path.string());
    EXPECT_TRUE(file.ok()) << file.error().message;
    if (!file) return nullptr;
    auto t = Tokenizer::create(*file);
    EXPECT_TRUE(t.ok()) << t.error().message;
    return t.ok() ? *t : nullptr;
}

/// A vocabulary with NAME.inp, NAME.out beside it. Cased text comes back where `lossless`.
void check_vocabulary(const fs::path& path, bool lossless) {
    const auto t = open(path);
    ASSERT_NE(t, nullptr);
    const auto texts = split(read(path.string() + ".inp"), "\n__ggml_vocab_test__\n");
    const auto lines = split(read(path.string() + ".out"), "\n");
    ASSERT_GT(texts.size(), 40u);
    ASSERT_GE(lines.size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        for (const bool parse_special : {false, true}) {       // none of the texts has a special token
            const auto ids = t->encode(texts[i], {false, parse_special});
            ASSERT_TRUE(ids.ok()) << ids.error().message;
            EXPECT_EQ(*ids, numbers(lines[i])) << testing::PrintToString(texts[i]);
            if (lossless) {
                EXPECT_EQ(t->decode(*ids), texts[i]);
            }
        }
    }
}

TEST(Oracle, LlamaSentencePiece) {
    check_vocabulary(fs::path(QUERN_TEST_DATA) / "tokenizers" / "ggml-vocab-llama-spm.gguf", true);
}

class SharedOracle : public testing::TestWithParam<std::pair<const char*, bool>> {};

TEST_P(SharedOracle, VocabularyMatches) {
    const std::string name = std::string("ggml-vocab-") + GetParam().first + ".gguf";
    const fs::path path = fs::path(QUERN_SHARED_DIR) / "oracle" / "tokenizers" / name;
    if (!fs::exists(path)) GTEST_SKIP() << path << " is not here: reference data outside the repository";
    check_vocabulary(path, GetParam().second);
}

INSTANTIATE_TEST_SUITE_P(All, SharedOracle,
                         testing::Values(std::pair{"gpt-2", true}, std::pair{"starcoder", true},
                                         std::pair{"llama-spm", true}, std::pair{"bert-bge", false}),
                         [](const auto& info) {
                             std::string name = info.param.first;
                             std::erase(name, '-');
                             return name;
                         });

/// The model that tools/quickstart fetches, or the one that QUERN_TEST_MODEL names.
fs::path test_model() {
    if (const char* path = std::getenv("QUERN_TEST_MODEL")) return path;
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    const fs::path base = cache ? fs::path(cache) : fs::path(home ? home : "") / ".cache";
    return base / "quern" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(Oracle, SmolLm2) {
    const fs::path model = test_model();
    if (!fs::exists(model)) GTEST_SKIP() << model << " is not here: run tools/quickstart, or set QUERN_TEST_MODEL";
    const auto t = open(model);
    ASSERT_NE(t, nullptr);
    const auto cases = nlohmann::json::parse(read(fs::path(QUERN_TEST_DATA) / "tokenizers" / "smollm2-tokens.json"));
    ASSERT_GT(cases.size(), 100u);
    for (const auto& c : cases) {
        const auto text = c["text"].get<std::string>();
        const auto ids = t->encode(text, {false, true});
        ASSERT_TRUE(ids.ok()) << ids.error().message;
        EXPECT_EQ(*ids, c["ids"].get<std::vector<Token>>()) << testing::PrintToString(text);
        EXPECT_EQ(t->decode(*ids, true), text);
    }
    EXPECT_TRUE(t->is_end_of_generation(t->vocab().find("<|im_end|>")));
    EXPECT_TRUE(t->is_end_of_generation(t->vocab().find("<|endoftext|>")));
    EXPECT_FALSE(t->vocab().add_bos);
}

}  // namespace
}  // namespace quern::text
