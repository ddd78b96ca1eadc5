// SPDX-License-Identifier: Apache-2.0
// JSON in, through nlohmann-json's event parser straight into values, and out as Python's json.dumps() writes it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_context.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxJsonDepth = 150;  // leaves room below the limit of values for what templates wrap around

/// Builds values from parse events. Memory is the input's own size times a small constant, and on the meter.
class Builder {
public:
    Builder(Context& ctx, std::string_view what) : ctx_(ctx), what_(what) {}
    Value result() { return std::move(result_); }

    bool null() { return add(None{}); }
    bool boolean(bool b) { return add(b); }
    bool number_integer(Json::number_integer_t i) { return add(std::int64_t{i}); }
    bool number_unsigned(Json::number_unsigned_t u) {
        if (u > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return too_large();
        return add(static_cast<std::int64_t>(u));
    }
    bool number_float(Json::number_float_t d, const std::string& digits) {
        // An integer beyond 64 bits arrives here; as a float it would print differently.
        if (digits.find_first_of(".eE") == std::string::npos) return too_large();
        return add(d);
    }
    bool string(std::string& s) { return add(ctx_.string(std::move(s))); }
    bool binary(Json::binary_t&) { return false; }
    bool start_object(std::size_t) { return open(ctx_.dict()); }
    bool key(std::string& k) {
        levels_.back().key = ctx_.string(std::move(k));
        return !ctx_.failed();
    }
    bool end_object() { return close(); }
    bool start_array(std::size_t) { return open(nullptr); }
    bool end_array() { return close(); }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) {
        // "[json.exception.parse_error.101] parse error at line 1, column 2: ...": only the reason is of use.
        std::string why = e.what();
        const std::size_t reason = why.find(": ");
        if (reason != std::string::npos) why = why.substr(reason + 2);
        ctx_.fail(what_ + " is not valid JSON at byte " + std::to_string(position) + ": " + why);
        return false;
    }

private:
    struct Level {
        std::shared_ptr<DictNode> dict;  // null in an array
        std::vector<Value> items;
        Value key;
    };

    bool too_large() {
        ctx_.fail(what_ + " has an integer that does not fit in 64 bits");
        return false;
    }
    bool open(std::shared_ptr<DictNode> dict) {
        if (levels_.size() >= kMaxJsonDepth) {
            ctx_.limit(what_ + " is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
            return false;
        }
        levels_.push_back({std::move(dict), {}, {}});
        return true;
    }
    bool close() {
        Level top = std::move(levels_.back());
        levels_.pop_back();
        return add(top.dict ? Value(std::move(top.dict)) : ctx_.list(std::move(top.items)));
    }
    bool add(Value v) {
        if (!ctx_.step()) return false;
        if (levels_.empty())
            result_ = std::move(v);
        else if (Level& top = levels_.back(); top.dict)
            ctx_.put(*top.dict, top.key, std::move(v));
        else
            top.items.push_back(std::move(v));
        return !ctx_.failed();
    }

    Context& ctx_;
    std::string what_;
    std::vector<Level> levels_;
    Value result_;
};

void json_string(std::string_view s, bool ascii, std::string& out) {
    const auto hex = [&](char32_t c) {
        out += "\\u";
        for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[(c >> shift) & 15];
    };
    out += '"';
    for (std::size_t at = 0; at < s.size();) {
        const char32_t c = next_char(s, at);
        static constexpr std::string_view kFrom = "\"\\\n\r\t\b\f", kTo = "\"\\nrtbf";
        const std::size_t k = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
        if (k != std::string_view::npos) {
            out += '\\';
            out += kTo[k];
        } else if (c < 0x20 || (ascii && c > 0x7F && c < 0x10000)) {
            hex(c);
        } else if (ascii && c >= 0x10000) {
            hex(0xD800 + ((c - 0x10000) >> 10));
            hex(0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
            append_char(out, c);
        }
    }
    out += '"';
}

std::string json_number(const Value& v) {
    if (v.is(Value::Kind::boolean)) return v.boolean() ? "true" : "false";
    if (v.is(Value::Kind::integer)) return std::to_string(v.integer());
    const double d = v.number();
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return repr_double(d);
}

void new_line(const JsonStyle& style, std::size_t depth, std::string& out) {
    if (!style.multiline) return;
    out += '\n';
    for (std::size_t i = 0; i < depth; ++i) out += style.indent;
}

void json_dict(Context& ctx, DictNode& d, const JsonStyle& style, std::string& out, std::size_t depth) {
    std::vector<std::size_t> order(d.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style.sort_keys && ctx.step(order.size()))
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return ctx.less(d.key(a), d.key(b)); });
    out += '{';
    for (std::size_t i = 0; i < order.size() && !ctx.failed(); ++i) {
        if (i > 0) out += style.item_separator;
        new_line(style, depth + 1, out);
        const Value& key = d.key(order[i]);
        if (key.is_string())
            json_string(key.text(), style.ascii, out);
        else if (key.is_none())
            out += "\"null\"";
        else if (key.is_number())
            out += "\"" + json_number(key) + "\"";
        else
            ctx.fail(std::string("tojson: a key is a ") + key.type_name());
        out += style.key_separator;
        to_json(ctx, d.value(order[i]), style, out, depth + 1);
    }
    if (!order.empty()) new_line(style, depth, out);
    out += '}';
}

}  // namespace

Value parse_json(Context& ctx, std::string_view json, std::string_view what) {
    Builder builder(ctx, what);
    const bool ok = Json::sax_parse(json.begin(), json.end(), &builder);
    if (!ok && !ctx.failed()) ctx.fail(std::string(what) + " is not valid JSON");
    return ok ? builder.result() : Value();
}

void to_json(Context& ctx, const Value& v, const JsonStyle& style, std::string& out, std::size_t depth) {
    if (!ctx.step()) return;
    if (depth > 200 || out.size() > ctx.limits.max_output_bytes) {
        ctx.limit("tojson: a value is too large, nested too deeply, or contains itself");
        return;
    }
    if (v.is_string()) {
        if (ctx.text_step(v.text().size())) json_string(v.text(), style.ascii, out);
    } else if (v.is_none()) {
        out += "null";
    } else if (v.is_number()) {
        out += json_number(v);
    } else if (v.is_dict()) {
        json_dict(ctx, v.dict_node(), style, out, depth);
    } else if (v.is_list() && v.list().shape <= Shape::tuple) {
        const auto& items = v.list().items;
        out += '[';
        for (std::size_t i = 0; i < items.size() && !ctx.failed(); ++i) {
            if (i > 0) out += style.item_separator;
            new_line(style, depth + 1, out);
            to_json(ctx, items[i], style, out, depth + 1);
        }
        if (!items.empty()) new_line(style, depth, out);
        out += ']';
    } else {
        ctx.fail(std::string("tojson: a ") + v.type_name() + " has no JSON form");
    }
}

}  // namespace quern::text::jinja
