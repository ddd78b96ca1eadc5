// SPDX-License-Identifier: Apache-2.0
// The C interface over the C++ one. Nothing is decided here: each function checks pointers, converts, and forwards.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/api/quern_c.h"

struct quern_session {
    quern::Session session;
};
struct quern_sampler {
    quern::Sampler sampler;
};

namespace {

using namespace quern::c_api;
using quern::Errc;
using quern::Error;
using quern::Status;

static_assert(std::is_same_v<quern_token, quern::Token>);
static_assert(QUERN_INVALID_ARGUMENT == int(Errc::invalid_argument) && QUERN_IO == int(Errc::io) &&
              QUERN_BAD_FILE == int(Errc::bad_file) && QUERN_UNSUPPORTED == int(Errc::unsupported) &&
              QUERN_OUT_OF_MEMORY == int(Errc::out_of_memory) && QUERN_CANCELLED == int(Errc::cancelled) &&
              QUERN_CONTEXT_FULL == int(Errc::context_full) && QUERN_INTERNAL == int(Errc::internal) &&
              QUERN_QUEUE_FULL == int(Errc::queue_full) && QUERN_DEADLINE_EXCEEDED == int(Errc::deadline_exceeded) &&
              QUERN_DEVICE_LOST == int(Errc::device_lost));
static_assert(QUERN_NUMA_OFF == int(quern::Numa::off) && QUERN_NUMA_INTERLEAVE == int(quern::Numa::interleave) &&
              QUERN_NUMA_LOCAL == int(quern::Numa::local));
static_assert(QUERN_TUNE_OFF == int(quern::Tune::off) && QUERN_TUNE_CACHED == int(quern::Tune::cached) &&
              QUERN_TUNE_AUTOMATIC == int(quern::Tune::automatic) && QUERN_TUNE_FORCE == int(quern::Tune::force));
static_assert(QUERN_KV_F16 == int(quern::KvType::f16) && QUERN_KV_F32 == int(quern::KvType::f32) &&
              QUERN_KV_TWO_TIER == int(quern::KvType::two_tier) && QUERN_KV_Q8 == int(quern::KvType::q8) &&
              QUERN_KV_Q4 == int(quern::KvType::q4));
static_assert(QUERN_LOG_DEBUG == int(quern::LogLevel::debug) && QUERN_LOG_ERROR == int(quern::LogLevel::error));
static_assert(QUERN_PRESET_CHAT_SHORT == int(quern::Preset::chat_short) && QUERN_PRESET_CODE == int(quern::Preset::code));
static_assert(QUERN_CONTEXT_STOP == int(quern::ContextPolicy::stop) &&
              QUERN_CONTEXT_SLIDE == int(quern::ContextPolicy::slide) &&
              QUERN_CONTEXT_COMPRESS == int(quern::ContextPolicy::compress));
static_assert(QUERN_STOP_END_OF_GENERATION == int(quern::StopReason::end_of_generation) &&
              QUERN_STOP_MAX_TOKENS == int(quern::StopReason::max_tokens) &&
              QUERN_STOP_STRING == int(quern::StopReason::stop_string) &&
              QUERN_STOP_CONTEXT_FULL == int(quern::StopReason::context_full) &&
              QUERN_STOP_CANCELLED == int(quern::StopReason::cancelled));

quern_model_options default_model_options() {
    const quern::ModelOptions d;
    quern_model_options o{};
    o.size = sizeof o;
    o.n_threads = d.n_threads;
    o.n_threads_batch = d.n_threads_batch;
    o.numa = static_cast<std::int32_t>(d.numa);
    o.tune = static_cast<std::int32_t>(d.tune);
    o.n_ctx = d.n_ctx;
    o.n_batch = d.n_batch;
    o.kv_type = static_cast<std::int32_t>(d.kv_type);
    o.memory_limit = d.memory_limit;
    o.allow_smaller_context = d.allow_smaller_context;
    o.pack = d.pack;
    o.prefix_cache = d.prefix_cache;
    o.kv_tail = d.kv_tail;
    o.kv_sessions = d.kv_sessions;
    o.kv_spare_tails = d.kv_spare_tails;
    o.n_gpu_layers = d.n_gpu_layers;
    return o;
}

quern_chat_options default_chat_options() {
    quern_chat_options o{};
    o.size = sizeof o;
    o.add_generation_prompt = quern::ChatOptions{}.add_generation_prompt;
    return o;
}

quern_sampler_options default_sampler_options() {
    const quern::SamplerOptions d;
    quern_sampler_options o{};
    o.size = sizeof o;
    o.temperature = d.temperature;
    o.top_k = d.top_k;
    o.top_p = d.top_p;
    o.min_p = d.min_p;
    o.typical_p = d.typical_p;
    o.repeat_penalty = d.repeat_penalty;
    o.frequency_penalty = d.frequency_penalty;
    o.presence_penalty = d.presence_penalty;
    o.penalty_last_n = d.penalty_last_n;
    o.seed = d.seed;
    return o;
}

quern_generate_options default_generate_options() {
    quern_generate_options o{};
    o.size = sizeof o;
    const quern::GenerateOptions d;
    o.max_tokens = d.max_tokens;
    o.context_policy = static_cast<std::int32_t>(d.context_policy);
    o.context_keep = d.context_keep;
    o.context_overlap = d.context_overlap;
    return o;
}

Status convert(const quern_model_options* in, quern::ModelOptions& out) {
    quern_model_options o = default_model_options();
    if (Status s = read_struct(in, o, "quern_model_options"); !s) return s;
    out.n_threads = o.n_threads;
    out.n_threads_batch = o.n_threads_batch;
    out.numa = static_cast<quern::Numa>(o.numa);
    out.tune = static_cast<quern::Tune>(o.tune);
    out.cache_dir = or_empty(o.cache_dir);
    out.n_ctx = o.n_ctx;
    out.n_batch = o.n_batch;
    out.kv_type = static_cast<quern::KvType>(o.kv_type);
    out.memory_limit = o.memory_limit;
    out.allow_smaller_context = o.allow_smaller_context != 0;
    out.isa = or_empty(o.isa);
    out.pack = o.pack != 0;
    out.prefix_cache = o.prefix_cache != 0;
    out.kv_tail = o.kv_tail;
    out.kv_sessions = o.kv_sessions;
    out.kv_spare_tails = o.kv_spare_tails;
    out.n_gpu_layers = o.n_gpu_layers;
    out.device = or_empty(o.device);
    out.pack_cache = or_empty(o.pack_cache);
    if (o.on_progress != nullptr) {
        out.on_progress = [o](const quern::LoadProgress& p) {
            return o.on_progress(p.stage, p.done, p.total, o.user) != 0;
        };
    }
    if (o.on_log != nullptr) {
        out.on_log = [o](quern::LogLevel level, std::string_view text) {
            o.on_log(static_cast<std::int32_t>(level), std::string(text).c_str(), o.user);
        };
    }
    return {};
}

Status convert(const quern_chat_options* in, quern::ChatOptions& out) {
    quern_chat_options o = default_chat_options();
    if (Status s = read_struct(in, o, "quern_chat_options"); !s) return s;
    out.tools_json = or_empty(o.tools_json);
    out.variables_json = or_empty(o.variables_json);
    out.chat_template = or_empty(o.chat_template);
    out.add_generation_prompt = o.add_generation_prompt != 0;
    return {};
}

Status convert(const quern_sampler_options* in, quern::SamplerOptions& out) {
    quern_sampler_options o = default_sampler_options();
    if (Status s = read_struct(in, o, "quern_sampler_options"); !s) return s;
    if (o.logit_bias == nullptr && o.n_logit_bias != 0) return null_argument("quern_sampler_options.logit_bias");
    out.temperature = o.temperature;
    out.top_k = o.top_k;
    out.top_p = o.top_p;
    out.min_p = o.min_p;
    out.typical_p = o.typical_p;
    out.repeat_penalty = o.repeat_penalty;
    out.frequency_penalty = o.frequency_penalty;
    out.presence_penalty = o.presence_penalty;
    out.penalty_last_n = o.penalty_last_n;
    out.seed = o.seed;
    for (std::size_t i = 0; i < o.n_logit_bias; ++i)
        out.logit_bias.emplace_back(o.logit_bias[i].token, o.logit_bias[i].bias);
    return {};
}

}  // namespace

Status quern::c_api::convert(const quern_generate_options* in, GenerateOptions& out) {
    quern_generate_options o = default_generate_options();
    if (Status s = read_struct(in, o, "quern_generate_options"); !s) return s;
    if (Status s = ::convert(o.sampler, out.sampler); !s) return s;
    if (o.stop == nullptr && o.n_stop != 0) return null_argument("quern_generate_options.stop");
    out.max_tokens = o.max_tokens;
    for (std::size_t i = 0; i < o.n_stop; ++i) {
        if (o.stop[i] == nullptr) return null_argument(cat("quern_generate_options.stop[", i, "]"));
        out.stop.emplace_back(o.stop[i]);
    }
    out.ignore_end_of_generation = o.ignore_end_of_generation != 0;
    out.lookup = o.lookup != 0;
    out.context_policy = static_cast<quern::ContextPolicy>(o.context_policy);
    out.context_keep = o.context_keep;
    out.context_overlap = o.context_overlap;
    if (o.on_slide != nullptr) {
        out.on_slide = [o](std::uint32_t dropped, std::uint32_t left) { o.on_slide(dropped, left, o.user); };
    }
    if (o.on_text != nullptr) {
        out.on_text = [o](std::string_view text) {
            return o.on_text(std::string(text).c_str(), text.size(), o.user) != 0;
        };
    }
    if (o.on_prefill != nullptr) {
        out.on_prefill = [o](std::uint32_t done, std::uint32_t total) {
            return o.on_prefill(done, total, o.user) != 0;
        };
    }
    return {};
}

const char* quern_version(void) { return quern::version(); }

const char* quern_status_name(int status) {
    static constexpr const char* names[] = {
        "ok",        "invalid_argument", "io",       "bad_file",   "unsupported",      "out_of_memory",
        "cancelled", "context_full",     "internal", "queue_full", "deadline_exceeded", "device_lost"};
    const auto i = static_cast<std::size_t>(status);
    return i < std::size(names) ? names[i] : "unknown";
}

void quern_free(void* memory) { std::free(memory); }

// ---- Model ----

void quern_model_options_init(quern_model_options* options, size_t struct_size) {
    init_struct(options, struct_size, default_model_options());
}

quern_status quern_model_load(const char* path, const quern_model_options* options, quern_model** out,
                              quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(path);
        quern::ModelOptions o;
        if (Status s = convert(options, o); !s) return s;
        auto model = quern::Model::load(path, o);
        if (!model) return std::move(model).error();
        auto keys = model->metadata_keys();
        *out = new quern_model{*std::move(model), std::move(keys)};
        return {};
    });
}

void quern_model_free(quern_model* model) { delete model; }

quern_status quern_model_get_info(const quern_model* model, quern_model_info* out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(model);
        const quern::ModelInfo& i = model->model.info();
        quern_model_info c{};
        c.architecture = i.architecture.c_str();
        c.name = i.name.c_str();
        c.weight_type = i.weight_type.c_str();
        c.isa = i.isa.c_str();
        c.cpu = i.cpu.c_str();
        c.n_params = i.n_params;
        c.file_size = i.file_size;
        c.n_vocab = i.n_vocab;
        c.n_ctx_train = i.n_ctx_train;
        c.n_embd = i.n_embd;
        c.n_layer = i.n_layer;
        c.n_head = i.n_head;
        c.n_head_kv = i.n_head_kv;
        c.head_dim = i.head_dim;
        c.n_ctx = i.n_ctx;
        c.n_threads = i.n_threads;
        c.n_threads_batch = i.n_threads_batch;
        c.n_batch = i.n_batch;
        c.tuned = i.tuned;
        c.has_chat_template = i.has_chat_template;
        return write_struct(out, c, "quern_model_info");
    });
}

quern_status quern_model_get_memory(const quern_model* model, quern_memory_report* out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(model);
        const quern::MemoryReport r = model->model.memory_report();
        return write_struct(out,
                            quern_memory_report{0, r.weights_packed, r.weights_mapped, r.kv_capacity, r.kv_used,
                                                r.kv_bytes_per_token, r.buffers, r.total, r.kv_kept},
                            "quern_memory_report");
    });
}

quern_status quern_model_memory_text(const quern_model* model, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(model);
        *out = copy_out(model->model.memory_report().to_string());
        return {};
    });
}

quern_status quern_model_metadata(const quern_model* model, const char* key, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(model);
        QUERN_NEED(key);
        if (const auto value = model->model.metadata(key)) *out = copy_out(*value);
        return {};
    });
}

const char* quern_model_metadata_key(const quern_model* model, size_t index) {
    return model != nullptr && index < model->keys.size() ? model->keys[index].c_str() : nullptr;
}

quern_status quern_model_set_threads(const quern_model* model, int32_t n_threads, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(model);
        return model->model.set_threads(n_threads);
    });
}

quern_status quern_model_tune(const quern_model* model, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(model);
        const auto found = model->model.tune();
        return found ? Status() : Status(found.error());
    });
}

// ---- Text ----

namespace {

/// Hands a result of text or tokens to the caller.
template <class T>
Status hand_out(const T& result, auto** out, std::size_t* n_out) {
    if (!result) return result.error();
    *out = copy_out(result->data(), result->size());
    if (n_out != nullptr) *n_out = result->size();
    return {};
}

}  // namespace

quern_status quern_tokenize(const quern_model* model, const char* text, size_t n_bytes, int add_special,
                            int parse_special, quern_token** out, size_t* n_out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        QUERN_NEED(n_out);
        *out = nullptr, *n_out = 0;
        QUERN_NEED(model);
        if (n_bytes != 0) QUERN_NEED(text);
        return hand_out(model->model.tokenize({text, n_bytes}, {add_special != 0, parse_special != 0}), out, n_out);
    });
}

quern_status quern_detokenize(const quern_model* model, const quern_token* tokens, size_t n_tokens, int special,
                              char** out, size_t* n_out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        if (n_out != nullptr) *n_out = 0;
        QUERN_NEED(model);
        if (n_tokens != 0) QUERN_NEED(tokens);
        return hand_out(model->model.detokenize({tokens, n_tokens}, special != 0), out, n_out);
    });
}

int quern_is_end_of_generation(const quern_model* model, quern_token token) {
    return model != nullptr && model->model.is_end_of_generation(token);
}

void quern_chat_options_init(quern_chat_options* options, size_t struct_size) {
    init_struct(options, struct_size, default_chat_options());
}

quern_status quern_render_chat(const quern_model* model, const char* messages_json, const quern_chat_options* options,
                               char** out, size_t* n_out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        if (n_out != nullptr) *n_out = 0;
        QUERN_NEED(model);
        QUERN_NEED(messages_json);
        quern::ChatOptions o;
        if (Status s = convert(options, o); !s) return s;
        return hand_out(model->model.render_chat(messages_json, o), out, n_out);
    });
}

quern_status quern_tokenize_chat(const quern_model* model, const char* messages_json, const quern_chat_options* options,
                                 quern_token** out, size_t* n_out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        QUERN_NEED(n_out);
        *out = nullptr, *n_out = 0;
        QUERN_NEED(model);
        QUERN_NEED(messages_json);
        quern::ChatOptions o;
        if (Status s = convert(options, o); !s) return s;
        return hand_out(model->model.tokenize_chat(messages_json, o), out, n_out);
    });
}

// ---- Sampler ----

void quern_sampler_options_init(quern_sampler_options* options, size_t struct_size) {
    init_struct(options, struct_size, default_sampler_options());
}

quern_status quern_sampler_new(const quern_sampler_options* options, uint32_t n_vocab, quern_sampler** out,
                               quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        quern::SamplerOptions o;
        if (Status s = convert(options, o); !s) return s;
        auto sampler = quern::Sampler::create(o, n_vocab);
        if (!sampler) return std::move(sampler).error();
        *out = new quern_sampler{*std::move(sampler)};
        return {};
    });
}

void quern_sampler_free(quern_sampler* sampler) { delete sampler; }

quern_status quern_sampler_sample(quern_sampler* sampler, const float* logits, size_t n_logits, quern_token* out,
                                  quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = 0;
        QUERN_NEED(sampler);
        QUERN_NEED(logits);
        const auto token = sampler->sampler.sample({logits, n_logits});
        if (!token) return token.error();
        *out = *token;
        return {};
    });
}

void quern_sampler_accept(quern_sampler* sampler, quern_token token) {
    if (sampler != nullptr) sampler->sampler.accept(token);
}

void quern_sampler_reset(quern_sampler* sampler) {
    if (sampler != nullptr) sampler->sampler.reset();
}

// ---- Session ----

quern_status quern_session_new(const quern_model* model, uint32_t n_ctx, quern_session** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(model);
        auto session = model->model.new_session(n_ctx);
        if (!session) return std::move(session).error();
        *out = new quern_session{*std::move(session)};
        return {};
    });
}

void quern_session_free(quern_session* session) { delete session; }

quern_status quern_session_decode(quern_session* session, const quern_token* tokens, size_t n_tokens,
                                  quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(session);
        if (n_tokens != 0) QUERN_NEED(tokens);
        return session->session.decode({tokens, n_tokens});
    });
}

quern_status quern_session_decode_all(quern_session* session, const quern_token* tokens, size_t n_tokens, float** out,
                                      quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(session);
        if (n_tokens != 0) QUERN_NEED(tokens);
        std::vector<float> logits;
        if (Status s = session->session.decode_all({tokens, n_tokens}, logits); !s) return s;
        *out = copy_out(logits.data(), logits.size());
        return {};
    });
}

const float* quern_session_logits(const quern_session* session, size_t* n_out) {
    const auto logits = session != nullptr ? session->session.logits() : std::span<const float>{};
    if (n_out != nullptr) *n_out = logits.size();
    return logits.empty() ? nullptr : logits.data();
}

const quern_token* quern_session_tokens(const quern_session* session, size_t* n_out) {
    const auto tokens = session != nullptr ? session->session.tokens() : std::span<const quern_token>{};
    if (n_out != nullptr) *n_out = tokens.size();
    return tokens.empty() ? nullptr : tokens.data();
}

uint32_t quern_session_n_ctx(const quern_session* session) { return session != nullptr ? session->session.n_ctx() : 0; }

quern_status quern_session_truncate(quern_session* session, uint32_t n_tokens, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(session);
        return session->session.truncate(n_tokens);
    });
}

quern_status quern_session_fork(const quern_session* session, quern_session** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(session);
        auto fork = session->session.fork();
        if (!fork) return std::move(fork).error();
        *out = new quern_session{*std::move(fork)};
        return {};
    });
}

quern_status quern_session_save(const quern_session* session, const char* path, const char* note, size_t n_note,
                                quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(session);
        QUERN_NEED(path);
        if (n_note != 0) QUERN_NEED(note);
        return session->session.save(path, {note, n_note});
    });
}

quern_status quern_session_restore(quern_session* session, const char* path, char** note, size_t* n_note,
                                   quern_error* error) {
    return guarded(error, [&]() -> Status {
        if (note != nullptr) *note = nullptr;
        if (n_note != nullptr) *n_note = 0;
        QUERN_NEED(session);
        QUERN_NEED(path);
        std::string text;
        if (Status s = session->session.restore(path, &text); !s) return s;
        if (note != nullptr) *note = copy_out(text);
        if (n_note != nullptr) *n_note = text.size();
        return {};
    });
}

quern_status quern_session_use_draft(quern_session* session, const quern_model* draft, uint32_t n_tokens,
                                     quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(session);
        QUERN_NEED(draft);
        return session->session.use_draft(draft->model, {.n_tokens = n_tokens});
    });
}

quern_status quern_session_metrics(const quern_session* session, int json, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(session);
        const quern::Metrics m = session->session.metrics();
        *out = copy_out(json != 0 ? m.to_json() : m.to_string());
        return {};
    });
}

void quern_session_cancel(quern_session* session) {
    if (session != nullptr) session->session.cancel();
}

void quern_generate_options_init(quern_generate_options* options, size_t struct_size) {
    init_struct(options, struct_size, default_generate_options());
}

quern_status quern_preset(int32_t preset, quern_preset_options* out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        if (preset < QUERN_PRESET_CHAT_SHORT || preset > QUERN_PRESET_CODE)
            return Error{Errc::invalid_argument, quern::cat("preset is ", preset, "; it is one of QUERN_PRESET_...")};
        const quern::PresetOptions p = quern::preset_options(static_cast<quern::Preset>(preset));
        quern_preset_options o{};
        o.kv_type = int(p.kv_type);
        o.kv_tail = p.kv_tail;
        o.context_policy = int(p.context_policy);
        o.lookup = p.lookup;
        o.kv_spare_tails = p.kv_spare_tails;
        return write_struct(out, o, "quern_preset_options");
    });
}

quern_status quern::c_api::write_result(quern_generate_result* out, quern_error* error,
                                        const std::function<Result<GenerateResult>()>& answer) noexcept {
    quern_generate_result c{};
    const quern_status status = guarded(error, [&]() -> Status {
        if (Status s = write_struct(out, c, "quern_generate_result"); !s) return s;
        const Result<GenerateResult> result = answer();
        if (!result) return result.error();
        c.text = copy_out(result->text);
        c.n_text = result->text.size();
        c.tokens = copy_out(result->tokens.data(), result->tokens.size());
        c.n_tokens = result->tokens.size();
        if (result->stop_reason == quern::StopReason::stop_string) c.stop_string = copy_out(result->stop_string);
        c.stop_reason = static_cast<std::int32_t>(result->stop_reason);
        c.n_prompt = result->n_prompt;
        c.n_reused = result->n_reused;
        c.n_guessed = result->n_guessed;
        c.n_accepted = result->n_accepted;
        c.n_dropped = result->n_dropped;
        c.n_generated = result->n_generated;
        c.prompt_seconds = result->prompt_seconds;
        c.generate_seconds = result->generate_seconds;
        c.first_token_seconds = result->first_token_seconds;
        return write_struct(out, c, "quern_generate_result");
    });
    if (status != QUERN_OK) {  // out of memory on the way
        std::free(c.text);
        std::free(c.tokens);
        std::free(c.stop_string);
    }
    return status;
}

quern_status quern_session_generate(quern_session* session, const quern_token* prompt, size_t n_prompt,
                                    const quern_generate_options* options, quern_generate_result* out,
                                    quern_error* error) {
    return write_result(out, error, [&]() -> quern::Result<quern::GenerateResult> {
        QUERN_NEED(session);
        if (n_prompt != 0) QUERN_NEED(prompt);
        quern::GenerateOptions o;
        if (Status s = convert(options, o); !s) return s.error();
        return session->session.generate({prompt, n_prompt}, o);
    });
}

void quern_generate_result_clear(quern_generate_result* result) {
    if (result == nullptr || result->size < offsetof(quern_generate_result, stop_reason)) return;
    std::free(result->text);
    std::free(result->tokens);
    std::free(result->stop_string);
    init_struct(result, result->size, quern_generate_result{});
}
