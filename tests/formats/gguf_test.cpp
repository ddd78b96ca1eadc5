// SPDX-License-Identifier: Apache-2.0
// Good files: what is read, typed reads, splits, the writer.
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "formats/gguf_write.h"
#include "raw_gguf.h"
#include "views.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::Raw;
using test::small_file;

class TemporaryFolder : public testing::Test {
protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "quern-gguf-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override {
        std::error_code ignored;
        fs::remove_all(folder_, ignored);
    }
    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    void write(const std::string& name, std::span<const std::byte> bytes) const {
        std::ofstream out(path(name), std::ios::binary);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    fs::path folder_;
};
class GgufFiles : public TemporaryFolder {};
class Splits : public TemporaryFolder {};

gguf::File must_parse(const std::vector<std::byte>& bytes) {
    auto f = gguf::File::parse(bytes, "test.gguf");
    EXPECT_TRUE(f) << f.error().message;
    return f ? std::move(*f) : gguf::File();
}

template <class T>
std::string message(const Result<T>& r) {
    return r ? "no error" : r.error().message;
}

TEST(Gguf, ReadsEveryMetadataType) {
    const std::vector<std::byte> bytes = small_file();
    const gguf::File f = must_parse(bytes);
    EXPECT_EQ(f.version(), 3u);
    EXPECT_EQ(f.alignment(), 32u);
    EXPECT_EQ(f.file_size(), bytes.size());
    EXPECT_EQ(f.path(), "test.gguf");
    EXPECT_TRUE(f.mappings().empty());
    EXPECT_EQ(*f.get_uint("u8"), 200u);
    EXPECT_EQ(*f.get_int("i8"), -100);
    EXPECT_EQ(*f.get_uint("u16"), 60000u);
    EXPECT_EQ(*f.get_int("i16"), -30000);
    EXPECT_EQ(*f.get_uint("u32"), 4000000000u);
    EXPECT_EQ(*f.get_int("i32"), -2000000000);
    EXPECT_EQ(*f.get_uint("u64"), 18000000000000000000u);
    EXPECT_EQ(*f.get_int("i64"), -9000000000000000000);
    EXPECT_EQ(*f.get_float("f32"), 0.15625);
    EXPECT_EQ(*f.get_float("f64"), 2.5e100);
    EXPECT_EQ(*f.get_float("i16"), -30000.0);
    EXPECT_TRUE(*f.get_bool("bool"));
    EXPECT_EQ(*f.get_string("string"), "text");
    EXPECT_EQ(*f.get_int_array("u8s"), std::vector<std::int64_t>(3, 200));
    EXPECT_EQ(*f.get_int_array("i8s"), std::vector<std::int64_t>(3, -100));
    EXPECT_EQ(*f.get_int_array("i64s"), std::vector<std::int64_t>(3, -9000000000000000000));
    EXPECT_EQ(*f.get_int_array("bools"), std::vector<std::int64_t>(3, 1));
    EXPECT_EQ(*f.get_float_array("f32s"), std::vector<float>(3, 0.15625f));
    ASSERT_EQ(f.get_string_array("strings")->size(), 3u);
    EXPECT_EQ((*f.get_string_array("strings"))[2], "two words");
    EXPECT_TRUE(f.get_string_array("empty")->empty());
    EXPECT_EQ(test::view_outside(f, bytes), "");
}

TEST(Gguf, ReadsTensors) {
    const std::vector<std::byte> bytes = small_file();
    const gguf::File f = must_parse(bytes);
    ASSERT_EQ(f.tensors().size(), 4u);
    const gguf::Tensor* t = f.find_tensor("four");
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->type, DType::Q2_K);
    EXPECT_EQ(t->n_dims, 4u);
    EXPECT_EQ(t->ne[0], 256u);
    EXPECT_EQ(t->ne[3], 2u);
    EXPECT_EQ(t->n_elements(), 512u);
    EXPECT_EQ(t->data.size(), 168u);
    EXPECT_EQ(f.find_tensor("two")->ne[2], 1u);
    EXPECT_EQ(f.find_tensor("five"), nullptr);
    EXPECT_EQ((t->data.data() - bytes.data()) % 32, 0);
}

TEST(Gguf, ReadsVersionTwoAndAnEmptyModel) {
    EXPECT_EQ(must_parse(Raw().header(0, 1, 2).key_u32("k", 7).bytes).get_uint("k").ok(), true);
    EXPECT_EQ(must_parse(Raw().header(0, 0, 2).bytes).version(), 2u);
    EXPECT_EQ(must_parse(Raw().header(0, 0).bytes).find("k"), nullptr);
    EXPECT_EQ(gguf::File().find("k"), nullptr);
}

TEST(Gguf, ReadsAnAlignment) {
    const std::vector<std::byte> data(8);
    const std::uint64_t ne[] = {2};
    gguf::Writer w(4096);
    w.add_tensor("a", DType::F32, ne, data);
    w.add_tensor("b", DType::F32, ne, data);
    const auto bytes = w.to_bytes();
    ASSERT_TRUE(bytes) << bytes.error().message;
    const gguf::File f = must_parse(*bytes);
    EXPECT_EQ(f.alignment(), 4096u);
    EXPECT_EQ(f.find_tensor("b")->data.data() - bytes->data(), 8192);
}

TEST(Gguf, TypedReadsNameTheKeyItsTypeAndItsPlace) {
    const std::vector<std::byte> bytes = small_file();
    const gguf::File f = must_parse(bytes);
    const auto expect = [&](const std::string& got, const std::string& key, const std::string& wanted) {
        const std::string end = "; convert the model again (at byte " + std::to_string(f.find(key)->offset) + ")";
        EXPECT_EQ(got, "test.gguf: key '" + key + "' " + wanted + end);
    };
    expect(message(f.get_uint("i8")), "i8", "of type i8 is -100, it must not be negative");
    expect(message(f.get_uint("f32")), "f32", "of type f32 must be an integer");
    expect(message(f.get_int("u64")), "u64",
           "of type u64 is 18000000000000000000, past the largest signed 64-bit integer");
    expect(message(f.get_float("string")), "string", "of type string must be a number");
    expect(message(f.get_bool("u8")), "u8", "of type u8 must be a bool");
    expect(message(f.get_string("strings")), "strings", "of type array of string must be a string");
    expect(message(f.get_int_array("u8")), "u8", "of type u8 must be an array");
    expect(message(f.get_int_array("f32s")), "f32s", "of type array of f32 must be an array of integers");
    expect(message(f.get_int_array("u64s")), "u64s",
           "of type array of u64 has 18000000000000000000 at index 0, past the largest signed 64-bit integer");
    // Upstream reads token scores declared u8 as four bytes each.
    expect(message(f.get_float_array("u8s")), "u8s", "of type array of u8 must be an array of f32 or f64");
    expect(message(f.get_string_array("bools")), "bools", "of type array of bool must be an array of strings");
    EXPECT_EQ(message(f.get_uint("absent")), "test.gguf: key 'absent' is missing; convert the model again");
}

TEST(Gguf, FallbacksStandInForAbsentKeysOnly) {
    const std::vector<std::byte> bytes = small_file();
    const gguf::File f = must_parse(bytes);
    EXPECT_EQ(*f.get_uint_or("absent", 5), 5u);
    EXPECT_EQ(*f.get_uint_or("u8", 5), 200u);
    EXPECT_FALSE(f.get_uint_or("string", 5));
    EXPECT_EQ(*f.get_float_or("absent", 0.5), 0.5);
    EXPECT_FALSE(f.get_float_or("bool", 0.5));
    EXPECT_TRUE(*f.get_bool_or("absent", true));
    EXPECT_FALSE(f.get_bool_or("u8", true));
    EXPECT_EQ(*f.get_string_or("absent", "x"), "x");
    EXPECT_FALSE(f.get_string_or("u8", "x"));
}

TEST_F(GgufFiles, OpenedFileIsMappedAndEqualsTheBytes) {
    const std::vector<std::byte> bytes = small_file();
    write("m.gguf", bytes);
    const auto f = gguf::File::open(path("m.gguf"));
    ASSERT_TRUE(f) << f.error().message;
    ASSERT_EQ(f->mappings().size(), 1u);
    EXPECT_TRUE(f->mappings()[0]->is_mapped());
    EXPECT_EQ(test::view_outside(*f, f->mappings()[0]->bytes()), "");
    const auto moved = f->find_tensor("one")->data;
    EXPECT_EQ(moved.size(), 12u);
}

TEST_F(GgufFiles, ThatCannotBeReadSayWhy) {
    fs::create_directory(path("folder"));
    write("empty.gguf", {});
    write("page.html", Raw().letters("<html>Access denied</html>").bytes);
    EXPECT_EQ(message(gguf::File::open(path("none.gguf"))),
              path("none.gguf") + ": cannot open: No such file or directory; check the path");
    EXPECT_EQ(message(gguf::File::open(path("folder"))),
              path("folder") + ": is a directory; give the path of a file in it");
    EXPECT_EQ(message(gguf::File::open(path("empty.gguf"))),
              path("empty.gguf") + ": the file is empty; fetch it again (at byte 0)");
    EXPECT_EQ(
        message(gguf::File::open(path("page.html"))),
        path("page.html") + ": not a GGUF file, it does not start with 'GGUF'; convert the model to GGUF (at byte 0)");
}

TEST_F(GgufFiles, WriterRoundTripsAFile) {
    const std::vector<std::byte> bytes = small_file();
    const gguf::File f = must_parse(bytes);
    gguf::Writer w;
    for (const gguf::Value& v : f.metadata()) w.add(v);
    for (const gguf::Tensor& t : f.tensors()) w.add_tensor(t.name, t.type, {t.ne, t.n_dims}, t.data);
    ASSERT_TRUE(w.to_bytes());
    EXPECT_EQ(*w.to_bytes(), bytes);
    ASSERT_TRUE(w.to_file(path("out.gguf")));
    ASSERT_TRUE(w.to_file(path("out.gguf"))) << "replaces";
    const auto written = gguf::File::open(path("out.gguf"));
    ASSERT_TRUE(written) << written.error().message;
    const auto mapped = written->mappings()[0]->bytes();
    EXPECT_TRUE(std::equal(mapped.begin(), mapped.end(), bytes.begin(), bytes.end()));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1) << "no temporary file stays";
}

TEST_F(GgufFiles, WriterReportsWhatCannotBeWritten) {
    const std::vector<std::byte> data(18);
    const std::uint64_t ne[] = {32}, odd[] = {31}, wide[] = {32, std::uint64_t{1} << 60, 16};
    const auto with = [&](std::string_view name, std::span<const std::uint64_t> shape, std::size_t size) {
        gguf::Writer w;
        w.add_tensor("a", DType::Q4_0, ne, data);
        w.add_tensor(name, DType::Q4_0, shape, std::span(data).first(size));
        return message(w.to_bytes());
    };
    EXPECT_EQ(with("b", ne, 18), "no error");
    EXPECT_EQ(with("a", ne, 18), "tensor 'a' was added twice");
    EXPECT_EQ(with("", ne, 18), "a tensor to be written has no name");
    EXPECT_EQ(with("b", ne, 17), "tensor 'b': its shape and type Q4_0 do not make 17 bytes of data");
    EXPECT_EQ(with("b", odd, 18), "tensor 'b': its shape and type Q4_0 do not make 18 bytes of data");
    EXPECT_EQ(with("b", wide, 18), "tensor 'b': its shape and type Q4_0 do not make 18 bytes of data");
    EXPECT_EQ(with("b", {}, 18), "tensor 'b': its shape and type Q4_0 do not make 18 bytes of data");
    gguf::Writer twice;
    twice.add("k", 1);
    twice.add("k", 2);
    EXPECT_EQ(message(twice.to_bytes()), "key 'k' was added twice");
    EXPECT_EQ(message(gguf::Writer(33).to_bytes()), "alignment 33 is not a power of two from 8 to 2097152");
    const Status s = gguf::Writer().to_file(path("no/such/folder/m.gguf"));
    ASSERT_FALSE(s);
    EXPECT_NE(s.error().message.find("cannot create: No such file or directory"), std::string::npos);
}

/// Bytes of part `number` (from 1) of `count`, with one tensor named by the caller.
std::vector<std::byte> part(std::uint16_t number, std::uint16_t count, std::string_view tensor, std::int32_t total) {
    static const std::vector<std::byte> data(8, std::byte{1});
    const std::uint64_t ne[] = {2};
    gguf::Writer w;
    w.add("split.no", static_cast<std::uint16_t>(number - 1));
    w.add("split.count", count);
    w.add("split.tensors.count", total);
    if (number == 1) w.add("general.architecture", "llama");
    w.add_tensor(tensor, DType::F32, ne, data);
    return *w.to_bytes();
}

TEST_F(Splits, AreJoined) {
    write("m-00001-of-00003.gguf", part(1, 3, "a", 3));
    write("m-00002-of-00003.gguf", part(2, 3, "b", 3));
    write("m-00003-of-00003.gguf", part(3, 3, "c", 3));
    const auto f = gguf::File::open(path("m-00001-of-00003.gguf"));
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_EQ(f->tensors().size(), 3u);
    EXPECT_EQ(f->find_tensor("c")->split, 2u);
    EXPECT_EQ(f->mappings().size(), 3u);
    EXPECT_EQ(*f->get_string("general.architecture"), "llama");
    std::uint64_t size = 0;
    for (const auto& m : f->mappings()) size += m->bytes().size();
    EXPECT_EQ(f->file_size(), size);
    const auto last = f->mappings()[2]->bytes();
    EXPECT_TRUE(f->find_tensor("c")->data.data() > last.data() &&
                f->find_tensor("c")->data.data() < last.data() + last.size());
    EXPECT_EQ(
        message(gguf::File::open(path("m-00002-of-00003.gguf"))),
        path("m-00002-of-00003.gguf") + ": this is part 2 of 3; open the first part, " + path("m-00001-of-00003.gguf"));
}

TEST_F(Splits, ThatDoNotFitTogetherAreRefused) {
    const std::string first = path("m-00001-of-00002.gguf"), second = path("m-00002-of-00002.gguf");
    write("m-00001-of-00002.gguf", part(1, 2, "a", 2));
    EXPECT_EQ(message(gguf::File::open(first)), "part 2 of 2: " + second +
                                                    ": cannot open: No such file or directory; check the path; all "
                                                    "parts must lie in one folder");
    write("m-00002-of-00002.gguf", part(1, 2, "b", 2));
    EXPECT_EQ(message(gguf::File::open(first)),
              second +
                  ": named as part 2 of 2, but key 'split.no' is 0 (counting from 0) and key 'split.count' is 2; "
                  "give the parts their original names or fetch them again");
    write("m-00002-of-00002.gguf", part(2, 3, "b", 2));
    EXPECT_NE(message(gguf::File::open(first)).find("key 'split.count' is 3"), std::string::npos);
    write("m-00002-of-00002.gguf", part(2, 2, "a", 2));
    EXPECT_EQ(message(gguf::File::open(first)),
              second + ": tensor 'a' is in an earlier part too; fetch the parts again");
    write("m-00002-of-00002.gguf", part(2, 2, "b", 5));
    write("m-00001-of-00002.gguf", part(1, 2, "a", 5));
    EXPECT_EQ(message(gguf::File::open(first)),
              first + ": key 'split.tensors.count' is 5, but the 2 parts hold 2 tensors; fetch the parts again");
    write("m-00001-of-00009.gguf", part(1, 2, "a", 2));
    EXPECT_NE(message(gguf::File::open(path("m-00001-of-00009.gguf"))).find("named as part 1 of 9"), std::string::npos);
    write("m-00001-of-00007.gguf", small_file());
    EXPECT_NE(message(gguf::File::open(path("m-00001-of-00007.gguf"))).find("key 'split.no' is missing"),
              std::string::npos);
    write("renamed.gguf", part(1, 2, "a", 2));
    EXPECT_EQ(message(gguf::File::open(path("renamed.gguf"))),
              path("renamed.gguf") +
                  ": key 'split.count' says that this is one of 2 parts, but the file is not named like "
                  "model-00001-of-00003.gguf; give the parts their original names");
}

TEST(Gguf, TheTinyModelOfTheTestDataOpens) {
    const auto f = gguf::File::open(QUERN_TEST_DATA "/tiny/llama-q4_0.gguf");
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_EQ(*f->get_string("general.architecture"), "llama");
    EXPECT_EQ(f->get_string_array("tokenizer.ggml.tokens")->size(), 512u);
    EXPECT_EQ(test::view_outside(*f, f->mappings()[0]->bytes()), "");
}

}  // namespace
}  // namespace quern
