// SPDX-License-Identifier: Apache-2.0
// Packed weights kept in a file: used when whole and of this model, replaced when not, and never a reason to fail.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "quern/quern.hpp"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

class PackCache : public testing::Test {
protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("quern-cache-" + std::to_string(::getpid()));
        fs::remove_all(folder_);
        fs::create_directories(folder_);
        model_ = (folder_ / "model.gguf").string();
        fs::copy_file(test::tiny_dir() / "llama-q4_0.gguf", model_);
        cache_ = folder_ / "deeper" / "cache";
        want_ = logits({});
    }
    void TearDown() override { fs::remove_all(folder_); }

    /// Logits of a few tokens; said_ is what was logged about packed weights.
    std::vector<float> logits(const std::string& cache) {
        ModelOptions o;
        o.pack_cache = cache;
        o.n_threads = 2;
        said_.clear();
        o.on_log = [&](LogLevel level, std::string_view text) {
            if (text.find("packed weights") != std::string_view::npos) {
                EXPECT_EQ(level, LogLevel::info);
                said_ += std::string(text) + "\n";
            }
        };
        auto m = Model::load(model_, o);
        EXPECT_TRUE(m.ok()) << m.error().message;
        if (!m) return {};
        packed_ = m->memory_report().weights_packed;
        auto s = m->new_session();
        EXPECT_TRUE(s->decode(std::vector<Token>{3, 1, 4, 1, 5, 9}).ok());
        return {s->logits().begin(), s->logits().end()};
    }
    /// Loads with the cache; the logits must be the right ones. Whether packing was spared.
    bool cached() {
        EXPECT_EQ(logits(cache_.string()), want_) << said_;
        return said_.find("packed weights come from") != std::string::npos;
    }
    /// The one file in the folder.
    fs::path file() const {
        std::vector<fs::path> found;
        for (const auto& e : fs::directory_iterator(cache_)) found.push_back(e.path());
        EXPECT_EQ(found.size(), 1u);
        return found.empty() ? fs::path() : found[0];
    }
    bool said(const std::string& words) const { return said_.find(words) != std::string::npos; }

    static void flip(const fs::path& path, std::uint64_t at) {
        std::fstream f(path, std::ios::binary | std::ios::in | std::ios::out);
        f.seekg(static_cast<std::streamoff>(at));
        const int c = f.get();
        f.seekp(static_cast<std::streamoff>(at));
        f.put(static_cast<char>(c ^ 16));
    }

    fs::path folder_, cache_;
    std::string model_, said_;
    std::vector<float> want_;
    std::uint64_t packed_ = 0;
};

TEST_F(PackCache, IsWrittenOnceAndThenUsed) {
    EXPECT_FALSE(fs::exists(cache_));
    EXPECT_FALSE(cached());
    EXPECT_TRUE(said("made anew") && said("not there yet")) << said_;
    const std::uint64_t packed = packed_;
    EXPECT_EQ(file().extension(), ".qpack");
    const auto written = fs::last_write_time(file());
    EXPECT_TRUE(cached()) << said_;
    EXPECT_EQ(packed_, packed) << "the report counts the same bytes";
    EXPECT_EQ(fs::last_write_time(file()), written);
}

TEST_F(PackCache, BelongsToOneModelFile) {
    EXPECT_FALSE(cached());
    const auto time = fs::last_write_time(model_);
    fs::last_write_time(model_, time + std::chrono::seconds(1));
    EXPECT_FALSE(cached());
    EXPECT_TRUE(said("the model file has changed since")) << said_;
    EXPECT_TRUE(cached()) << "rewritten: " << said_;

    // Another model of the same shapes, size and time: only the weights differ.
    auto source = gguf::File::open(model_);
    ASSERT_TRUE(source.ok());
    const gguf::Tensor* t = source->find_tensor("blk.1.ffn_down.weight");
    const auto at = static_cast<std::uint64_t>(t->data.data() - source->mappings()[0]->bytes().data());
    flip(model_, at + t->data.size() / 2 + 5);
    fs::last_write_time(model_, time + std::chrono::seconds(1));
    want_ = logits({});
    EXPECT_FALSE(cached());
    EXPECT_TRUE(said("the model file has changed since")) << said_;
    EXPECT_TRUE(cached());

    // The same file elsewhere has a cache of its own.
    const std::string other = (folder_ / "deeper" / "model.gguf").string();
    fs::rename(model_, other);
    model_ = other;
    EXPECT_FALSE(cached());
    EXPECT_EQ(std::distance(fs::directory_iterator(cache_), fs::directory_iterator()), 2);
}

TEST_F(PackCache, DamageIsSeenAndMended) {
    EXPECT_FALSE(cached());
    const fs::path path = file();
    const std::uint64_t size = fs::file_size(path);
    // The first MiB piece, its neighbours, the last byte; places in every part of the file.
    for (std::uint64_t part = 0; part <= 16; ++part) {
        const std::uint64_t at = std::min(size - 1, size * part / 16);
        flip(path, at);
        EXPECT_FALSE(cached()) << "byte " << at;
        EXPECT_TRUE(said("made anew")) << said_;
        EXPECT_EQ(said("is damaged in it"), part > 0) << said_;
        EXPECT_TRUE(cached()) << "byte " << at << " was not mended: " << said_;
    }
    for (const std::uint64_t left : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{47}, std::uint64_t{200}, std::uint64_t{4096}, size / 2, size - 1}) {
        fs::resize_file(path, left);
        EXPECT_FALSE(cached()) << left << " bytes";
        EXPECT_EQ(fs::file_size(path), size);
    }
    EXPECT_TRUE(cached());
}

TEST_F(PackCache, AFolderThatCannotBeUsedIsNoFailure) {
    cache_ = fs::path(model_) / "below-a-file";
    EXPECT_FALSE(cached());
    EXPECT_TRUE(said("packed weights are not kept")) << said_;
    cache_ = folder_;
    EXPECT_FALSE(cached());
    fs::path path;
    for (const auto& e : fs::directory_iterator(folder_))
        if (e.path().extension() == ".qpack") path = e.path();
    fs::remove(path);
    fs::create_directory(path);  // a folder has taken the name
    EXPECT_FALSE(cached());
    EXPECT_TRUE(said("packed weights are not kept")) << said_;
    for (const auto& e : fs::directory_iterator(folder_)) EXPECT_EQ(e.path().string().find(".part"), std::string::npos) << "left behind";
}

TEST_F(PackCache, EveryType) {
    for (const QuantInfo& q : all_types()) {
        test::GgufEdit edit((test::tiny_dir() / "qwen2-q4_0.gguf").string());  // the embedding is the output matrix too
        model_ = edit.convert_matrices(q.type).write(std::string("cache-") + q.name);
        want_ = logits({});
        EXPECT_FALSE(cached());
        EXPECT_TRUE(cached()) << q.name << ": " << said_;
    }
}

TEST_F(PackCache, NeedsPacking) {
    ModelOptions o;
    o.pack = false;
    o.pack_cache = cache_.string();
    auto m = Model::load(model_, o);
    ASSERT_FALSE(m.ok());
    EXPECT_EQ(m.error().code, Errc::invalid_argument);
    EXPECT_NE(m.error().message.find("pack_cache"), std::string::npos);
}

}  // namespace
}  // namespace quern
