// SPDX-License-Identifier: Apache-2.0
// Session files: what is written is read back, every damage is seen and said, none is more than a refusal.
#include "formats/session_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "formats/hash.h"
#include "tests/fuzz/session_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace quern {
namespace {

SessionFile filled(int which, std::uint32_t n_tokens = 21) {
    SessionFile f = test::session_file(which);
    for (std::uint32_t i = 0; i < n_tokens; ++i) f.tokens.push_back(static_cast<std::int32_t>(i * 24 % 512));
    f.note = "a note";
    f.n_pages = n_tokens / f.page_tokens;
    f.n_exact = f.exact_bytes ? 2 : 0;
    return f;
}

/// The file that it writes; page i is full of i + 1.
std::vector<std::byte> bytes_of(const SessionFile& f) {
    const auto path = std::filesystem::temp_directory_path() / ("quern-session-" + std::to_string(::getpid()));
    const Status s = f.write(path.string(), [&](std::uint32_t i, std::span<std::byte> to) {
        EXPECT_EQ(to.size(), i < f.n_pages ? f.page_bytes : f.exact_bytes);
        std::fill(to.begin(), to.end(), static_cast<std::byte>(i + 1));
        return Status{};
    });
    EXPECT_TRUE(s.ok()) << s.error().message;
    std::ifstream in(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    std::filesystem::remove(path);
    std::vector<std::byte> out(text.size());
    std::memcpy(out.data(), text.data(), text.size());
    return out;
}

std::string refusal(int which, const std::vector<std::byte>& file) {
    SessionFile f = test::session_file(which);
    const Status s = f.read(file);
    if (s) return "accepted";
    EXPECT_TRUE(f.tokens.empty() && f.pages.empty() && f.note.empty() && f.n_pages == 0 && f.n_exact == 0 && f.exact.empty()) << "a refused file must change nothing";
    EXPECT_EQ(s.error().code, Errc::bad_file);
    return s.error().message;
}

void put(std::vector<std::byte>& file, std::size_t at, std::uint32_t v) {
    for (std::size_t i = 0; i < 4; ++i) file[at + i] = static_cast<std::byte>(v >> (8 * i));
}

TEST(SessionFile, WritesAndReadsBack) {
    for (int which = 0; which < test::kSessionFiles; ++which)
        for (const std::uint32_t n : {0u, 3u, 21u, 64u}) {
            const SessionFile written = filled(which, n);
            const std::vector<std::byte> file = bytes_of(written);
            SessionFile f = test::session_file(which);
            const Status s = f.read(file);
            ASSERT_TRUE(s.ok()) << s.error().message;
            EXPECT_EQ(f.tokens, written.tokens);
            EXPECT_EQ(f.note, "a note");
            ASSERT_EQ(f.n_pages, n / f.page_tokens);
            ASSERT_EQ(f.pages.size(), f.n_pages * f.page_bytes);
            for (std::size_t i = 0; i < f.pages.size(); ++i) ASSERT_EQ(f.pages[i], static_cast<std::byte>(i / f.page_bytes + 1));
            ASSERT_EQ(f.n_exact, written.n_exact);
            ASSERT_EQ(f.exact.size(), f.n_exact * f.exact_bytes);
            for (std::size_t i = 0; i < f.exact.size(); ++i) ASSERT_EQ(f.exact[i], static_cast<std::byte>(f.n_pages + i / f.exact_bytes + 1));
        }
}

TEST(SessionFile, EveryTruncationExtensionAndFlippedBitIsRefused) {
    for (int which = 0; which < 2; ++which) {
        std::vector<std::byte> file = bytes_of(filled(which));
        for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
            file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            ASSERT_NE(refusal(which, file), "accepted") << "bit " << bit;
            file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        }
        ASSERT_EQ(refusal(which, file), "accepted");
        file.push_back({});
        EXPECT_NE(refusal(which, file).find("bytes, which is not what"), std::string::npos);
        for (file.pop_back(); !file.empty();) {
            file.pop_back();
            ASSERT_NE(refusal(which, file), "accepted") << file.size() << " bytes";
        }
    }
}

TEST(SessionFile, SaysWhatDiffers) {
    const auto with = [](auto change) {
        SessionFile f = filled(0);
        change(f);
        return refusal(0, bytes_of(f));
    };
    EXPECT_EQ(with([](SessionFile& f) { ++f.model; }), "it belongs to another model");
    EXPECT_EQ(with([](SessionFile& f) { f.kv_format = 0; }), "its KV cache has another format");
    EXPECT_EQ(with([](SessionFile& f) { f.page_tokens = 2; }), "its KV cache has another format");
    EXPECT_EQ(with([](SessionFile& f) { f.page_bytes = 32; }), "its KV cache has another format");
    EXPECT_EQ(with([](SessionFile& f) { ++f.n_vocab; }), "its model has another vocabulary");
    EXPECT_EQ(with([](SessionFile& f) { f.tokens[3] = 512; }), "its token 512 is outside the vocabulary of 512");
    EXPECT_EQ(with([](SessionFile& f) { f.tokens[3] = -1; }), "its token -1 is outside the vocabulary of 512");
    EXPECT_EQ(with([](SessionFile& f) { f.n_pages = 6; }), "it has 6 pages for 21 tokens");
    EXPECT_EQ(with([](SessionFile& f) { f.n_exact = 1; }), "it has 1 exact pages, and the cache none");
    EXPECT_EQ(refusal(0, std::vector<std::byte>(500)), "it is no session of Quern");
    std::vector<std::byte> file = bytes_of(filled(0));
    file[8] = std::byte{9};
    EXPECT_EQ(refusal(0, file), "it was written by another version of Quern");
    file = bytes_of(filled(0));
    file[file.size() - 20] ^= std::byte{1};
    EXPECT_EQ(refusal(0, file), "it is damaged: its checksum is another");
}

TEST(SessionFile, NumbersThatWouldWrapAreRefused) {
    for (const int which : {0, 1}) {
        const std::vector<std::byte> good = bytes_of(filled(which));
        for (const std::uint32_t v : {0x7fffffffu, 0x80000000u, 0xffffffffu})
            for (const std::size_t at : {44u, 48u, 52u, 56u}) {
                std::vector<std::byte> file = good;
                put(file, at, v);
                EXPECT_NE(refusal(which, file), "accepted");
                put(file, 44, 0xffffffffu);  // enough tokens for any number of pages
                EXPECT_NE(refusal(which, file), "accepted");
            }
    }
}

TEST(SessionFile, KeptFuzzInputsRun) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(QUERN_SOURCE_DIR "/tests/fuzz/corpus/session_file")) {
        SCOPED_TRACE(entry.path().string());
        std::ifstream in(entry.path(), std::ios::binary);
        const std::string s((std::istreambuf_iterator<char>(in)), {});
        EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()), 0);
        ++files;
    }
    EXPECT_GE(files, 5) << "the corpus is gone";
}

}  // namespace
}  // namespace quern
