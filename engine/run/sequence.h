// SPDX-License-Identifier: Apache-2.0
// One sequence: its tokens, its pages, and which of its tokens the cache already holds.
#pragma once

#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/run/executor.h"

namespace quern::engine {

/// What few runs have: RunArgs::observed, and the mask of the only chunk.
struct RunExtras { double* observed = nullptr; const std::uint64_t* mask = nullptr; };

class Sequence {
public:
    /// All memory for n_ctx tokens' bookkeeping is taken here: later steps allocate nothing.
    /// own_logits: room for what run() gives; a scheduler has the logits of all its sequences in one place.
    Sequence(Executor& executor, std::uint32_t n_ctx, bool own_logits = true);
    ~Sequence();
    Sequence(const Sequence&) = delete;
    Sequence& operator=(const Sequence&) = delete;

    std::span<const std::int32_t> tokens() const { return tokens_; }
    std::uint32_t n_ctx() const { return n_ctx_; }
    std::uint32_t n_vocab() const { return executor_.hparams().n_vocab; }
    std::uint32_t room() const { return n_ctx_ - static_cast<std::uint32_t>(tokens_.size()); }
    /// After the last token; empty where that token has not been run.
    std::span<const float> logits() const;

    /// Appends tokens without running them; the next run() does. Fails, with nothing appended, on ids outside the
    /// vocabulary or where the context has no room. Where the pool keeps prefixes, pages that hold the same text already
    /// are taken over (never the last token's); `reuse` false: all tokens will be run.
    Status append(std::span<const std::int32_t> tokens, bool reuse = true);
    /// Tokens of the last append() that need not be run.
    std::uint32_t n_reused() const { return n_reused_; }
    /// Runs what was appended in steps of at most n_batch tokens. on_step(done, all) may return false: the run then
    /// stops between two steps with Errc::cancelled, and the rest stays appended but not run.
    Status run(const std::function<bool(std::uint32_t, std::uint32_t)>& on_step = {});
    /// Runs the one token that waits together with up to reserve_ahead() guesses at what follows it. Each guess that is then
    /// appended has been run: logits() after it are there. Any other token, or truncate(), drops the guesses left. Fails with
    /// context_full, nothing run, where they find no page.
    Status run_ahead(std::span<const std::int32_t> guesses);
    /// Runs a tree of tokens behind those that have been run: at most SeqChunk::kMaxTree, none may wait; mask as SeqChunk says.
    /// logits: [nodes][n_vocab], to stay until take_branch(). Nothing is appended, and the next change of the text drops the tree.
    /// Only on a cache of one tier: quantized pages are not moved.
    Status run_tree(std::span<const std::int32_t> nodes, std::span<const std::uint64_t> mask, float* logits);
    /// Appends a branch of that tree: nodes from its root on, each seeing those before it and no other. They are not run again:
    /// their positions are those of a line already, and what the cache has of them is moved to where a line's lies. logits() are
    /// the last one's. As sums over a tree have an order of their own, other sequences do not get pages from here on, unless
    /// the nodes are the first ones of the tree.
    Status take_branch(std::span<const std::uint32_t> branch);
    /// Makes room for n guesses; gives how many a step can take.
    std::uint32_t reserve_ahead(std::uint32_t n);
    /// Guesses of the last run_ahead() that were appended.
    std::uint32_t n_taken() const { return n_taken_; }
    /// Whether a guess is left: the n_taken()th of them, counted from 0, is at what logits() look.
    bool has_guess() const { return n_taken_ + 1 < ahead_.size(); }
    /// Seconds in runs of the model so far, waiting for others' runs included.
    double run_seconds() const { return run_seconds_; }
    /// Tokens appended and not run.
    std::uint32_t n_waiting() const { return static_cast<std::uint32_t>(tokens_.size()) - n_run_; }
    /// Like run(), and gives the logits after each token: [number run][n_vocab].
    Status run_all(std::vector<float>& logits);
    /// Makes sure that logits() is there, running the last token again where it must.
    Status need_logits();
    /// Which part of the newest tokens' attention each block of RunArgs::kObservedBlock positions gets, summed over layers, heads
    /// and the newest kObserved tokens, which are run again for it (SnapKV, arXiv 2404.14469, lets such a window vote). At least
    /// two tokens; logits() are gone then.
    Result<std::vector<double>> observe();
    static constexpr std::uint32_t kObserved = KvTiers::kSlack;   // what can be run again with two tiers, too
    /// Forgets all but the first n tokens. With two tiers, where what the next token needs exact has been given up, the next
    /// run starts from the first token again, or, without a tail, from the last whole group: never for the last token, nor for
    /// KvTiers::kSlack tokens run in steps of no more than that.
    void truncate(std::uint32_t n);
    /// Makes this empty sequence a copy of `other`, of the same executor: its pages are shared, and copied where either
    /// writes. Fails, empty still, where tokens of `other` that have not been run find no page.
    Status fork(const Sequence& other);

    /// Writes tokens, full pages and `note` to a file; `model` is a hash of what the pages depend on.
    Status save(const std::string& path, std::uint64_t model, std::string_view note) const;
    /// Becomes what the file holds; tokens behind its pages are there to be run. `note`, if not null, takes the file's. Where
    /// the file does not fit the model, is damaged, or finds no room beside what this sequence has, nothing is changed.
    Status restore(const std::string& path, std::uint64_t model, std::string* note);

    // For a scheduler that runs several sequences in one step:
    /// Appends tokens of the vocabulary, of which there are at most room(), without taking pages for them.
    void add(std::span<const std::int32_t> tokens);
    /// Where the pool keeps prefixes, takes over the pages of the text that waits (never the last token's); gives how many
    /// tokens the cache then holds. May be asked again later, when others have published more.
    std::uint32_t reuse();
    /// Makes room for the first n tokens. Where that fails, drop_cache() gives back what was taken.
    Status reserve_pages(std::size_t n);
    /// How many of the next n tokens, for which room has been made, a step can take: with two tiers fewer where exact pages are
    /// shared and there are none to write beside them. 0: there is no page even for these.
    std::uint32_t make_ready(std::uint32_t n);
    /// The next n tokens to run, as the part of a batch that begins at index `first`. They are ready.
    SeqChunk chunk(std::uint32_t first, std::uint32_t n) const;
    /// The next n tokens have been run. Other sequences can have the full pages from now on.
    void ran(std::uint32_t n);
    /// Gives all pages back and keeps the tokens.
    void drop_cache();
    std::uint32_t n_run() const { return n_run_; }

private:
    Status check(std::span<const std::int32_t> tokens) const;
    /// Pages of the block table for so many tokens.
    std::size_t pages_for(std::size_t n_tokens) const;
    /// Pages of the block table that n tokens fill, for ever.
    std::uint32_t full_pages(std::uint32_t n_tokens) const;
    std::uint32_t full_tokens(std::uint32_t n_pages) const { return n_pages * executor_.pages().shape().page_tokens; }
    /// Makes the pages of positions n_run_ .. n_tokens - 1 this sequence's own.
    Status own_pages(std::size_t n_tokens);
    /// Notes that n tokens from n_run_ on are run: what their exact forms replace in the ring is lost.
    void lose_exact(std::uint32_t n);
    /// Token n, or one before it from which on what it sees can be had, becomes the next to be run.
    void rewind(std::uint32_t n);
    /// Positions whose pages a file takes: whole exact pages with all that the next token sees. One token is left to be run.
    std::uint32_t n_saved() const;
    /// Releases the pages behind those of the first n tokens.
    void keep_pages(std::size_t n_tokens);
    Error no_page(std::size_t n_tokens) const;
    Error no_ring() const;
    /// Takes over pages of the text that begins with the tokens run so far and goes on with those appended.
    void reuse_pages();
    /// The same with two tiers: as far as there are the quantized pages and all exact ones that the next token needs.
    void reuse_tiers();
    /// Takes references to quantized pages of the text behind those published.
    void find_quantized(std::uint32_t n_tokens);
    /// Takes references to the exact pages that token n needs, for the largest n at most as asked; gives it, 0 for none.
    std::uint32_t find_exact(std::uint32_t n);
    /// Takes these pages over, for n tokens; 0: gives them back.
    void put_found(std::uint32_t n);
    /// Lets other sequences have the full pages.
    void publish_pages();
    /// The exact ones, too, that hold what has been run. Not in each decode step: what was generated is worth keeping at its end.
    void publish_exact();
    bool keeps_exact() const;
    /// What names the exact page of positions pos .. beside the tokens of exact_block(): the quantized text before them, nothing
    /// where that has not been published.
    bool exact_serial(std::uint32_t pos, std::uint64_t& serial) const;
    std::span<const std::int32_t> exact_block(std::uint32_t pos) const;
    /// Readies the next n tokens, or fewer: make_ready().
    Status size_step(std::uint32_t& n);
    Status step(std::uint32_t n, std::span<const std::uint32_t> outputs, float* logits);
    /// Runs tokens behind those that the cache holds, the last n_guesses of them being no part of the text.
    Status run_batch(std::span<const std::int32_t> tokens, std::uint32_t n_guesses, std::span<const std::uint32_t> outputs, float* logits,
                     const RunExtras& extras = {});
    bool take_guess(std::span<const std::int32_t> tokens);
    void drop_guesses();

    Executor& executor_;
    std::uint32_t n_ctx_;
    std::vector<std::int32_t> tokens_;
    std::uint32_t n_run_ = 0;                  // tokens that the cache holds
    std::vector<std::uint32_t> pages_;         // block table
    std::uint32_t n_published_ = 0;            // leading pages that the pool's index has
    std::uint32_t n_reused_ = 0;
    bool restored_ = false;                    // has pages of a file, where a forged one must not reach other sequences, or of a branch
    ExactRing ring_;                           // two tiers: the newest positions
    std::uint32_t ring_from_ = 0;              // first position that the ring still holds
    std::uint32_t n_exact_published_ = 0;      // tokens whose exact pages need not be published
    std::uint32_t n_ready_ = 0;                // tokens that make_ready() made so
    std::vector<std::uint32_t> found_, found_exact_;   // pages while they are looked for: from n_published_ on; from the last one down
    std::vector<float> logits_;
    std::vector<std::int32_t> ahead_;          // the token before the guesses, and the guesses; empty: none are left
    std::vector<float> ahead_logits_;          // [ahead_][n_vocab]
    std::vector<std::uint32_t> ahead_outputs_; // 0, 1, ...
    std::uint32_t n_taken_ = 0;
    std::vector<std::int32_t> tree_;           // run and not taken; empty: none
    std::vector<std::uint64_t> tree_mask_;
    const float* tree_logits_ = nullptr;
    const float* now_ = nullptr;               // where logits() lie
    bool has_logits_ = false;
    double run_seconds_ = 0;
};

}  // namespace quern::engine
