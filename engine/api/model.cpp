// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "engine/api/model_impl.h"
#include "engine/core/clock.h"
#include "engine/core/env.h"
#include "engine/core/memory.h"
#include "engine/core/topology.h"
#include "engine/text/chat.h"

namespace quern {
namespace {

constexpr std::uint32_t kMaxBatch = 4096, kMaxSessions = 4096;
constexpr std::int32_t kMaxTail = 1 << 20;

kernels::KvFormat format_of(KvType t) {
    switch (t) {
        case KvType::f32: return kernels::KvFormat::F32;
        case KvType::q8: return kernels::KvFormat::Q8;
        case KvType::q4: case KvType::two_tier: return kernels::KvFormat::Q4;
        default: return kernels::KvFormat::F16;
    }
}

Error bad_option(const std::string& what) { return {Errc::invalid_argument, what}; }

Status check_options(const ModelOptions& o) {
    if (o.n_threads < 0 || o.n_threads > static_cast<int>(engine::ThreadPool::kMaxThreads))
        return bad_option("n_threads is " + std::to_string(o.n_threads) + "; it is 0 (choose) to " + std::to_string(engine::ThreadPool::kMaxThreads));
    if (o.n_threads_batch < 0 || o.n_threads_batch > static_cast<int>(engine::ThreadPool::kMaxThreads))
        return bad_option("n_threads_batch is " + std::to_string(o.n_threads_batch) + "; it is 0 (choose) to " + std::to_string(engine::ThreadPool::kMaxThreads));
    if (o.numa < Numa::off || o.numa > Numa::local) return bad_option("numa is neither off, interleave nor local");
    if (o.tune < Tune::off || o.tune > Tune::force) return bad_option("tune is neither off, cached, automatic nor force");
    if (o.n_batch < 1 || o.n_batch > kMaxBatch) return bad_option("n_batch is " + std::to_string(o.n_batch) + "; it is 1 to " + std::to_string(kMaxBatch));
    if (!o.pack && !o.pack_cache.empty()) return bad_option("pack_cache is '" + o.pack_cache + "', but nothing is packed (pack is false); leave one of them away");
    if (o.kv_type < KvType::f16 || o.kv_type > KvType::q4) return bad_option("kv_type is " + std::to_string(int(o.kv_type)) + "; it is f16, f32, two_tier, q8 or q4");
    if (o.kv_tail < -1 || o.kv_tail > kMaxTail) return bad_option("kv_tail is " + std::to_string(o.kv_tail) + "; it is -1 (the type's own) to " + std::to_string(kMaxTail));
    if (o.kv_tail >= 0 && (o.kv_type == KvType::f16 || o.kv_type == KvType::f32)) return bad_option("kv_tail is set, but this kv_type has no second tier; use two_tier, q8 or q4");
    if (o.n_gpu_layers < kGpuLayersAll) return bad_option("n_gpu_layers is " + std::to_string(o.n_gpu_layers) + "; it is a number of layers, kGpuLayersAuto (-1) or kGpuLayersAll (-2)");
    if (o.kv_sessions < 1 || o.kv_sessions > kMaxSessions) return bad_option("kv_sessions is " + std::to_string(o.kv_sessions) + "; it is 1 to " + std::to_string(kMaxSessions));
    if (o.kv_spare_tails < -1 || o.kv_spare_tails > static_cast<std::int32_t>(kMaxSessions)) return bad_option("kv_spare_tails is " + std::to_string(o.kv_spare_tails) + "; it is -1 (for most uses) to " + std::to_string(kMaxSessions));
    return {};
}

Result<std::uint32_t> feature_bits(const std::vector<std::string>& names) {
    std::uint32_t bits = 0;
    for (const std::string& name : names) {
        std::string known;
        std::uint32_t i = 0;
        for (; !vulkan::feature_name(i).empty() && vulkan::feature_name(i) != name; ++i) known += (known.empty() ? "" : ", ") + std::string(vulkan::feature_name(i));
        if (vulkan::feature_name(i).empty()) return bad_option("device_disable has '" + name + "'; features are " + known);
        bits |= 1u << i;
    }
    return bits;
}

/// The type that most of the model's bytes have.
std::string main_type(const gguf::File& f) {
    std::map<DType, std::uint64_t> bytes;
    for (const auto& t : f.tensors()) bytes[t.type] += t.data.size();
    const auto best = std::max_element(bytes.begin(), bytes.end(), [](auto& a, auto& b) { return a.second < b.second; });
    return best == bytes.end() ? "" : quern::info(best->first).name;
}

ModelInfo make_info(const gguf::File& f, const engine::Executor& e, bool has_template) {
    const engine::Hparams& h = e.hparams();
    ModelInfo i;
    i.architecture = h.arch->name;
    i.name = h.name;
    i.weight_type = main_type(f);
    for (const auto& t : f.tensors()) i.n_params += t.n_elements();
    i.file_size = f.file_size();
    i.n_vocab = h.n_vocab; i.n_ctx_train = h.n_ctx_train; i.n_embd = h.n_embd; i.n_layer = h.n_layer;
    i.n_head = h.max_head(); i.n_head_kv = h.max_head_kv(); i.head_dim = h.head_dim;
    i.n_ctx = e.n_ctx();
    i.isa = e.table().name;
    char cpu[64];
    i.cpu = kernels::cpu_name(cpu, sizeof cpu);
    i.n_threads = static_cast<int>(e.threads());
    i.n_threads_batch = static_cast<int>(e.threads_batch());
    i.n_batch = e.n_batch();
    i.has_chat_template = has_template;
    return i;
}

std::string scalar_text(const gguf::Value& v) {
    using T = gguf::ValueType;
    float f;
    double d;
    switch (v.type) {
        case T::string: return std::string(v.string);
        case T::array: return "[" + std::string(gguf::value_type_name(v.array.element)) + " x " + std::to_string(v.array.count) + "]";
        case T::boolean: return v.bits ? "true" : "false";
        case T::i8: return std::to_string(static_cast<std::int8_t>(v.bits));
        case T::i16: return std::to_string(static_cast<std::int16_t>(v.bits));
        case T::i32: return std::to_string(static_cast<std::int32_t>(v.bits));
        case T::i64: return std::to_string(static_cast<std::int64_t>(v.bits));
        case T::f32: { const auto u = static_cast<std::uint32_t>(v.bits); std::memcpy(&f, &u, 4); d = f; break; }
        case T::f64: std::memcpy(&d, &v.bits, 8); break;
        default: return std::to_string(v.bits);
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", d);
    return text;
}

/// "4 threads", "8 threads (prefill 12)", and whether they were measured.
std::string describe_threads(const ModelInfo& i) {
    std::string out = std::to_string(i.n_threads) + " threads";
    if (i.n_threads_batch != i.n_threads) out += ", " + std::to_string(i.n_threads_batch) + " for prefill";
    if (i.tuned) out += ", steps of " + std::to_string(i.n_batch) + " tokens, as measured";
    return out;
}

/// Row ranges need threads that know their nodes; where they are not placed, all nodes take part alike.
engine::Numa engine_numa(Numa asked, const engine::ThreadPlaces& places, const engine::Topology& topology) {
    if (asked == Numa::off) return {};
    if (asked == Numa::local && !places.nodes.empty()) return {engine::NumaMode::local, places.nodes};
    return {engine::NumaMode::interleave, places.nodes.empty() ? topology.nodes : places.nodes};
}

/// Tokenizer and chat template of the file; both may be absent, neither may be broken.
Status read_text_side(Model::Impl& m) {
    const gguf::File& f = *m.file;
    if (f.find("tokenizer.ggml.model")) {
        auto t = text::Tokenizer::create(f);
        if (!t) return std::move(t).error();
        m.tokenizer = std::move(*t);
    }
    if (f.find("tokenizer.chat_template")) {
        auto source = f.get_string("tokenizer.chat_template");
        if (!source) return std::move(source).error();
        auto t = text::jinja::Template::parse(*source);
        if (t) m.chat_template = std::move(*t);   // a template that cannot be parsed is reported when it is asked for
    }
    return {};
}

}  // namespace

PresetOptions preset_options(Preset p) noexcept {
    switch (p) {
        case Preset::chat_long: return {KvType::two_tier, 256, ContextPolicy::slide, false, 1};
        case Preset::document: return {KvType::q8, 0, ContextPolicy::stop, false};
        case Preset::code: return {KvType::q8, 0, ContextPolicy::stop, true};
        default: return {KvType::f16, -1, ContextPolicy::slide, false};
    }
}

const char* version() { return QUERN_VERSION; }

Status Model::Impl::need_tokenizer() const {
    if (tokenizer) return {};
    return Error{Errc::unsupported, file->path() + ": the file has no tokenizer (key 'tokenizer.ggml.model'); work with token ids"};
}

Result<Model> Model::load(const std::string& path, const ModelOptions& o) {
    if (auto s = check_options(o); !s) return std::move(s).error();
    auto env = engine::read_environment();
    if (!env) return std::move(env).error();
    const auto log = [&](LogLevel level, const std::string& text) { if (o.on_log) o.on_log(level, text); };

    auto impl = std::make_shared<Impl>();
    impl->on_log = o.on_log;
    auto file = gguf::File::open(path);
    if (!file) return std::move(file).error();
    impl->file.emplace(std::move(*file));
    if (o.pack_cache.empty())  // else most of it may not be needed
        for (const auto& m : impl->file->mappings()) m->will_need(0, m->bytes().size());
    if (auto s = read_text_side(*impl); !s) return std::move(s).error();

    const engine::Topology topology = engine::read_topology();
    engine::ExecutorOptions e;
    const int asked = o.n_threads ? o.n_threads : env->n_threads, asked_batch = o.n_threads_batch ? o.n_threads_batch : asked;
    e.n_threads = asked ? static_cast<std::uint32_t>(asked) : topology.n_threads;
    e.n_threads_batch = asked_batch ? static_cast<std::uint32_t>(asked_batch) : topology.n_threads_batch;
    e.places = engine::thread_places(topology, std::max(e.n_threads, e.n_threads_batch));
    e.numa = engine_numa(o.numa, e.places, topology);
    e.isa = o.isa.empty() ? env->isa : o.isa;
    e.memory_limit = o.memory_limit;
    e.n_ctx = o.n_ctx;
    e.allow_smaller_context = o.allow_smaller_context;
    e.prefix_cache = o.prefix_cache;
    e.kv_format = format_of(o.kv_type);
    e.kv_tail = o.kv_tail >= 0 ? static_cast<std::uint32_t>(o.kv_tail) : o.kv_type == KvType::two_tier ? 256 : 0;
    e.kv_sequences = o.kv_sessions;
    e.kv_spare_tails = o.kv_spare_tails;
    e.n_batch = o.n_batch;
    e.pack = o.pack;
    e.pack_cache = {o.pack_cache, [&](const std::string& text) { log(LogLevel::info, text); }};
    e.offload.n_layers = o.n_gpu_layers;
    e.offload.device.device = o.device;
    auto disabled = feature_bits(o.device_disable);
    if (!disabled) return std::move(disabled).error();
    e.offload.device.disable = *disabled;
    e.offload.device.cache_dir = o.cache_dir.empty() ? env->cache_dir : o.cache_dir;
    e.offload.device.log = o.on_log ? [on_log = o.on_log](const std::string& text) { on_log(LogLevel::info, text); } : std::function<void(const std::string&)>();
    e.log = [&](const std::string& text) { log(LogLevel::warning, text); };
    if (o.on_progress) e.progress = [&](std::uint64_t done, std::uint64_t total) { return o.on_progress({"packing weights", done, total}); };
    auto executor = engine::Executor::create(*impl->file, e);
    if (!executor) return std::move(executor).error();
    impl->executor = std::move(*executor);
    if (impl->tokenizer && impl->tokenizer->n_vocab() > impl->executor->hparams().n_vocab)
        return Error{Errc::bad_file, path + ": key 'tokenizer.ggml.tokens' has " + std::to_string(impl->tokenizer->n_vocab()) + " tokens, tensor 'token_embd.weight' only " + std::to_string(impl->executor->hparams().n_vocab) + " rows"};
    impl->info = make_info(*impl->file, *impl->executor, impl->chat_template != nullptr);
    if (!asked && !asked_batch && !impl->executor->offload().device) {   // what is measured is the CPU's
        const Status s = impl->settle_tuning(o, topology, o.cache_dir.empty() ? env->cache_dir : o.cache_dir);
        if (!s) log(LogLevel::warning, "thread counts were not measured: " + s.error().message);
    }
    log(LogLevel::info, impl->info.name + ": " + impl->info.architecture + ", " + impl->info.weight_type + ", kernels " + impl->info.isa + ", " + describe_threads(impl->info) + (asked ? "" : " (" + topology.reason + ")"));
    return Model(std::move(impl));
}

const ModelInfo& Model::info() const { return impl_->info; }

MemoryReport Model::Impl::memory_report() const {
    const engine::BackendMemory m = executor->memory();
    const engine::PagePool& pages = executor->pages();
    MemoryReport r;
    r.weights_packed = m.weights_packed;
    r.weights_mapped = m.weights_mapped;
    r.kv_kept = pages.n_kept() * pages.host_page_bytes();
    const engine::PagePool* exact = executor->exact_pages();
    if (exact) r.kv_kept += exact->n_kept() * exact->host_page_bytes();
    r.kv_capacity = pages.capacity_bytes() + (exact ? exact->capacity_bytes() : 0);
    r.kv_used = pages.used_bytes() + (exact ? exact->used_bytes() : 0);
    r.kv_bytes_per_token = pages.shape().page_bytes() / pages.shape().page_tokens;
    r.buffers = m.buffers;
    r.total = r.weights_packed + r.weights_mapped + r.kv_capacity + r.buffers;
    r.device = executor->device_bytes();
    return r;
}
MemoryReport Model::memory_report() const { return impl_->memory_report(); }

std::string MemoryReport::to_string() const {
    std::string out;
    const auto line = [&](const char* name, std::uint64_t bytes) {
        std::string size = engine::format_bytes(bytes), head = name;
        head.resize(24, ' ');
        out += head + std::string(size.size() < 12 ? 12 - size.size() : 0, ' ') + size + "\n";
    };
    line("weights, packed", weights_packed);
    line("weights, mapped", weights_mapped);
    line("KV cache, capacity", kv_capacity);
    line("  in use", kv_used);
    line("  kept for reuse", kv_kept);
    line("  a token", kv_bytes_per_token);
    line("buffers", buffers);
    line("total", total);
    if (device) line("on the device", device);
    return out;
}

std::optional<std::string> Model::metadata(std::string_view key) const {
    const gguf::Value* v = impl_->file->find(key);
    if (!v) return std::nullopt;
    return scalar_text(*v);
}

std::vector<std::string> Model::metadata_keys() const {
    std::vector<std::string> out;
    for (const auto& v : impl_->file->metadata()) out.emplace_back(v.key);
    return out;
}

Result<std::vector<Token>> Model::tokenize(std::string_view text, TokenizeOptions o) const {
    if (auto s = impl_->need_tokenizer(); !s) return std::move(s).error();
    engine::Stopwatch clock;
    auto tokens = impl_->tokenizer->encode(text, {.add_special = o.add_special, .parse_special = o.parse_special});
    impl_->texts.add(engine::Stage::tokenize, clock.seconds());
    return tokens;
}

Result<std::string> Model::token_text(Token token, bool special) const {
    if (auto s = impl_->need_tokenizer(); !s) return std::move(s).error();
    if (token < 0 || static_cast<std::uint32_t>(token) >= impl_->info.n_vocab)
        return bad_option("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(impl_->info.n_vocab));
    return std::string(impl_->tokenizer->piece(token, special));
}

Result<std::string> Model::detokenize(std::span<const Token> tokens, bool special) const {
    if (auto s = impl_->need_tokenizer(); !s) return std::move(s).error();
    return impl_->tokenizer->decode(tokens, special);
}

bool Model::is_end_of_generation(Token token) const { return impl_->tokenizer && impl_->tokenizer->is_end_of_generation(token); }

Result<Session> Model::new_session(std::uint32_t n_ctx) const {
    const std::uint32_t most = impl_->executor->n_ctx();
    if (n_ctx > most) return bad_option("a session of " + std::to_string(n_ctx) + " tokens is longer than the KV cache, which holds " + std::to_string(most) + "; load with a larger n_ctx");
    return Session(std::make_unique<Session::Impl>(impl_, n_ctx ? n_ctx : most));
}

Status Model::set_threads(int decode, int prefill) const {
    if (prefill == 0) prefill = decode;
    for (const int n : {decode, prefill})
        if (n < 1 || static_cast<std::uint32_t>(n) > impl_->executor->max_threads())
            return bad_option("n_threads is " + std::to_string(n) + "; this model was loaded with 1 to " + std::to_string(impl_->executor->max_threads()));
    impl_->executor->set_threads(static_cast<std::uint32_t>(decode), static_cast<std::uint32_t>(prefill));
    return {};
}

}  // namespace quern
