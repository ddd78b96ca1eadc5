// SPDX-License-Identifier: Apache-2.0
// The batcher's part of the C interface.
#include <cstddef>
#include <type_traits>

#include "engine/api/quern_c.h"

struct quern_batcher {
    quern::Batcher batcher;
};
struct quern_ticket {
    quern::Ticket ticket;
};

namespace {

using namespace quern::c_api;
using quern::Status;

quern_batcher_options default_batcher_options() {
    const quern::BatcherOptions d;
    quern_batcher_options o{};
    o.size = sizeof o;
    o.n_ctx = d.n_ctx;
    o.max_running = d.max_running;
    o.max_waiting = d.max_waiting;
    o.n_prefill = d.n_prefill;
    o.adapt_min_running = d.adapt.min_running;
    o.adapt_min_prefill = d.adapt.min_prefill;
    return o;
}

Status convert_options(const quern_batcher_options* in, quern::BatcherOptions& out) {
    quern_batcher_options o = default_batcher_options();
    if (Status s = read_struct(in, o, "quern_batcher_options"); !s) return s;
    out.n_ctx = o.n_ctx;
    out.max_running = o.max_running;
    out.max_waiting = o.max_waiting;
    out.n_prefill = o.n_prefill;
    quern::AdaptOptions& a = out.adapt;
    a.on = o.adapt != 0;
    a.token_seconds = o.adapt_token_seconds;
    a.first_token_seconds = o.adapt_first_token_seconds;
    a.tokens_per_second = o.adapt_tokens_per_second;
    a.memory = o.adapt_memory;
    a.min_running = o.adapt_min_running;
    a.min_prefill = o.adapt_min_prefill;
    a.min_threads = o.adapt_min_threads;
    a.max_threads = o.adapt_max_threads;
    return {};
}

quern_request default_request() {
    quern_request r{};
    r.size = sizeof r;
    return r;
}

Status convert_request(const quern_request* in, quern::Request& out) {
    quern_request r = default_request();
    if (Status s = read_struct(in, r, "quern_request"); !s) return s;
    if (r.prompt == nullptr && r.n_prompt != 0) return null_argument("quern_request.prompt");
    if (Status s = convert(r.options, out.options); !s) return s;
    out.prompt.assign(r.prompt, r.prompt + r.n_prompt);
    out.text = or_empty(r.text);
    if (r.on_token != nullptr)
        out.on_token = [on_token = r.on_token, user = r.user](quern::Token t) { return on_token(t, user) != 0; };
    out.priority = r.priority;
    out.client = or_empty(r.client);
    out.deadline_seconds = r.deadline_seconds;
    return {};
}

/// Element i of an array whose structs are as large as the caller's version of T.
template <class T>
T* at(T* first, std::size_t i) {
    using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + i * first->size);
}

}  // namespace

void quern_batcher_options_init(quern_batcher_options* options, size_t struct_size) {
    init_struct(options, struct_size, default_batcher_options());
}

void quern_request_init(quern_request* request, size_t struct_size) {
    init_struct(request, struct_size, default_request());
}

quern_status quern_batcher_new(const quern_model* model, const quern_batcher_options* options, quern_batcher** out,
                               quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(model);
        quern::BatcherOptions o;
        if (Status s = convert_options(options, o); !s) return s;
        auto batcher = quern::Batcher::create(model->model, o);
        if (!batcher) return std::move(batcher).error();
        *out = new quern_batcher{*std::move(batcher)};
        return {};
    });
}

void quern_batcher_free(quern_batcher* batcher) { delete batcher; }

quern_status quern_batcher_submit(quern_batcher* batcher, const quern_request* request, quern_ticket** out,
                                  quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(batcher);
        QUERN_NEED(request);
        quern::Request r;
        if (Status s = convert_request(request, r); !s) return s;
        auto ticket = batcher->batcher.submit(std::move(r));
        if (!ticket) return std::move(ticket).error();
        *out = new quern_ticket{*std::move(ticket)};
        return {};
    });
}

quern_status quern_batcher_step(quern_batcher* batcher, int* more, quern_error* error) {
    return guarded(error, [&]() -> Status {
        if (more != nullptr) *more = 0;
        QUERN_NEED(batcher);
        const bool did = batcher->batcher.step();
        if (more != nullptr) *more = did;
        return {};
    });
}

quern_status quern_batcher_run(quern_batcher* batcher, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(batcher);
        batcher->batcher.run_until_idle();
        return {};
    });
}

quern_status quern_batcher_start(quern_batcher* batcher, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(batcher);
        return batcher->batcher.start();
    });
}

void quern_batcher_stop(quern_batcher* batcher) {
    if (batcher != nullptr) batcher->batcher.stop();
}

quern_status quern_batcher_metrics(const quern_batcher* batcher, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(batcher);
        *out = copy_out(batcher->batcher.metrics().to_json());
        return {};
    });
}

quern_status quern_generate_batch(const quern_model* model, const quern_request* requests, size_t n,
                                  const quern_batcher_options* options, quern_generate_result* results,
                                  quern_error* errors, char** metrics, quern_error* error) {
    if (metrics != nullptr) *metrics = nullptr;
    return guarded(error, [&]() -> Status {
        QUERN_NEED(model);
        if (n == 0) return {};
        QUERN_NEED(requests);
        QUERN_NEED(results);
        for (std::size_t i = 0; i < n; ++i)
            if (Status s = write_struct(at(results, i), quern_generate_result{}, "quern_generate_result"); !s) return s;
        std::vector<quern::Request> converted(n);
        for (std::size_t i = 0; i < n; ++i)
            if (Status s = convert_request(at(requests, i), converted[i]); !s)
                return quern::Error{s.error().code, quern::cat("request ", i, ": ", s.error().message)};
        quern::BatcherOptions o;
        if (Status s = convert_options(options, o); !s) return s;
        quern::BatchMetrics seen;
        const auto answers = quern::generate_batch(model->model, converted, o, &seen);
        Status first;
        for (std::size_t i = 0; i < n; ++i) {
            quern_error e{QUERN_OK, ""};
            if (write_result(at(results, i), &e, [&] { return answers[i]; }) != QUERN_OK && first)
                first = quern::Error{static_cast<quern::Errc>(e.status), quern::cat("request ", i, ": ", e.message)};
            if (errors != nullptr) errors[i] = e;
        }
        if (metrics != nullptr) *metrics = copy_out(seen.to_json());
        return first;
    });
}

void quern_ticket_free(quern_ticket* ticket) { delete ticket; }

uint64_t quern_ticket_id(const quern_ticket* ticket) { return ticket != nullptr ? ticket->ticket.id() : 0; }

void quern_ticket_cancel(quern_ticket* ticket) {
    if (ticket != nullptr) ticket->ticket.cancel();
}

int quern_ticket_wait(const quern_ticket* ticket, double seconds) {
    if (ticket == nullptr) return 0;
    if (!(seconds < 0)) return ticket->ticket.wait_for(seconds);
    ticket->ticket.wait();
    return 1;
}

quern_status quern_ticket_next_tokens(const quern_ticket* ticket, size_t have, quern_token** out, size_t* n_out,
                                      quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        QUERN_NEED(n_out);
        *out = nullptr;
        *n_out = 0;
        QUERN_NEED(ticket);
        const std::vector<quern::Token> tokens = ticket->ticket.next_tokens(have);
        *out = copy_out(tokens.data(), tokens.size());
        *n_out = tokens.size();
        return {};
    });
}

quern_status quern_ticket_result(const quern_ticket* ticket, quern_generate_result* out, quern_error* error) {
    return write_result(out, error, [&]() -> quern::Result<quern::GenerateResult> {
        QUERN_NEED(ticket);
        return ticket->ticket.result();
    });
}

quern_status quern_ticket_metrics(const quern_ticket* ticket, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(ticket);
        *out = copy_out(ticket->ticket.metrics().to_json());
        return {};
    });
}
