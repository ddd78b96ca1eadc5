// SPDX-License-Identifier: Apache-2.0
// Whole models against a double-precision forward pass: every type, architecture, kernel table and cache format.
#include <gtest/gtest.h>

#include "quern/quern.hpp"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

/// What the arithmetic allows. F32 weights with an F32 cache leave only float rounding; an F16 cache rounds K and V to
/// 11 bits (2^-12 relative, squared 6e-8, before softmax); F16 and BF16 weights are exact once read, so the same; for
/// quantized weights the int8 activations dominate: 1/254 of a block's largest value is about 3e-5 of its power a
/// matmul, some ten of them in a row.
double bound(const std::string& type, KvType kv) {
    if (type == "F32") return kv == KvType::f32 ? 1e-10 : 1e-6;
    if (type == "F16" || type == "BF16") return 5e-6;
    return 7e-4;
}

std::vector<float> run(const std::string& path, const std::vector<Token>& ids, const std::string& isa, KvType kv, bool pack = true) {
    ModelOptions o;
    o.pack = pack;
    o.isa = isa;
    o.kv_type = kv;
    o.n_threads = pack ? 2 : 1;  // one thread has the largest units, which are packed piece by piece
    auto model = Model::load(path, o);
    EXPECT_TRUE(model.ok()) << model.error().message;
    if (!model) return {};
    auto session = model->new_session();
    EXPECT_TRUE(session.ok());
    std::vector<float> logits;
    const Status s = session->decode_all(ids, logits);
    EXPECT_TRUE(s.ok()) << s.error().message;
    return logits;
}

TEST(Tiny, LogitsMatchTheReference) {
    const auto dir = test::tiny_dir();
    const auto manifest = test::read_json(dir / "manifest.json");
    ASSERT_FALSE(manifest["models"].empty());
    for (const auto& m : manifest["models"]) {
        const std::string file = m["file"], type = m["type"];
        const auto want = test::read_array<float>(dir / std::string(m["logits"]));
        const auto ids = m["token_ids"].get<std::vector<Token>>();
        ASSERT_EQ(want.size(), m["shape"][0].get<std::size_t>() * m["shape"][1].get<std::size_t>());
        for (const KvType kv : {KvType::f16, KvType::f32}) {
            std::vector<float> first;
            for (const std::string& isa : test::runnable_isas()) {
                const auto got = run((dir / file).string(), ids, isa, kv);
                ASSERT_EQ(got.size(), want.size()) << file;
                const double e = test::nmse(got, want);
                RecordProperty(file + "." + isa + (kv == KvType::f16 ? ".f16" : ".f32"), std::to_string(e));
                EXPECT_LT(e, bound(type, kv)) << file << ", " << isa << ", cache " << (kv == KvType::f16 ? "F16" : "F32");
                if (std::getenv("QUERN_TEST_VERBOSE")) std::printf("%-18s %-7s %s %.3g\n", file.c_str(), isa.c_str(), kv == KvType::f16 ? "f16" : "f32", e);
                // docs/numerics.md: one canonical order of operations, so every table gives the same bits.
                if (first.empty()) first = got;
                EXPECT_EQ(0, std::memcmp(first.data(), got.data(), got.size() * sizeof(float))) << file << ": " << isa << " differs from " << test::runnable_isas()[0];
            }
        }
    }
}

/// Measured: 3e-6 in F16 and Q8, where the keys' own rounding only tips that of the activations, and 1e-5 in Q4. A wrong scale or
/// position is far above the bounds.
TEST(Tiny, CachesOfEveryFormat) {
    const std::string path = (test::tiny_dir() / "llama-q4_0.gguf").string();
    std::vector<Token> ids(120);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<Token>(5 + i * i % 83);
    std::vector<float> exact;
    for (const auto& [kv, most] : {std::pair{KvType::f32, 0.0}, {KvType::f16, 1e-5}, {KvType::q8, 2e-5}, {KvType::q4, 1e-4}, {KvType::two_tier, 1e-4}}) {
        ModelOptions o{.n_threads = 2, .kv_type = kv};
        if (kv == KvType::two_tier) o.kv_tail = 33;
        auto model = Model::load(path, o);
        ASSERT_TRUE(model.ok()) << model.error().message;
        auto session = model->new_session();
        for (const std::size_t end : {50u, 117u, 118u, 119u, 120u})
            ASSERT_TRUE(session->decode(std::span(ids).subspan(session->tokens().size(), end - session->tokens().size())).ok());
        const std::vector<float> got(session->logits().begin(), session->logits().end());
        if (exact.empty()) exact = got;
        EXPECT_LE(test::nmse(got, exact), most) << int(kv);
        if (std::getenv("QUERN_TEST_VERBOSE")) std::printf("cache %d %.3g\n", int(kv), test::nmse(got, exact));
    }
}

/// Not every type has a model with reference logits. The same values as F32 weights serve instead: what the kernels make
/// of those is within 1e-10 of double precision (above), and the bound is that of rounding activations, as there.
TEST(Tiny, EveryTypeMeansWhatItsValuesMeanAsF32) {
    const auto dir = test::tiny_dir();
    const std::string source = (dir / "llama-q4_0.gguf").string();
    const auto manifest = test::read_json(dir / "manifest.json");
    std::vector<Token> ids;
    for (const auto& m : manifest["models"])
        if (m["file"] == "llama-q4_0.gguf") ids = m["token_ids"].get<std::vector<Token>>();
    ASSERT_FALSE(ids.empty());
    for (const QuantInfo& q : all_types()) {
        test::GgufEdit narrow(source);
        const std::string file = narrow.convert_matrices(q.type).write(q.name);
        test::GgufEdit wide(file);
        const auto want = run(wide.convert_matrices(DType::F32).write(std::string(q.name) + "-f32"), ids, "", KvType::f32);
        ASSERT_FALSE(want.empty());
        std::vector<float> first;
        for (const std::string& isa : test::runnable_isas()) {
            const auto got = run(file, ids, isa, KvType::f32);
            ASSERT_EQ(got.size(), want.size()) << q.name;
            EXPECT_LT(test::nmse(got, want), bound(q.name, KvType::f32)) << q.name << ", " << isa;
            if (std::getenv("QUERN_TEST_VERBOSE")) std::printf("%-18s %-7s %.3g\n", q.name, isa.c_str(), test::nmse(got, want));
            if (first.empty()) first = got;
            EXPECT_EQ(0, std::memcmp(first.data(), got.data(), got.size() * sizeof(float))) << q.name << ": " << isa;
        }
        EXPECT_EQ(first, run(file, ids, "", KvType::f32, false)) << q.name << " without packing";
    }
}

}  // namespace
}  // namespace quern
