/* SPDX-License-Identifier: Apache-2.0
 *
 * Many requests at once on one model: continuous batching. A part of quern.h, which includes it.
 */
#ifndef QUERN_QUERN_BATCHER_H
#define QUERN_QUERN_BATCHER_H

#include "quern/quern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs requests of several threads together: each step gives every running request its next token and reads prompts
 * with what is left of the step. An answer is, bit for bit, what a session of its own gives. */
typedef struct quern_batcher quern_batcher;
/* A submitted request; may outlive the batcher. */
typedef struct quern_ticket quern_ticket;

typedef struct quern_batcher_options {
    size_t size;
    uint32_t n_ctx;       /* most tokens of a request, prompt and answer; 0 (default): all that the KV cache holds */
    uint32_t max_running; /* default 32: requests that hold KV pages at a time */
    uint32_t max_waiting; /* default 64: requests that may wait for their turn; one more is refused */
    uint32_t n_prefill;   /* most prompt tokens in a step that also decodes; 0 (default): a quarter of n_batch */
    /* Not 0: goals that the batcher keeps while it runs, by changing how many requests run at once, how many prompt tokens
     * a step takes beside decoding, and the model's threads. on_log of the model is told each change, with figures; no
     * result changes. */
    int32_t adapt;
    double adapt_token_seconds;       /* most between two tokens of a request (90th percentile); 0 (default): no goal */
    double adapt_first_token_seconds; /* most from submission to a first token (mean); 0: no goal */
    double adapt_tokens_per_second;   /* least of all together; goes before adapt_token_seconds; 0: no goal */
    uint64_t adapt_memory;            /* most bytes of KV pages in use; 0: all there is */
    uint32_t adapt_min_running, adapt_min_prefill; /* bounds, default 1 and 16; above, max_running and n_batch hold */
    int32_t adapt_min_threads, adapt_max_threads;  /* of decode; 0 (default): as they are, so that they do not change */
} quern_batcher_options;

/* Copied by quern_batcher_submit, but for `user` pointers. */
typedef struct quern_request {
    size_t size;
    const quern_token* prompt; /* [n_prompt], or: */
    size_t n_prompt;
    const char* text;                      /* tokenized with special tokens around it, those in it being plain text */
    const quern_generate_options* options; /* NULL: defaults. Callbacks run on the thread that steps */
    /* Each token of the answer, on the thread that steps. Return 0 to stop. May be NULL. */
    int (*on_token)(quern_token token, void* user);
    void* user;
    int32_t priority;        /* default 0; larger goes first */
    const char* client;      /* requests of equal priority: clients get equal shares of tokens; NULL: "" */
    double deadline_seconds; /* after submission: QUERN_DEADLINE_EXCEEDED if not over; 0 (default): none */
} quern_request;

/* Set every field to its default. struct_size: sizeof the struct. */
QUERN_API void quern_batcher_options_init(quern_batcher_options* options, size_t struct_size);
QUERN_API void quern_request_init(quern_request* request, size_t struct_size);

/* options: NULL for defaults. The model may be freed before the batcher. */
QUERN_API quern_status quern_batcher_new(const quern_model* model, const quern_batcher_options* options,
                                         quern_batcher** out, quern_error* error);
/* Requests that are not over end as cancelled. */
QUERN_API void quern_batcher_free(quern_batcher* batcher);
/* From any thread. QUERN_QUEUE_FULL where it has no place to wait, QUERN_CONTEXT_FULL where it could never run. */
QUERN_API quern_status quern_batcher_submit(quern_batcher* batcher, const quern_request* request, quern_ticket** out,
                                            quern_error* error);
/* One step for all running requests. *more: 0 if there was nothing to do; may be NULL. */
QUERN_API quern_status quern_batcher_step(quern_batcher* batcher, int* more, quern_error* error);
/* Steps until all are answered. */
QUERN_API quern_status quern_batcher_run(quern_batcher* batcher, quern_error* error);
/* Steps on a thread of its own, which sleeps while there is nothing to do. */
QUERN_API quern_status quern_batcher_start(quern_batcher* batcher, quern_error* error);
/* Ends that thread after its current step; requests stay. */
QUERN_API void quern_batcher_stop(quern_batcher* batcher);
/* *out: counts, speeds and waiting times since it was made as a JSON object, owned by the caller. */
QUERN_API quern_status quern_batcher_metrics(const quern_batcher* batcher, char** out, quern_error* error);

/* Answers n requests together, in their order, on this thread. requests, results: arrays of n structs that all have the
 * size of their first one. errors: [n], the status and message of each request, or NULL. QUERN_OK if all were answered, else
 * what the first that was not met with, the others having their answers nevertheless; give every result to
 * quern_generate_result_clear. options: NULL for defaults; max_waiting is of no matter. metrics: NULL, or takes what
 * quern_batcher_metrics would give, owned by the caller. */
QUERN_API quern_status quern_generate_batch(const quern_model* model, const quern_request* requests, size_t n,
                                            const quern_batcher_options* options, quern_generate_result* results,
                                            quern_error* errors, char** metrics, quern_error* error);

/* Forgets the ticket; the request goes on. */
QUERN_API void quern_ticket_free(quern_ticket* ticket);
/* Of submission, from 1. */
QUERN_API uint64_t quern_ticket_id(const quern_ticket* ticket);
/* Ends the request soon, with QUERN_STOP_CANCELLED. */
QUERN_API void quern_ticket_cancel(quern_ticket* ticket);
/* Waits for the end, at most so many seconds (below 0: for ever; 0: not at all); whether it has come. */
QUERN_API int quern_ticket_wait(const quern_ticket* ticket, double seconds);
/* Waits until there are more than `have` tokens or the request is over; *out: the tokens from there on, [*n_out], owned
 * by the caller. */
QUERN_API quern_status quern_ticket_next_tokens(const quern_ticket* ticket, size_t have, quern_token** out,
                                                size_t* n_out, quern_error* error);
/* Waits for the end. The answer as from quern_session_generate, or why there is none. */
QUERN_API quern_status quern_ticket_result(const quern_ticket* ticket, quern_generate_result* out, quern_error* error);
/* *out: the request's times and counts so far as a JSON object, owned by the caller. */
QUERN_API quern_status quern_ticket_metrics(const quern_ticket* ticket, char** out, quern_error* error);

#ifdef __cplusplus
}
#endif
#endif
