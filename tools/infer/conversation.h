// SPDX-License-Identifier: Apache-2.0
// A conversation in the model's chat template: the part that is already in the session is not read again.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quern/quern.hpp"
#include "tools/infer/answer.h"

namespace quern::tools {

class Conversation {
public:
    /// `system` may be empty: then the template decides.
    Conversation(const Model& model, Session& session, Answerer& answerer, ChatOptions options,
                 const std::string& system);

    /// Whether the oldest messages are dropped, with a line on standard error, when the context has little room left.
    void set_slides(bool slides) { slides_ = slides; }

    /// Asks `user` and keeps the answer. On an Error the conversation is as before.
    Result<GenerateResult> turn(const std::string& user);

    /// Goes on from the messages() of an earlier run instead of from the start; false, and nothing changed, if they are none.
    bool resume(const nlohmann::ordered_json& messages);

    /// [{"role": ..., "content": ...}, ...]
    const nlohmann::ordered_json& messages() const { return messages_; }

private:
    /// The conversation with the question `asked` as tokens; drops messages of it where that is wanted.
    Result<std::vector<Token>> render(nlohmann::ordered_json& asked) const;

    const Model& model_;
    Session& session_;
    Answerer& answerer_;
    ChatOptions options_;
    bool slides_ = false;
    nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
};

}  // namespace quern::tools
