// SPDX-License-Identifier: Apache-2.0
// Which models may draft for which: those that mean the same by every token.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/api/model_impl.h"
#include "formats/text.h"

namespace quern {
namespace {

using text::Vocab;

/// What differs first; "" if nothing does.
std::string difference(const Vocab& target, const Vocab& draft) {
    const auto differ = [](const char* what, const auto& a, const auto& b) { return cat(what, " is ", b, " there and ", a, " here"); };
    if (draft.model != target.model) return differ("the kind of tokenizer (tokenizer.ggml.model)", quoted(target.model), quoted(draft.model));
    const std::size_t common = std::min(target.size(), draft.size());
    for (std::size_t i = 0; i < common; ++i) {
        if (draft.pieces[i] != target.pieces[i]) return differ(cat("the text of token ", i).c_str(), quoted(target.pieces[i]), quoted(draft.pieces[i]));
        if (draft.types[i] != target.types[i]) return differ(cat("the type of token ", i, ", ", quoted(target.pieces[i]), ",").c_str(), int(target.types[i]), int(draft.types[i]));
    }
    // Models of a family pad their vocabularies to sizes that suit their matrices.
    const Vocab& longer = target.size() > common ? target : draft;
    for (std::size_t i = common; i < longer.size(); ++i)
        if (longer.types[i] != text::TokenType::unused)
            return cat("there are ", draft.size(), " tokens there and ", target.size(), " here, and token ", i, ", ", quoted(longer.pieces[i]), ", which only one has, is not marked as unused padding");
    const std::pair<const char*, text::Token Vocab::*> ids[] = {{"bos", &Vocab::bos}, {"eos", &Vocab::eos}, {"eot", &Vocab::eot}, {"eom", &Vocab::eom}, {"unk", &Vocab::unk}, {"sep", &Vocab::sep}};
    for (const auto& [name, id] : ids)
        if (draft.*id != target.*id) return differ(cat("the id of the special token ", name).c_str(), target.*id, draft.*id);
    if (draft.end_of_generation != target.end_of_generation) return "the tokens that end an answer are others";
    return "";
}

}  // namespace

Status Session::use_draft(const Model& draft, const DraftOptions& o) {
    const Model::Impl& target = *impl_->model;
    Model::Impl& d = Internals::of(draft);
    if (o.n_tokens > engine::StepCosts::kMost) return Error{Errc::invalid_argument, cat("DraftOptions::n_tokens is ", o.n_tokens, "; it is 0 (as many as pay) to ", engine::StepCosts::kMost)};
    if (o.n_ctx > d.executor->n_ctx()) return Error{Errc::invalid_argument, cat("DraftOptions::n_ctx is ", o.n_ctx, ", but the draft's KV cache holds ", d.executor->n_ctx(), " tokens; load it with a larger n_ctx")};
    if (auto s = target.need_tokenizer(); !s) return s;
    if (auto s = d.need_tokenizer(); !s) return s;
    const std::string what = difference(target.tokenizer->vocab(), d.tokenizer->vocab());
    if (!what.empty())
        return Error{Errc::invalid_argument, cat(d.file->path(), " cannot draft for ", target.file->path(), ": ", what, "; a draft needs the same tokens by the same ids, padding at the end aside, as models of one family have")};
    impl_->draft = std::make_unique<SessionDraft>(Internals::shared(draft), target, o);
    impl_->draft_bytes = &d == &target ? 0 : draft.memory_report().total;
    return {};
}

}  // namespace quern
