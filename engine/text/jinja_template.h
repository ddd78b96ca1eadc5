// SPDX-License-Identifier: Apache-2.0
// The part of Jinja2 that the chat templates of models use, with the settings of Hugging Face's
// apply_chat_template: trim_blocks, lstrip_blocks, loop controls, no autoescape, tojson as plain JSON.
#ifndef QUERN_ENGINE_TEXT_JINJA_TEMPLATE_H
#define QUERN_ENGINE_TEXT_JINJA_TEMPLATE_H

#include <memory>
#include <string>
#include <string_view>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_context.h"
#include "engine/text/jinja_value.h"
#include "quern/result.hpp"

namespace quern::text::jinja {

/// A parsed template. Immutable; any number of threads may render it at once.
class Template {
public:
    /// Errors say the line: bad syntax is invalid_argument; a statement, filter or test that is not there is
    /// unsupported; a passed limit is out_of_memory.
    static Result<std::shared_ptr<const Template>> parse(std::string_view source, const Limits& limits = {});

    /// Renders with `globals`, a dict of variables, which is not changed. raise_exception() in the template,
    /// undefined names that are used, wrong types and passed limits are errors with the template's line.
    Result<std::string> render(const Value& globals, const Limits& limits = {}) const;

private:
    explicit Template(Tree tree) : tree_(std::move(tree)) {}
    Tree tree_;
};

}  // namespace quern::text::jinja
#endif
