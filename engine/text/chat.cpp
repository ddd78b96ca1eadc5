// SPDX-License-Identifier: Apache-2.0
#include "engine/text/chat.h"

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_strings.h"

namespace quern::text {
namespace {

using jinja::Value;

/// Parses one input into `ctx`; none where the text is empty.
Value parse_input(jinja::Context& ctx, const std::string& json, const char* what, Value::Kind shape) {
    if (json.empty()) return jinja::None{};
    Value v = jinja::parse_json(ctx, json, what);
    if (!ctx.failed() && v.kind() != shape)
        ctx.fail(std::string(what) + " must be a JSON " + (shape == Value::Kind::list ? "array" : "object"));
    return v;
}

Value token(jinja::Context& ctx, const std::string& text, const char* what) {
    if (jinja::invalid_utf8(text) != std::string::npos) ctx.fail(std::string(what) + " is not UTF-8");
    return Value::string(text);
}

}  // namespace

Result<std::string> render_chat(const jinja::Template& chat_template, const ChatInput& input,
                                const jinja::Limits& limits) {
    jinja::Context ctx(limits);  // holds the meter of the values below, so it must outlive them
    const Value globals = Value::dict();
    auto& vars = globals.dict_node();
    if (input.messages_json.empty()) return Error{Errc::invalid_argument, "messages must be a JSON array"};
    vars.set("messages", parse_input(ctx, input.messages_json, "messages", Value::Kind::list));
    vars.set("tools", parse_input(ctx, input.tools_json, "tools", Value::Kind::list));
    vars.set("documents", jinja::None{});
    vars.set("add_generation_prompt", input.add_generation_prompt);
    vars.set("bos_token", token(ctx, input.bos_token, "bos_token"));
    vars.set("eos_token", token(ctx, input.eos_token, "eos_token"));
    vars.set("strftime_now", jinja::make_strftime_now(input.now));
    const Value extra = parse_input(ctx, input.extra_json, "the extra template variables", Value::Kind::dict);
    if (ctx.failed()) return ctx.error();
    for (std::size_t i = 0; extra.is_dict() && i < extra.dict_node().size(); ++i)
        vars.set(extra.dict_node().key(i).text(), extra.dict_node().value(i));
    return chat_template.render(globals, limits);
}

}  // namespace quern::text
