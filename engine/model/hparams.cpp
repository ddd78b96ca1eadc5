// SPDX-License-Identifier: Apache-2.0
#include "engine/model/hparams.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/arch/all.h"

namespace quern::engine {
namespace {

// Generous bounds: above anything published, small enough that no product of two of them wraps 64 bits.
constexpr std::uint64_t kMaxLayers = 4096, kMaxWidth = 1u << 24, kMaxHeads = 65536, kMaxContext = 1u << 30;

Error bad(const gguf::File& f, const std::string& what) { return {Errc::bad_file, f.path() + ": " + what}; }

/// Metadata under the architecture's prefix, range-checked; the first failure is kept and later reads give 0.
class Reader {
public:
    Reader(const gguf::File& f, std::string prefix) : f_(f), prefix_(std::move(prefix)) {}

    std::uint64_t uint(const char* key, std::uint64_t lo, std::uint64_t hi) {
        const std::string k = prefix_ + key;
        auto v = f_.get_uint(k);
        return check(k, std::move(v), lo, hi);
    }
    std::uint64_t uint_or(const char* key, std::uint64_t fallback, std::uint64_t lo, std::uint64_t hi) {
        return f_.find(prefix_ + key) ? uint(key, lo, hi) : fallback;
    }
    double real_or(const char* key, double fallback, double lo, double hi) {
        const std::string k = prefix_ + key;
        auto v = f_.get_float_or(k, fallback);
        if (!v) return fail(v.error());
        if (!(*v >= lo && *v <= hi))
            return fail(bad(f_, "key '" + k + "' is " + std::to_string(*v) + ", outside " + std::to_string(lo) + " to " + std::to_string(hi)));
        return *v;
    }
    std::string string_or(const char* key, const char* fallback) {
        auto v = f_.get_string_or(prefix_ + key, fallback);
        if (!v) { fail(v.error()); return {}; }
        return std::string(*v);
    }
    /// One number for all layers, or an array of one a layer.
    std::vector<std::uint32_t> per_layer(const char* key, std::uint64_t n_layer, std::uint64_t hi, const std::vector<std::uint32_t>* fallback) {
        const std::string k = prefix_ + key;
        const gguf::Value* v = f_.find(k);
        if (!v && fallback) return *fallback;
        if (!v || v->type != gguf::ValueType::array)
            return std::vector<std::uint32_t>(failed() ? 0 : n_layer, static_cast<std::uint32_t>(uint(key, 1, hi)));
        auto a = f_.get_int_array(k);
        if (!a) { fail(a.error()); return {}; }
        if (a->size() != n_layer) {
            fail(bad(f_, "key '" + k + "' has " + std::to_string(a->size()) + " entries for " + std::to_string(n_layer) + " layers"));
            return {};
        }
        std::vector<std::uint32_t> out;
        for (const std::int64_t x : *a) {
            if (x < 1 || static_cast<std::uint64_t>(x) > hi) {
                fail(bad(f_, "key '" + k + "' holds " + std::to_string(x) + ", outside 1 to " + std::to_string(hi)));
                return {};
            }
            out.push_back(static_cast<std::uint32_t>(x));
        }
        return out;
    }
    std::uint64_t fail(Error e) {
        if (!error_) error_ = std::move(e);
        return 0;
    }
    bool failed() const { return error_.has_value(); }
    const Error& error() const { return *error_; }

private:
    std::uint64_t check(const std::string& key, Result<std::uint64_t> v, std::uint64_t lo, std::uint64_t hi) {
        if (!v) return fail(v.error());
        if (*v < lo || *v > hi)
            return fail(bad(f_, "key '" + key + "' is " + std::to_string(*v) + ", outside " + std::to_string(lo) + " to " + std::to_string(hi)));
        return *v;
    }
    const gguf::File& f_;
    std::string prefix_;
    std::optional<Error> error_;
};

void read_rope(Reader& r, Hparams& h) {
    RopeParams& p = h.rope;
    p.n_rot = static_cast<std::uint32_t>(r.uint_or("rope.dimension_count", h.head_dim, 2, h.head_dim));
    if (!r.failed() && p.n_rot % 2) r.fail({Errc::bad_file, "key 'rope.dimension_count' is odd: " + std::to_string(p.n_rot)});
    p.freq_base = r.real_or("rope.freq_base", 10000.0, 1.0, 1e12);
    std::string type = r.string_or("rope.scaling.type", "none");
    p.factor = r.real_or("rope.scaling.factor", 1.0, 1e-3, 1e6);
    // Old files give linear scaling by its factor alone.
    if (const double old = r.real_or("rope.scale_linear", 0.0, 0.0, 1e6); old > 0 && type == "none") { type = "linear"; p.factor = old; }
    p.original_n_ctx = static_cast<double>(r.uint_or("rope.scaling.original_context_length", h.n_ctx_train, 1, kMaxContext));
    p.attn_factor = r.real_or("rope.scaling.attn_factor", 1.0, 1e-3, 1e3);
    p.beta_fast = r.real_or("rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6);
    p.beta_slow = r.real_or("rope.scaling.yarn_beta_slow", 1.0, 1e-6, 1e6);
    p.low_freq_factor = r.real_or("rope.scaling.low_freq_factor", 1.0, 1e-3, 1e6);
    p.high_freq_factor = r.real_or("rope.scaling.high_freq_factor", 4.0, 1e-3, 1e6);
    if (type == "none" || type.empty()) p.scaling = RopeScaling::none;
    else if (type == "linear") p.scaling = RopeScaling::linear;
    else if (type == "yarn") p.scaling = RopeScaling::yarn;
    else if (type == "llama3") p.scaling = RopeScaling::llama3;
    else r.fail({Errc::unsupported, "rope scaling '" + type + "' is not supported; known: none, linear, yarn, llama3"});
}

}  // namespace

const ArchSpec* find_arch(std::string_view name) {
    for (const ArchSpec* a : kArchs)
        if (name == a->name) return a;
    return nullptr;
}
std::span<const ArchSpec* const> all_archs() { return kArchs; }

std::uint32_t Hparams::max_head() const { return *std::max_element(n_head.begin(), n_head.end()); }
std::uint32_t Hparams::max_head_kv() const { return *std::max_element(n_head_kv.begin(), n_head_kv.end()); }
std::uint32_t Hparams::max_ff() const { return *std::max_element(n_ff.begin(), n_ff.end()); }

std::uint64_t Hparams::dim(Dim d, std::uint32_t layer) const {
    switch (d) {
        case Dim::one: return 1;
        case Dim::n_vocab: return n_vocab;
        case Dim::n_embd: return n_embd;
        case Dim::n_ff: return n_ff[layer];
        case Dim::head_dim: return head_dim;
        case Dim::rot_pairs: return rope.n_rot / 2;
        case Dim::q_rows: return std::uint64_t{n_head[layer]} * head_dim;
        case Dim::kv_rows: return std::uint64_t{n_head_kv[layer]} * head_dim;
    }
    return 0;
}

Result<Hparams> read_hparams(const gguf::File& f) {
    auto arch = f.get_string("general.architecture");
    if (!arch) return arch.error();
    Hparams h;
    h.arch = find_arch(*arch);
    if (!h.arch) {
        std::string known;
        for (const ArchSpec* a : kArchs) known += (known.empty() ? "" : ", ") + std::string(a->name);
        return Error{Errc::unsupported, f.path() + ": architecture '" + std::string(*arch) + "' is not supported; this build has: " + known};
    }
    auto name = f.get_string_or("general.name", "");
    if (!name) return name.error();
    h.name = *name;

    Reader r(f, std::string(*arch) + ".");
    h.n_layer = static_cast<std::uint32_t>(r.uint("block_count", 1, kMaxLayers));
    h.n_embd = static_cast<std::uint32_t>(r.uint("embedding_length", 1, kMaxWidth));
    h.n_ctx_train = static_cast<std::uint32_t>(r.uint("context_length", 1, kMaxContext));
    if (r.failed()) return r.error();
    h.n_head = r.per_layer("attention.head_count", h.n_layer, kMaxHeads, nullptr);
    h.n_head_kv = r.per_layer("attention.head_count_kv", h.n_layer, kMaxHeads, &h.n_head);
    h.n_ff = r.per_layer("feed_forward_length", h.n_layer, kMaxWidth, nullptr);
    h.rms_eps = static_cast<float>(r.real_or("attention.layer_norm_rms_epsilon", 1e-5, 0.0, 1.0));
    if (r.failed()) return r.error();
    if (h.n_embd % h.n_head[0] && !f.find(std::string(*arch) + ".attention.key_length"))
        return bad(f, "embedding_length " + std::to_string(h.n_embd) + " is not a multiple of head_count " + std::to_string(h.n_head[0]) + " and attention.key_length is absent");
    h.head_dim = static_cast<std::uint32_t>(r.uint_or("attention.key_length", h.n_embd / h.n_head[0], 1, 1024));
    const auto v_dim = r.uint_or("attention.value_length", h.head_dim, 1, 1024);
    h.window = static_cast<std::uint32_t>(r.uint_or("attention.sliding_window", 0, 0, kMaxContext));
    h.attn_scale = static_cast<float>(r.real_or("attention.scale", 0.0, 0.0, 1e6));
    if (r.failed()) return r.error();
    if (v_dim != h.head_dim)
        return Error{Errc::unsupported, f.path() + ": attention.value_length " + std::to_string(v_dim) + " differs from key_length " + std::to_string(h.head_dim) + ", which no supported architecture has"};
    if (h.head_dim % 8)
        return Error{Errc::unsupported, f.path() + ": head size " + std::to_string(h.head_dim) + " is not a multiple of 8"};
    if (h.attn_scale == 0.0f) h.attn_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(h.head_dim)));
    for (std::uint32_t l = 0; l < h.n_layer; ++l)
        if (h.n_head[l] % h.n_head_kv[l] || h.n_head[l] / h.n_head_kv[l] > 64)
            return bad(f, "layer " + std::to_string(l) + ": head_count " + std::to_string(h.n_head[l]) + " is not a multiple (up to 64) of head_count_kv " + std::to_string(h.n_head_kv[l]));
    read_rope(r, h);
    if (r.failed()) return Error{r.error().code, r.error().message.rfind(f.path(), 0) == 0 ? r.error().message : f.path() + ": " + r.error().message};

    // The embedding's rows are the vocabulary: the vocab_size key is often absent.
    const gguf::Tensor* embd = f.find_tensor("token_embd.weight");
    if (!embd) return bad(f, "tensor 'token_embd.weight' is missing");
    if (embd->ne[1] < 1 || embd->ne[1] > kMaxWidth) return bad(f, "tensor 'token_embd.weight' has " + std::to_string(embd->ne[1]) + " rows; a vocabulary has 1 to " + std::to_string(kMaxWidth));
    h.n_vocab = static_cast<std::uint32_t>(embd->ne[1]);
    return h;
}

void RopeAngles::table(double pos, float* cos_sin) const {
    for (std::size_t i = 0; i < freq.size(); ++i) {
        const double a = pos * freq[i];
        cos_sin[2 * i] = static_cast<float>(std::cos(a) * magnitude);
        cos_sin[2 * i + 1] = static_cast<float>(std::sin(a) * magnitude);
    }
}

RopeAngles rope_angles(const RopeParams& p, std::span<const float> freq_factors) {
    RopeAngles out;
    const double n_rot = p.n_rot;
    // Pair at which a wave turns `rotations` times within the original context (YaRN, appendix A.1).
    const auto correction = [&](double rotations) {
        return n_rot * std::log(p.original_n_ctx / (rotations * 2 * std::numbers::pi)) / (2 * std::log(p.freq_base));
    };
    const double low = std::max(0.0, std::floor(correction(p.beta_fast)));
    const double high = std::min(n_rot - 1, std::ceil(correction(p.beta_slow)));
    for (std::uint32_t i = 0; i < p.n_rot / 2; ++i) {
        double f = std::pow(p.freq_base, -2.0 * i / n_rot);
        if (i < freq_factors.size()) f /= static_cast<double>(freq_factors[i]);
        switch (p.scaling) {
            case RopeScaling::none: break;
            case RopeScaling::linear: f /= p.factor; break;
            case RopeScaling::yarn: {
                const double ramp = 1 - std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
                f = f / p.factor * (1 - ramp) + f * ramp;
                break;
            }
            case RopeScaling::llama3: {
                const double wave = 2 * std::numbers::pi / f;
                const double smooth = (p.original_n_ctx / wave - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor);
                const double s = std::clamp(smooth, 0.0, 1.0);
                f = (1 - s) * f / p.factor + s * f;
                break;
            }
        }
        out.freq.push_back(f);
    }
    out.magnitude = p.scaling == RopeScaling::yarn && p.factor > 1 ? p.attn_factor * (1.0 + 0.1 * std::log(p.factor)) : 1.0;
    return out;
}

}  // namespace quern::engine
