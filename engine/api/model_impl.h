// SPDX-License-Identifier: Apache-2.0
// What stands behind the public handles.
#pragma once

#include <memory>
#include <optional>

#include "engine/run/draft.h"
#include "engine/run/executor.h"
#include "engine/run/recorder.h"
#include "engine/run/sequence.h"
#include "engine/text/jinja_template.h"
#include "engine/text/tokenizer.h"
#include "engine/tune/cache.h"
#include "engine/tune/search.h"
#include "formats/gguf.h"
#include "quern/quern.hpp"

namespace quern {

struct Model::Impl {
    std::optional<gguf::File> file;
    std::shared_ptr<const text::Tokenizer> tokenizer;             // null: the file has none
    std::shared_ptr<const text::jinja::Template> chat_template;   // null: the file has none
    std::unique_ptr<engine::Executor> executor;
    ModelInfo info;
    std::vector<engine::Cpu> cpus;                                // allowed
    engine::TuneCandidates tune_candidates;
    engine::TuneCache tune_cache{""};
    std::string tune_key;                                         // of this model on this machine

    std::function<void(LogLevel, std::string_view)> on_log;       // may be empty
    mutable engine::Recorder texts;                               // of tokenizing

    Status need_tokenizer() const;
    MemoryReport memory_report() const;
    /// What of metrics is the model's.
    void fill(Metrics& out) const;
    /// Chooses thread counts and batch as `options.tune` asks; what kept it from measuring is
    /// returned and leaves them as they are.
    Status settle_tuning(const ModelOptions& options, const engine::Topology& topology, const std::string& cache_dir);
    /// Measures, uses what it found and keeps it; unasked, only if nothing disturbed.
    Result<TuneResult> measure(bool unasked) const;
    void use(const engine::TuneChoice& choice) const;
};

/// What stands behind a public handle, for benchmarks that need more than the public interface gives.
struct Internals {
    static Model::Impl& of(const Model& model) { return *model.impl_; }
    static const std::shared_ptr<Model::Impl>& shared(const Model& model) { return model.impl_; }
    static Session::Impl& of(const Session& session);
};

/// What Session::use_draft() gave.
struct SessionDraft {
    std::shared_ptr<Model::Impl> model;
    DraftOptions options;
    engine::Draft draft;

    SessionDraft(std::shared_ptr<Model::Impl> m, const Model::Impl& target, const DraftOptions& o)
        : model(std::move(m)), options(o), draft(*model->executor, *target.executor, std::min(model->info.n_vocab, target.info.n_vocab), o.n_ctx ? o.n_ctx : model->executor->n_ctx(), o.n_tokens) {}
};

struct Session::Impl {
    std::shared_ptr<Model::Impl> model;
    engine::Sequence sequence;
    std::unique_ptr<SessionDraft> draft;                          // null: none
    std::atomic<std::uint64_t> draft_bytes{0};
    engine::Recorder recorder;
    std::atomic<bool> cancelled{false};

    Impl(std::shared_ptr<Model::Impl> m, std::uint32_t n_ctx) : model(std::move(m)), sequence(*model->executor, n_ctx) {}
};

inline Session::Impl& Internals::of(const Session& session) { return *session.impl_; }

}  // namespace quern
