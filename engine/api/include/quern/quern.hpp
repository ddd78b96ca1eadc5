// SPDX-License-Identifier: Apache-2.0
// Quern: run GGUF language models in your program. This is the whole C++ interface (docs/embedding.md has examples).
//
// Nothing here aborts, prints, or keeps global state; errors come back as values. A Model may be shared by threads; a
// Session belongs to one thread at a time. Handles are cheap to move; a Session keeps its Model alive.
#ifndef QUERN_QUERN_HPP
#define QUERN_QUERN_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quern/device.hpp"
#include "quern/metrics.hpp"
#include "quern/result.hpp"

namespace quern {

/// Version of this header and of the library, "major.minor.patch".
#define QUERN_VERSION "0.1.0"
const char* version();

using Token = std::int32_t;

enum class LogLevel { debug, info, warning, error };

struct LoadProgress {
    const char* stage;           ///< "packing weights", ...
    std::uint64_t done, total;   ///< bytes
};

/// Number format of the KV cache. q8 and q4 round whole groups of 32 tokens to 8 and 4 bits; two_tier is q4 with the newest
/// 256 tokens kept as f16 (ModelOptions::kv_tail).
enum class KvType { f16, f32, two_tier, q8, q4 };

/// Which NUMA node holds the weights packed at load; without effect on a machine with one node, and on weights that are
/// used from a file (pack false, or a pack cache that is there). The KV cache is interleaved but for off.
enum class Numa {
    off,         ///< as the system places pages
    interleave,  ///< pages from all nodes in turn
    local,       ///< each matrix cut by rows, a stretch a node, which the threads of that node do first
};

/// Where thread counts and n_batch come from when the caller gives no thread counts. Never changes a result.
enum class Tune {
    off,        ///< one thread a core as ModelOptions::n_threads says; n_batch as given
    cached,     ///< as measured and kept by an earlier run on this machine; as with off where there was none
    /// The same, but measures where there was none (less than 2 s) and keeps what it found, unless other programs keep
    /// the CPUs busy.
    automatic,
    force,      ///< measures anew
};

struct ModelOptions {
    /// Threads that write tokens. 0: one a physical core this process may use (affinity mask, cgroup quota), slower
    /// cores of a machine with two kinds left out.
    int n_threads = 0;
    int n_threads_batch = 0;             ///< threads that read prompts; 0: as n_threads if given, else slower cores join
    std::string isa = {};                ///< "": the best the CPU has; else "avx2", ...: docs/embedding.md
    std::uint64_t memory_limit = 0;      ///< bytes for weights, KV cache and buffers together; 0: none
    std::uint32_t n_ctx = 0;             ///< tokens the KV cache holds for all sessions together; 0: the model's own
    bool allow_smaller_context = false;  ///< shrink n_ctx rather than refuse when memory_limit is too small
    KvType kv_type = KvType::f16;
    /// Keeps what the KV cache holds of texts that sessions have read until its memory is wanted, the least recently used
    /// going first: a session that begins with the same tokens does not run them again. The results are the same bits. false
    /// where who shares the Model must not learn, from how fast a prompt is read, what others have asked.
    bool prefix_cache = true;
    /// two_tier, q8, q4: the newest tokens that stay f16, at least (up to 31 more wait for their group of 32 to be full).
    /// -1: the type's own, 256 for two_tier and 0 for q8 and q4.
    std::int32_t kv_tail = -1;
    std::uint32_t kv_sessions = 1;       ///< two_tier, q8, q4: sessions whose f16 tokens there is room for at once
    /// two_tier, q8, q4, with prefix_cache: room for f16 tails that no session holds any more. A text that goes back by more than
    /// 16 tokens, to where an answer began, say, finds the tail there or is read again from its start. -1: 0 with
    /// kv_sessions 1, 1 with 2, 2 with more.
    std::int32_t kv_spare_tails = -1;
    std::uint32_t n_batch = 512;         ///< most tokens a step of prefill takes (1 to 4096)
    /// false: weights are used from the file's mapping and rearranged at each use. Loading is instant and the file's pages
    /// are all the memory weights take, shared with other processes; each token costs several times as much, long prompts
    /// little more. The results are the same.
    bool pack = true;
    /// A folder (made if need be) where packed weights are kept: the first load writes a file as large as the model, later
    /// ones map it instead of packing. One that is damaged, or not of this model file, is replaced; on_log says so. "": none.
    std::string pack_cache = {};
    Numa numa = Numa::interleave;
    Tune tune = Tune::off;
    std::string cache_dir = {};          ///< where tune and devices keep files; "": $XDG_CACHE_HOME/quern or ~/.cache/quern
    /// Layers, from the last, that a GPU runs, with the output: a number (all if larger), kGpuLayersAuto or kGpuLayersAll.
    std::int32_t n_gpu_layers = 0;
    /// Which GPU: an index of list_devices() or a part of a name. "": a discrete one, else another; never a CPU device.
    std::string device = {};
    /// Features of the device (DeviceInfo::features) that are not used: for drivers that get them wrong.
    std::vector<std::string> device_disable = {};
    /// Called while loading; return false to cancel (Errc::cancelled).
    std::function<bool(const LoadProgress&)> on_progress = {};
    /// Messages for a person; silent when empty. Called from load(), and by a Batcher with AdaptOptions from its steps.
    std::function<void(LogLevel, std::string_view)> on_log = {};
};

struct ModelInfo {
    std::string architecture, name, weight_type;  ///< "llama", "SmolLM2 135M Instruct", "Q4_1"
    std::uint64_t n_params = 0, file_size = 0;    ///< values in all tensors; bytes
    std::uint32_t n_vocab = 0, n_ctx_train = 0, n_embd = 0, n_layer = 0, n_head = 0, n_head_kv = 0, head_dim = 0;
    std::uint32_t n_ctx = 0;                      ///< tokens the KV cache holds (ModelOptions::n_ctx after any shrinking)
    std::string isa, cpu;                         ///< kernels in use; the CPU's own name
    int n_threads = 0, n_threads_batch = 0;       ///< in use after load, as is n_batch
    std::uint32_t n_batch = 0;
    bool tuned = false;                           ///< these three were measured, now or in an earlier run
    bool has_chat_template = false;
};

/// Bytes, by purpose. `total` is what memory_limit is compared with.
struct MemoryReport {
    std::uint64_t weights_packed = 0;      ///< rearranged copies that the kernels read
    std::uint64_t weights_mapped = 0;      ///< read straight from the file's mapping
    std::uint64_t kv_capacity = 0, kv_used = 0;
    std::uint64_t kv_kept = 0;             ///< of kv_capacity, beside kv_used: texts kept for reuse, given up when wanted
    std::uint64_t kv_bytes_per_token = 0;
    std::uint64_t buffers = 0;             ///< activations, logits, per-thread scratch
    std::uint64_t total = 0;               ///< packed + mapped + kv_capacity + buffers
    std::uint64_t device = 0;              ///< beside that, on a GPU: all that its layers need
    std::string to_string() const;         ///< a table for a person
};

struct TokenizeOptions {
    bool add_special = false;    ///< add BOS or EOS where the model's file asks for it
    bool parse_special = false;  ///< "<|im_end|>" in the text becomes that token; keep false for text of users
};

struct ChatOptions {
    std::string tools_json = {};        ///< JSON array of tools, "" for none
    std::string variables_json = {};    ///< JSON object of further template variables
    std::string chat_template = {};     ///< "" for the model's own
    bool add_generation_prompt = true;
};

/// A sampler chain: penalties, logit bias, top-k, typical, top-p, min-p, temperature, then a draw.
struct SamplerOptions {
    float temperature = 0.8f;        ///< 0: greedy
    std::int32_t top_k = 40;         ///< 0: off
    float top_p = 0.95f;             ///< 1: off
    float min_p = 0.05f;             ///< 0: off
    float typical_p = 1.0f;          ///< 1: off (arXiv 2202.00666)
    float repeat_penalty = 1.0f;     ///< 1: off (arXiv 1909.05858)
    float frequency_penalty = 0.0f, presence_penalty = 0.0f;
    std::int32_t penalty_last_n = 64;    ///< tokens looked back at; -1: all
    std::uint64_t seed = 0;              ///< same seed, same text
    std::vector<std::pair<Token, float>> logit_bias = {};
};

enum class StopReason { end_of_generation, max_tokens, stop_string, context_full, cancelled };
const char* to_string(StopReason);

/// What happens when the context is full. stop: generation ends with StopReason::context_full. slide: the older part of the
/// text is dropped and the rest run again, at its new positions, which costs what a prompt of that length costs. compress: the
/// same, but what is dropped are blocks of 32 tokens that the newest 16 attend to least (the idea of SnapKV, arXiv 2404.14469),
/// so that a passage far back which matters now outlives what lies around it; the newest 32 stay anyhow.
enum class ContextPolicy { stop, slide, compress };

struct GenerateOptions {
    SamplerOptions sampler = {};
    std::int64_t max_tokens = -1;         ///< -1: until the model ends or the context is full
    std::vector<std::string> stop = {};   ///< text that ends the answer; it is not part of the result
    bool ignore_end_of_generation = false;
    /// Tries tokens that followed the same words earlier in the text, several a step. The result is the same, token for
    /// token, whatever the sampler; only the time differs. Switches itself off where it loses. Takes 16 x n_vocab floats.
    bool lookup = false;
    ContextPolicy context_policy = ContextPolicy::stop;
    std::uint32_t context_keep = 16;      ///< tokens at the start that are never dropped (a system prompt)
    float context_overlap = 0.5f;         ///< the part of the others that stays, at most: 0 to below 1
    /// Each piece of finished text (whole UTF-8 characters, never a part of a stop string). Return false to stop.
    std::function<bool(std::string_view)> on_text = {};
    /// After each prefill step: prompt tokens done and in all. Return false to stop.
    std::function<bool(std::uint32_t, std::uint32_t)> on_prefill = {};
    /// slide, compress: so many tokens were dropped, so many are left.
    std::function<void(std::uint32_t, std::uint32_t)> on_slide = {};
};

/// What a session is for.
enum class Preset {
    chat_short,  ///< up to some thousand tokens
    chat_long,   ///< more: the newest messages exact, old ones small
    document,    ///< questions about a long text that several sessions begin with
    code,        ///< the same of source text, much of which is repeated
};
/// What suits that; docs/embedding.md gives the reasons. Copy the fields to ModelOptions and GenerateOptions.
struct PresetOptions {
    KvType kv_type = KvType::f16;
    std::int32_t kv_tail = -1;
    ContextPolicy context_policy = ContextPolicy::stop;
    bool lookup = false;
    std::int32_t kv_spare_tails = -1;
};
PresetOptions preset_options(Preset) noexcept;

struct GenerateResult {
    std::string text;
    std::vector<Token> tokens;            ///< generated, without the one that ended generation
    StopReason stop_reason = StopReason::max_tokens;
    std::string stop_string;              ///< the one found, if any
    std::uint32_t n_prompt = 0, n_generated = 0;
    std::uint32_t n_guessed = 0, n_accepted = 0;   ///< by lookup and draft: tokens tried, and those that were kept
    std::uint32_t n_dropped = 0;          ///< tokens that slide or compress dropped from the session
    std::uint32_t n_reused = 0;           ///< of the prompt: tokens that the KV cache had (ModelOptions::prefix_cache)
    double prompt_seconds = 0, generate_seconds = 0, first_token_seconds = 0;
};

/// What Model::tune() chose.
struct TuneResult {
    int n_threads = 0, n_threads_batch = 0;
    std::uint32_t n_batch = 0;
    double seconds = 0;    ///< spent on it
    bool disturbed = false;   ///< other programs kept the CPUs busy: the choice suits that and not a quiet machine
    std::string kept_in;      ///< file; "" where nothing was kept
};

class Session;

class Model {
public:
    /// Reads, checks and packs the GGUF file at `path` (of a split model: the first part).
    static Result<Model> load(const std::string& path, const ModelOptions& options = {});

    const ModelInfo& info() const;
    MemoryReport memory_report() const;
    /// Which layers a GPU runs, and why not more.
    GpuReport verify_gpu_utilization() const;
    /// A metadata value as text; arrays as "[type x count]". Nothing if the key is absent.
    std::optional<std::string> metadata(std::string_view key) const;
    std::vector<std::string> metadata_keys() const;

    Result<std::vector<Token>> tokenize(std::string_view text, TokenizeOptions options = {}) const;
    /// Bytes of one token as text; control tokens give "" unless `special`.
    Result<std::string> token_text(Token token, bool special = false) const;
    Result<std::string> detokenize(std::span<const Token> tokens, bool special = false) const;
    bool is_end_of_generation(Token token) const;

    /// Renders a conversation ([{"role": ..., "content": ...}, ...] as JSON) with the model's template.
    Result<std::string> render_chat(std::string_view messages_json, const ChatOptions& options = {}) const;
    /// The same as tokens; special tokens written inside the messages stay plain text.
    Result<std::vector<Token>> tokenize_chat(std::string_view messages_json, const ChatOptions& options = {}) const;

    /// A new, empty conversation of at most n_ctx tokens (0: all that the KV cache holds).
    Result<Session> new_session(std::uint32_t n_ctx = 0) const;
    /// Threads for the next steps, of decode and of prefill (0: as decode): 1 up to the larger number chosen at load.
    Status set_threads(int n_threads, int n_threads_batch = 0) const;
    /// Measures thread counts and batch sizes on this model for less than 2 s, uses the best from now on and keeps them
    /// for later loads with Tune::cached. Sessions may exist, but what they run meanwhile spoils the figures.
    /// unasked: for programs that do this by themselves: nothing is measured, and seconds is 0, where cache_dir cannot
    /// be written to; nothing is changed or kept if `disturbed`.
    Result<TuneResult> tune(bool unasked = false) const;

    struct Impl;

private:
    explicit Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<Impl> impl_;
    friend class Session;
    friend struct Internals;   // for the project's own benchmarks; not for embedders
};

struct DraftOptions {
    /// Guesses a step, up to 15. 0: as many as pay by what was measured, none where that loses. As the clock then decides
    /// which tokens are guessed, sampled text is no longer the same for the same seed; with a number given it is.
    std::uint32_t n_tokens = 0;
    std::uint32_t n_ctx = 0;   ///< tokens that the draft reads at most, beyond which it does not guess; 0: all it has room for
};

/// The state of one conversation: its tokens and their KV cache.
class Session {
public:
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;
    ~Session();

    /// Appends tokens. On an Error (context_full, ...) nothing was appended.
    Status decode(std::span<const Token> tokens);
    /// Appends tokens and gives the logits after each: [tokens.size()][n_vocab], row-major.
    Status decode_all(std::span<const Token> tokens, std::vector<float>& logits);
    /// Logits after the last token, [n_vocab]; empty before the first decode. Valid until the next call.
    std::span<const float> logits() const;
    std::span<const Token> tokens() const;
    std::uint32_t n_ctx() const;
    /// Forgets all but the first n tokens.
    Status truncate(std::uint32_t n);
    /// A second session with the same tokens and logits, in the time of copying a list of pages: memory is shared until one
    /// of the two writes to it, a page of 16 tokens at a time. context_full where the KV cache lacks that page.
    Result<Session> fork() const;
    /// Writes the session to a file: tokens, their KV cache, and `note`, any bytes of yours. Complete, or not at all.
    Status save(const std::string& path, std::string_view note = {}) const;
    /// Becomes the session of the file, and goes on from there to the bit; its note goes to `note`. The file must be of this
    /// model and KV type (bad_file), whole (bad_file), and find room beside what the session holds (context_full): on any
    /// Error the session is as before. Sampling is no part of it: generate() begins with its seed.
    Status restore(const std::string& path, std::string* note = nullptr);

    /// Appends `prompt`, then samples and appends tokens until something stops it. Everything kept, the token that
    /// ended generation aside, stays in the session, so a conversation goes on with the next call.
    Result<GenerateResult> generate(std::span<const Token> prompt, const GenerateOptions& options = {});
    /// From now on generate() tries the tokens that a smaller model of the same vocabulary says come next, several a step.
    /// Lossless (arXiv 2211.17192): greedy text is the same, token for token; sampled text has the same distribution. Fails,
    /// saying what differs, unless token texts and special ids are equal; one may have unused tokens as padding at the end. The session keeps `draft` alive;
    /// its weights and KV cache are in its own memory_report(). A fork has the draft too. Takes 16 x n_vocab floats and 8
    /// bytes for each token of the vocabulary.
    Status use_draft(const Model& draft, const DraftOptions& options = {});
    /// What generate() has measured so far, in all its calls. From any thread, also while it runs.
    Metrics metrics() const;
    /// Lets generate() on another thread return soon, with StopReason::cancelled.
    void cancel() noexcept;

    struct Impl;

private:
    explicit Session(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
    friend class Model;
    friend struct Internals;
};

/// Draws tokens from logits, for loops of your own.
class Sampler {
public:
    /// Fails on values out of range, naming the field.
    static Result<Sampler> create(const SamplerOptions& options, std::uint32_t n_vocab);
    Sampler(Sampler&&) noexcept;
    Sampler& operator=(Sampler&&) noexcept;
    ~Sampler();
    /// The next token. logits: [n_vocab]. Fails if every logit is NaN or -infinity, or on a wrong size.
    Result<Token> sample(std::span<const float> logits);
    /// Tells the penalties that `token` was appended (generated or prompt).
    void accept(Token token);
    void reset();

    struct Impl;

private:
    explicit Sampler(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace quern

#include "quern/batcher.hpp"
#endif
