// SPDX-License-Identifier: Apache-2.0
#include "engine/core/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/core/env.h"

namespace quern::engine {
namespace {

std::uintptr_t address(const Mapping& m) { return reinterpret_cast<std::uintptr_t>(m.data()); }

TEST(Mapping, IsZeroedAlignedAndWritable) {
    for (const std::size_t alignment : {std::size_t{1}, std::size_t{64}, std::size_t{1} << 16, std::size_t{1} << 21}) {
        for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, std::size_t{3} << 20}) {
            auto m = Mapping::create(size, "test", {alignment, false});
            ASSERT_TRUE(m) << m.error().message;
            ASSERT_EQ(m->size(), size);
            ASSERT_EQ(address(*m) % alignment, 0u);
            ASSERT_EQ(m->bytes().front(), std::byte{0});
            ASSERT_EQ(m->bytes().back(), std::byte{0});
            std::memset(m->data(), 0x5a, size);
            ASSERT_EQ(m->bytes().back(), std::byte{0x5a});
        }
    }
}

TEST(Mapping, HugePagesAlignLargeMappingsOnly) {
    const auto large = Mapping::create(std::size_t{5} << 20, "test", {64, true});
    ASSERT_TRUE(large) << large.error().message;
    EXPECT_EQ(address(*large) % (std::size_t{2} << 20), 0u);
    large->bytes().back() = std::byte{1};
    EXPECT_TRUE(Mapping::create(100, "test", {64, true}));
}

TEST(Mapping, ReservationsTakeNoMemoryUntilTouched) {
    const std::uint64_t before = process_memory().resident;
    const auto m = Mapping::create(std::size_t{8} << 30, "test");
    ASSERT_TRUE(m) << m.error().message;
    EXPECT_LT(process_memory().resident, before + (std::uint64_t{256} << 20));
}

TEST(Mapping, ReleasedPagesReadAsZero) {
    auto m = Mapping::create(std::size_t{1} << 20, "test");
    ASSERT_TRUE(m);
    std::memset(m->data(), 1, m->size());
    m->release(100, m->size() - 200);
    EXPECT_EQ(m->bytes()[99], std::byte{1});
    EXPECT_EQ(m->bytes()[m->size() / 2], std::byte{0});
    EXPECT_EQ(m->bytes()[m->size() - 100], std::byte{1});
    m->release(m->size(), 0);
}

TEST(Mapping, MovesAndEmpties) {
    auto a = Mapping::create(10, "a"), b = Mapping::create(20, "b");
    ASSERT_TRUE(a && b);
    a->bytes()[0] = std::byte{1};
    Mapping c = std::move(*a);
    EXPECT_EQ(a->data(), nullptr);
    c = std::move(*b);
    EXPECT_EQ(c.size(), 20u);
    const auto empty = Mapping::create(0, "nothing");
    ASSERT_TRUE(empty);
    EXPECT_EQ(empty->data(), nullptr);
    EXPECT_TRUE(empty->bytes().empty());
}

TEST(Mapping, Refusals) {
    const auto wrap =
        Mapping::create(std::numeric_limits<std::size_t>::max() - 5, "KV cache", {std::size_t{2} << 20, false});
    ASSERT_FALSE(wrap);
    EXPECT_EQ(wrap.error().code, Errc::out_of_memory);
    EXPECT_EQ(wrap.error().message, "KV cache: 18446744073709551610 bytes are more than there are addresses");
    const auto huge = Mapping::create(std::size_t{1} << 60, "KV cache");
    ASSERT_FALSE(huge);
    EXPECT_EQ(huge.error().code, Errc::out_of_memory);
    EXPECT_EQ(huge.error().message.substr(0, 29), "KV cache: cannot map 1 EiB: C");
    EXPECT_EQ(Mapping::create(1, "x", {3, false}).error().message, "x: alignment 3 is not a power of two up to 1 GiB");
}

TEST(ProcessMemory, GrowsWithTouchedPages) {
    constexpr std::size_t size = std::size_t{64} << 20;
    const ProcessMemory before = process_memory();
    ASSERT_GT(before.resident, 0u);
    {
        const auto m = Mapping::create(size, "test");
        ASSERT_TRUE(m);
        std::memset(m->data(), 1, size);
        EXPECT_GE(process_memory().resident, before.resident + size / 2);  // half: other pages may leave meanwhile
    }
    const ProcessMemory after = process_memory();
    EXPECT_GE(after.peak_resident, before.resident + size / 2);
    EXPECT_LT(after.resident, after.peak_resident);
}

TEST(Bytes, Format) {
    EXPECT_EQ(format_bytes(0), "0 bytes");
    EXPECT_EQ(format_bytes(1), "1 byte");
    EXPECT_EQ(format_bytes(1023), "1023 bytes");
    EXPECT_EQ(format_bytes(1024), "1 KiB");
    EXPECT_EQ(format_bytes(1536), "1.5 KiB");
    EXPECT_EQ(format_bytes(1024 * 1024 - 1), "1 MiB");
    EXPECT_EQ(format_bytes(1023 * 1024), "1023 KiB");
    EXPECT_EQ(format_bytes(std::uint64_t{512} << 20), "512 MiB");
    EXPECT_EQ(format_bytes(4187593114), "3.9 GiB");
    EXPECT_EQ(format_bytes(std::uint64_t{3} << 59), "1.5 EiB");
    EXPECT_EQ(format_bytes(std::numeric_limits<std::uint64_t>::max()), "16 EiB");
}

TEST(Bytes, Parse) {
    const std::pair<const char*, std::uint64_t> cases[] = {
        {"0", 0},
        {"100000", 100000},
        {"17b", 17},
        {"4G", std::uint64_t{4} << 30},
        {"512m", 512u << 20},
        {"1.5GiB", std::uint64_t{3} << 29},
        {"2 GB", 2000000000},
        {"0.5k", 512},
        {"1.25 TiB", std::uint64_t{5} << 38},
        {"0.0000001K", 0},
        {"18446744073709551615", 18446744073709551615u},
        {"1kb", 1000},
    };
    for (const auto& [text, bytes] : cases) {
        const auto r = parse_bytes(text);
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(*r, bytes) << text;
    }
}

TEST(Bytes, ParseErrors) {
    const std::pair<const char*, const char*> cases[] = {
        {"", "size '' does not begin with a number; write it like 512M, 1.5GiB or 4000000000"},
        {"-1", "size '-1' does not begin with a number; write it like 512M, 1.5GiB or 4000000000"},
        {" 4G", "size ' 4G' does not begin with a number; write it like 512M, 1.5GiB or 4000000000"},
        {"4.G", "size '4.G' has no digit after the point; write it like 512M, 1.5GiB or 4000000000"},
        {"4X", "size '4X' has an unknown unit; write it like 512M, 1.5GiB or 4000000000"},
        {"4Gi", "size '4Gi' has an unknown unit; write it like 512M, 1.5GiB or 4000000000"},
        {"4G G", "size '4G G' has an unknown unit; write it like 512M, 1.5GiB or 4000000000"},
        {"99999999999999999999", "size '99999999999999999999' is too large; write it like 512M, 1.5GiB or 4000000000"},
        {"16777216T", "size '16777216T' is too large; write it like 512M, 1.5GiB or 4000000000"},
    };
    for (const auto& [text, message] : cases) {
        const auto r = parse_bytes(text);
        ASSERT_FALSE(r) << text;
        EXPECT_EQ(r.error().code, Errc::invalid_argument);
        EXPECT_EQ(r.error().message, message);
    }
}

TEST(Environment, ReadsIsaAndThreads) {
    ::unsetenv("QUERN_ISA"), ::unsetenv("QUERN_THREADS");
    auto env = read_environment();
    ASSERT_TRUE(env);
    EXPECT_EQ(env->isa, "");
    EXPECT_EQ(env->n_threads, 0);
    ::setenv("QUERN_ISA", "avx2", 1), ::setenv("QUERN_THREADS", "3", 1);
    env = read_environment();
    ASSERT_TRUE(env);
    EXPECT_EQ(env->isa, "avx2");
    EXPECT_EQ(env->n_threads, 3);
    for (const char* bad : {"0", "-2", "two", "3x", "1025", "99999999999"}) {
        ::setenv("QUERN_THREADS", bad, 1);
        env = read_environment();
        ASSERT_FALSE(env) << bad;
        EXPECT_EQ(env.error().message,
                  "environment variable QUERN_THREADS is '" + std::string(bad) + "'; it must be a number in 1 to 1024");
    }
    ::unsetenv("QUERN_ISA"), ::unsetenv("QUERN_THREADS");
}

TEST(Environment, CacheFolder) {
    const char* home = std::getenv("HOME");
    const std::string before = home != nullptr ? home : "";
    const auto with = [](const char* cache, const char* home_dir) {
        ::setenv("XDG_CACHE_HOME", cache, 1), ::setenv("HOME", home_dir, 1);
        return read_environment()->cache_dir;
    };
    EXPECT_EQ(with("/c", "/h"), "/c/quern");
    EXPECT_EQ(with("", "/h"), "/h/.cache/quern");
    EXPECT_EQ(with("relative", "/h"), "/h/.cache/quern");
    EXPECT_EQ(with("", "relative"), "");
    ::unsetenv("XDG_CACHE_HOME"), ::setenv("HOME", before.c_str(), 1);
}

}  // namespace
}  // namespace quern::engine
