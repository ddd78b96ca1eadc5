// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_template.h"

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_parser.h"

namespace quern::text::jinja {

Result<std::shared_ptr<const Template>> Template::parse(std::string_view source, const Limits& limits) {
    Context ctx(limits);
    Tree tree = parse_template(source, ctx);
    if (ctx.failed()) return ctx.error();
    return std::shared_ptr<const Template>(new Template(std::move(tree)));
}

Result<std::string> Template::render(const Value& globals, const Limits& limits) const {
    Interp interp(tree_, limits);
    std::string text = interp.run(globals);
    if (interp.failed()) return interp.error();
    return text;
}

}  // namespace quern::text::jinja
