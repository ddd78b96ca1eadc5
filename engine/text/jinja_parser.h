// SPDX-License-Identifier: Apache-2.0
#ifndef QUERN_ENGINE_TEXT_JINJA_PARSER_H
#define QUERN_ENGINE_TEXT_JINJA_PARSER_H

#include <string_view>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_context.h"

namespace quern::text::jinja {

/// Parses a whole template. Unknown statements, filters and tests are errors here, before anything is rendered.
/// The tree owns all it needs; `source` may go away.
Tree parse_template(std::string_view source, Context& ctx);

}  // namespace quern::text::jinja
#endif
