// SPDX-License-Identifier: Apache-2.0
// Filters, tests, methods and functions that templates may use: plain tables of names.
#ifndef QUERN_ENGINE_TEXT_JINJA_BUILTINS_H
#define QUERN_ENGINE_TEXT_JINJA_BUILTINS_H

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_value.h"

namespace quern::text::jinja {

/// A filter or method: `self` is what stands left of "|" or "."; undefined for functions.
using Native = Value (*)(Interp& in, const Value& self, Args& args);

struct FilterDef {
    std::string_view name;
    Native fn;
};
struct TestDef {
    std::string_view name;
    bool (*fn)(Interp& in, const Value& v, Args& args);
};
struct MethodDef {
    std::string_view name;
    Native fn;  ///< null: Python has it, this interpreter does not, and says so when it is called
};

/// Null when there is none of that name.
const FilterDef* find_filter(std::string_view name);
const TestDef* find_test(std::string_view name);
const MethodDef* find_method(const Value& self, std::string_view name);
/// range, dict, namespace, raise_exception; undefined when there is none.
Value find_function(std::string_view name);
Value bind_method(const Value& self, const MethodDef& method);
Value call_method(Interp& in, const Value& self, const MethodDef& method, Args& args);

/// strftime_now(format) for a given moment: seconds since 1970, shown in UTC.
Value make_strftime_now(std::int64_t seconds);

/// JSON text to a value, depth bounded. Errors name the byte offset; `what` names the input.
/// Undefined and a failed context on error.
class Context;
Value parse_json(Context& ctx, std::string_view json, std::string_view what);

/// json.dumps().
struct JsonStyle {
    std::string item_separator = ", ", key_separator = ": ";
    std::string indent;
    bool multiline = false, sort_keys = false, ascii = false;
};
void to_json(Context& ctx, const Value& v, const JsonStyle& style, std::string& out, std::size_t depth = 0);

/// "%s and %d" % values, "{} and {x}".format(...), and the time for strftime.
std::string percent_format(Interp& in, std::string_view format, const Value& values);
std::string brace_format(Interp& in, std::string_view format, Args& args);
std::string strftime_utc(Context& ctx, std::int64_t seconds, std::string_view format);

/// Arguments of a built-in by position or name, checked against its parameter list.
class Params {
public:
    Params(Interp& in, std::string_view who, Args& args, std::initializer_list<std::string_view> names,
           std::size_t required = 0);
    bool has(std::size_t i) const { return given_[i]; }
    const Value& operator[](std::size_t i) const { return values_[i]; }
    /// The text of an argument; anything but a string is an error.
    std::string_view text(std::size_t i, std::string_view fallback = "");
    std::int64_t integer(std::size_t i, std::int64_t fallback);
    bool flag(std::size_t i, bool fallback = false);

private:
    Interp& in_;
    std::string_view who_;
    std::vector<Value> values_;
    std::vector<bool> given_;
};

}  // namespace quern::text::jinja
#endif
