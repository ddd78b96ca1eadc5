// SPDX-License-Identifier: Apache-2.0
// Conversations to text and tokens.
#include "engine/text/chat.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "engine/api/model_impl.h"

namespace quern {
namespace {

using Json = nlohmann::ordered_json;

/// A Unicode noncharacter (U+FDD0 to U+FDEF, three bytes) that does not occur in the text; nothing else writes them.
std::optional<std::string> unused_mark(std::string_view text) {
    for (int i = 0; i < 32; ++i) {
        std::string mark = "\xef\xb7";
        mark += static_cast<char>(0x90 + i);
        if (text.find(mark) == std::string_view::npos) return mark;
    }
    return std::nullopt;
}

/// Deeper JSON is refused by text::render_chat; walking it here must not overflow the stack first.
constexpr int kMaxDepth = 64;

/// Puts the mark before everything in the strings of `j` that would be read as a control token; false if too deep.
bool mark_controls(Json& j, const text::Tokenizer& t, const std::string& mark, int depth = 0) {
    if (j.is_string()) {
        std::string out;
        const auto& s = j.get_ref<const std::string&>();
        for (std::size_t i = 0; i < s.size(); ++i) {
            if (t.starts_with_control(std::string_view(s).substr(i))) out += mark;
            out += s[i];
        }
        j = std::move(out);
    } else if (j.is_structured()) {
        if (depth == kMaxDepth) return false;
        for (auto& item : j)
            if (!mark_controls(item, t, mark, depth + 1)) return false;
    }
    return true;
}

/// Takes the marks out of `text`; returns the offsets of what they stood before.
std::vector<std::size_t> remove_marks(std::string& text, const std::string& mark) {
    std::vector<std::size_t> out;
    std::string clean;
    std::size_t from = 0;
    for (std::size_t at; (at = text.find(mark, from)) != std::string::npos; from = at + mark.size()) {
        clean.append(text, from, at - from);
        out.push_back(clean.size());
    }
    clean.append(text, from);
    text = std::move(clean);
    return out;
}

}  // namespace

Result<std::string> Model::render_chat(std::string_view messages_json, const ChatOptions& o) const {
    std::shared_ptr<const text::jinja::Template> chat_template = impl_->chat_template;
    if (!o.chat_template.empty() || !chat_template) {
        std::string source = o.chat_template;
        if (source.empty()) {
            auto own = impl_->file->get_string_or("tokenizer.chat_template", "");
            if (!own) return std::move(own).error();
            if (own->empty()) return Error{Errc::unsupported, impl_->file->path() + ": the model has no chat template (key 'tokenizer.chat_template'); give one, or complete plain text"};
            source = *own;
        }
        auto parsed = text::jinja::Template::parse(source);
        if (!parsed) return Error{parsed.error().code, "chat template: " + parsed.error().message};
        chat_template = std::move(*parsed);
    }
    text::ChatInput in;
    in.messages_json = messages_json;
    in.tools_json = o.tools_json;
    in.extra_json = o.variables_json;
    in.add_generation_prompt = o.add_generation_prompt;
    in.now = static_cast<std::int64_t>(std::time(nullptr));
    if (impl_->tokenizer) {
        const text::Vocab& v = impl_->tokenizer->vocab();
        in.bos_token = impl_->tokenizer->piece(v.bos, true);
        in.eos_token = impl_->tokenizer->piece(v.eos, true);
    }
    auto text = text::render_chat(*chat_template, in);
    if (!text) return Error{text.error().code, "chat template: " + text.error().message};
    return text;
}

Result<std::vector<Token>> Model::tokenize_chat(std::string_view messages_json, const ChatOptions& options) const {
    if (auto s = impl_->need_tokenizer(); !s) return std::move(s).error();
    const text::Tokenizer& t = *impl_->tokenizer;
    std::string messages(messages_json);
    Json j = Json::parse(messages, nullptr, false);
    const auto mark = unused_mark(messages);
    if (!mark) return Error{Errc::invalid_argument, "the messages hold every one of the 32 noncharacters U+FDD0 to U+FDEF; remove one"};
    // Malformed or too deep JSON goes on as it is: render_chat names what is wrong with it.
    if (!j.is_discarded() && mark_controls(j, t, *mark)) messages = j.dump();
    auto rendered = render_chat(messages, options);
    if (!rendered) return std::move(rendered).error();
    const auto literal = remove_marks(*rendered, *mark);
    // The template writes BOS itself where the model wants one; where it does not, it is added here.
    const text::Vocab& v = t.vocab();
    const bool has_bos = v.bos >= 0 && rendered->starts_with(t.piece(v.bos, true));
    auto tokens = t.encode(*rendered, {.add_special = false, .parse_special = true, .literal = literal});
    if (tokens && v.add_bos && !has_bos) tokens->insert(tokens->begin(), v.bos);
    return tokens;
}

}  // namespace quern
