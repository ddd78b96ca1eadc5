// SPDX-License-Identifier: Apache-2.0
// GGUF v2 and v3, parsed to views into the mapping (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
// Any bytes in: an Error out, in time and memory bounded by the file's own size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/mapped_file.h"
#include "quern/result.hpp"

namespace quern::gguf {

enum class ValueType : std::uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

/// Size in bytes of one scalar of this type, 0 for string and array.
std::size_t scalar_size(ValueType t);
std::string_view value_type_name(ValueType t);

/// A metadata array. Scalars lie little-endian and unaligned in `bytes`; strings are indexed in `strings`.
/// Arrays of arrays are refused when parsing.
struct Array {
    ValueType element = ValueType::u8;
    std::uint64_t count = 0;
    std::span<const std::byte> bytes;       // whole payload, scalar elements only
    std::vector<std::string_view> strings;  // string elements only
};

/// One metadata entry; views point into the mapped file.
struct Value {
    std::string_view key;
    ValueType type = ValueType::u8;
    std::uint64_t offset = 0;  // of the value in its file, for error text
    std::uint64_t bits = 0;    // raw little-endian bits of a scalar, zero-extended
    std::string_view string;
    Array array;
};

/// One tensor of the directory. ne[0] is the row length (columns); unused dimensions are 1.
struct Tensor {
    std::string_view name;
    DType type = DType::F32;
    std::uint32_t n_dims = 0;
    std::uint64_t ne[4] = {1, 1, 1, 1};
    std::span<const std::byte> data;                                            // exactly nbytes, inside the mapping
    std::uint32_t split = 0;                                                    // index of the file it lies in
    std::uint64_t n_elements() const { return ne[0] * ne[1] * ne[2] * ne[3]; }  // cannot wrap: checked at parse
};

/// A parsed model: one file, or all files of a split.
class File {
public:
    /// Opens `path`; if it is named *-00001-of-0000N.gguf the other N-1 files beside it are opened too.
    static Result<File> open(const std::string& path);
    /// Parses bytes already in memory (tests, fuzzing); `name` stands in error texts. The bytes must outlive the File.
    static Result<File> parse(std::span<const std::byte> bytes, std::string name);

    const std::string& path() const { return path_; }
    std::uint32_t version() const { return version_; }
    std::uint64_t alignment() const { return alignment_; }
    std::uint64_t file_size() const { return file_size_; }  // all splits together
    std::span<const Value> metadata() const { return values_; }
    std::span<const Tensor> tensors() const { return tensors_; }
    const Value* find(std::string_view key) const;                                   // nullptr if absent
    const Tensor* find_tensor(std::string_view name) const;                          // nullptr if absent
    std::span<const std::shared_ptr<MappedFile>> mappings() const { return maps_; }  // empty after parse()

    // Typed reads. Integers of any width convert when the value fits; otherwise an Error that names the key, its
    // declared type and offset. The *_or forms give `fallback` where the key is absent, and still fail on a wrong type.
    Result<std::uint64_t> get_uint(std::string_view key) const;
    Result<std::int64_t> get_int(std::string_view key) const;
    Result<double> get_float(std::string_view key) const;  // f32, f64 and integers
    Result<bool> get_bool(std::string_view key) const;
    Result<std::string_view> get_string(std::string_view key) const;
    Result<std::uint64_t> get_uint_or(std::string_view key, std::uint64_t fallback) const;
    Result<double> get_float_or(std::string_view key, double fallback) const;
    Result<bool> get_bool_or(std::string_view key, bool fallback) const;
    Result<std::string_view> get_string_or(std::string_view key, std::string_view fallback) const;
    Result<std::vector<std::int64_t>> get_int_array(std::string_view key) const;  // any integer or bool elements
    Result<std::vector<float>> get_float_array(std::string_view key) const;       // f32 or f64 elements
    Result<std::span<const std::string_view>> get_string_array(std::string_view key) const;

private:
    struct Index;  // name orders for look-ups, built once
    Result<const Value*> need(std::string_view key) const;
    Result<const Value*> need_array(std::string_view key) const;
    void append(File part, std::uint32_t split);
    Status finish_split();
    std::string path_;
    std::uint32_t version_ = 0;
    std::uint64_t alignment_ = 32, file_size_ = 0;
    std::vector<Value> values_;
    std::vector<Tensor> tensors_;
    std::vector<std::shared_ptr<MappedFile>> maps_;
    std::shared_ptr<const Index> index_;
};

}  // namespace quern::gguf
