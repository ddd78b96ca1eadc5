// SPDX-License-Identifier: Apache-2.0
// The packed cache's file and its hash: every damage is seen and said, none is more than a refusal.
#include "formats/pack_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "formats/hash.h"
#include "seed.h"
#include "tests/fuzz/pack_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace quern {
namespace {

/// Description `which` with checksums that are easy to recognise.
PackFile filled(int which) {
    PackFile f = test::pack_file(which);
    std::uint64_t n = 0;
    for (PackFile::Matrix& m : f.matrices) m.checksum = 0xabcdef00 + n++;
    return f;
}

/// The file that it writes, matrices full of 0x5a.
std::vector<std::byte> bytes_of(const PackFile& f) {
    std::vector<std::byte> out = f.head();
    for (const PackFile::Matrix& m : f.matrices) out.resize(out.size() + m.bytes, std::byte{0x5a});
    return out;
}

std::string refusal(int which, const std::vector<std::byte>& file) {
    PackFile f = test::pack_file(which);
    const Status s = f.read(file);
    if (s) return "accepted";
    for (const PackFile::Matrix& m : f.matrices) EXPECT_EQ(m.checksum, 0u) << "a refused file must change nothing";
    EXPECT_EQ(s.error().code, Errc::bad_file);
    return s.error().message;
}

TEST(PackFile, WritesAndReadsBack) {
    for (int which = 0; which < test::kPackFiles; ++which) {
        const PackFile written = filled(which);
        const std::vector<std::byte> want = bytes_of(written);
        const auto path = std::filesystem::temp_directory_path() / ("quern-pack-" + std::to_string(::getpid()));
        std::vector<std::vector<std::byte>> data;
        for (const PackFile::Matrix& m : written.matrices) data.emplace_back(m.bytes, std::byte{0x5a});
        const std::vector<std::span<const std::byte>> views(data.begin(), data.end());
        ASSERT_TRUE(written.write(path.string(), views).ok());
        std::ifstream in(path, std::ios::binary);
        const std::string text((std::istreambuf_iterator<char>(in)), {});
        std::filesystem::remove(path);
        ASSERT_EQ(text.size(), want.size());
        EXPECT_EQ(0, std::memcmp(text.data(), want.data(), want.size()));

        PackFile read = test::pack_file(which);
        const Status s = read.read(want);
        ASSERT_TRUE(s.ok()) << s.error().message;
        for (std::size_t i = 0; i < read.matrices.size(); ++i) {
            EXPECT_EQ(read.matrices[i].checksum, written.matrices[i].checksum);
            EXPECT_EQ(read.matrices[i].offset % 64, 0u);
        }
    }
}

TEST(PackFile, EveryTruncationAndExtensionIsRefused) {
    for (int which = 0; which < test::kPackFiles; ++which) {
        std::vector<std::byte> file = bytes_of(filled(which));
        file.push_back({});
        EXPECT_NE(refusal(which, file).find("bytes, not"), std::string::npos);
        for (file.pop_back(); !file.empty();) {
            file.pop_back();
            ASSERT_NE(refusal(which, file), "accepted") << file.size() << " bytes";
        }
    }
}

TEST(PackFile, EveryFlippedBitOfTheHeadIsRefused) {
    for (int which = 0; which < test::kPackFiles; ++which) {
        std::vector<std::byte> file = bytes_of(filled(which));
        const std::size_t head = filled(which).head().size();
        for (std::size_t bit = 0; bit < 8 * head; ++bit) {
            file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            ASSERT_NE(refusal(which, file), "accepted") << "bit " << bit;
            file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        }
        EXPECT_EQ(refusal(which, file), "accepted");
    }
}

TEST(PackFile, SaysWhatDiffers) {
    const auto with = [](auto change) {
        PackFile f = filled(2);
        change(f);
        f.place();
        return refusal(2, bytes_of(f));
    };
    EXPECT_EQ(with([](PackFile& f) { f.layout = 8; }), "it was written by another version of Quern");
    EXPECT_EQ(with([](PackFile& f) { f.matrices.pop_back(); }), "it holds another number of tensors");
    for (const std::string& said : {with([](PackFile& f) { ++f.source_size; }), with([](PackFile& f) { ++f.source_time; }),
                                    with([](PackFile& f) { ++f.source_hash; })})
        EXPECT_EQ(said, "the model file has changed since");
    for (const std::string& said : {with([](PackFile& f) { f.matrices[1].name = "output.bias"; }), with([](PackFile& f) { f.matrices[1].type = DType::F16; }),
                                    with([](PackFile& f) { ++f.matrices[1].rows; }), with([](PackFile& f) { ++f.matrices[1].cols; }),
                                    with([](PackFile& f) { f.matrices[1].bytes += 64; })})
        EXPECT_EQ(said, "its entry of tensor 'output.weight' does not fit the model");
    EXPECT_EQ(refusal(2, std::vector<std::byte>(5000)), "it is no packed cache of Quern");
    std::vector<std::byte> damaged = bytes_of(filled(2));
    damaged[48 + 40] ^= std::byte{1};  // the checksum of the first tensor, which only the head's hash can tell
    EXPECT_EQ(refusal(2, damaged), "its head is damaged");
}

TEST(PackFile, KeptFuzzInputsRun) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(QUERN_SOURCE_DIR "/tests/fuzz/corpus/pack_file")) {
        SCOPED_TRACE(entry.path().string());
        std::ifstream in(entry.path(), std::ios::binary);
        const std::string s((std::istreambuf_iterator<char>(in)), {});
        EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()), 0);
        ++files;
    }
    EXPECT_GE(files, 5) << "the corpus is gone";
}

TEST(Hash, IsTheSameForEver) {  // files hold it
    std::vector<std::byte> bytes(200);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
    EXPECT_EQ(hash_bytes({}), 0xed33f56d1130e8u);
    EXPECT_EQ(hash_bytes(bytes), 0xf8c7c6852ff4ecu);
    EXPECT_EQ(hash_bytes(bytes, 1), 0x1314bc79d0d61436u);
}

TEST(Hash, EveryBitAndEveryLengthCounts) {
    auto random = test::seeded();
    for (const std::size_t n : {1u, 63u, 64u, 65u, 640u}) {
        std::vector<std::byte> bytes(n);
        for (std::byte& b : bytes) b = static_cast<std::byte>(random());
        std::set<std::uint64_t> seen{hash_bytes(bytes), hash_bytes(bytes, 1)};
        for (std::size_t bit = 0; bit < 8 * n; ++bit) {
            bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            seen.insert(hash_bytes(bytes));
            bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        }
        EXPECT_EQ(seen.size(), 2 + 8 * n);
    }
    std::set<std::uint64_t> lengths;
    const std::vector<std::byte> zeros(300);
    for (std::size_t n = 0; n <= zeros.size(); ++n) lengths.insert(hash_bytes(std::span(zeros).first(n)));
    EXPECT_EQ(lengths.size(), zeros.size() + 1);
}

}  // namespace
}  // namespace quern
