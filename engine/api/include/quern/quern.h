/* SPDX-License-Identifier: Apache-2.0
 *
 * Quern's C99 interface; the same as quern.hpp, call for call (docs/embedding.md has examples).
 *
 * Errors. A function that can fail returns a quern_status and takes a quern_error*, which may be NULL. On failure it
 * fills that in and leaves its outputs NULL or 0 (unless said otherwise); on success the error is not touched. No
 * function aborts, prints, keeps global state or lets an exception out.
 * Ownership. "Owned by the caller" means: give it to quern_free. Texts come with a NUL after their last byte; sizes do
 * not count it. Handles are freed by their own function, which accepts NULL.
 * Versions. Structs begin with their size, so that programs and libraries of different versions work together: set it
 * by quern_..._init (options) or to sizeof (outputs). A library ignores fields that came after its version.
 * Threads. A model, a batcher and a ticket may be used by several threads; a session or a sampler by one at a time
 * (except for quern_session_cancel and quern_session_metrics).
 */
#ifndef QUERN_QUERN_H
#define QUERN_QUERN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __GNUC__
#define QUERN_API __attribute__((visibility("default")))
#else
#define QUERN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors, memory, version ---- */

/* The numbers never change; later versions may add some. */
typedef enum quern_status {
    QUERN_OK = 0,
    QUERN_INVALID_ARGUMENT = 1, /* the caller passed something that cannot be right */
    QUERN_IO = 2,               /* the operating system refused a read, a mapping, a thread */
    QUERN_BAD_FILE = 3,         /* the file's bytes contradict each other or its size */
    QUERN_UNSUPPORTED = 4,      /* well formed, but this build or machine cannot do it */
    QUERN_OUT_OF_MEMORY = 5,    /* a limit set by the caller or the system would be passed */
    QUERN_CANCELLED = 6,        /* a callback asked to stop */
    QUERN_CONTEXT_FULL = 7,     /* no room for another token */
    QUERN_INTERNAL = 8,         /* a bug in Quern */
    QUERN_QUEUE_FULL = 9,       /* as many requests wait as may; try again later */
    QUERN_DEADLINE_EXCEEDED = 10, /* the time that the caller allowed has passed */
    QUERN_DEVICE_LOST = 11      /* a GPU or its driver gave up; what lay on it is gone */
} quern_status;

/* What went wrong. A fixed struct on the caller's stack; longer messages are cut. */
typedef struct quern_error {
    quern_status status;
    char message[1012]; /* UTF-8: the file, key, tensor, option or offset, and what to do */
} quern_error;

/* The library's version, "major.minor.patch"; static. */
QUERN_API const char* quern_version(void);
/* "invalid_argument", ...; static; "unknown" for a number that is none of the above. */
QUERN_API const char* quern_status_name(int status);
/* Frees what the library says is owned by the caller. NULL is fine. */
QUERN_API void quern_free(void* memory);

typedef int32_t quern_token;
typedef struct quern_model quern_model;
typedef struct quern_session quern_session;
typedef struct quern_sampler quern_sampler;

/* ---- Model ---- */

enum { QUERN_NUMA_OFF = 0, QUERN_NUMA_INTERLEAVE = 1, QUERN_NUMA_LOCAL = 2 };            /* numa */
enum { QUERN_TUNE_OFF = 0, QUERN_TUNE_CACHED = 1, QUERN_TUNE_AUTOMATIC = 2, QUERN_TUNE_FORCE = 3 }; /* tune */
enum { QUERN_KV_F16 = 0, QUERN_KV_F32 = 1, QUERN_KV_TWO_TIER = 2, QUERN_KV_Q8 = 3, QUERN_KV_Q4 = 4 };   /* kv_type */
enum { QUERN_GPU_AUTO = -1, QUERN_GPU_ALL = -2 }; /* n_gpu_layers: as many as fit; all, or an error */
enum { QUERN_LOG_DEBUG = 0, QUERN_LOG_INFO = 1, QUERN_LOG_WARNING = 2, QUERN_LOG_ERROR = 3 }; /* level */

typedef struct quern_model_options {
    size_t size;
    int32_t n_threads;             /* 0: one a physical core this process may use */
    uint32_t n_ctx;                /* tokens the KV cache holds for all sessions together; 0: the model's own */
    uint32_t n_batch;              /* most tokens a step of prefill takes: 1 to 4096; default 512 */
    int32_t kv_type;               /* QUERN_KV_...; two tiers: 4 bits, the newest kv_tail tokens 16 */
    uint64_t memory_limit;         /* bytes for weights, KV cache and buffers together; 0: none */
    int32_t allow_smaller_context; /* not 0: shrink n_ctx rather than refuse when memory_limit is too small */
    const char* isa;               /* NULL: the best the CPU has; else "avx2", ...: docs/embedding.md */
    /* While loading, from the calling thread; done and total in bytes. Return 0 to cancel, else not 0. May be NULL. */
    int (*on_progress)(const char* stage, uint64_t done, uint64_t total, void* user);
    /* Messages for a person, while loading. NULL: silent. */
    void (*on_log)(int32_t level, const char* message, void* user);
    void* user; /* handed to both */
    const char* pack_cache; /* folder where packed weights are kept from load to load, made if need be; NULL: none */
    int32_t pack; /* default 1; 0: weights are used from the file's mapping: instant start, less memory, slow tokens */
    int32_t n_threads_batch; /* threads that read prompts; 0: as n_threads if given, else slower cores join */
    int32_t numa;            /* which node holds the weights: QUERN_NUMA_INTERLEAVE unless changed */
    /* Whether thread counts and n_batch are taken from what an earlier run measured (CACHED), measured where there was
     * none (AUTOMATIC) or anew (FORCE), in less than 2 s. QUERN_TUNE_OFF unless changed; off where n_threads is given. */
    int32_t tune;
    const char* cache_dir; /* where tune and devices keep files; NULL: $XDG_CACHE_HOME/quern or ~/.cache/quern */
    int32_t prefix_cache; /* default 1: sessions that begin with the same tokens run them once; 0: they do not share */
    int32_t kv_tail;        /* TWO_TIER, Q8, Q4: newest tokens kept in 16 bits; default -1: 256 for TWO_TIER, else 0 */
    uint32_t kv_sessions;   /* TWO_TIER, Q8, Q4: sessions whose 16-bit tokens there is room for at once; default 1 */
    int32_t n_gpu_layers;   /* layers, from the last, that a GPU runs, with the output: a number or QUERN_GPU_...; default 0 */
    const char* device;     /* which GPU: an index or a part of a name (quern_list_devices); NULL: a discrete one, else another */
    /* TWO_TIER, Q8, Q4, with prefix_cache: room for 16-bit tails that no session holds any more. A text that goes back by more
     * than 16 tokens finds one or is read again from its start. Default -1: 0 with kv_sessions 1, 1 with 2, 2 with more. */
    int32_t kv_spare_tails;
} quern_model_options;

/* Texts belong to the model and live as long as it. */
typedef struct quern_model_info {
    size_t size;
    const char *architecture, *name, *weight_type; /* "llama", "SmolLM2 135M Instruct", "Q4_1" */
    const char *isa, *cpu;                         /* kernels in use; the CPU's own name */
    uint64_t n_params, file_size;                  /* values in all tensors; bytes */
    uint32_t n_vocab, n_ctx_train, n_embd, n_layer, n_head, n_head_kv, head_dim;
    uint32_t n_ctx; /* tokens the KV cache holds */
    int32_t n_threads;
    int32_t has_chat_template; /* 0 or 1 */
    int32_t n_threads_batch;
    uint32_t n_batch;
    int32_t tuned; /* 0 or 1: thread counts and n_batch were measured */
} quern_model_info;

/* Bytes, by purpose. */
typedef struct quern_memory_report {
    size_t size;
    uint64_t weights_packed, weights_mapped; /* rearranged copies; read straight from the file's mapping */
    uint64_t kv_capacity, kv_used, kv_bytes_per_token;
    uint64_t buffers; /* activations, logits, per-thread scratch */
    uint64_t total;   /* packed + mapped + kv_capacity + buffers; what memory_limit is compared with */
    uint64_t kv_kept; /* of kv_capacity, beside kv_used: texts kept for reuse, given up when wanted */
} quern_memory_report;

/* Sets every field to its default. struct_size: sizeof(quern_model_options). */
QUERN_API void quern_model_options_init(quern_model_options* options, size_t struct_size);
/* Reads, checks and packs the GGUF file at `path` (of a split model: the first part). options: NULL for defaults.
 * *out: a new handle. QUERN_CANCELLED if on_progress returned 0. */
QUERN_API quern_status quern_model_load(const char* path, const quern_model_options* options, quern_model** out,
                                        quern_error* error);
/* Sessions of the model stay usable; the memory goes with the last of them. */
QUERN_API void quern_model_free(quern_model* model);
/* Fills *out, whose size must be set. */
QUERN_API quern_status quern_model_get_info(const quern_model* model, quern_model_info* out, quern_error* error);
/* Fills *out, whose size must be set. */
QUERN_API quern_status quern_model_get_memory(const quern_model* model, quern_memory_report* out, quern_error* error);
/* Every GPU that Vulkan shows, as a JSON array of objects (index, name, driver, kind, memory_bytes, free_bytes, features,
 * refusal: why it cannot be used, "" if it can); owned by the caller. QUERN_UNSUPPORTED where there is no Vulkan. */
QUERN_API quern_status quern_list_devices(char** out, quern_error* error);
/* Which layers a GPU runs, and why not more, as text for a person; owned by the caller. */
QUERN_API quern_status quern_model_gpu_text(const quern_model* model, char** out, quern_error* error);
/* The same as a table for a person; owned by the caller. */
QUERN_API quern_status quern_model_memory_text(const quern_model* model, char** out, quern_error* error);
/* A metadata value as text, arrays as "[type x count]"; owned by the caller. *out is NULL if the key is absent. */
QUERN_API quern_status quern_model_metadata(const quern_model* model, const char* key, char** out, quern_error* error);
/* Metadata keys by index from 0; NULL past the last. Lives as long as the model. */
QUERN_API const char* quern_model_metadata_key(const quern_model* model, size_t index);
/* Threads for the next steps, decode and prefill alike: 1 up to the larger number chosen at load. */
QUERN_API quern_status quern_model_set_threads(const quern_model* model, int32_t n_threads, quern_error* error);
/* Measures thread counts and batch sizes for less than 2 s, uses the best from now on and keeps them for later loads
 * with QUERN_TUNE_CACHED. */
QUERN_API quern_status quern_model_tune(const quern_model* model, quern_error* error);

/* ---- Text ---- */

/* text: n_bytes of UTF-8 (no NUL needed). add_special: add BOS or EOS where the file asks for it. parse_special:
 * "<|im_end|>" becomes that token; keep it 0 for text of users. *out: [*n_out], owned by the caller. */
QUERN_API quern_status quern_tokenize(const quern_model* model, const char* text, size_t n_bytes, int add_special,
                                      int parse_special, quern_token** out, size_t* n_out, quern_error* error);
/* tokens: [n_tokens]; control tokens give "" unless `special`. Part of a character may stand at either end. *out: bytes
 * and a NUL, owned by the caller; n_out (may be NULL): bytes without it, as the text may have NULs inside. */
QUERN_API quern_status quern_detokenize(const quern_model* model, const quern_token* tokens, size_t n_tokens,
                                        int special, char** out, size_t* n_out, quern_error* error);
/* 1 if the token ends an answer, else 0. */
QUERN_API int quern_is_end_of_generation(const quern_model* model, quern_token token);

typedef struct quern_chat_options {
    size_t size;
    const char* tools_json;        /* JSON array of tools; NULL: none */
    const char* variables_json;    /* JSON object of further template variables; NULL: none */
    const char* chat_template;     /* NULL: the model's own */
    int32_t add_generation_prompt; /* default 1 */
} quern_chat_options;

/* Sets every field to its default. struct_size: sizeof(quern_chat_options). */
QUERN_API void quern_chat_options_init(quern_chat_options* options, size_t struct_size);
/* Renders a conversation, JSON [{"role": ..., "content": ...}, ...]. options: NULL for defaults. *out: owned by the
 * caller; n_out (may be NULL): its bytes. */
QUERN_API quern_status quern_render_chat(const quern_model* model, const char* messages_json,
                                         const quern_chat_options* options, char** out, size_t* n_out,
                                         quern_error* error);
/* The same as tokens; special tokens written inside the messages stay plain text. *out: [*n_out], owned by the
 * caller. */
QUERN_API quern_status quern_tokenize_chat(const quern_model* model, const char* messages_json,
                                           const quern_chat_options* options, quern_token** out, size_t* n_out,
                                           quern_error* error);

/* ---- Sampler ---- */

typedef struct quern_logit_bias {
    quern_token token;
    float bias; /* added to the logit; -INFINITY bans the token */
} quern_logit_bias;

/* Applied in this order: bias, penalties, top-k, typical, top-p, min-p, temperature, then a draw. */
typedef struct quern_sampler_options {
    size_t size;
    float temperature;       /* 0: greedy; default 0.8 */
    int32_t top_k;           /* 0: off; default 40 */
    float top_p;             /* 1: off; default 0.95 */
    float min_p;             /* 0: off; default 0.05 */
    float typical_p;         /* 1: off (default) */
    float repeat_penalty;    /* 1: off (default) */
    float frequency_penalty; /* 0: off (default) */
    float presence_penalty;  /* 0: off (default) */
    int32_t penalty_last_n;  /* tokens that the penalties look back at; -1: all; default 64 */
    uint64_t seed;           /* same seed, same text; default 0 */
    const quern_logit_bias* logit_bias; /* [n_logit_bias]; may be NULL if that is 0 */
    size_t n_logit_bias;
} quern_sampler_options;

/* Sets every field to its default. struct_size: sizeof(quern_sampler_options). */
QUERN_API void quern_sampler_options_init(quern_sampler_options* options, size_t struct_size);
/* For loops of your own. options: NULL for defaults; values out of range are errors that name the field. */
QUERN_API quern_status quern_sampler_new(const quern_sampler_options* options, uint32_t n_vocab, quern_sampler** out,
                                         quern_error* error);
QUERN_API void quern_sampler_free(quern_sampler* sampler);
/* The next token. logits: [n_logits], n_logits = n_vocab. Fails if each is NaN or -infinity. */
QUERN_API quern_status quern_sampler_sample(quern_sampler* sampler, const float* logits, size_t n_logits,
                                            quern_token* out, quern_error* error);
/* Tells the penalties that `token` was appended (generated or prompt). */
QUERN_API void quern_sampler_accept(quern_sampler* sampler, quern_token token);
/* As after quern_sampler_new. */
QUERN_API void quern_sampler_reset(quern_sampler* sampler);

/* ---- Session: one conversation, its tokens and their KV cache ---- */

/* A new, empty session of at most n_ctx tokens (0: all that the KV cache holds). */
QUERN_API quern_status quern_session_new(const quern_model* model, uint32_t n_ctx, quern_session** out,
                                         quern_error* error);
QUERN_API void quern_session_free(quern_session* session);
/* Appends tokens: [n_tokens]. On an error nothing was appended. */
QUERN_API quern_status quern_session_decode(quern_session* session, const quern_token* tokens, size_t n_tokens,
                                            quern_error* error);
/* The same, with the logits after each token: *out is [n_tokens][n_vocab], row-major, owned by the caller. */
QUERN_API quern_status quern_session_decode_all(quern_session* session, const quern_token* tokens, size_t n_tokens,
                                                float** out, quern_error* error);
/* Logits after the last token, [*n_out] = [n_vocab]; NULL and 0 before the first decode. Valid until the next call. */
QUERN_API const float* quern_session_logits(const quern_session* session, size_t* n_out);
/* The session's tokens, [*n_out]. Valid until the next call. */
QUERN_API const quern_token* quern_session_tokens(const quern_session* session, size_t* n_out);
/* Most tokens the session can hold. */
QUERN_API uint32_t quern_session_n_ctx(const quern_session* session);
/* Forgets all but the first n_tokens tokens. */
QUERN_API quern_status quern_session_truncate(quern_session* session, uint32_t n_tokens, quern_error* error);
/* *out: a second session with the same tokens and logits; memory is shared until one of the two writes to it. */
QUERN_API quern_status quern_session_fork(const quern_session* session, quern_session** out, quern_error* error);
/* Writes the session to a file: tokens, their KV cache, and note [n_note], any bytes of the caller's (NULL and 0: none). */
QUERN_API quern_status quern_session_save(const quern_session* session, const char* path, const char* note,
                                          size_t n_note, quern_error* error);
/* Becomes the session of the file. QUERN_BAD_FILE if it is of another model or KV type or damaged, QUERN_CONTEXT_FULL if
 * it finds no room: on an error the session is as before. note and n_note (both may be NULL): its note, owned by the
 * caller. */
QUERN_API quern_status quern_session_restore(quern_session* session, const char* path, char** note, size_t* n_note,
                                             quern_error* error);
/* From now on quern_session_generate tries the tokens that a smaller model of the same vocabulary says come next, n_tokens
 * (up to 15) a step; 0: as many as pay by what was measured. Greedy text stays the same, sampled text keeps its
 * distribution; only with n_tokens given is it the same for the same seed. QUERN_INVALID_ARGUMENT if the vocabularies
 * differ; the message says where. `draft` may be freed. */
QUERN_API quern_status quern_session_use_draft(quern_session* session, const quern_model* draft, uint32_t n_tokens,
                                               quern_error* error);
/* What generate has measured so far: stages of the time, rates, memory, what binds and why; owned by the caller. json: not
 * 0: an object, whose names quern/metrics.hpp explains; 0: a table for a person. From any thread. */
QUERN_API quern_status quern_session_metrics(const quern_session* session, int json, char** out, quern_error* error);
/* From any thread: lets quern_session_generate return soon, with QUERN_STOP_CANCELLED. */
QUERN_API void quern_session_cancel(quern_session* session);

enum { /* stop_reason */
    QUERN_STOP_END_OF_GENERATION = 0,
    QUERN_STOP_MAX_TOKENS = 1,
    QUERN_STOP_STRING = 2,
    QUERN_STOP_CONTEXT_FULL = 3,
    QUERN_STOP_CANCELLED = 4
};

/* context_policy: what happens when the context is full. Stop ends with QUERN_STOP_CONTEXT_FULL; slide drops the older
 * part of the text and runs the rest again at its new positions; compress does so with the blocks of 32 tokens that the
 * newest 16 attend to least. */
enum { QUERN_CONTEXT_STOP = 0, QUERN_CONTEXT_SLIDE = 1, QUERN_CONTEXT_COMPRESS = 2 };

typedef struct quern_generate_options {
    size_t size;
    const quern_sampler_options* sampler; /* NULL: defaults */
    int64_t max_tokens;                   /* -1 (default): until the model ends or the context is full */
    const char* const* stop;              /* [n_stop] texts that end the answer; not part of the result */
    size_t n_stop;
    int32_t ignore_end_of_generation; /* default 0 */
    /* Each piece of finished text: n_bytes of whole UTF-8 characters and a NUL. Return 0 to stop. May be NULL. */
    int (*on_text)(const char* text, size_t n_bytes, void* user);
    /* After each prefill step: prompt tokens done and in all. Return 0 to stop. May be NULL. */
    int (*on_prefill)(uint32_t done, uint32_t total, void* user);
    void* user; /* handed to all of them */
    int32_t context_policy; /* QUERN_CONTEXT_...; default QUERN_CONTEXT_STOP */
    uint32_t context_keep;  /* tokens at the start that are never dropped; default 16 */
    float context_overlap;  /* the part of the others that stays, at most: 0 to below 1; default 0.5 */
    /* slide, compress: so many tokens were dropped, so many are left. May be NULL. */
    void (*on_slide)(uint32_t dropped, uint32_t left, void* user);
    int32_t lookup; /* not 0: tries tokens that followed the same words earlier in the text; the result is the same */
} quern_generate_options;

/* Memory belongs to the caller: give the struct to quern_generate_result_clear. */
typedef struct quern_generate_result {
    size_t size;
    char* text;
    size_t n_text; /* bytes of text */
    quern_token* tokens;
    size_t n_tokens;     /* generated, without the one that ended generation */
    char* stop_string;   /* the one found; NULL: none */
    int32_t stop_reason; /* QUERN_STOP_... */
    uint32_t n_prompt, n_generated;
    double prompt_seconds, generate_seconds, first_token_seconds;
    uint32_t n_reused; /* of the prompt: tokens that the KV cache had (prefix_cache) */
    uint32_t n_guessed, n_accepted; /* by lookup and draft: tokens tried, and those that were kept */
    uint32_t n_dropped; /* tokens that slide or compress dropped from the session */
} quern_generate_result;

/* Sets every field to its default. struct_size: sizeof(quern_generate_options). */
QUERN_API void quern_generate_options_init(quern_generate_options* options, size_t struct_size);

/* What a session is for: chats of up to some thousand tokens, longer ones, questions about a long text, source text. */
enum { QUERN_PRESET_CHAT_SHORT = 0, QUERN_PRESET_CHAT_LONG = 1, QUERN_PRESET_DOCUMENT = 2, QUERN_PRESET_CODE = 3 };
/* Fields to copy to quern_model_options and quern_generate_options. */
typedef struct quern_preset_options {
    size_t size;
    int32_t kv_type, kv_tail, context_policy, lookup, kv_spare_tails;
} quern_preset_options;
/* Fills *out (set its size) with what suits `preset` (QUERN_PRESET_...); docs/embedding.md gives the reasons. */
QUERN_API quern_status quern_preset(int32_t preset, quern_preset_options* out, quern_error* error);

/* Appends prompt [n_prompt], then samples and appends tokens until something stops it; all stay in the session, so a
 * conversation goes on with the next call. options: NULL for defaults. *out: size must be set; what it held before is
 * overwritten, not freed. */
QUERN_API quern_status quern_session_generate(quern_session* session, const quern_token* prompt, size_t n_prompt,
                                              const quern_generate_options* options, quern_generate_result* out,
                                              quern_error* error);
/* Frees what the result holds and sets all but its size to 0. */
QUERN_API void quern_generate_result_clear(quern_generate_result* result);

#ifdef __cplusplus
}
#endif

#include "quern/quern_batcher.h"
#endif
