// SPDX-License-Identifier: Apache-2.0
// Whole models on a device: all layers there and only some, against the reference and against the CPU.
#include <gtest/gtest.h>

#include "engine/api/model_impl.h"
#include "engine/run/executor.h"
#include "engine/run/sequence.h"
#include "quern/batcher.hpp"
#include "quern/quern.hpp"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"
#include "tests/vulkan/support.h"

namespace quern {
namespace {

/// Skips where there is no device to test with.
class DeviceModel : public testing::Test {
protected:
    void SetUp() override {
        auto d = vulkan::test::open(vulkan::test::options());
        if (!d) GTEST_SKIP() << "no Vulkan device for tests: " << d.error().message;
    }
};

ModelOptions on_device(std::int32_t layers, KvType kv = KvType::f16, std::uint32_t n_batch = 512) {
    ModelOptions o;
    o.n_gpu_layers = layers;
    o.device = vulkan::test::device_name();
    o.kv_type = kv;
    o.n_batch = n_batch;
    o.n_threads = 2;
    o.on_log = [](LogLevel, std::string_view text) { std::printf("%.*s\n", static_cast<int>(text.size()), text.data()); };
    return o;
}

Result<Model> load(const std::string& path, const ModelOptions& o) {
    auto model = Model::load(path, o);
    EXPECT_TRUE(model.ok()) << model.error().message;
    if (model && o.n_gpu_layers != 0) {
        EXPECT_NE(model->verify_gpu_utilization().device, "");
    }
    return model;
}

/// After each token, which are run in steps of at most `step`.
std::vector<float> logits_of(const Result<Model>& model, std::span<const Token> ids, std::size_t step) {
    if (!model) return {};
    auto session = model->new_session();
    EXPECT_TRUE(session.ok());
    std::vector<float> all, part;
    for (; !ids.empty(); ids = ids.subspan(std::min(step, ids.size()))) {
        const Status s = session->decode_all(ids.first(std::min(step, ids.size())), part);
        EXPECT_TRUE(s.ok()) << s.error().message;
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}
std::vector<float> logits_of(const std::string& path, const std::vector<Token>& ids, const ModelOptions& o) { return logits_of(load(path, o), ids, ids.size()); }

struct Tiny {
    std::string file, type;
    std::vector<Token> ids;
    std::vector<float> want;
};
std::vector<Tiny> tiny_models() {
    const auto dir = test::tiny_dir();
    const auto manifest = test::read_json(dir / "manifest.json");
    std::vector<Tiny> out;
    for (const auto& m : manifest["models"])
        out.push_back({(dir / std::string(m["file"])).string(), m["type"], m["token_ids"].get<std::vector<Token>>(), test::read_array<float>(dir / std::string(m["logits"]))});
    return out;
}

/// Activations stay float there, so that only weights and cache are rounded: an F16 cache costs 6e-8 to 5e-6 (see
/// tests/golden/tiny_test.cpp), float sums in another order 1e-12.
TEST_F(DeviceModel, TinyLogitsMatchTheReference) {
    const auto models = tiny_models();
    ASSERT_FALSE(models.empty());
    for (const Tiny& m : models) {
        const bool is_float = m.type[0] == 'F' || m.type[0] == 'B';
        for (const KvType kv : {KvType::f16, KvType::f32})
            for (const std::int32_t layers : {kGpuLayersAll, 1}) {
                if (!is_float && (kv == KvType::f32 || layers == 1)) continue;   // says nothing new, and compiling takes its time
                if (QUERN_TEST_SLOW && (is_float ? kv == KvType::f32 : m.type != "Q4_0" && m.type != "Q5_K")) continue;   // only the shader is another
                const double e = test::nmse(logits_of(m.file, m.ids, on_device(layers, kv)), m.want);
                if (std::getenv("QUERN_TEST_VERBOSE")) std::printf("%-60s %s %d layers %.3g\n", m.file.c_str(), kv == KvType::f16 ? "f16" : "f32", layers, e);
                EXPECT_LT(e, 1e-5) << m.file << ", " << layers << " layers";
            }
    }
}

/// Memory that the host does not see, as most of a discrete GPU's: weights and pages go through staging.
TEST_F(DeviceModel, MemoryThatTheHostDoesNotSee) {
    const Tiny m = tiny_models().front();
    ModelOptions o = on_device(kGpuLayersAll);
    o.device_disable = {"host-visible"};
    EXPECT_LT(test::nmse(logits_of(m.file, m.ids, o), m.want), 1e-5);
}

/// With some layers on the CPU, which rounds activations to int8 for quantized weights.
TEST_F(DeviceModel, SomeLayersOnTheCpu) {
    for (const Tiny& m : tiny_models())
        if (m.type == "Q4_1" || m.type == "Q5_K") {
            EXPECT_LT(test::nmse(logits_of(m.file, m.ids, on_device(1)), m.want), 7e-4) << m.file;
        }
}

/// A prompt in steps of one, some and many tokens takes different kernels, which differ in the order of sums alone.
TEST_F(DeviceModel, StepsOfAnySizeAgree) {
    for (const Tiny& m : tiny_models()) {
        if (m.file.find("llama-f32") == std::string::npos && m.type != "Q6_K") continue;
        const auto model = load(m.file, on_device(kGpuLayersAll));
        const auto whole = logits_of(model, m.ids, m.ids.size());
        for (const std::size_t step : {1u, 5u, 20u}) EXPECT_LT(test::nmse(logits_of(model, m.ids, step), whole), 1e-6) << m.file << " in steps of " << step;
    }
}

/// The CPU's own two tiers are the reference: K and V are rounded to the same codes there and here, so that only the order of sums
/// differs, and the few codes that such a difference tips over. Long enough for every part of the rule: first positions, groups,
/// staged chunks, a ring that wraps.
TEST_F(DeviceModel, TwoTiersAreTheCpus) {
    const Tiny m = tiny_models().front();
    std::vector<Token> ids;
    for (std::uint32_t i = 0; i < 200; ++i) ids.push_back(m.ids[(i * i + i / 7) % m.ids.size()]);
    for (const KvType kv : {KvType::two_tier, KvType::q8, KvType::q4}) {
        if (QUERN_TEST_SLOW && kv == KvType::q4) continue;
        ModelOptions o = on_device(kGpuLayersAll, kv), cpu;
        cpu.n_threads = 2;
        cpu.kv_type = kv;
        o.n_ctx = cpu.n_ctx = 256;
        if (kv == KvType::two_tier) o.kv_tail = cpu.kv_tail = 40;
        const auto want = logits_of(m.file, ids, cpu);
        const auto model = load(m.file, o);
        for (const std::size_t step : {1u, 16u, 33u, 200u}) {
            if (QUERN_TEST_SLOW && step != 16 && step != 200) continue;
            const double e = test::nmse(logits_of(model, ids, step), want);
            EXPECT_LT(e, 1e-6) << static_cast<int>(kv) << " in steps of " << step;
            if (std::getenv("QUERN_TEST_VERBOSE")) std::printf("cache %d, steps of %zu: %.3g\n", static_cast<int>(kv), step, e);
        }
    }
}

/// Exact pages of a text that others go on with, and of forks: beside the ring in a long step, copied where a page is shared in part.
TEST_F(DeviceModel, TwoTiersShareOnTheDevice) {
    const Tiny m = tiny_models().front();
    std::vector<Token> ids;
    for (std::uint32_t i = 0; i < 200; ++i) ids.push_back(m.ids[(i * i + i / 7) % m.ids.size()]);
    ModelOptions o = on_device(kGpuLayersAll, KvType::two_tier), cpu;
    o.n_ctx = cpu.n_ctx = 1024;
    cpu.n_threads = 2;
    cpu.kv_type = KvType::two_tier;
    o.kv_tail = cpu.kv_tail = 40;
    o.kv_sessions = 3;
    const auto model = load(m.file, o);
    for (const std::size_t n : {20u, 100u, 130u}) {
        const std::span text(ids);
        auto a = model->new_session();
        ASSERT_TRUE(a->decode(text.first(n)).ok());
        auto b = a->fork(), c = model->new_session();
        ASSERT_TRUE(b.ok());
        std::vector<Token> other(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
        for (std::size_t i = 0; i < 60; ++i) other.push_back(ids[199 - i]);
        ASSERT_TRUE(a->decode(text.subspan(n)).ok());
        for (std::size_t i = n; i < other.size(); ++i) ASSERT_TRUE(b->decode(std::span(other).subspan(i, 1)).ok());
        ASSERT_TRUE(c->decode(other).ok());
        EXPECT_GE(Internals::of(*c).sequence.n_reused(), n / 16 * 16);
        const auto want_a = logits_of(m.file, ids, cpu), want_b = logits_of(m.file, other, cpu);
        const auto last = [](const std::vector<float>& all, const Session& s) { return std::vector<float>(all.end() - static_cast<std::ptrdiff_t>(s.logits().size()), all.end()); };
        EXPECT_LT(test::nmse({a->logits().begin(), a->logits().end()}, last(want_a, *a)), 1e-6) << n;
        EXPECT_LT(test::nmse({b->logits().begin(), b->logits().end()}, last(want_b, *b)), 1e-6) << n;
        EXPECT_LT(test::nmse({c->logits().begin(), c->logits().end()}, last(want_b, *c)), 1e-6) << n;
    }
}

TEST_F(DeviceModel, SessionsMoveBetweenDeviceAndCpu) {
    const Tiny m = tiny_models().front();
    ModelOptions cpu;
    cpu.n_threads = 2;
    auto on_cpu = Model::load(m.file, cpu), on_gpu = Model::load(m.file, on_device(kGpuLayersAll)), on_both = Model::load(m.file, on_device(1));
    ASSERT_TRUE(on_cpu && on_gpu && on_both);
    const auto path = (test::fs::temp_directory_path() / ("quern-device-session-" + std::to_string(::getpid()))).string();
    const std::vector<Token> head(m.ids.begin(), m.ids.end() - 1), last(m.ids.end() - 1, m.ids.end());
    for (const Model* from : {&*on_cpu, &*on_gpu, &*on_both})
        for (const Model* to : {&*on_cpu, &*on_gpu, &*on_both}) {
            auto a = from->new_session(), b = to->new_session();
            ASSERT_TRUE(a->decode(head).ok());
            ASSERT_TRUE(a->save(path).ok());
            ASSERT_TRUE(b->restore(path).ok());
            ASSERT_TRUE(b->decode(last).ok());
            const std::size_t n_vocab = b->logits().size();
            EXPECT_LT(test::nmse({b->logits().begin(), b->logits().end()}, {m.want.end() - static_cast<std::ptrdiff_t>(n_vocab), m.want.end()}), 1e-5);
        }
    test::fs::remove(path);
}

/// A fork writes to a page that it shares: it becomes a copy on the device, and the first session's is as before.
TEST_F(DeviceModel, ForksCopyPagesOnTheDevice) {
    const Tiny m = tiny_models().front();
    auto model = Model::load(m.file, on_device(kGpuLayersAll));
    ASSERT_TRUE(model.ok());
    auto a = model->new_session(64), alone = model->new_session(64);
    const std::vector<Token> head(m.ids.begin(), m.ids.begin() + 5), one{m.ids[6]}, other{m.ids[7]};
    ASSERT_TRUE(a->decode(head).ok());
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    ASSERT_TRUE(b->decode(other).ok());
    ASSERT_TRUE(b->decode(other).ok());
    ASSERT_TRUE(a->decode(one).ok());
    ASSERT_TRUE(a->decode(one).ok());
    ASSERT_TRUE(alone->decode(head).ok());
    ASSERT_TRUE(alone->decode(one).ok());
    ASSERT_TRUE(alone->decode(one).ok());
    EXPECT_TRUE(std::equal(a->logits().begin(), a->logits().end(), alone->logits().begin(), alone->logits().end()));
}

TEST_F(DeviceModel, GreedyTextOfSmolLM2IsTheCpus) {
    const auto path = test::smollm2();
    if (!path) GTEST_SKIP() << test::kNoSmollm2;
    const auto text = [&](ModelOptions o) {
        o.n_ctx = 512;
        auto model = Model::load(*path, o);
        EXPECT_TRUE(model.ok()) << model.error().message;
        if (!model) return std::string();
        auto session = model->new_session();
        GenerateOptions g;
        g.sampler.temperature = 0;
        g.max_tokens = 12;
        const auto prompt = model->tokenize("The capital of France is");
        const auto r = session->generate(*prompt, g);
        EXPECT_TRUE(r.ok()) << r.error().message;
        return r ? r->text : std::string();
    };
    ModelOptions cpu;
    cpu.n_threads = 2;
    const std::string want = text(cpu);
    EXPECT_EQ(text(on_device(kGpuLayersAll)), want);
    EXPECT_EQ(text(on_device(12)), want);
}

/// Other batches take other kernels, so logits differ by rounding: by 0.3% of their size at most, as the bound above says. The best
/// token of these texts is ahead by 3% or more.
TEST_F(DeviceModel, ABatchGivesTheTextsOfSingleRuns) {
    const Tiny m = tiny_models().front();
    ModelOptions o = on_device(kGpuLayersAll);
    o.n_ctx = 512;
    const auto model = load(m.file, o);
    ASSERT_TRUE(model.ok());
    std::vector<Request> requests;
    for (const std::size_t n : {3u, 9u, 20u}) {
        requests.push_back({});
        requests.back().prompt.assign(m.ids.begin(), m.ids.begin() + static_cast<std::ptrdiff_t>(n));
        requests.back().options.sampler.temperature = 0;
        requests.back().options.max_tokens = 12;
    }
    const auto together = generate_batch(*model, requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        ASSERT_TRUE(together[i].ok()) << together[i].error().message;
        auto session = model->new_session(128);
        const auto alone = session->generate(requests[i].prompt, requests[i].options);
        ASSERT_TRUE(alone.ok());
        EXPECT_EQ(together[i]->tokens, alone->tokens);
        EXPECT_FALSE(alone->tokens.empty());
    }
}

std::string refusal(const ModelOptions& o) {
    auto model = Model::load(tiny_models().front().file, o);
    return model ? "loaded" : model.error().message;
}

TEST_F(DeviceModel, WhatCannotBeHadIsRefusedWithItsReason) {
    ModelOptions o = on_device(kGpuLayersAll);
    o.device = "no such device";
    EXPECT_NE(refusal(o).find("no such device"), std::string::npos) << refusal(o);
    o = on_device(-7);
    EXPECT_NE(refusal(o).find("n_gpu_layers"), std::string::npos) << refusal(o);
}

engine::ExecutorOptions executor_options() {
    engine::ExecutorOptions o;
    o.n_threads = o.n_threads_batch = 1;
    o.n_ctx = 64;
    o.offload.n_layers = engine::OffloadOptions::kAll;
    o.offload.device = vulkan::test::options();
    o.offload.device.validation = false;
    return o;
}

/// A whole model with the validation layer on, and with the integer path, whose bound is that of rounding activations to int8
/// (tests/golden/tiny_test.cpp).
TEST_F(DeviceModel, TheValidationLayerHasNothingToSay) {
    for (const Tiny& m : tiny_models()) {
        if (m.type != "Q4_0" && (QUERN_TEST_SLOW || m.type != "Q5_K")) continue;
        auto file = gguf::File::open(m.file);
        ASSERT_TRUE(file.ok());
        for (const auto format : {kernels::KvFormat::F16, kernels::KvFormat::Q4}) {
            engine::ExecutorOptions o = executor_options();
            o.offload.device = vulkan::test::options();
            o.offload.device.force_integer_dot = true;
            o.kv_format = format;
            auto e = engine::Executor::create(*file, o);
            if (!e && e.error().message.find("validation") != std::string::npos) GTEST_SKIP() << e.error().message;
            ASSERT_TRUE(e.ok()) << e.error().message;
            engine::Sequence s(**e, 64);
            ASSERT_TRUE(s.append(m.ids).ok());
            std::vector<float> logits;
            const Status ran = s.run_all(logits);
            ASSERT_TRUE(ran.ok()) << ran.error().message;
            if (format == kernels::KvFormat::F16) {
                EXPECT_LT(test::nmse(logits, m.want), 7e-4) << m.file;
                EXPECT_GT(test::nmse(logits, m.want), 1e-6) << m.file << ": activations were not rounded, so the integer path did not run";
            }
            ASSERT_TRUE(s.append(std::span(m.ids).first(1)).ok());
            ASSERT_TRUE(s.run().ok());
            EXPECT_EQ((*e)->offload().device->n_validation_messages(), 0u);
        }
    }
}

Result<std::unique_ptr<engine::Executor>> tiny_executor(const std::string& type, const engine::ExecutorOptions& o) {
    for (const Tiny& m : tiny_models())
        if (m.type == type) {
            auto file = gguf::File::open(m.file);
            if (!file) return std::move(file).error();
            return engine::Executor::create(*file, o);
        }
    return Error{Errc::io, "no tiny model of type " + type};
}

/// Recording the model's plans makes no kernel that the check has not made, so each was compared with the CPU.
TEST_F(DeviceModel, EveryKernelIsCheckedBeforeItIsUsed) {
    struct Case { const char* type; kernels::KvFormat format; std::uint32_t n_batch; bool dot; };
    using kernels::KvFormat;
    for (const Case& c : {Case{"F16", KvFormat::F32, 512, false}, {"Q4_0", KvFormat::Q4, 1, false}, {"Q4_0", KvFormat::Q4, 8, true}, {"Q4_0", KvFormat::F16, 512, true}, {"Q5_K", KvFormat::Q8, 100, false}}) {
        if (QUERN_TEST_SLOW && c.n_batch == 512) continue;
        engine::ExecutorOptions o = executor_options();
        o.kv_format = c.format;
        o.n_batch = c.n_batch;
        o.offload.device.force_integer_dot = c.dot;
        const auto e = tiny_executor(c.type, o);
        ASSERT_TRUE(e.ok()) << e.error().message;
        EXPECT_GT((*e)->kernel_check().n_kernels, 5u);
        EXPECT_EQ((*e)->kernel_check().n_kernels, (*e)->offload().device->n_kernels()) << c.type << ", batches of " << c.n_batch;
    }
}

/// A driver that leaves a kernel's dispatches undone: the error names the kernel, and `auto` goes on on the CPU.
TEST_F(DeviceModel, AKernelThatDoesNotWorkIsNamed) {
    for (const char* module : {"rms_norm", "gather", "pair", "rope_store", "attention", "attention_merge", "kv_quantize", "copy_pages", "matvec_q4_0", "matmul_q4_0"}) {
        if (QUERN_TEST_SLOW && module != std::string_view("kv_quantize")) continue;
        engine::ExecutorOptions o = executor_options();
        o.kv_format = kernels::KvFormat::Q4;
        o.offload.device.faults.kernel = module;
        const auto e = tiny_executor("Q4_0", o);
        ASSERT_FALSE(e.ok()) << module;
        const std::string named = std::string("kernel ") + module + " gives a wrong result: ";
        EXPECT_NE(e.error().message.find(named), std::string::npos) << e.error().message;
        EXPECT_NE(e.error().message.find("update its driver or run on the CPU"), std::string::npos) << e.error().message;
        o.offload.n_layers = engine::OffloadOptions::kAuto;
        const auto cpu = tiny_executor("Q4_0", o);
        ASSERT_TRUE(cpu.ok()) << cpu.error().message;
        EXPECT_EQ((*cpu)->offload().device, nullptr);
        ASSERT_EQ((*cpu)->offload().notes.size(), 1u);
        EXPECT_NE((*cpu)->offload().notes[0].find(named), std::string::npos) << (*cpu)->offload().notes[0];
    }
}

/// A kernel of a feature that can be done without takes only the feature away, and its successors are checked, too.
TEST_F(DeviceModel, AFeatureThatDoesNotWorkIsNotUsed) {
    for (const char* module : {"quantize_act", "matvec_dot_q4_0", "matmul_dot_q4_0"}) {
        engine::ExecutorOptions o = executor_options();
        o.offload.device.force_integer_dot = true;
        o.offload.device.faults.kernel = module;
        const auto e = tiny_executor("Q4_0", o);
        ASSERT_TRUE(e.ok()) << e.error().message;
        EXPECT_FALSE((*e)->offload().device->has(vulkan::kIntegerDot)) << module;
        ASSERT_FALSE((*e)->offload().notes.empty());
        EXPECT_NE((*e)->offload().notes[0].find("integer-dot"), std::string::npos) << (*e)->offload().notes[0];
        EXPECT_EQ((*e)->kernel_check().n_kernels, (*e)->offload().device->n_kernels()) << module;
    }
}

/// Any single allocation may fail: an Error, nothing leaked, and the next load works.
TEST_F(DeviceModel, RefusedAllocationsAreErrors) {
    const Tiny m = tiny_models().front();
    auto file = gguf::File::open(m.file);
    ASSERT_TRUE(file.ok());
    engine::ExecutorOptions o = executor_options();
    std::uint32_t refused = 0;
    for (std::uint32_t n = 1;; ++n) {
        o.offload.device.faults.allocation = n;
        auto e = engine::Executor::create(*file, o);
        if (e) break;
        EXPECT_EQ(e.error().code, Errc::out_of_memory) << e.error().message;
        ASSERT_LT(++refused, 100u);
    }
    EXPECT_GT(refused, 3u);
}

TEST_F(DeviceModel, ALostDeviceIsANamedErrorEveryTime) {
    const Tiny m = tiny_models().front();
    auto file = gguf::File::open(m.file);
    ASSERT_TRUE(file.ok());
    engine::ExecutorOptions o = executor_options();
    const auto made = [&](std::uint32_t n) {
        o.offload.device.faults.submit = n;
        auto e = engine::Executor::create(*file, o);
        if (!e) { EXPECT_NE(e.error().message.find("lost"), std::string::npos) << e.error().message; }
        return e;
    };
    EXPECT_FALSE(made(1).ok());
    std::uint32_t fails = 1, works = 4096;   // loading submits this often, at most
    ASSERT_TRUE(made(works).ok());
    while (works - fails > 1) {
        const std::uint32_t n = (fails + works) / 2;
        (made(n).ok() ? works : fails) = n;
    }
    std::uint32_t lost = 0;
    for (;; ++lost) {
        auto e = made(works + lost);
        ASSERT_TRUE(e.ok());
        engine::Sequence s(**e, 64);
        ASSERT_TRUE(s.append(std::span(m.ids).first(4)).ok());
        const Status first = s.run();
        if (first) break;
        EXPECT_NE(first.error().message.find("lost"), std::string::npos) << first.error().message;
        EXPECT_FALSE(s.run().ok());
        EXPECT_EQ(s.tokens().size(), 4u) << "the conversation is there";
    }
    EXPECT_GT(lost, 0u);
}

}  // namespace
}  // namespace quern
