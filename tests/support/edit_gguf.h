// SPDX-License-Identifier: Apache-2.0
// Writes a changed copy of a GGUF file: entries dropped, set or reshaped.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "formats/convert.h"
#include "formats/gguf_write.h"

namespace quern::test {

class GgufEdit {
public:
    explicit GgufEdit(const std::string& source) {
        auto f = gguf::File::open(source);
        EXPECT_TRUE(f.ok()) << f.error().message;
        if (f) file_.emplace(std::move(*f));
    }
    GgufEdit& drop(const std::string& name) { dropped_.insert(name); return *this; }
    template <class T>
    GgufEdit& set(const std::string& key, T value) {
        drop(key);
        added_.push_back([key, value](gguf::Writer& w) { w.add(key, value); });
        return *this;
    }
    template <class T>
    GgufEdit& set_array(const std::string& key, std::vector<T> values) {
        drop(key);
        added_.push_back([key, values](gguf::Writer& w) { w.add_array(key, std::span<const T>(values)); });
        return *this;
    }
    /// The tensor with another shape and as many zero bytes as that takes.
    GgufEdit& reshape(const std::string& name, std::vector<std::uint64_t> ne, DType type) {
        shapes_[name] = {std::move(ne), type};
        return *this;
    }
    /// The matrix with n more rows, copies of its first ones: n is at most what it has.
    GgufEdit& repeat_rows(const std::string& name, std::uint64_t n) {
        repeated_[name] = n;
        return *this;
    }
    /// Every matrix as this type.
    GgufEdit& convert_matrices(DType type) {
        matrices_ = type;
        return *this;
    }
    /// A new tensor of F32 zeros, or these values.
    GgufEdit& add_f32(const std::string& name, std::vector<float> values) {
        extra_[name] = std::move(values);
        return *this;
    }
    std::string write(const std::string& name) {
        gguf::Writer w;
        std::vector<std::vector<std::byte>> keep;
        for (const auto& v : file_->metadata())
            if (!dropped_.count(std::string(v.key))) w.add(v);
        for (const auto& add : added_) add(w);
        for (const auto& t : file_->tensors()) {
            const std::string tensor(t.name);
            if (dropped_.count(tensor)) continue;
            std::vector<std::uint64_t> ne(t.ne, t.ne + t.n_dims);
            DType type = t.type;
            std::span<const std::byte> data = t.data;
            if (const auto it = shapes_.find(tensor); it != shapes_.end()) {
                ne = it->second.first;
                type = it->second.second;
                std::uint64_t rows = 1;
                for (std::size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
                keep.emplace_back(rows * row_bytes(type, ne[0]).value());
                data = keep.back();
            }
            if (const auto it = repeated_.find(tensor); it != repeated_.end()) {
                keep.emplace_back(data.begin(), data.end());
                const auto more = data.first(it->second * row_bytes(type, ne[0]).value());
                keep.back().insert(keep.back().end(), more.begin(), more.end());
                ne[1] += it->second;
                data = keep.back();
            }
            if (matrices_ && ne.size() > 1) {
                keep.emplace_back(row_bytes(*matrices_, t.n_elements()).value());
                EXPECT_TRUE(convert(type, data, *matrices_, keep.back(), t.n_elements()).ok()) << tensor;
                type = *matrices_;
                data = keep.back();
            }
            w.add_tensor(tensor, type, ne, data);
        }
        for (const auto& [tensor, values] : extra_) {
            const std::uint64_t ne[] = {values.size()};
            w.add_tensor(tensor, DType::F32, ne, std::as_bytes(std::span(values)));
        }
        const auto path = std::filesystem::temp_directory_path() / ("quern-" + std::to_string(::getpid()) + "-" + name + ".gguf");
        const Status s = w.to_file(path.string());
        EXPECT_TRUE(s.ok()) << s.error().message;
        written_.push_back(path);
        return path.string();
    }
    ~GgufEdit() {
        for (const auto& p : written_) std::filesystem::remove(p);
    }

private:
    std::optional<gguf::File> file_;
    std::set<std::string> dropped_;
    std::vector<std::function<void(gguf::Writer&)>> added_;
    std::map<std::string, std::pair<std::vector<std::uint64_t>, DType>> shapes_;
    std::map<std::string, std::uint64_t> repeated_;
    std::map<std::string, std::vector<float>> extra_;
    std::optional<DType> matrices_;
    std::vector<std::filesystem::path> written_;
};

}  // namespace quern::test
