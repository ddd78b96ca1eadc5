// SPDX-License-Identifier: Apache-2.0
// A conversation to the text that a model expects, through the model's own chat template.
#ifndef QUERN_ENGINE_TEXT_CHAT_H
#define QUERN_ENGINE_TEXT_CHAT_H

#include <cstdint>
#include <string>

#include "engine/text/jinja_template.h"
#include "quern/result.hpp"

namespace quern::text {

struct ChatInput {
    std::string messages_json;  ///< array of {"role": ..., "content": ...}, as in OpenAI's chat API
    std::string tools_json;     ///< array of tools; empty: the template sees none
    std::string extra_json;     ///< object of more template variables, such as {"enable_thinking": false}; may be empty
    bool add_generation_prompt = true;
    std::string bos_token, eos_token;  ///< text of the vocabulary's special tokens
    std::int64_t now = 0;              ///< for strftime_now: seconds since 1970, shown in UTC
};

/// Renders with the variables that Hugging Face's apply_chat_template gives: messages, tools, documents (none),
/// add_generation_prompt, bos_token, eos_token, and those of extra_json, which win. Errors: JSON that is malformed or
/// of the wrong shape (names the input and the byte), and everything that Template::render reports.
Result<std::string> render_chat(const jinja::Template& chat_template, const ChatInput& input,
                                const jinja::Limits& limits = {});

}  // namespace quern::text
#endif
