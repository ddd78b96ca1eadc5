// SPDX-License-Identifier: Apache-2.0
// Text of a template to tokens. White space control happens here, as in Jinja2 3.1 with trim_blocks and lstrip_blocks.
#ifndef QUERN_ENGINE_TEXT_JINJA_LEXER_H
#define QUERN_ENGINE_TEXT_JINJA_LEXER_H

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_context.h"

namespace quern::text::jinja {

struct Token {
    enum class Type : std::uint8_t {
        data,
        print_begin,
        print_end,
        block_begin,
        block_end,
        name,
        string,
        integer,
        floating,
        op,
        end
    };
    Type type = Type::end;
    std::uint32_t line = 1;
    std::string_view text;  ///< into the source; a string with its quotes
};

/// Newlines become "\n", and one at the very end goes, as Jinja2 does before anything else.
std::string normalize_source(std::string_view source);

/// Tokens of a normalized source, which must outlive them; the last one is Type::end. Errors go to the context.
std::vector<Token> tokenize(std::string_view source, Context& ctx);

/// The value of a string token: escapes resolved as Python does.
std::string unescape(const Token& token, Context& ctx);

}  // namespace quern::text::jinja
#endif
