// SPDX-License-Identifier: Apache-2.0
// Filters. Those that Jinja2 makes generators are generators here too: always true, without length, read once.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

// --- text -------------------------------------------------------------------------------------------------------

/// soft_str(): what a text filter works on.
std::string subject(Interp& in, const Value& v) {
    std::string s = in.str(v);
    in.text_step(s.size());
    return s;
}

template <std::string (*F)(std::string_view)>
Value text_filter(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter", args, {});
    return in.failed() ? Value() : in.string(F(subject(in, v)));
}

/// Jinja2's own title(): a word starts after white space and after one of -({[<
std::string filter_title(std::string_view s) {
    std::string out;
    bool start = true;
    for (std::size_t at = 0; at < s.size();) {
        const std::size_t from = at;
        const char32_t c = next_char(s, at);
        const std::string_view one = s.substr(from, at - from);
        out += start ? upper(one) : lower(one);
        start = is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos;
    }
    return out;
}

std::string escape_html(std::string_view s) {
    std::string out;
    for (char c : s) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&#34;";
                break;
            case '\'':
                out += "&#39;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string same(std::string_view s) { return std::string(s); }

Value f_trim(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'trim'", args, {"chars"});
    const bool white = !p.has(0) || p[0].is_none();
    const std::string_view chars = white ? "" : p.text(0);
    const std::string s = subject(in, v);
    if (!in.step(s.size() * (chars.size() + 1) / 1024)) return {};
    return in.string(std::string(strip(s, true, true, white, chars)));
}

Value f_replace(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'replace'", args, {"old", "new", "count"}, 2);
    const std::int64_t count = p.has(2) && !p[2].is_none() ? p.integer(2, -1) : -1;
    if (in.failed()) return {};
    const std::string s = subject(in, v), from = in.str(p[0]), to = in.str(p[1]);
    // The largest it can become, before it does.
    const std::size_t hits = from.empty() ? s.size() + 1 : s.size() / from.size();
    std::size_t most = 0;
    if (__builtin_mul_overflow(hits, to.size(), &most)) return in.limit("replace makes a text too large");
    if (most + s.size() > in.limits.max_output_bytes) {
        // Rarely is every position a hit: count them.
        std::size_t real = from.empty() ? hits : 0;
        for (std::size_t at = s.find(from); !from.empty() && at != std::string::npos;
             at = s.find(from, at + from.size()))
            ++real;
        if (count >= 0) real = std::min(real, static_cast<std::size_t>(count));
        if (!in.text_step(real * to.size() + s.size())) return {};
    }
    return in.string(replace(s, from, to, count < 0 ? std::numeric_limits<std::int64_t>::max() : count));
}

Value f_indent(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'indent'", args, {"width", "first", "blank"});
    std::string pad;
    if (p.has(0) && p[0].is_string()) {
        pad = p[0].text();
    } else {
        const std::int64_t width = p.integer(0, 4);
        if (width > 0 && !in.text_step(static_cast<std::size_t>(width))) return {};
        pad.assign(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
    }
    const bool first = p.flag(1), blank = p.flag(2);
    Args none;
    const Value text = in.string(subject(in, v) + "\n");
    if (in.failed()) return {};
    const Value lines = call_method(in, text, *find_method(text, "splitlines"), none);
    if (in.failed()) return {};
    std::string out = first ? pad : "";
    const auto& items = lines.list().items;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (i > 0) out += '\n';
        if (i > 0 && (blank || !items[i].text().empty())) out += pad;
        out += items[i].text();
        if (out.size() > in.limits.max_output_bytes) break;
    }
    return in.string(std::move(out));
}

Value f_truncate(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'truncate'", args, {"length", "killwords", "end", "leeway"});
    const std::int64_t length = p.integer(0, 255), leeway = p.integer(3, 5);
    const std::string end(p.text(2, "..."));
    const std::string s = subject(in, v);
    const auto end_chars = static_cast<std::int64_t>(char_count(end));
    if (in.failed()) return {};
    if (length < end_chars || leeway < 0) return in.fail("truncate: the length is shorter than the end text");
    if (static_cast<std::int64_t>(char_count(s)) - leeway <= length) return in.string(s);
    std::string cut = s.substr(0, byte_offset(s, static_cast<std::size_t>(length - end_chars)));
    if (!p.flag(1)) cut = cut.substr(0, cut.rfind(' '));
    return in.string(cut + end);
}

Value f_center(Interp& in, const Value& v, Args& args) {
    if (args.pos.empty() && args.kw.empty()) args.pos.emplace_back(80);
    const Value text = in.string(subject(in, v));
    return in.failed() ? Value() : call_method(in, text, *find_method(text, "center"), args);
}

Value f_format(Interp& in, const Value& v, Args& args) {
    if (!args.kw.empty() && !args.pos.empty()) return in.fail("format takes positional or named arguments, not both");
    Value values;
    if (args.kw.empty()) {
        values = in.list(args.pos, Shape::tuple);
    } else {
        const auto d = in.dict();
        for (const auto& [key, value] : args.kw) in.put(*d, in.string(key), value);
        values = d;
    }
    return in.failed() ? Value() : in.string(percent_format(in, subject(in, v), values));
}

Value f_tojson(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'tojson'", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
    JsonStyle style;
    style.ascii = p.flag(0);
    style.sort_keys = p.flag(3);
    if (p.has(1) && !p[1].is_none()) {
        style.multiline = true;
        style.item_separator = ",";
        if (p[1].is_string())
            style.indent = p[1].text();
        else if (const std::int64_t width = p.integer(1, 0); width > 1000)
            return in.limit("tojson: an indent of more than 1000");
        else if (width > 0)
            style.indent.assign(static_cast<std::size_t>(width), ' ');
    }
    if (p.has(2) && !p[2].is_none()) {
        std::vector<Value> two;
        if (!in.iterate(p[2], two)) return {};
        if (two.size() != 2 || !two[0].is_string() || !two[1].is_string())
            return in.fail("tojson: separators must be two strings");
        style.item_separator = two[0].text();
        style.key_separator = two[1].text();
    }
    std::string out;
    if (!in.failed()) to_json(in, v, style, out);
    return in.string(std::move(out));
}

// --- numbers ----------------------------------------------------------------------------------------------------

Value f_abs(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'abs'", args, {});
    if (v.is(Value::Kind::floating)) return std::fabs(v.number());
    if (v.is_int_like() && v.integer() != std::numeric_limits<std::int64_t>::min())
        return v.integer() < 0 ? -v.integer() : v.integer();
    return in.defined(v) ? in.fail(std::string("abs of a ") + v.type_name()) : Value();
}

Value f_int(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'int'", args, {"default", "base"});
    const Value fallback = p.has(0) ? p[0] : Value(0);
    const std::int64_t base = p.integer(1, 10);
    if (in.failed() || (v.is_undefined() && !in.defined(v))) return {};
    if (base < 2 || base > 36) return in.fail("int: the base must be 2 to 36");
    double d = 0;
    if (v.is_int_like()) return v.integer();
    if (v.is_string()) {
        std::int64_t i = 0;
        if (parse_integer(v.text(), static_cast<int>(base), i)) return i;
        if (!parse_double(v.text(), d)) return fallback;
    } else if (v.is(Value::Kind::floating)) {
        d = v.number();
    } else {
        return fallback;
    }
    if (!std::isfinite(d)) return fallback;
    if (std::fabs(d) >= 9.2e18) return in.fail("an integer does not fit in 64 bits");
    return static_cast<std::int64_t>(d);
}

Value f_float(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'float'", args, {"default"});
    double d = 0;
    if (in.failed() || (v.is_undefined() && !in.defined(v))) return {};
    if (v.is_number()) return v.number();
    if (v.is_string() && parse_double(v.text(), d)) return d;
    return p.has(0) ? p[0] : Value(0.0);
}

Value f_round(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'round'", args, {"precision", "method"});
    const std::int64_t digits = p.integer(0, 0);
    const std::string_view method = p.text(1, "common");
    if (in.failed() || !in.defined(v)) return {};
    if (!v.is_number()) return in.fail(std::string("round of a ") + v.type_name());
    if (digits < -300 || digits > 300) return in.fail("round: the precision must be -300 to 300");
    const double d = v.number(), scale = std::pow(10.0, static_cast<double>(digits));
    if (method == "ceil") return std::ceil(d * scale) / scale;
    if (method == "floor") return std::floor(d * scale) / scale;
    if (method != "common") return in.fail("round: the method must be common, ceil or floor");
    if (!std::isfinite(d)) return d;
    // Python leaves an integer an integer, and rounds the exact decimal expansion of a float, half to even.
    if (v.is_int_like() && digits >= 0) return v.integer();
    double rounded = 0;
    if (digits < 0)
        rounded = std::nearbyint(d * scale) / scale;
    else
        parse_double(format_double(d, 'f', static_cast<int>(digits)), rounded);
    return v.is_int_like() ? Value(static_cast<std::int64_t>(rounded)) : Value(rounded);
}

// --- sequences --------------------------------------------------------------------------------------------------

/// "a.b.0" of an item, as map(attribute=...), sort(attribute=...) and the others read it.
Value dig(Interp& in, Value v, const Value& path) {
    if (!path.is_string()) return in.item(v, path);
    std::string_view rest = path.text();
    while (!in.failed()) {
        const std::size_t dot = rest.find('.');
        const std::string part(rest.substr(0, dot));
        std::int64_t index = 0;
        const bool digits =
            !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
        v = in.item(v, digits && parse_integer(part, 10, index) ? Value(index) : in.string(part));
        if (dot == std::string_view::npos) break;
        rest.remove_prefix(dot + 1);
    }
    return v;
}

Value lowered(Interp& in, const Value& v) {
    return v.is_string() && in.text_step(v.text().size()) ? in.string(lower(v.text())) : v;
}

Value f_length(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'length'", args, {});
    return static_cast<std::int64_t>(in.length(v));
}

Value f_default(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'default'", args, {"default_value", "boolean"});
    if (!v.is_undefined() && !(p.flag(1) && !in.truthy(v))) return v;
    return p.has(0) ? p[0] : in.string("");
}

Value f_join(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'join'", args, {"d", "attribute"});
    const std::string separator = p.has(0) ? in.str(p[0]) : "";
    std::vector<Value> items;
    std::string out;
    if (in.failed() || !in.iterate(v, items)) return {};
    for (std::size_t i = 0; i < items.size() && !in.failed(); ++i) {
        if (i > 0) out += separator;
        const std::string one = in.str(p.has(1) && !p[1].is_none() ? dig(in, items[i], p[1]) : items[i]);
        out += one;
        if (!in.text_step(out.size() > in.limits.max_output_bytes ? out.size() : one.size())) return {};
    }
    return in.string(std::move(out));
}

Value f_first(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'first'", args, {});
    std::vector<Value> items;
    if (v.is_string()) return v.text().empty() ? Value() : in.item(v, 0);
    if (v.is_list() && v.list().shape == Shape::generator) {
        auto& rest = v.list().items;
        if (rest.empty() || !in.step(rest.size() / 16)) return {};
        Value first = rest.front();
        rest.erase(rest.begin());
        return first;
    }
    if (!in.iterate(v, items) || items.empty()) return {};
    return items.front();
}

Value f_last(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'last'", args, {});
    std::vector<Value> items;
    if (v.is_list() && v.list().shape == Shape::generator)
        return in.fail("a generator has no last item; use 'list' first");
    if (v.is_string()) return v.text().empty() ? Value() : in.item(v, -1);
    if (!in.iterate(v, items) || items.empty()) return {};
    return items.back();
}

Value f_list(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'list'", args, {});
    std::vector<Value> items;
    return in.iterate(v, items) ? in.list(std::move(items)) : Value();
}

Value f_reverse(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'reverse'", args, {});
    std::vector<Value> items;
    if (v.is_list() && v.list().shape == Shape::generator) {
        if (!in.iterate(v, items)) return {};
        std::reverse(items.begin(), items.end());
        return in.list(std::move(items));
    }
    if (!in.iterate(v, items)) return {};
    std::reverse(items.begin(), items.end());
    if (!v.is_string()) return in.list(std::move(items), Shape::generator);
    std::string out;
    for (const Value& c : items) out += c.text();
    return in.string(std::move(out));
}

Value f_items(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'items'", args, {});
    if (v.is_undefined() || in.failed()) return in.list({}, Shape::generator);
    if (!v.is_dict()) return in.fail("items: only a mapping has item pairs");
    const Value view = call_method(in, v, *find_method(v, "items"), args);
    std::vector<Value> pairs;
    return !in.failed() && in.iterate(view, pairs) ? in.list(std::move(pairs), Shape::generator) : Value();
}

struct Keyed {
    Value key, item;
};

void sort_keyed(Interp& in, std::vector<Keyed>& v, bool reverse) {
    if (!in.step(v.size())) return;
    // A failed comparison makes every later one false, which is still an order. A reversed sort stays stable.
    std::stable_sort(v.begin(), v.end(), [&](const Keyed& a, const Keyed& b) {
        return reverse ? in.less(b.key, a.key) : in.less(a.key, b.key);
    });
}

Value f_sort(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'sort'", args, {"reverse", "case_sensitive", "attribute"});
    std::vector<Value> items;
    std::vector<Keyed> keyed;
    if (in.failed() || !in.iterate(v, items)) return {};
    for (Value& item : items) {
        Value key;
        if (p.has(2) && p[2].is_string() && p[2].text().find(',') != std::string::npos)
            return in.fail("sort by several attributes is not supported", Errc::unsupported);
        key = p.has(2) && !p[2].is_none() ? dig(in, item, p[2]) : item;
        keyed.push_back({p.flag(1) ? key : lowered(in, key), std::move(item)});
    }
    sort_keyed(in, keyed, p.flag(0));
    items.clear();
    for (Keyed& k : keyed) items.push_back(std::move(k.item));
    return in.failed() ? Value() : in.list(std::move(items));
}

Value f_dictsort(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'dictsort'", args, {"case_sensitive", "by", "reverse"});
    const std::string_view by = p.text(1, "key");
    if (in.failed() || !in.defined(v)) return {};
    if (!v.is_dict()) return in.fail("dictsort: only a mapping can be sorted");
    if (by != "key" && by != "value") return in.fail("dictsort: 'by' must be key or value");
    std::vector<Keyed> keyed;
    DictNode& d = v.dict_node();
    for (std::size_t i = 0; i < d.size() && !in.failed(); ++i) {
        const Value& key = by == "key" ? d.key(i) : d.value(i);
        keyed.push_back({p.flag(0) ? key : lowered(in, key), in.list({d.key(i), d.value(i)}, Shape::tuple)});
    }
    sort_keyed(in, keyed, p.flag(2));
    std::vector<Value> items;
    for (Keyed& k : keyed) items.push_back(std::move(k.item));
    return in.failed() ? Value() : in.list(std::move(items));
}

Value f_unique(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'unique'", args, {"case_sensitive", "attribute"});
    std::vector<Value> items, out;
    if (in.failed() || !in.iterate(v, items)) return {};
    const auto seen = in.dict();
    for (Value& item : items) {
        Value key = p.has(1) && !p[1].is_none() ? dig(in, item, p[1]) : item;
        if (!p.flag(0)) key = lowered(in, key);
        const std::size_t before = seen->size();
        in.put(*seen, key, true);
        if (in.failed()) return {};
        if (seen->size() != before) out.push_back(std::move(item));
    }
    return in.list(std::move(out), Shape::generator);
}

Value f_groupby(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'groupby'", args, {"attribute", "default", "case_sensitive"}, 1);
    std::vector<Value> items, groups;
    std::vector<Keyed> keyed;
    if (in.failed() || !in.iterate(v, items)) return {};
    for (Value& item : items) {
        Value key = dig(in, item, p[0]);
        if (key.is_undefined() && p.has(1)) key = p[1];
        keyed.push_back({p.flag(2) ? key : lowered(in, key), in.list({key, item}, Shape::tuple)});
        if (in.failed()) return {};
    }
    sort_keyed(in, keyed, false);
    for (std::size_t i = 0; i < keyed.size() && !in.failed();) {
        std::vector<Value> members;
        const std::size_t start = i;
        for (; i < keyed.size() && in.equal(keyed[start].key, keyed[i].key); ++i)
            members.push_back(keyed[i].item.list().items[1]);
        if (in.failed()) break;
        groups.push_back(in.list({keyed[start].item.list().items[0], in.list(std::move(members))}, Shape::tuple));
    }
    return in.failed() ? Value() : in.list(std::move(groups));
}

template <bool Max>
Value f_extreme(Interp& in, const Value& v, Args& args) {
    Params p(in, Max ? "the filter 'max'" : "the filter 'min'", args, {"case_sensitive", "attribute"});
    std::vector<Value> items;
    if (in.failed() || !in.iterate(v, items) || items.empty()) return {};
    Value best, best_key;
    for (std::size_t i = 0; i < items.size() && !in.failed(); ++i) {
        Value key = p.has(1) && !p[1].is_none() ? dig(in, items[i], p[1]) : items[i];
        if (!p.flag(0)) key = lowered(in, key);
        if (i > 0 && !(Max ? in.less(best_key, key) : in.less(key, best_key))) continue;
        best = items[i];
        best_key = key;
    }
    return best;
}

Value f_sum(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'sum'", args, {"attribute", "start"});
    std::vector<Value> items;
    if (in.failed() || !in.iterate(v, items)) return {};
    Value total = p.has(1) ? p[1] : Value(0);
    if (total.is_string()) return in.fail("sum does not join strings; use 'join'");
    for (const Value& item : items)
        total = in.binary(Binary::add, total, p.has(0) && !p[0].is_none() ? dig(in, item, p[0]) : item);
    return total;
}

Value f_batch(Interp& in, const Value& v, Args& args) {
    Params p(in, "the filter 'batch'", args, {"linecount", "fill_with"}, 1);
    const std::int64_t size = p.integer(0, 1);
    std::vector<Value> items, lines, one;
    if (in.failed() || !in.iterate(v, items)) return {};
    if (size < 1) return in.fail("batch: the size must be at least 1");
    for (Value& item : items) {
        if (static_cast<std::int64_t>(one.size()) == size) lines.push_back(in.list(std::exchange(one, {})));
        one.push_back(std::move(item));
    }
    if (!one.empty()) {
        const bool fill = p.has(1) && !p[1].is_none();
        if (fill && !in.step(static_cast<std::size_t>(size) / 4)) return {};
        while (fill && static_cast<std::int64_t>(one.size()) < size) one.push_back(p[1]);
        lines.push_back(in.list(std::move(one)));
    }
    return in.list(std::move(lines), Shape::generator);
}

/// The first positional argument, taken off; undefined if there is none.
Value shift(Args& args) {
    if (args.pos.empty()) return {};
    Value v = args.pos.front();
    args.pos.erase(args.pos.begin());
    return v;
}

Value f_map(Interp& in, const Value& v, Args& args) {
    std::vector<Value> items;
    if (!in.iterate(v, items)) return {};
    if (args.pos.empty()) {
        Params p(in, "the filter 'map'", args, {"attribute", "default"}, 1);
        if (in.failed()) return {};
        for (Value& item : items) {
            item = dig(in, item, p[0]);
            if (item.is_undefined() && p.has(1)) item = p[1];
        }
        return in.failed() ? Value() : in.list(std::move(items), Shape::generator);
    }
    const Value name = shift(args);
    const FilterDef* filter = name.is_string() ? find_filter(name.text()) : nullptr;
    if (filter == nullptr) return in.fail("map: the filter '" + in.str(name) + "' is not supported", Errc::unsupported);
    for (Value& item : items) {
        Args copy = args;
        if (!in.step(1 + args.pos.size() + args.kw.size())) return {};
        item = filter->fn(in, item, copy);
    }
    return in.failed() ? Value() : in.list(std::move(items), Shape::generator);
}

/// select, reject, selectattr, rejectattr.
template <bool Keep, bool Attribute>
Value f_select(Interp& in, const Value& v, Args& args) {
    std::vector<Value> items, out;
    const Value path = Attribute ? shift(args) : Value();
    if (Attribute && path.is_undefined()) return in.fail("selectattr and rejectattr need an attribute");
    const TestDef* test = nullptr;
    if (!args.pos.empty()) {
        const Value name = shift(args);
        test = name.is_string() ? find_test(name.text()) : nullptr;
        if (test == nullptr) return in.fail("the test '" + in.str(name) + "' is not supported", Errc::unsupported);
    }
    if (!in.iterate(v, items)) return {};
    for (Value& item : items) {
        Args copy = args;
        if (!in.step(1 + args.pos.size() + args.kw.size())) return {};
        const Value tested = Attribute ? dig(in, item, path) : item;
        const bool yes = test ? test->fn(in, tested, copy) : in.truthy(tested);
        if (yes == Keep) out.push_back(std::move(item));
    }
    return in.failed() ? Value() : in.list(std::move(out), Shape::generator);
}

constexpr FilterDef kFilters[] = {
    {"abs", f_abs},
    {"batch", f_batch},
    {"capitalize", text_filter<capitalize>},
    {"center", f_center},
    {"count", f_length},
    {"d", f_default},
    {"default", f_default},
    {"dictsort", f_dictsort},
    {"e", text_filter<escape_html>},
    {"escape", text_filter<escape_html>},
    {"first", f_first},
    {"float", f_float},
    {"format", f_format},
    {"groupby", f_groupby},
    {"indent", f_indent},
    {"int", f_int},
    {"items", f_items},
    {"join", f_join},
    {"last", f_last},
    {"length", f_length},
    {"list", f_list},
    {"lower", text_filter<lower>},
    {"map", f_map},
    {"max", f_extreme<true>},
    {"min", f_extreme<false>},
    {"reject", f_select<false, false>},
    {"rejectattr", f_select<false, true>},
    {"replace", f_replace},
    {"reverse", f_reverse},
    {"round", f_round},
    {"safe", text_filter<same>},
    {"select", f_select<true, false>},
    {"selectattr", f_select<true, true>},
    {"sort", f_sort},
    {"string", text_filter<same>},
    {"sum", f_sum},
    {"title", text_filter<filter_title>},
    {"tojson", f_tojson},
    {"trim", f_trim},
    {"truncate", f_truncate},
    {"unique", f_unique},
    {"upper", text_filter<upper>},
};

}  // namespace

const FilterDef* find_filter(std::string_view name) {
    const auto* hit =
        std::find_if(std::begin(kFilters), std::end(kFilters), [&](const FilterDef& f) { return f.name == name; });
    return hit == std::end(kFilters) ? nullptr : hit;
}

}  // namespace quern::text::jinja
