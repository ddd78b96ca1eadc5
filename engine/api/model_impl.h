// SPDX-License-Identifier: Apache-2.0
// What stands behind the public handles.
#pragma once

#include <memory>
#include <optional>

#include "engine/run/executor.h"
#include "engine/run/sequence.h"
#include "engine/text/jinja_template.h"
#include "engine/text/tokenizer.h"
#include "formats/gguf.h"
#include "quern/quern.hpp"

namespace quern {

struct Model::Impl {
    std::optional<gguf::File> file;
    std::shared_ptr<const text::Tokenizer> tokenizer;             // null: the file has none
    std::shared_ptr<const text::jinja::Template> chat_template;   // null: the file has none
    std::unique_ptr<engine::Executor> executor;
    ModelInfo info;

    Status need_tokenizer() const;
};

/// What stands behind a public handle, for benchmarks that need more than the public interface gives.
struct Internals {
    static Model::Impl& of(const Model& model) { return *model.impl_; }
};

struct Session::Impl {
    std::shared_ptr<Model::Impl> model;
    engine::Sequence sequence;
    std::atomic<bool> cancelled{false};

    Impl(std::shared_ptr<Model::Impl> m, std::uint32_t n_ctx) : model(std::move(m)), sequence(*model->executor, n_ctx) {}
};

}  // namespace quern
