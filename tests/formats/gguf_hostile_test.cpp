// SPDX-License-Identifier: Apache-2.0
// Bad bytes. Each test is a class of input that has broken other readers (CVE numbers where there is one), and asserts
// what the error says: the key or tensor, the offset, what was wrong.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "raw_gguf.h"
#include "seed.h"
#include "views.h"

namespace {
// Bytes asked of operator new while a Meter lives. One thread allocates in these tests.
std::size_t* g_metered = nullptr;
}  // namespace

void* operator new(std::size_t n) {
    if (g_metered) *g_metered += n;
    if (void* p = std::malloc(n)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace quern {
namespace {

using test::Raw;
using test::small_file;
constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;

class Meter {
public:
    Meter() { g_metered = &total_; }
    ~Meter() { g_metered = nullptr; }
    std::size_t total() const { return total_; }

private:
    std::size_t total_ = 0;
};

/// All that a parse may allocate, freed again or not. The densest entries are metadata of 14 bytes, for which the
/// reader keeps a Value and an index of 8 bytes; 4 KB for error texts and the path.
std::size_t memory_bound(std::size_t file_size) { return file_size * (sizeof(gguf::Value) + 16) / 14 + 4096; }

/// Parses an exact-size copy, so that the address sanitizer sees the first byte past the end.
struct Outcome {
    std::unique_ptr<std::byte[]> copy;
    std::size_t size = 0;
    Result<gguf::File> file = Error{};
    std::span<const std::byte> bytes() const { return {copy.get(), size}; }
};
Outcome parse(std::span<const std::byte> bytes) {
    Outcome o{std::make_unique<std::byte[]>(bytes.size()), bytes.size()};
    std::copy(bytes.begin(), bytes.end(), o.copy.get());
    const Meter meter;
    o.file = gguf::File::parse(o.bytes(), "bad.gguf");
    EXPECT_LE(meter.total(), memory_bound(bytes.size()));
    return o;
}

std::string error_of(std::span<const std::byte> bytes) {
    const Outcome o = parse(bytes);
    if (o.file) return "no error";
    return o.file.error().message;
}
std::string error_of(const Raw& raw) { return error_of(raw.bytes); }

/// One F32 tensor 't' of these dimensions and offset, with 64 bytes of data.
std::string one_tensor(std::initializer_list<std::uint64_t> ne, std::uint32_t type = 0, std::uint64_t offset = 0) {
    return error_of(Raw().header(1, 0).tensor("t", ne, type, offset).data(64));
}

TEST(GgufHostile, WrongMagic) {
    EXPECT_EQ(error_of(Raw().letters("GGML").u32(3).u64(0).u64(0)),
              "bad.gguf: not a GGUF file, it does not start with 'GGUF'; convert the model to GGUF (at byte 0)");
}

TEST(GgufHostile, Versions) {
    const std::string advice = " is not supported (2 and 3 are); update Quern or convert the model (at byte 4)";
    EXPECT_EQ(error_of(Raw().header(0, 0, 0)), "bad.gguf: GGUF version 0" + advice);
    EXPECT_EQ(error_of(Raw().header(0, 0, 4)), "bad.gguf: GGUF version 4" + advice);
    EXPECT_EQ(error_of(Raw().header(0, 0, 1)),
              "bad.gguf: GGUF version 1 is not supported; convert the model again with current tools (at byte 4)");
}

TEST(GgufHostile, BigEndian) {
    EXPECT_EQ(error_of(Raw().header(0, 0, 0x03000000)),
              "bad.gguf: the file is big-endian; convert it with gguf_convert_endian.py (at byte 4)");
}

TEST(GgufHostile, HugeTensorCount) {  // CVE-2024-21802 and its kin; a count whose product with a size wraps
    for (const std::uint64_t n : {std::uint64_t{2}, kHuge, UINT64_MAX / 33 + 1, UINT64_MAX}) {
        EXPECT_EQ(error_of(Raw().header(n, 0).data(32)), cat("bad.gguf: the header declares ", n,
                                                             " tensors, but only 40 bytes follow; the file is "
                                                             "truncated or damaged, fetch it again (at byte 8)"));
    }
    // Enough bytes before the metadata are read, too few after.
    EXPECT_EQ(error_of(Raw().header(1, 1).key_u32("k", 1).u64(0).u64(0)),
              "bad.gguf: the header declares 1 tensors, but only 16 bytes follow; the file is truncated or damaged, "
              "fetch it again (at byte 8)");
}

TEST(GgufHostile, HugeMetadataCount) {
    for (const std::uint64_t n : {std::uint64_t{2}, kHuge, UINT64_MAX / 14 + 1, UINT64_MAX}) {
        EXPECT_EQ(error_of(Raw().header(0, n).key_u32("k", 1)), "bad.gguf: the header declares " + std::to_string(n) +
                                                                    " metadata entries, but only 17 bytes follow; the "
                                                                    "file is truncated or damaged, fetch it again (at "
                                                                    "byte 16)");
    }
}

TEST(GgufHostile, HugeKeyLength) {
    for (const std::uint64_t n : {std::uint64_t{15}, kHuge, UINT64_MAX - 7, UINT64_MAX}) {
        EXPECT_EQ(error_of(Raw().header(0, 1).u64(n).letters("0123456789abcd")),
                  "bad.gguf: key 0 declares a length of " + std::to_string(n) +
                      " bytes, but 14 are left; the file is truncated or damaged, fetch it again (at byte 24)");
    }
}

TEST(GgufHostile, HugeStringLength) {  // the position must not wrap, nor drift on as if "" had been read
    for (const std::uint64_t n : {std::uint64_t{4}, kHuge, UINT64_MAX - 40, UINT64_MAX}) {
        EXPECT_EQ(error_of(Raw().header(0, 1).key("k", test::ValueType::string).u64(n).letters("abc")),
                  "bad.gguf: the string of key 'k' declares a length of " + std::to_string(n) +
                      " bytes, but 3 are left; the file is truncated or damaged, fetch it again (at byte 37)");
    }
}

TEST(GgufHostile, HugeArrayCount) {  // reserve(2^60)
    for (const auto& [type, name, least] : {std::tuple{test::ValueType::u8, "u8", std::uint64_t{17}},
                                            std::tuple{test::ValueType::f64, "f64", std::uint64_t{3}},
                                            std::tuple{test::ValueType::string, "string", std::uint64_t{3}}}) {
        for (const std::uint64_t n : {least, kHuge, UINT64_MAX / 8 + 1, UINT64_MAX}) {
            EXPECT_EQ(error_of(Raw().header(0, 1).array("k", type, n).u64(0).u64(0)),
                      "bad.gguf: key 'k' declares an array of " + std::to_string(n) + " " + name +
                          " elements, but 16 bytes are left; the file is truncated or damaged, fetch it again "
                          "(at byte 37)");
        }
    }
}

TEST(GgufHostile, StringInAnArrayPastTheEnd) {
    EXPECT_EQ(error_of(Raw().header(0, 1).array("k", test::ValueType::string, 2).text("a").u64(9)),
              "bad.gguf: an array string of key 'k' declares a length of 9 bytes, but 0 are left; the file is "
              "truncated or damaged, fetch it again (at byte 58)");
}

TEST(GgufHostile, UnknownValueType) {
    EXPECT_EQ(
        error_of(Raw().header(0, 1).text("k").u32(13).u64(0)),
        "bad.gguf: key 'k' has unknown value type 13; the file is damaged, or newer than this reader (at byte 33)");
}

TEST(GgufHostile, UnknownArrayElementType) {  // an element that consumes no bytes loops for ever
    for (const std::uint32_t type : {13u, 99u, 0xffffffffu}) {
        EXPECT_EQ(error_of(Raw().header(0, 1).text("k").u32(9).u32(type).u64(kHuge)),
                  "bad.gguf: key 'k' has unknown array element type " + std::to_string(type) +
                      "; the file is damaged, or newer than this reader (at byte 37)");
    }
}

TEST(GgufHostile, NestedArrays) {
    Raw deep = Raw().header(0, 1).text("k").u32(9);
    for (int i = 0; i < 100000; ++i) deep.u32(9).u64(1);
    EXPECT_EQ(error_of(deep), "bad.gguf: key 'k' is an array of arrays, which is not supported (at byte 37)");
}

TEST(GgufHostile, BooleansOtherThanZeroAndOne) {
    EXPECT_EQ(error_of(Raw().header(0, 1).key("k", test::ValueType::boolean).le(2, 1)),
              "bad.gguf: key 'k' is a bool with the value 2, it must be 0 or 1; convert the model again (at byte 37)");
    EXPECT_EQ(error_of(Raw().header(0, 1).array("k", test::ValueType::boolean, 3).le(0xff0100, 3)),
              "bad.gguf: key 'k' is an array of bool with the value 255 at index 2, it must be 0 or 1; convert the "
              "model again (at byte 37)");
}

TEST(GgufHostile, EmptyOrEndlessNames) {
    EXPECT_EQ(error_of(Raw().header(0, 1).key_u32("", 1)),
              "bad.gguf: key 0 is empty; convert the model again (at byte 24)");
    EXPECT_EQ(error_of(Raw().header(1, 0).tensor("", {1}, 0, 0).data(4)),
              "bad.gguf: the name of tensor 0 is empty; convert the model again (at byte 24)");
    EXPECT_EQ(error_of(Raw().header(0, 1).key_u32(std::string(65536, 'k'), 1)),
              "bad.gguf: key 0 is 65536 bytes long, at most 65535 are allowed; convert the model again (at byte 24)");
}

TEST(GgufHostile, DuplicateKeys) {
    EXPECT_EQ(error_of(Raw().header(0, 3).key_u32("k", 1).key_u32("l", 1).key_u32("k", 2)),
              "bad.gguf: key 'k' appears twice; each key may stand once (at byte 71)");
}

TEST(GgufHostile, DuplicateTensors) {
    EXPECT_EQ(error_of(Raw().header(2, 0).tensor("t", {2}, 0, 0).tensor("t", {2}, 0, 32).data(64)),
              "bad.gguf: tensor 't' appears twice; convert the model again (at byte 65)");
}

TEST(GgufHostile, AlignmentValues) {  // 0x80000000 is a power of two, and pads every position to 0 in 32 bits
    for (const std::uint32_t a : {0u, 1u, 4u, 31u, 48u, 0x400000u, 0x80000000u, 0xffffffffu}) {
        EXPECT_EQ(error_of(Raw().header(0, 1).key_u32("general.alignment", a)),
                  "bad.gguf: key 'general.alignment' is " + std::to_string(a) +
                      ", it must be a power of two from 8 to 2097152; convert the model again (at byte 53)");
    }
}

TEST(GgufHostile, AlignmentOfAnotherType) {
    using test::ValueType;
    for (const auto& [type, name, size] :
         {std::tuple{ValueType::i32, "i32", 4}, std::tuple{ValueType::u64, "u64", 8},
          std::tuple{ValueType::f32, "f32", 4}, std::tuple{ValueType::string, "string", 8},
          std::tuple{ValueType::array, "array", 12}}) {
        EXPECT_EQ(error_of(Raw().header(0, 1).key("general.alignment", type).le(0, 8).le(0, size == 12 ? 4 : 0)),
                  "bad.gguf: key 'general.alignment' has type " + std::string(name) +
                      ", it must be u32; convert the model again (at byte 53)");
    }
}

TEST(GgufHostile, DimensionCounts) {
    EXPECT_EQ(one_tensor({}),
              "bad.gguf: tensor 't' has 0 dimensions, 1 to 4 are supported; convert the model again "
              "(at byte 24)");
    EXPECT_EQ(one_tensor({1, 1, 1, 1, 1}),
              "bad.gguf: tensor 't' has 5 dimensions, 1 to 4 are supported; convert the "
              "model again (at byte 24)");
    EXPECT_NE(error_of(Raw().header(1, 0).text("t").u32(0xffffffff).data(64)).find("has 4294967295 dimensions"),
              std::string::npos);
}

TEST(GgufHostile, ZeroDimensions) {  // a division by zero elsewhere, from a file of 73 bytes
    EXPECT_EQ(one_tensor({0}),
              "bad.gguf: tensor 't' has no elements, dimension 0 is 0; convert the model again "
              "(at byte 24)");
    EXPECT_EQ(one_tensor({4, 1, 0, 2}),
              "bad.gguf: tensor 't' has no elements, dimension 2 is 0; convert the model "
              "again (at byte 24)");
}

TEST(GgufHostile, ProductsThatWrap) {
    const std::string wraps = " has more elements than 64 bits count; the file is damaged, fetch it again (at byte 24)";
    EXPECT_EQ(one_tensor({INT64_MAX, 2}), "bad.gguf: tensor 't' of shape [9223372036854775807, 2, 1, 1]" + wraps);
    EXPECT_EQ(one_tensor({std::uint64_t{1} << 32, std::uint64_t{1} << 32}),
              "bad.gguf: tensor 't' of shape [4294967296, 4294967296, 1, 1]" + wraps);
    EXPECT_EQ(one_tensor({UINT64_MAX}), "bad.gguf: tensor 't' of shape [18446744073709551615, 1, 1, 1]" + wraps);
    // CVE-2026-33298, and SIZE_MAX / 4 values of four bytes, whose padded size is 0: elements fit, bytes do not.
    const std::string large =
        " is larger than the file of 128 bytes; it is truncated or damaged, fetch it again (at byte 24)";
    EXPECT_EQ(one_tensor({std::uint64_t{1} << 62}),
              "bad.gguf: tensor 't' of type F32 and shape [4611686018427387904, 1, 1, 1]" + large);
    EXPECT_EQ(one_tensor({UINT64_MAX / 4}),
              "bad.gguf: tensor 't' of type F32 and shape [4611686018427387903, 1, 1, 1]" + large);
    EXPECT_NE(one_tensor({256, std::uint64_t{1} << 54}, 14).find("[256, 18014398509481984, 1, 1] is larger than"),
              std::string::npos);
}

TEST(GgufHostile, SumOfSizesThatWraps) {  // CVE-2025-53630: each size fits, the sum does not
    Raw raw = Raw().header(3, 0);
    for (const char* name : {"a", "b", "c"}) raw.tensor(name, {std::uint64_t{1} << 61}, 0, 0);
    EXPECT_NE(error_of(raw.data(64))
                  .find("tensor 'a' of type F32 and shape [2305843009213693952, 1, 1, 1] is larger "
                        "than the file"),
              std::string::npos);
}

TEST(GgufHostile, RowsThatAreNotWholeBlocks) {
    EXPECT_EQ(one_tensor({33}, 2),
              "bad.gguf: tensor 't' has rows of 33 values, not a multiple of Q4_0's block of 32; "
              "convert the model again (at byte 24)");
    EXPECT_EQ(one_tensor({16, 16}, 12),
              "bad.gguf: tensor 't' has rows of 16 values, not a multiple of Q4_K's block of "
              "256; convert the model again (at byte 24)")
        << "256 values in all, but a row is not a block";
}

TEST(GgufHostile, UnknownAndRemovedTypes) {
    for (const std::uint32_t id : {4u, 5u, 31u, 36u, 38u, 1000u, 0x80000000u, 0xffffffffu}) {
        EXPECT_EQ(one_tensor({32}, id), "bad.gguf: tensor 't' has type id " + std::to_string(id) +
                                            ", which Quern does not know; requantize the model, for example to Q4_K or "
                                            "Q8_0 (at byte 24)");
    }
}

TEST(GgufHostile, MisalignedOffset) {
    EXPECT_EQ(one_tensor({2}, 0, 33),
              "bad.gguf: tensor 't' has data offset 33, not a multiple of the alignment 32; "
              "convert the model again (at byte 24)");
}

TEST(GgufHostile, OffsetAndSizePastTheEnd) {  // CVE-2026-7482: read past the end while requantizing
    for (const std::uint64_t offset : {std::uint64_t{32}, std::uint64_t{64}, kHuge, UINT64_MAX - 31}) {
        EXPECT_EQ(one_tensor({16}, 0, offset), cat("bad.gguf: tensor 't' needs 64 bytes at data offset ", offset,
                                                   ", but the file holds 64 bytes of data; it is truncated or damaged, "
                                                   "fetch it again (at byte 24)"));
    }
    EXPECT_EQ(one_tensor({16}), "no error");
    EXPECT_NE(one_tensor({17}).find("needs 68 bytes at data offset 0, but the file holds 64"), std::string::npos);
    EXPECT_NE(error_of(Raw().header(1, 0).tensor("t", {1}, 0, 0)).find("but the file holds 0 bytes of data"),
              std::string::npos);
}

TEST(GgufHostile, OverlappingTensors) {
    EXPECT_EQ(error_of(Raw().header(2, 0).tensor("b", {2}, 0, 32).tensor("a", {9}, 0, 0).data(64)),
              "bad.gguf: tensor 'b' at data offset 32 overlaps tensor 'a', 36 bytes at 0; convert the model again "
              "(at byte 24)");
    EXPECT_NE(error_of(Raw().header(2, 0).tensor("a", {2}, 0, 0).tensor("b", {2}, 0, 0).data(64))
                  .find("'b' at data offset 0 overlaps tensor 'a'"),
              std::string::npos);
}

TEST(GgufHostile, NamesInErrorsAreEscapedAndCut) {
    EXPECT_NE(error_of(Raw().header(0, 1).key("a\x1b[2J'\xff", test::ValueType::boolean).le(7, 1))
                  .find("key 'a\\x1b[2J\\x27\\xff' is a bool"),
              std::string::npos);
    const std::string message =
        error_of(Raw().header(0, 1).key(std::string(60000, 'n'), test::ValueType::boolean).le(7, 1));
    EXPECT_LT(message.size(), 300u);
}

TEST(GgufHostile, ManyEntriesTakeLinearMemoryAndNoQuadraticTime) {
    // 400,000 distinct keys: comparing each with each would be 8e10 comparisons, minutes instead of a moment.
    constexpr std::uint64_t n = 400000;
    Raw raw = Raw().header(0, n);
    for (std::uint64_t i = 0; i < n; ++i) raw.key(cat("k", i), test::ValueType::u8).le(1, 1);
    const Outcome o = parse(raw.bytes);  // checks the memory
    ASSERT_TRUE(o.file) << o.file.error().message;
    EXPECT_EQ(o.file->metadata().size(), n);
    EXPECT_NE(o.file->find("k399999"), nullptr);
}

TEST(GgufHostile, ShortestEntriesStayWithinTheMemoryBound) {
    Raw values = Raw().header(0, 256);
    for (int i = 0; i < 256; ++i) values.key(std::string(1, static_cast<char>(i)), test::ValueType::u8).le(1, 1);
    EXPECT_EQ(error_of(values), "no error");
    Raw strings = Raw().header(0, 1).array("k", test::ValueType::string, 10000);
    for (int i = 0; i < 10000; ++i) strings.u64(0);
    EXPECT_EQ(error_of(strings), "no error");
}

TEST(GgufHostile, TruncationAtEveryByte) {
    const std::vector<std::byte> whole = small_file();
    const Outcome good = parse(whole);
    ASSERT_TRUE(good.file) << good.file.error().message;
    const auto last = good.file->tensors().back().data;
    const auto needed = static_cast<std::size_t>(last.data() + last.size() - good.bytes().data());
    for (std::size_t n = 0; n < whole.size(); ++n) {
        const Outcome cut = parse(std::span(whole).first(n));
        ASSERT_EQ(cut.file.ok(), n >= needed) << n;  // only the last padding may be missing
        if (!cut.file) {
            const std::string& text = cut.file.error().message;
            ASSERT_NE(text.find("fetch it again"), std::string::npos) << n << ": " << text;
            ASSERT_NE(text.find("(at byte "), std::string::npos) << n << ": " << text;
        }
    }
}

/// A file, all of whose views lie inside the bytes, or an error that names the file and a place.
void expect_sound(const Outcome& o, std::size_t where) {
    if (o.file) {
        ASSERT_EQ(test::view_outside(*o.file, o.bytes()), "") << where;
        test::read_all_keys(*o.file);
        return;
    }
    const std::string& text = o.file.error().message;
    ASSERT_EQ(text.rfind("bad.gguf: ", 0), 0u) << text;
    ASSERT_NE(text.find("(at byte "), std::string::npos) << where << ": " << text;
}

TEST(GgufHostile, CorruptionOfEveryByte) {
    const std::vector<std::byte> whole = small_file();
    std::size_t refused = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        for (const int change : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
            std::vector<std::byte> bad = whole;
            bad[i] ^= static_cast<std::byte>(change);
            const Outcome o = parse(bad);
            refused += !o.file;
            expect_sound(o, i);
            if (HasFatalFailure()) return;
        }
    }
    EXPECT_GT(refused, whole.size()) << "so few refusals that nothing can have been corrupted";
}

TEST(GgufHostile, CorruptionOfRandomRuns) {
    auto random = test::seeded();
    const std::vector<std::byte> whole = small_file();
    for (int round = 0; round < 20000; ++round) {
        std::vector<std::byte> bad = whole;
        const std::size_t begin = random() % bad.size(), end = std::min(bad.size(), begin + random() % 9);
        const std::byte fill = static_cast<std::byte>(random());
        const bool one_value = random() % 2;
        for (std::size_t i = begin; i < end; ++i) bad[i] = one_value ? fill : static_cast<std::byte>(random());
        expect_sound(parse(bad), begin);
        if (HasFatalFailure()) return;
    }
}

}  // namespace
}  // namespace quern
