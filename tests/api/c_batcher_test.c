/* SPDX-License-Identifier: Apache-2.0
 * The batcher from C99. Usage: c_batcher_test MODEL.gguf (a small model with a tokenizer). Prints each failed check.
 */
#include <stdio.h>
#include <string.h>

#include "quern/quern.h"
#include "tests/api/c_check.h"

/* The call passes &error; this compares its status and a part of the message. */
#define EXPECT(call, want, part)                                                                            \
    do {                                                                                                    \
        const quern_status got_ = (call);                                                                   \
        if (got_ != (want) || ((want) != QUERN_OK && strstr(error.message, (part)) == NULL)) {              \
            ++failures;                                                                                     \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, quern_status_name(got_), error.message); \
        }                                                                                                   \
    } while (0)
#define OK(call) EXPECT(call, QUERN_OK, "")

enum { N_REQUESTS = 3, N_TOKENS = 10 };

static int count(quern_token token, void* user) {
    (void)token;
    ++*(int*)user;
    return 1;
}

/* What a session of its own answers. */
static void alone(const quern_model* model, const quern_request* r, quern_generate_result* out) {
    quern_error error = {QUERN_OK, ""};
    quern_session* s = NULL;
    out->size = sizeof *out;
    OK(quern_session_new(model, 64, &s, &error));
    OK(quern_session_generate(s, r->prompt, r->n_prompt, r->options, out, &error));
    quern_session_free(s);
}

static void test_answers(const quern_model* model, quern_batcher* batcher, const quern_generate_options* options) {
    const quern_token prompts[N_REQUESTS][4] = {{1, 5, 9, 12}, {3, 4, 5, 6}, {9, 9, 1, 2}};
    quern_error error = {QUERN_OK, ""};
    quern_ticket* tickets[N_REQUESTS] = {NULL, NULL, NULL};
    quern_request request;
    quern_token* tokens = NULL;
    size_t n = 0;
    char* json = NULL;
    int i, seen = 0, more = 0;

    quern_request_init(&request, sizeof request);
    CHECK(request.size == sizeof request && request.priority == 0 && request.deadline_seconds == 0);
    request.n_prompt = 4;
    request.options = options;
    request.on_token = count;
    request.user = &seen;
    for (i = 0; i < N_REQUESTS; ++i) {
        request.prompt = prompts[i];
        OK(quern_batcher_submit(batcher, &request, &tickets[i], &error));
        CHECK(quern_ticket_id(tickets[i]) == (uint64_t)i + 1);
    }
    CHECK(!quern_ticket_wait(tickets[0], 0));
    OK(quern_batcher_step(batcher, &more, &error));
    CHECK(more == 1);
    OK(quern_batcher_run(batcher, &error));
    OK(quern_batcher_step(batcher, &more, &error));
    CHECK(more == 0 && seen == N_REQUESTS * N_TOKENS);
    OK(quern_batcher_metrics(batcher, &json, &error));
    CHECK(json != NULL && strstr(json, "\"n_finished\":3") != NULL);
    quern_free(json);
    for (i = 0; i < N_REQUESTS; ++i) {
        quern_generate_result want, got;
        got.size = sizeof got;
        request.prompt = prompts[i];
        alone(model, &request, &want);
        CHECK(quern_ticket_wait(tickets[i], -1));
        OK(quern_ticket_result(tickets[i], &got, &error));
        CHECK(got.n_tokens == N_TOKENS && want.n_tokens == N_TOKENS &&
              memcmp(got.tokens, want.tokens, N_TOKENS * sizeof *got.tokens) == 0);
        CHECK(strcmp(got.text, want.text) == 0 && got.stop_reason == want.stop_reason);
        OK(quern_ticket_next_tokens(tickets[i], 8, &tokens, &n, &error));
        CHECK(n == 2 && tokens[1] == want.tokens[9]);
        quern_free(tokens);
        OK(quern_ticket_metrics(tickets[i], &json, &error));
        CHECK(strstr(json, "\"n_generated\":10") != NULL);
        quern_free(json);
        quern_generate_result_clear(&want);
        quern_generate_result_clear(&got);
        quern_ticket_free(tickets[i]);
    }
}

/* A list at once: the same answers, and one that cannot be answered leaves the others alone. */
static void test_list(const quern_model* model, const quern_generate_options* options) {
    const quern_token prompts[N_REQUESTS][4] = {{1, 5, 9, 12}, {3, 4, 5, 6}, {9, 9, 1, 2}};
    quern_error error = {QUERN_OK, ""}, errors[N_REQUESTS];
    quern_request requests[N_REQUESTS];
    quern_generate_result results[N_REQUESTS], want;
    quern_batcher_options o;
    char* json = NULL;
    int i;

    quern_batcher_options_init(&o, sizeof o);
    CHECK(o.adapt == 0 && o.adapt_min_running == 1 && o.adapt_min_prefill == 16);
    o.n_ctx = 64;
    o.adapt = 1;
    o.adapt_token_seconds = 10;
    for (i = 0; i < N_REQUESTS; ++i) {
        quern_request_init(&requests[i], sizeof requests[i]);
        requests[i].prompt = prompts[i];
        requests[i].n_prompt = 4;
        requests[i].options = options;
        results[i].size = sizeof results[i];
    }
    OK(quern_generate_batch(model, requests, N_REQUESTS, &o, results, errors, &json, &error));
    CHECK(json != NULL && strstr(json, "\"n_finished\":3") != NULL);
    quern_free(json);
    for (i = 0; i < N_REQUESTS; ++i) {
        alone(model, &requests[i], &want);
        CHECK(errors[i].status == QUERN_OK && results[i].n_tokens == N_TOKENS);
        CHECK(strcmp(results[i].text, want.text) == 0);
        quern_generate_result_clear(&want);
        quern_generate_result_clear(&results[i]);
    }
    requests[1].n_prompt = 0;
    EXPECT(quern_generate_batch(model, requests, N_REQUESTS, &o, results, errors, NULL, &error), QUERN_INVALID_ARGUMENT,
           "request 1: ");
    CHECK(errors[0].status == QUERN_OK && errors[1].status == QUERN_INVALID_ARGUMENT && errors[2].status == QUERN_OK);
    CHECK(results[0].n_tokens == N_TOKENS && results[1].tokens == NULL && results[2].n_tokens == N_TOKENS);
    for (i = 0; i < N_REQUESTS; ++i) quern_generate_result_clear(&results[i]);
    o.adapt_token_seconds = -1;
    EXPECT(quern_generate_batch(model, requests, 1, &o, results, NULL, NULL, &error), QUERN_INVALID_ARGUMENT,
           "token_seconds");
    results[0].size = 3;
    EXPECT(quern_generate_batch(model, requests, 1, &o, results, NULL, NULL, &error), QUERN_INVALID_ARGUMENT, "size");
    OK(quern_generate_batch(model, NULL, 0, NULL, NULL, NULL, NULL, &error));
    EXPECT(quern_generate_batch(NULL, requests, 1, NULL, results, NULL, NULL, &error), QUERN_INVALID_ARGUMENT, "model");
}

static void test_refusals(quern_batcher* batcher) {
    quern_error error = {QUERN_OK, ""};
    quern_request request;
    quern_ticket* ticket = NULL;
    quern_generate_result result;
    const quern_token prompt[100] = {0};

    result.size = sizeof result;
    quern_request_init(&request, sizeof request);
    EXPECT(quern_batcher_submit(NULL, &request, &ticket, &error), QUERN_INVALID_ARGUMENT, "batcher is NULL");
    EXPECT(quern_batcher_submit(batcher, &request, &ticket, &error), QUERN_INVALID_ARGUMENT, "at least one token");
    request.n_prompt = 100;
    EXPECT(quern_batcher_submit(batcher, &request, &ticket, &error), QUERN_INVALID_ARGUMENT, "quern_request.prompt");
    request.prompt = prompt;
    EXPECT(quern_batcher_submit(batcher, &request, &ticket, &error), QUERN_CONTEXT_FULL, "100 tokens");
    CHECK(ticket == NULL);
    EXPECT(quern_ticket_result(NULL, &result, &error), QUERN_INVALID_ARGUMENT, "ticket is NULL");
    request.n_prompt = 4;
    request.deadline_seconds = 1e-9;
    OK(quern_batcher_submit(batcher, &request, &ticket, &error));
    OK(quern_batcher_run(batcher, &error));
    EXPECT(quern_ticket_result(ticket, &result, &error), QUERN_DEADLINE_EXCEEDED, "deadline");
    quern_ticket_free(ticket);
    CHECK(!quern_ticket_wait(NULL, -1) && quern_ticket_id(NULL) == 0);
    quern_ticket_cancel(NULL);
    quern_ticket_free(NULL);
    quern_batcher_stop(NULL);
    quern_batcher_free(NULL);
}

/* A thread of its own; a ticket that outlives its batcher, which ends it. */
static void test_thread(quern_batcher* batcher, quern_request request) {
    quern_error error = {QUERN_OK, ""};
    quern_ticket *first = NULL, *last = NULL;
    quern_generate_result result;

    result.size = sizeof result;
    OK(quern_batcher_start(batcher, &error));
    EXPECT(quern_batcher_start(batcher, &error), QUERN_INVALID_ARGUMENT, "started already");
    OK(quern_batcher_submit(batcher, &request, &first, &error));
    CHECK(quern_ticket_wait(first, -1));
    quern_batcher_stop(batcher);
    quern_ticket_free(first);
    OK(quern_batcher_submit(batcher, &request, &last, &error));
    quern_batcher_free(batcher);
    OK(quern_ticket_result(last, &result, &error));
    CHECK(result.stop_reason == QUERN_STOP_CANCELLED);
    quern_generate_result_clear(&result);
    quern_ticket_free(last);
}

int main(int argc, char** argv) {
    quern_error error = {QUERN_OK, ""};
    quern_model_options model_options;
    quern_batcher_options options;
    quern_sampler_options greedy;
    quern_generate_options generate;
    quern_request request;
    quern_model* model = NULL;
    quern_batcher* batcher = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    quern_model_options_init(&model_options, sizeof model_options);
    model_options.n_ctx = 256;
    OK(quern_model_load(argv[1], &model_options, &model, &error));
    quern_batcher_options_init(&options, sizeof options);
    CHECK(options.max_running == 32 && options.max_waiting == 64);
    options.max_running = 0;
    EXPECT(quern_batcher_new(model, &options, &batcher, &error), QUERN_INVALID_ARGUMENT, "max_running is 0");
    options.max_running = 2;
    options.n_ctx = 64;
    OK(quern_batcher_new(model, &options, &batcher, &error));
    if (batcher != NULL) {
        quern_sampler_options_init(&greedy, sizeof greedy);
        greedy.temperature = 0;
        quern_generate_options_init(&generate, sizeof generate);
        generate.sampler = &greedy;
        generate.max_tokens = N_TOKENS;
        generate.ignore_end_of_generation = 1;
        test_answers(model, batcher, &generate);
        test_list(model, &generate);
        test_refusals(batcher);
        quern_model_free(model); /* a batcher keeps its model */
        quern_request_init(&request, sizeof request);
        request.text = "a text";
        request.options = &generate;
        test_thread(batcher, request);
    }
    if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
