// SPDX-License-Identifier: Apache-2.0
#include "tools/infer/conversation.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

namespace quern::tools {

using Json = nlohmann::ordered_json;

Conversation::Conversation(const Model& model, Session& session, Answerer& answerer, ChatOptions options,
                           const std::string& system)
    : model_(model), session_(session), answerer_(answerer), options_(std::move(options)) {
    if (!system.empty()) messages_.push_back({{"role", "system"}, {"content", system}});
}

Result<std::vector<Token>> Conversation::render(Json& asked) const {
    // What was typed may hold bytes that are not UTF-8; JSON cannot.
    const auto tokenize = [&] { return model_.tokenize_chat(asked.dump(-1, ' ', false, Json::error_handler_t::replace), options_); };
    Result<std::vector<Token>> tokens = tokenize();
    const std::uint32_t n_ctx = session_.n_ctx();
    if (!slides_ || !tokens || tokens->size() <= n_ctx - n_ctx / 8) return tokens;
    const std::ptrdiff_t head = asked.front()["role"] == "system";
    std::size_t dropped = 0;
    while (tokens && tokens->size() > n_ctx / 2 && asked.size() > static_cast<std::size_t>(head) + 2) {
        asked.erase(asked.begin() + head, asked.begin() + head + 2);  // a question and its answer
        dropped += 2;
        tokens = tokenize();
    }
    if (dropped > 0) std::fprintf(stderr, "infer: the context of %u tokens is nearly full: dropped the %zu oldest messages\n", n_ctx, dropped);
    return tokens;
}

Result<GenerateResult> Conversation::turn(const std::string& user) {
    Json asked = messages_;
    asked.push_back({{"role", "user"}, {"content", user}});
    Result<std::vector<Token>> tokens = render(asked);
    if (!tokens) return std::move(tokens).error();
    if (tokens->empty()) return Error{Errc::invalid_argument, "the chat template rendered this conversation as nothing"};

    // The template may render earlier turns differently from what was generated, so the common start is searched.
    const std::span<const Token> kept = session_.tokens();
    const std::size_t limit = std::min(kept.size(), tokens->size() - 1);
    const auto common = static_cast<std::size_t>(
        std::mismatch(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(limit), tokens->begin()).first - kept.begin());
    if (Status status = session_.truncate(static_cast<std::uint32_t>(common)); !status) return std::move(status).error();
    tokens->erase(tokens->begin(), tokens->begin() + static_cast<std::ptrdiff_t>(common));

    Result<GenerateResult> result = answerer_.answer(*tokens);
    if (!result) return result;
    asked.push_back({{"role", "assistant"}, {"content", result->text}});
    messages_ = std::move(asked);
    return result;
}

bool Conversation::resume(const Json& messages) {
    const auto is_text = [](const Json& m, const char* key) { return m.contains(key) && m[key].is_string(); };
    if (!messages.is_array()) return false;
    for (const Json& m : messages)
        if (!m.is_object() || !is_text(m, "role") || !is_text(m, "content")) return false;
    messages_ = messages;
    return true;
}

}  // namespace quern::tools
