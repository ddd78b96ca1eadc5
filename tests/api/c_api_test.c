/* SPDX-License-Identifier: Apache-2.0
 * The C interface from C99. Usage: c_api_test MODEL.gguf (a small model with a tokenizer). Prints each failed check.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quern/quern.h"
#include "tests/api/c_check.h"

static void check_status(int line, quern_status got, quern_status want, const quern_error* error, const char* part) {
    if (got != want) {
        ++failures;
        fprintf(stderr, "line %d: status %s, not %s: %s\n", line, quern_status_name(got), quern_status_name(want),
                error->message);
    } else if (want != QUERN_OK && (error->status != want || strstr(error->message, part) == NULL)) {
        ++failures;
        fprintf(stderr, "line %d: message '%s' lacks '%s'\n", line, error->message, part);
    }
}

/* The calls below all pass &error; this compares status and a part of the message. */
#define OK(call) check_status(__LINE__, (call), QUERN_OK, &error, "")
#define FAILS(call, want, part) check_status(__LINE__, (call), (want), &error, (part))

struct seen {
    int calls, stop_after;
    char text[4096];
    size_t n_text;
    uint32_t total;
};

static int on_progress(const char* stage, uint64_t done, uint64_t total, void* user) {
    struct seen* s = user;
    CHECK(stage != NULL && done <= total);
    return ++s->calls != s->stop_after;
}

static void on_log(int32_t level, const char* message, void* user) {
    struct seen* s = user;
    CHECK(level >= QUERN_LOG_DEBUG && level <= QUERN_LOG_ERROR && message[0] != '\0');
    ++s->calls;
}

static int on_text(const char* text, size_t n_bytes, void* user) {
    struct seen* s = user;
    CHECK(strlen(text) == n_bytes);
    if (s->n_text + n_bytes < sizeof s->text) {
        memcpy(s->text + s->n_text, text, n_bytes);
        s->n_text += n_bytes;
    }
    return ++s->calls != s->stop_after;
}

static int on_prefill(uint32_t done, uint32_t total, void* user) {
    struct seen* s = user;
    CHECK(done <= total);
    s->total = total;
    return 1;
}

static void test_basics(void) {
    quern_model_options o;
    CHECK(strcmp(quern_status_name(QUERN_CONTEXT_FULL), "context_full") == 0);
    {
        quern_error error;
        quern_preset_options preset = {sizeof preset, -9, -9, -9, -9, -9};
        CHECK(quern_preset(QUERN_PRESET_CODE, &preset, &error) == QUERN_OK);
        CHECK(preset.kv_type == QUERN_KV_Q8 && preset.kv_tail == 0 && preset.context_policy == QUERN_CONTEXT_STOP && preset.lookup == 1 && preset.kv_spare_tails == -1);
        CHECK(quern_preset(QUERN_PRESET_CHAT_LONG, &preset, &error) == QUERN_OK && preset.kv_spare_tails == 1);
        FAILS(quern_preset(4, &preset, &error), QUERN_INVALID_ARGUMENT, "QUERN_PRESET");
    }
    CHECK(strcmp(quern_status_name(99), "unknown") == 0);
    CHECK(strchr(quern_version(), '.') != NULL);
    quern_free(NULL);
    quern_model_free(NULL);
    quern_session_free(NULL);
    quern_sampler_free(NULL);
    quern_generate_result_clear(NULL);

    /* A program built with an older, shorter struct: nothing past its end is written. */
    memset(&o, 0x7f, sizeof o);
    quern_model_options_init(&o, offsetof(quern_model_options, memory_limit));
    CHECK(o.size == offsetof(quern_model_options, memory_limit) && o.n_batch == 512);
    CHECK(o.memory_limit == UINT64_C(0x7f7f7f7f7f7f7f7f));
    quern_model_options_init(&o, sizeof o);
    CHECK(o.size == sizeof o && o.memory_limit == 0 && o.on_log == NULL && o.isa == NULL);
    CHECK(o.pack == 1 && o.pack_cache == NULL);
}

static void test_sampler(void) {
    quern_error error = {QUERN_OK, ""};
    quern_sampler_options o;
    quern_sampler* s = NULL;
    quern_token token = -1, first[20];
    const quern_logit_bias ban[1] = {{2, -INFINITY}};
    const float logits[5] = {1.0f, 2.0f, 5.0f, 2.5f, 0.0f};
    float nothing[5];
    int i;

    OK(quern_sampler_new(NULL, 5, &s, &error));
    quern_sampler_free(s);
    quern_sampler_options_init(&o, sizeof o);
    CHECK(o.top_k == 40 && o.temperature > 0.79f && o.logit_bias == NULL);
    o.temperature = 0;
    o.logit_bias = ban;
    o.n_logit_bias = 1;
    OK(quern_sampler_new(&o, 5, &s, &error));
    OK(quern_sampler_sample(s, logits, 5, &token, &error));
    CHECK(token == 3);
    FAILS(quern_sampler_sample(s, logits, 4, &token, &error), QUERN_INVALID_ARGUMENT, "4 logits");
    for (i = 0; i < 5; ++i) nothing[i] = -INFINITY;
    FAILS(quern_sampler_sample(s, nothing, 5, &token, &error), QUERN_INVALID_ARGUMENT, "NaN or -infinity");
    quern_sampler_free(s);

    o.temperature = 2;
    o.seed = 11;
    OK(quern_sampler_new(&o, 5, &s, &error));
    for (i = 0; i < 20; ++i) {
        OK(quern_sampler_sample(s, logits, 5, &first[i], &error));
        quern_sampler_accept(s, first[i]);
        CHECK(first[i] != 2);
    }
    quern_sampler_reset(s);
    for (i = 0; i < 20; ++i) {
        OK(quern_sampler_sample(s, logits, 5, &token, &error));
        CHECK(token == first[i]);
    }
    quern_sampler_free(s);

    o.top_p = 1.5f;
    FAILS(quern_sampler_new(&o, 5, &s, &error), QUERN_INVALID_ARGUMENT, "top_p is 1.5");
    CHECK(s == NULL);
    o.size = 3;
    FAILS(quern_sampler_new(&o, 5, &s, &error), QUERN_INVALID_ARGUMENT, "quern_sampler_options_init");
    quern_sampler_options_init(&o, sizeof o);
    o.n_logit_bias = 1;
    FAILS(quern_sampler_new(&o, 5, &s, &error), QUERN_INVALID_ARGUMENT, "logit_bias is NULL");
    FAILS(quern_sampler_new(NULL, 5, NULL, &error), QUERN_INVALID_ARGUMENT, "out is NULL");
    CHECK(quern_sampler_new(&o, 0, &s, NULL) == QUERN_INVALID_ARGUMENT); /* no error struct wanted */
}

static void test_load(const char* path) {
    quern_error error = {QUERN_OK, ""};
    quern_model_options o;
    quern_model* model = NULL;
    quern_memory_report report;
    struct seen seen;
    char longest[6000];

    memset(&seen, 0, sizeof seen);
    FAILS(quern_model_load(NULL, NULL, &model, &error), QUERN_INVALID_ARGUMENT, "path is NULL");
    FAILS(quern_model_load("no-such-file.gguf", NULL, &model, &error), QUERN_IO, "no-such-file.gguf");
    CHECK(model == NULL);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    CHECK(quern_model_load(longest, NULL, &model, &error) == QUERN_IO);
    CHECK(strlen(error.message) == sizeof error.message - 1); /* cut, not overrun */

    quern_model_options_init(&o, sizeof o);
    o.isa = "abacus";
    CHECK(quern_model_load(path, &o, &model, &error) != QUERN_OK);
    CHECK(strstr(error.message, "abacus") != NULL);
    quern_model_options_init(&o, sizeof o);
    o.on_progress = on_progress;
    o.on_log = on_log;
    o.user = &seen;
    seen.stop_after = 1;
    FAILS(quern_model_load(path, &o, &model, &error), QUERN_CANCELLED, "");
    CHECK(model == NULL && seen.calls >= 1);
    seen.stop_after = 0;
    OK(quern_model_load(path, &o, &model, &error));
    CHECK(seen.calls > 1);
    quern_model_free(model);

    quern_model_options_init(&o, sizeof o);
    o.pack = 0;
    OK(quern_model_load(path, &o, &model, &error));
    report.size = sizeof report;
    OK(quern_model_get_memory(model, &report, &error));
    CHECK(report.weights_mapped > report.weights_packed);
    quern_model_free(model);
    o.pack_cache = "folder";
    FAILS(quern_model_load(path, &o, &model, &error), QUERN_INVALID_ARGUMENT, "pack_cache");
}

static void test_model(const quern_model* model) {
    quern_error error = {QUERN_OK, ""};
    quern_model_info info;
    quern_memory_report memory;
    char* text = NULL;
    size_t n = 0, keys = 0;

    memset(&info, 0, sizeof info);
    FAILS(quern_model_get_info(model, &info, &error), QUERN_INVALID_ARGUMENT, "quern_model_info.size is 0");
    info.size = sizeof info;
    OK(quern_model_get_info(model, &info, &error));
    CHECK(info.size == sizeof info && info.n_vocab > 0 && info.n_layer > 0 && info.n_threads >= 1);
    CHECK(strlen(info.architecture) > 0 && strlen(info.isa) > 0);
    info.size = offsetof(quern_model_info, n_params);
    info.n_params = 77;
    OK(quern_model_get_info(model, &info, &error));
    CHECK(info.n_params == 77); /* an older struct ends here */

    memory.size = sizeof memory;
    OK(quern_model_get_memory(model, &memory, &error));
    CHECK(memory.total == memory.weights_packed + memory.weights_mapped + memory.kv_capacity + memory.buffers);
    CHECK(memory.kv_bytes_per_token > 0);
    OK(quern_model_memory_text(model, &text, &error));
    CHECK(text != NULL && strlen(text) > 0);
    quern_free(text);

    OK(quern_model_gpu_text(model, &text, &error));
    CHECK(strstr(text, "on the CPU") != NULL);
    quern_free(text);
    if (quern_list_devices(&text, &error) == QUERN_OK) {
        CHECK(text[0] == '[');
        quern_free(text);
    } else {
        CHECK(error.status == QUERN_UNSUPPORTED && strlen(error.message) > 0); /* no Vulkan here */
    }

    OK(quern_model_metadata(model, "general.architecture", &text, &error));
    CHECK(text != NULL && strcmp(text, info.architecture) == 0);
    quern_free(text);
    OK(quern_model_metadata(model, "no.such.key", &text, &error));
    CHECK(text == NULL);
    while (quern_model_metadata_key(model, keys) != NULL) {
        n += strcmp(quern_model_metadata_key(model, keys++), "general.architecture") == 0;
    }
    CHECK(keys > 1 && n == 1);
    FAILS(quern_model_set_threads(model, 0, &error), QUERN_INVALID_ARGUMENT, "0");
    OK(quern_model_set_threads(model, 1, &error));
    if (quern_model_tune(model, &error) != QUERN_OK) CHECK(error.status != QUERN_INTERNAL && error.message[0] != '\0');
    FAILS(quern_model_tune(NULL, &error), QUERN_INVALID_ARGUMENT, "model");
}

static void test_text(const quern_model* model) {
    const char prompt[] = "Hello world, one two three";
    quern_error error = {QUERN_OK, ""};
    quern_chat_options chat;
    quern_token* tokens = NULL;
    char* text = NULL;
    size_t n = 9, n_text = 9;

    OK(quern_tokenize(model, prompt, strlen(prompt), 0, 0, &tokens, &n, &error));
    CHECK(tokens != NULL && n > 0 && n <= strlen(prompt));
    OK(quern_detokenize(model, tokens, n, 0, &text, &n_text, &error));
    CHECK(n_text == strlen(text) && strcmp(text + (text[0] == ' '), prompt) == 0);
    quern_free(text);
    quern_free(tokens);
    OK(quern_tokenize(model, NULL, 0, 0, 0, &tokens, &n, &error));
    CHECK(n == 0);
    quern_free(tokens);
    FAILS(quern_tokenize(model, NULL, 3, 0, 0, &tokens, &n, &error), QUERN_INVALID_ARGUMENT, "text is NULL");
    FAILS(quern_tokenize(model, prompt, 3, 0, 0, &tokens, NULL, &error), QUERN_INVALID_ARGUMENT, "n_out is NULL");
    CHECK(quern_is_end_of_generation(model, -5) == 0);

    quern_chat_options_init(&chat, sizeof chat);
    CHECK(chat.add_generation_prompt == 1);
    chat.chat_template =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}";
    OK(quern_render_chat(model, "[{\"role\": \"user\", \"content\": \"hi\"}]", &chat, &text, &n_text, &error));
    CHECK(text != NULL && strcmp(text, "<user>hi>") == 0 && n_text == 9);
    quern_free(text);
    OK(quern_tokenize_chat(model, "[{\"role\": \"user\", \"content\": \"hi\"}]", &chat, &tokens, &n, &error));
    CHECK(n > 0);
    quern_free(tokens);
    CHECK(quern_render_chat(model, "not JSON", &chat, &text, &n_text, &error) != QUERN_OK);
    CHECK(text == NULL && n_text == 0);
}

static void test_session(const quern_model* model, uint32_t n_vocab) {
    const quern_token tokens[5] = {1, 5, 9, 12, 3};
    quern_error error = {QUERN_OK, ""};
    quern_session *s = NULL, *fork = NULL;
    float* all = NULL;
    char* note = NULL;
    const float* logits;
    size_t n = 9;

    OK(quern_session_new(model, 16, &s, &error));
    if (s == NULL) return;
    CHECK(quern_session_logits(s, &n) == NULL && n == 0);
    CHECK(quern_session_n_ctx(s) == 16);
    OK(quern_session_decode_all(s, tokens, 5, &all, &error));
    CHECK(quern_session_tokens(s, &n) != NULL && n == 5);
    OK(quern_session_truncate(s, 2, &error));
    FAILS(quern_session_truncate(s, 3, &error), QUERN_INVALID_ARGUMENT, "3");
    OK(quern_session_decode(s, tokens + 2, 3, &error));
    logits = quern_session_logits(s, &n);
    CHECK(n == n_vocab);
    /* The same tokens give the same bits, however they were cut. */
    CHECK(all != NULL && logits != NULL && memcmp(logits, all + 4 * (size_t)n_vocab, n_vocab * sizeof(float)) == 0);
    quern_free(all);
    OK(quern_session_decode(s, tokens, 5, &error));
    OK(quern_session_decode(s, tokens, 5, &error));
    FAILS(quern_session_decode(s, tokens, 2, &error), QUERN_CONTEXT_FULL, "");
    OK(quern_session_fork(s, &fork, &error));
    OK(quern_session_decode(fork, tokens, 1, &error));
    CHECK(quern_session_tokens(fork, &n) != NULL && n == 16);
    OK(quern_session_save(fork, "c_api_test.session", "note", 4, &error));
    OK(quern_session_truncate(fork, 0, &error));
    OK(quern_session_restore(fork, "c_api_test.session", &note, &n, &error));
    CHECK(note != NULL && n == 4 && memcmp(note, "note", 5) == 0);
    quern_free(note);
    CHECK(quern_session_tokens(fork, &n) != NULL && n == 16);
    remove("c_api_test.session");
    FAILS(quern_session_restore(fork, "c_api_test.session", NULL, NULL, &error), QUERN_IO, "c_api_test.session");
    OK(quern_session_metrics(fork, 1, &note, &error));
    CHECK(note != NULL && note[0] == '{' && strstr(note, "\"bottleneck\"") != NULL);
    quern_free(note);
    OK(quern_session_metrics(fork, 0, &note, &error));
    CHECK(note != NULL && strstr(note, "bottleneck   unknown: nothing has been generated yet") != NULL);
    quern_free(note);
    FAILS(quern_session_metrics(NULL, 0, &note, &error), QUERN_INVALID_ARGUMENT, "session is NULL");
    FAILS(quern_session_use_draft(fork, model, 16, &error), QUERN_INVALID_ARGUMENT, "n_tokens is 16");
    FAILS(quern_session_use_draft(NULL, model, 0, &error), QUERN_INVALID_ARGUMENT, "session is NULL");
    FAILS(quern_session_use_draft(fork, NULL, 0, &error), QUERN_INVALID_ARGUMENT, "draft is NULL");
    quern_session_free(fork);
    FAILS(quern_session_fork(NULL, &fork, &error), QUERN_INVALID_ARGUMENT, "session is NULL");
    CHECK(fork == NULL);
    CHECK(quern_session_tokens(s, &n) != NULL && n == 15);
    FAILS(quern_session_decode(NULL, tokens, 2, &error), QUERN_INVALID_ARGUMENT, "session is NULL");
    quern_session_free(s);
}

static void test_generate(const quern_model* model) {
    const quern_token prompt[4] = {1, 5, 9, 12};
    quern_error error = {QUERN_OK, ""};
    quern_generate_options o;
    quern_sampler_options greedy;
    quern_generate_result a, b;
    quern_session* s = NULL;
    struct seen seen;
    const char* stops[1];
    size_t n;

    quern_sampler_options_init(&greedy, sizeof greedy);
    greedy.temperature = 0;
    quern_generate_options_init(&o, sizeof o);
    CHECK(o.max_tokens == -1 && o.sampler == NULL);
    o.sampler = &greedy;
    o.max_tokens = 12;
    o.ignore_end_of_generation = 1;
    o.on_text = on_text;
    o.on_prefill = on_prefill;
    o.user = &seen;
    memset(&seen, 0, sizeof seen);
    memset(&a, 0, sizeof a);
    a.size = b.size = sizeof a;

    OK(quern_session_new(model, 64, &s, &error));
    if (s == NULL) return;
    OK(quern_session_generate(s, prompt, 4, &o, &a, &error));
    CHECK(a.stop_reason == QUERN_STOP_MAX_TOKENS && a.n_tokens == 12 && a.n_generated == 12 && a.n_prompt == 4);
    CHECK(a.text != NULL && strlen(a.text) <= a.n_text && a.stop_string == NULL);
    CHECK(seen.n_text == a.n_text && memcmp(seen.text, a.text, a.n_text) == 0 && seen.total == 4);
    CHECK(quern_session_tokens(s, &n) != NULL && n >= 15);
    quern_session_free(s);

    /* The same again, ended by a text that is known to come. */
    if (a.n_text > 4) {
        char stop[3] = {0, 0, 0};
        memcpy(stop, a.text + 2, 2);
        if (((unsigned char)stop[0] & 0xc0) != 0x80 && ((unsigned char)stop[1] & 0x80) == 0 && stop[1] != '\0') {
            stops[0] = stop;
            o.stop = stops;
            o.n_stop = 1;
            OK(quern_session_new(model, 64, &s, &error));
            OK(quern_session_generate(s, prompt, 4, &o, &b, &error));
            CHECK(b.stop_reason == QUERN_STOP_STRING && b.stop_string != NULL && strcmp(b.stop_string, stop) == 0);
            CHECK(b.n_text <= 2 && memcmp(b.text, a.text, b.n_text) == 0);
            quern_generate_result_clear(&b);
            CHECK(b.text == NULL && b.size == sizeof b);
            quern_session_free(s);
            o.n_stop = 0;
        }
    }

    /* A callback that stops, and a context that fills up. */
    memset(&seen, 0, sizeof seen);
    seen.stop_after = 1;
    o.max_tokens = -1;
    OK(quern_session_new(model, 16, &s, &error));
    OK(quern_session_generate(s, prompt, 4, &o, &b, &error));
    CHECK(b.stop_reason == QUERN_STOP_CANCELLED);
    quern_generate_result_clear(&b);
    OK(quern_session_truncate(s, 0, &error));
    seen.stop_after = 0;
    OK(quern_session_generate(s, prompt, 4, &o, &b, &error));
    CHECK(b.stop_reason == QUERN_STOP_CONTEXT_FULL);
    quern_generate_result_clear(&b);
    OK(quern_session_truncate(s, 4, &error));
    o.context_policy = QUERN_CONTEXT_COMPRESS;
    o.context_keep = 2;
    o.max_tokens = 40;
    OK(quern_session_generate(s, prompt, 4, &o, &b, &error));
    CHECK(b.n_tokens == 40 && b.n_dropped >= 32);
    quern_generate_result_clear(&b);
    quern_session_free(s);

    o.n_stop = 1;
    o.stop = NULL;
    FAILS(quern_session_generate(NULL, prompt, 4, &o, &b, &error), QUERN_INVALID_ARGUMENT, "session is NULL");
    OK(quern_session_new(model, 16, &s, &error));
    FAILS(quern_session_generate(s, prompt, 4, &o, &b, &error), QUERN_INVALID_ARGUMENT, "stop is NULL");
    quern_session_free(s);
    quern_generate_result_clear(&a);
}

int main(int argc, char** argv) {
    quern_error error = {QUERN_OK, ""};
    quern_model_options o;
    quern_model_info info;
    quern_model* model = NULL;
    quern_session* last = NULL;
    const quern_token token = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    test_basics();
    test_sampler();
    test_load(argv[1]);
    quern_model_options_init(&o, sizeof o);
    o.n_ctx = 256;
    o.cache_dir = "/dev/null"; /* nothing is kept */
    OK(quern_model_load(argv[1], &o, &model, &error));
    if (model != NULL) {
        info.size = sizeof info;
        OK(quern_model_get_info(model, &info, &error));
        test_model(model);
        test_text(model);
        test_session(model, info.n_vocab);
        test_generate(model);
        OK(quern_session_new(model, 0, &last, &error));
        quern_model_free(model);
        OK(quern_session_decode(last, &token, 1, &error)); /* a session keeps its model */
        quern_session_free(last);
    }
    if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
