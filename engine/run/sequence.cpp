// SPDX-License-Identifier: Apache-2.0
#include "engine/run/sequence.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/core/clock.h"
#include "engine/kv/move.h"
#include "formats/mapped_file.h"
#include "formats/session_file.h"
#include "formats/text.h"

namespace quern::engine {

Sequence::Sequence(Executor& executor, std::uint32_t n_ctx, bool own_logits)
    : executor_(executor), n_ctx_(n_ctx), ring_(executor.exact_pages(), executor.tiers()), logits_(own_logits ? executor.hparams().n_vocab : 0) {
    tokens_.reserve(n_ctx);
    pages_.reserve(n_ctx / executor.pages().shape().page_tokens + 1);
    if (!keeps_exact()) return;
    found_.reserve(pages_.capacity());
    found_exact_.reserve(executor.exact_pages_each() + 1);
}

Sequence::~Sequence() { truncate(0); }

std::span<const float> Sequence::logits() const {
    return has_logits_ ? std::span(now_, logits_.size()) : std::span<const float>();
}

Status Sequence::check(std::span<const std::int32_t> tokens) const {
    for (std::size_t i = 0; i < tokens.size(); ++i)
        if (tokens[i] < 0 || static_cast<std::uint32_t>(tokens[i]) >= executor_.hparams().n_vocab)
            return Error{Errc::invalid_argument, "token " + std::to_string(tokens[i]) + " at index " + std::to_string(i) + " is outside the vocabulary of " + std::to_string(executor_.hparams().n_vocab)};
    return {};
}

Status Sequence::append(std::span<const std::int32_t> tokens, bool reuse) {
    if (auto s = check(tokens); !s) return s;
    if (tokens.size() > room())
        return Error{Errc::context_full, std::to_string(tokens.size()) + " tokens do not fit: the context holds " + std::to_string(n_ctx_) + " and " + std::to_string(tokens_.size()) + " are in use; choose a larger context or truncate the session"};
    if (tokens.empty() || (reuse && take_guess(tokens))) return {};
    drop_guesses();
    const std::size_t before = tokens_.size();
    const std::uint32_t run_before = n_run_;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    if (reuse) reuse_pages();
    if (auto s = reserve_pages(tokens_.size()); !s) {
        tokens_.resize(before);   // pages taken over hold the same values as those they replaced, or later ones
        rewind(run_before);
        keep_pages(before);
        return s;
    }
    n_reused_ = n_run_ - run_before;
    has_logits_ = false;
    return {};
}

std::size_t Sequence::pages_for(std::size_t n_tokens) const {
    return executor_.tiers().pages_for(n_tokens, executor_.pages().shape().page_tokens);
}

std::uint32_t Sequence::full_pages(std::uint32_t n_tokens) const {
    return (executor_.tiers().on ? executor_.tiers().quantized(n_tokens) : n_tokens) / executor_.pages().shape().page_tokens;
}

void Sequence::keep_pages(std::size_t n_tokens) {
    PagePool& pool = executor_.pages();
    for (const std::size_t keep = pages_for(n_tokens); pages_.size() > keep; pages_.pop_back()) pool.release(pages_.back());
    ring_.trim(n_tokens);
    n_ready_ = 0;
    n_published_ = std::min(n_published_, full_pages(n_run_));
    n_exact_published_ = std::min(n_exact_published_, n_run_);
}

Status Sequence::reserve_pages(std::size_t n_tokens) {
    // A scheduler counts whole exact tiers.
    if (!ring_.reserve(logits_.empty() ? n_ctx_ : n_tokens)) return no_ring();
    const std::size_t need = pages_for(n_tokens), have = pages_.size();
    if (need > have && !executor_.pages().take(static_cast<std::uint32_t>(need - have), pages_)) return no_page(n_tokens);
    return own_pages(n_tokens);
}

Status Sequence::own_pages(std::size_t n_tokens) {
    PagePool& pool = executor_.pages();
    const std::size_t page = pool.shape().page_tokens;
    n_published_ = std::min(n_published_, full_pages(n_run_));
    const KvTiers& tiers = executor_.tiers();
    const std::size_t first = tiers.on ? static_cast<std::size_t>(tiers.window(static_cast<std::int32_t>(n_run_))) : n_run_;
    for (std::size_t i = first / page; i < pages_for(n_tokens); ++i)
        if (!pool.make_own(pages_[i])) return no_page(n_tokens);
    return {};
}

std::uint32_t Sequence::make_ready(std::uint32_t n) {
    n_ready_ = n;
    const KvTiers& tiers = executor_.tiers();
    if (!tiers.on) return n;
    const auto pos0 = static_cast<std::int32_t>(n_run_);
    if (!tiers.fits_ring(pos0, n)) {
        constexpr std::uint32_t page = KvTiers::kSink;
        const std::uint32_t end = n_run_ + n, first = n_run_ / page * page;   // what lies before is in the ring already
        const std::uint32_t from = std::max(first, (end - std::min(end, tiers.ring_tokens) + page - 1) / page * page);
        if ((n_run_ >= page || ring_.own_first()) && ring_.stage(keeps_exact() && !restored_ ? first : from, from, end)) {
            lose_exact(n);
            return n;
        }
        n_ready_ = n = tiers.ring_tokens - static_cast<std::uint32_t>(pos0 - tiers.window(pos0));
    }
    lose_exact(n);   // now: a run that fails may have written there
    return ring_.own(n_run_, n_run_ + n) ? n : n_ready_ = 0;
}

Error Sequence::no_ring() const {
    const PagePool& pool = *executor_.exact_pages();
    return Error{Errc::context_full, "the exact tier of the KV cache has no room for another session: " + std::to_string(pool.n_promises() * pool.shape().page_tokens) + " of its " + std::to_string(pool.n_pages() * pool.shape().page_tokens) + " tokens are free; end a session or load with kv_sessions set to as many as there are at once"};
}

Error Sequence::no_page(std::size_t n_tokens) const {
    const PagePool& pool = executor_.pages();
    const std::size_t page = pool.shape().page_tokens;
    return Error{Errc::context_full, "the KV cache has no page left for " + std::to_string(n_tokens) + " tokens: " + std::to_string(pool.n_free() * page) + " of " + std::to_string(pool.n_pages() * page) + " tokens are free among all sessions; end a session or load with a larger context"};
}

Status Sequence::run_batch(std::span<const std::int32_t> tokens, std::uint32_t n_guesses, std::span<const std::uint32_t> outputs, float* logits,
                           const RunExtras& extras) {
    const auto n = static_cast<std::uint32_t>(tokens.size());
    if (std::exchange(n_ready_, 0) != n) {
        if (auto s = reserve_pages(n_run_ + n); !s) return s;
        if (make_ready(n) != n) return no_ring();
    }
    SeqChunk all = chunk(0, n);
    all.mask = extras.mask;
    RunArgs args;
    args.tokens = tokens;
    args.chunks = {&all, 1};
    args.outputs = outputs;
    args.logits = logits;
    args.logits_stride = logits_.size();
    args.observed = extras.observed;
    Stopwatch clock;
    if (auto s = executor_.run(args); !s) return s;
    run_seconds_ += clock.seconds();
    ran(n - n_guesses);
    return {};
}

void Sequence::lose_exact(std::uint32_t n) {
    const KvTiers& tiers = executor_.tiers();
    const std::uint32_t end = n_run_ + n, lost = end - std::min(end, tiers.ring_tokens);
    ring_from_ = std::max(ring_from_, (lost + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes);   // in whole pages
}

void Sequence::rewind(std::uint32_t n) {
    n_run_ = std::min(n_run_, n);
    const KvTiers& tiers = executor_.tiers();
    if (!tiers.on) return;
    const auto from = static_cast<std::uint32_t>(tiers.window(static_cast<std::int32_t>(n_run_)));
    if (n_run_ > 0 && from >= ring_from_) return;
    n_run_ = ring_from_ = tiers.tail == 0 ? from : 0;   // without a tail nothing before a group is needed exact
    n_exact_published_ = 0;
}

Status Sequence::size_step(std::uint32_t& n) {
    if (auto s = reserve_pages(n_run_ + n); !s) return s;
    n = make_ready(n);
    return n > 0 ? Status{} : no_ring();
}

Status Sequence::step(std::uint32_t n, std::span<const std::uint32_t> outputs, float* logits) {
    if (auto s = run_batch(std::span(tokens_).subspan(n_run_, n), 0, outputs, logits); !s) return s;
    now_ = logits_.data();
    return {};
}

std::uint32_t Sequence::reserve_ahead(std::uint32_t n) {
    n = std::min(n, executor_.n_batch() - 1);
    if (executor_.tiers().on) n = std::min(n, KvTiers::kSlack);   // more could not always be taken back
    if (ahead_outputs_.size() <= n) {
        ahead_.reserve(n + 1);
        ahead_outputs_.resize(n + 1);
        std::iota(ahead_outputs_.begin(), ahead_outputs_.end(), 0u);
        if (has_logits_ && now_ != logits_.data()) std::copy_n(now_, logits_.size(), logits_.begin());
        now_ = logits_.data();
        ahead_logits_.resize((n + 1) * logits_.size());
    }
    return n;
}

Status Sequence::run_ahead(std::span<const std::int32_t> guesses) {
    drop_guesses();
    n_taken_ = 0;
    if (auto s = reserve_pages(tokens_.size() + guesses.size()); !s) {
        keep_pages(tokens_.size());
        return s;
    }
    ahead_.assign(1, tokens_.back());
    ahead_.insert(ahead_.end(), guesses.begin(), guesses.end());
    if (auto s = run_batch(ahead_, static_cast<std::uint32_t>(guesses.size()), std::span(ahead_outputs_).first(ahead_.size()), ahead_logits_.data()); !s) {
        drop_guesses();
        return s;
    }
    now_ = ahead_logits_.data();
    has_logits_ = true;
    return {};
}

bool Sequence::take_guess(std::span<const std::int32_t> tokens) {
    if (tokens.size() != 1 || !has_guess() || ahead_[n_taken_ + 1] != tokens[0]) return false;
    tokens_.push_back(tokens[0]);
    ++n_taken_;
    ++n_run_;
    now_ += logits_.size();
    n_reused_ = 0;
    publish_pages();
    return true;
}

void Sequence::drop_guesses() {
    if (ahead_.empty() && tree_.empty()) return;
    ahead_.clear();
    tree_.clear();
    keep_pages(tokens_.size());
}

Status Sequence::run_tree(std::span<const std::int32_t> nodes, std::span<const std::uint64_t> mask, float* logits) {
    const auto refused = [](std::string_view why) { return Error{Errc::invalid_argument, cat("this tree of tokens cannot be run: ", why)}; };
    if (executor_.tiers().on) return Error{Errc::unsupported, "trees of tokens are run on caches of one tier, f16 and f32: load with kv_type set to one"};
    if (executor_.pages().host_page_bytes() != executor_.pages().shape().page_bytes()) return Error{Errc::unsupported, "trees of tokens are run where all layers are the CPU's: load without a device"};
    if (tokens_.empty() || n_run_ != tokens_.size()) return refused("it needs a text before it, all of which has been run");
    if (nodes.empty() || nodes.size() > SeqChunk::kMaxTree || mask.size() != nodes.size()) return refused(cat("it has ", nodes.size(), " tokens and ", mask.size(), " masks, 1 to ", SeqChunk::kMaxTree, " of both is right"));
    if (nodes.size() > std::min(room(), executor_.max_batch())) return Error{Errc::context_full, cat("a tree of ", nodes.size(), " tokens does not fit: the context has room for ", room(), ", a step for ", executor_.max_batch())};
    if (auto s = check(nodes); !s) return s;
    drop_guesses();
    std::uint32_t outputs[SeqChunk::kMaxTree];
    std::iota(std::begin(outputs), std::end(outputs), 0u);
    tree_.assign(nodes.begin(), nodes.end());
    tree_mask_.assign(mask.begin(), mask.end());
    tree_logits_ = logits;
    auto s = run_batch(tree_, static_cast<std::uint32_t>(nodes.size()), std::span(outputs).first(nodes.size()), logits, {.mask = tree_mask_.data()});
    if (!s) drop_guesses();
    return s;
}

Status Sequence::take_branch(std::span<const std::uint32_t> branch) {
    std::uint64_t seen = 0;
    for (const std::uint32_t node : branch) {
        if (node >= tree_.size() || seen >> node != 0 || tree_mask_[node] != (seen | std::uint64_t{1} << node))
            return Error{Errc::invalid_argument, cat("node ", node, " does not follow the nodes before it in the tree of ", tree_.size(), " tokens that was run")};
        seen = tree_mask_[node];
    }
    if (branch.empty()) return {};
    for (std::uint32_t i = 0; i < branch.size(); ++i) {   // ascending: what is written over has been moved
        if (branch[i] != i) {
            copy_position(executor_.pages(), pages_.data(), n_run_ + branch[i], n_run_ + i);
            restored_ = true;
        }
        tokens_.push_back(tree_[branch[i]]);
    }
    n_run_ += static_cast<std::uint32_t>(branch.size());
    std::copy_n(tree_logits_ + branch.back() * logits_.size(), logits_.size(), logits_.begin());
    now_ = logits_.data();
    has_logits_ = true;
    drop_guesses();
    publish_pages();
    return {};
}

Status Sequence::run(const std::function<bool(std::uint32_t, std::uint32_t)>& on_step) {
    const auto first = n_run_, all = static_cast<std::uint32_t>(tokens_.size()) - n_run_;
    while (n_run_ < tokens_.size()) {
        auto n = std::min<std::uint32_t>(executor_.n_batch(), static_cast<std::uint32_t>(tokens_.size()) - n_run_);
        if (auto s = size_step(n); !s) return s;
        const bool last = n_run_ + n == tokens_.size();
        const std::uint32_t output = n - 1;
        if (auto s = step(n, last ? std::span(&output, 1) : std::span<const std::uint32_t>{}, logits_.data()); !s) return s;
        if (last) has_logits_ = true;
        if (on_step && !on_step(n_run_ - first, all)) return Error{Errc::cancelled, "cancelled by the caller"};
    }
    return {};
}

Status Sequence::run_all(std::vector<float>& logits) {
    const std::size_t n_vocab = logits_.size(), all = tokens_.size() - n_run_;
    logits.resize(all * n_vocab);
    std::vector<std::uint32_t> outputs(std::min<std::size_t>(all, executor_.n_batch()));
    std::iota(outputs.begin(), outputs.end(), 0u);
    for (std::size_t done = 0; done < all;) {
        auto n = static_cast<std::uint32_t>(std::min(all - done, outputs.size()));
        if (auto s = size_step(n); !s) return s;
        if (auto s = step(n, std::span(outputs).first(n), logits.data() + done * n_vocab); !s) return s;
        done += n;
    }
    if (all) {
        std::copy_n(logits.end() - static_cast<std::ptrdiff_t>(n_vocab), n_vocab, logits_.begin());
        now_ = logits_.data();
        has_logits_ = true;
    }
    return {};
}

Status Sequence::need_logits() {
    if (has_logits_) return {};
    if (tokens_.empty()) return Error{Errc::invalid_argument, "the session is empty: there is nothing to continue; give a prompt of at least one token"};
    if (n_run_ == tokens_.size()) rewind(n_run_ - 1);
    return run();
}

Result<std::vector<double>> Sequence::observe() {
    const auto n = static_cast<std::uint32_t>(tokens_.size()), last = std::min({n, kObserved, executor_.max_batch()});
    drop_guesses();
    has_logits_ = false;
    rewind(n - last);
    while (n_run_ < n - last) {
        std::uint32_t some = std::min(executor_.n_batch(), n - last - n_run_);
        if (auto s = size_step(some); !s) return std::move(s).error();
        if (auto s = step(some, {}, nullptr); !s) return std::move(s).error();
    }
    const auto& heads = executor_.hparams().n_head_kv;
    const std::size_t n_blocks = RunArgs::observed_blocks(n), n_heads = std::accumulate(heads.begin(), heads.end(), std::size_t{0});
    std::vector<double> each(n_heads * n_blocks), all(n_blocks);
    if (last > 0)
        if (auto s = run_batch(std::span(tokens_).subspan(n_run_), 0, {}, nullptr, {.observed = each.data()}); !s) return std::move(s).error();
    for (std::size_t i = 0; i < each.size(); ++i) all[i % n_blocks] += each[i];
    return all;
}

void Sequence::truncate(std::uint32_t n) {
    if (n >= tokens_.size()) return;
    drop_guesses();
    if (n == 0) publish_exact();
    tokens_.resize(n);
    rewind(n);
    if (n_run_ == 0) restored_ = false;
    has_logits_ = false;
    keep_pages(n);
}

Status Sequence::fork(const Sequence& other) {
    const std::size_t shared = pages_for(other.n_run_);
    if (!ring_.share(other.ring_)) return no_ring();
    ring_from_ = other.ring_from_;
    n_exact_published_ = other.n_exact_published_;
    for (std::size_t i = 0; i < shared; ++i) {
        executor_.pages().add_reference(other.pages_[i]);
        pages_.push_back(other.pages_[i]);
    }
    tokens_.assign(other.tokens_.begin(), other.tokens_.end());
    n_run_ = other.n_run_;
    n_published_ = other.n_published_;
    restored_ = other.restored_;
    if (tokens_.size() > n_run_)
        if (auto s = reserve_pages(tokens_.size()); !s) {
            truncate(0);
            return s;
        }
    has_logits_ = other.has_logits_;
    if (has_logits_) std::copy_n(other.now_, logits_.size(), logits_.begin());
    now_ = logits_.data();
    return {};
}

namespace {

SessionFile agreed(const Executor& e, std::uint64_t model) {
    const KvShape& shape = e.pages().shape();
    SessionFile f;
    f.model = model;
    f.kv_format = static_cast<std::uint32_t>(shape.format);
    f.page_tokens = shape.page_tokens;
    f.page_bytes = shape.page_bytes();
    f.n_vocab = e.hparams().n_vocab;
    if (e.tiers().on) {
        f.kv_format |= e.tiers().tail << 8;
        f.exact_bytes = e.exact_pages()->shape().page_bytes();
    }
    return f;
}

}  // namespace

std::uint32_t Sequence::n_saved() const {
    const KvTiers& tiers = executor_.tiers();
    const std::uint32_t page = executor_.pages().shape().page_tokens;
    if (!tiers.on) return n_run_ / page * page;
    const std::uint32_t n = tokens_.empty() ? 0 : std::min(n_run_, static_cast<std::uint32_t>(tokens_.size()) - 1) / KvTiers::kSink * KvTiers::kSink;
    return static_cast<std::uint32_t>(tiers.window(static_cast<std::int32_t>(n))) >= ring_from_ ? n : 0;
}

Status Sequence::save(const std::string& path, std::uint64_t model, std::string_view note) const {
    SessionFile f = agreed(executor_, model);
    f.tokens = tokens_;
    f.note = note;
    const std::uint32_t n = n_saved();
    const std::uint32_t from = executor_.tiers().on ? executor_.tiers().quantized(n) : n;
    f.n_pages = from / f.page_tokens;
    if (executor_.tiers().on && n > 0) f.n_exact = 1 + (n - from) / KvTiers::kSink;
    return f.write(path, [&](std::uint32_t i, std::span<std::byte> to) {
        if (i < f.n_pages) return executor_.pages().read_page(pages_[i], to);
        i -= f.n_pages;
        return executor_.exact_pages()->read_page(i ? ring_.page_at(from + (i - 1) * KvTiers::kSink) : *ring_.table(), to);
    });
}

Status Sequence::restore(const std::string& path, std::uint64_t model, std::string* note) {
    auto file = MappedFile::open(path);
    if (!file) return std::move(file).error();
    SessionFile f = agreed(executor_, model);
    if (auto s = f.read((*file)->bytes()); !s)
        return Error{s.error().code, cat(path, ": this session cannot be restored: ", s.error().message, "; delete the file, or load what it was saved with")};
    if (f.tokens.size() > n_ctx_)
        return Error{Errc::context_full, cat(path, ": this session has ", f.tokens.size(), " tokens, the context holds ", n_ctx_, "; choose a larger context")};
    const KvTiers& tiers = executor_.tiers();
    const std::uint32_t from = f.n_pages * f.page_tokens;
    const std::uint64_t n = from + (f.n_exact ? std::uint64_t{f.n_exact - 1} * KvTiers::kSink : 0);
    if (tiers.on && (n > f.tokens.size() || tiers.quantized(n) != from || (n > 0) != (f.n_exact > 0)))
        return Error{Errc::bad_file, cat(path, ": this session cannot be restored: its ", f.n_pages, " quantized and ", f.n_exact, " exact pages do not belong together; delete the file")};
    PagePool& pool = executor_.pages();
    std::vector<std::uint32_t> pages;
    const std::size_t need = pages_for(f.tokens.size());
    pages.reserve(need);
    if (!ring_.reserve(f.tokens.size())) return no_ring();
    if (!pool.take(static_cast<std::uint32_t>(need), pages)) return no_page(f.tokens.size());
    publish_exact();
    ExactRing ring = std::move(ring_);   // stays: others may wait for its pages
    truncate(0);
    ring_ = std::move(ring);
    tokens_.assign(f.tokens.begin(), f.tokens.end());
    pages_.assign(pages.begin(), pages.end());
    restored_ = n > 0;
    has_logits_ = false;
    if (f.n_exact > 0 && (!ring_.own_first() || !ring_.own(from, static_cast<std::uint32_t>(n)))) return no_ring();
    // A device that fails here fails in every later run: the tokens are there, nothing of them has been run.
    for (std::uint32_t i = 0; i < f.n_pages; ++i)
        if (auto s = pool.write_page(pages_[i], f.pages.subspan(i * f.page_bytes, f.page_bytes)); !s) return s;
    for (std::uint32_t i = 0; i < f.n_exact; ++i)
        if (auto s = executor_.exact_pages()->write_page(i ? ring_.page_at(from + (i - 1) * KvTiers::kSink) : *ring_.table(), f.exact.subspan(i * f.exact_bytes, f.exact_bytes)); !s) return s;
    n_run_ = static_cast<std::uint32_t>(n);
    ring_from_ = tiers.on ? from : 0;
    if (note) *note = f.note;
    return {};
}

void Sequence::add(std::span<const std::int32_t> tokens) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    has_logits_ = false;
}

std::uint32_t Sequence::reuse() {
    reuse_pages();
    return n_run_;
}

SeqChunk Sequence::chunk(std::uint32_t first, std::uint32_t n) const {
    return {pages_.data(), first, n, static_cast<std::int32_t>(n_run_), ring_.table(), ring_.kept(), static_cast<std::int32_t>(ring_.kept_from())};
}

void Sequence::ran(std::uint32_t n) {
    n_run_ += n;
    n_ready_ = 0;
    publish_pages();
    ring_.keep_staged([&](std::uint32_t pos, std::uint32_t& page) {
        if (std::uint64_t serial = 0; keeps_exact() && exact_serial(pos, serial)) executor_.exact_pages()->publish_after(serial, exact_block(pos), page);
    });
    if (n > 1) publish_exact();
}

void Sequence::drop_cache() {
    publish_exact();
    n_run_ = ring_from_ = 0;
    keep_pages(0);
    has_logits_ = false;
}

}  // namespace quern::engine
