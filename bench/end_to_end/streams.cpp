// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/streams.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <utility>

namespace quern::bench {
namespace {

constexpr std::uint32_t kPage = engine::KvShape{}.page_tokens;

std::uint32_t pages_for(std::uint32_t n_tokens) { return (n_tokens + kPage - 1) / kPage; }

}  // namespace

std::vector<Token> random_tokens(std::uint32_t n, std::uint32_t n_vocab, std::uint32_t seed) {
    std::minstd_rand random(seed);
    random.discard(1);  // small seeds begin with small numbers
    std::vector<Token> out(n);
    for (Token& t : out) t = static_cast<Token>(random() % n_vocab);
    return out;
}

std::uint64_t checksum(std::span<const Token> tokens) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const Token t : tokens)
        for (int shift = 0; shift < 32; shift += 8) {
            hash ^= static_cast<std::uint32_t>(t) >> shift & 0xff;
            hash *= 0x100000001b3;
        }
    return hash;
}

std::uint32_t Streams::n_ctx(std::uint32_t n_streams, std::uint32_t n_prompt, std::uint32_t n_gen) {
    return n_streams * pages_for(n_prompt + n_gen) * kPage;
}

Streams::Streams(engine::Executor& executor, std::uint32_t n_prompt, std::uint32_t n_gen)
    : executor_(&executor), n_prompt_(n_prompt), n_gen_(n_gen) {}

Streams::~Streams() {
    for (const Stream& s : streams_)
        for (const std::uint32_t page : s.pages) executor_->pages().release(page);
}

Result<Streams> Streams::create(engine::Executor& executor, std::uint32_t n_streams, std::uint32_t n_prompt,
                                std::uint32_t n_gen) {
    if (n_streams > executor.max_batch()) {
        return Error{Errc::invalid_argument, std::to_string(n_streams) + " streams do not fit a step of " +
                                                 std::to_string(executor.max_batch()) + " tokens; raise -b"};
    }
    // Each repetition would have to begin by reading the prompts again.
    if (executor.tiers().on) return Error{Errc::unsupported, "--streams goes over the same positions again, which a quantized KV cache has migrated; take --kv f16 or f32"};
    Streams out(executor, n_prompt, n_gen);
    const std::uint32_t n_vocab = executor.hparams().n_vocab;
    out.logits_.resize(std::size_t{n_streams} * n_vocab);
    out.tokens_.resize(n_streams);
    out.chunks_.resize(n_streams);
    out.outputs_.resize(n_streams);
    std::iota(out.outputs_.begin(), out.outputs_.end(), 0u);
    out.streams_.resize(n_streams);
    for (std::uint32_t i = 0; i < n_streams; ++i) {
        Stream& s = out.streams_[i];
        s.generated.resize(n_gen);
        s.pages.reserve(pages_for(n_prompt + n_gen));
        if (!executor.pages().take(pages_for(n_prompt + n_gen), s.pages)) {
            return Error{Errc::context_full, "the KV cache has no room for stream " + std::to_string(i + 1) + " of " +
                                                 std::to_string(n_streams) + "; load with a larger context"};
        }
        if (Status st = out.read_prompt(s, random_tokens(n_prompt, n_vocab, i + 1)); !st) return std::move(st).error();
    }
    return out;
}

Status Streams::read_prompt(Stream& stream, std::span<const Token> prompt) {
    for (std::uint32_t done = 0; done < n_prompt_;) {
        const std::uint32_t n = std::min(executor_->n_batch(), n_prompt_ - done), last = n - 1;
        const engine::SeqChunk chunk{stream.pages.data(), 0, n, static_cast<std::int32_t>(done)};
        engine::RunArgs args;
        args.tokens = prompt.subspan(done, n);
        args.chunks = {&chunk, 1};
        done += n;
        if (done == n_prompt_) args.outputs = {&last, 1};
        args.logits = logits_.data();
        args.logits_stride = executor_->hparams().n_vocab;
        if (Status s = executor_->run(args); !s) return s;
    }
    stream.first = best(0);
    return {};
}

Token Streams::best(std::uint32_t row) const {
    const std::uint32_t n_vocab = executor_->hparams().n_vocab;
    return static_cast<Token>(executor_->table().argmax(logits_.data() + std::size_t{row} * n_vocab, n_vocab));
}

Status Streams::generate() {
    const auto n = static_cast<std::uint32_t>(streams_.size());
    for (std::uint32_t i = 0; i < n; ++i) tokens_[i] = streams_[i].first;
    engine::RunArgs args;
    args.tokens = tokens_;
    args.chunks = chunks_;
    args.outputs = outputs_;
    args.logits = logits_.data();
    args.logits_stride = executor_->hparams().n_vocab;
    for (std::uint32_t step = 0; step < n_gen_; ++step) {
        const auto pos = static_cast<std::int32_t>(n_prompt_ + step);
        for (std::uint32_t i = 0; i < n; ++i) chunks_[i] = {streams_[i].pages.data(), i, 1, pos};
        if (Status s = executor_->run(args); !s) return s;
        for (std::uint32_t i = 0; i < n; ++i) streams_[i].generated[step] = tokens_[i] = best(i);
    }
    return {};
}

}  // namespace quern::bench
