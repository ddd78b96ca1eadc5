// SPDX-License-Identifier: Apache-2.0
// Methods of str, list, tuple and dict. Every name that Python has is here, so that `schema.items` means the method
// as it does there; those without a function are refused by name when called.
#include <algorithm>
#include <limits>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

// --- str --------------------------------------------------------------------------------------------------------

Value no_args(Interp& in, Args& args, const char* who) {
    Params p(in, who, args, {});
    return {};
}

template <std::string (*F)(std::string_view)>
Value map_text(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "the method");
    return in.text_step(self.text().size()) ? in.string(F(self.text())) : Value();
}

template <bool Left, bool Right>
Value str_strip(Interp& in, const Value& self, Args& args) {
    Params p(in, "strip()", args, {"chars"});
    const bool white = !p.has(0) || p[0].is_none();
    const std::string_view chars = white ? "" : p.text(0);
    if (!in.step(self.text().size() * (chars.size() + 1) / 1024)) return {};
    return in.string(std::string(strip(self.text(), Left, Right, white, chars)));
}

template <bool Start>
Value str_affix(Interp& in, const Value& self, Args& args) {
    Params p(in, Start ? "startswith()" : "endswith()", args, {"affix"}, 1);
    const auto has = [&](const Value& v) {
        if (!v.is_string()) {
            if (in.defined(v)) in.fail(std::string("startswith() and endswith() need strings, not a ") + v.type_name());
            return false;
        }
        const std::string_view s = self.text();
        return Start ? s.starts_with(v.text()) : s.ends_with(v.text());
    };
    if (in.failed()) return {};
    if (!p[0].is_list() || p[0].list().shape != Shape::tuple) return has(p[0]);
    for (const Value& v : p[0].list().items)
        if (has(v)) return true;
    return false;
}

/// The part of the text that start and end arguments leave, and where it begins. Bounds are characters.
std::string_view part_of(Interp& in, const Value& self, Params& p, std::size_t first, std::size_t& offset) {
    const std::string_view s = self.text();
    offset = 0;
    if (!p.has(first) && !p.has(first + 1)) return s;
    const auto n = static_cast<std::int64_t>(in.length(self));
    const auto bound = [&](std::size_t i, std::int64_t fallback) {
        const std::int64_t v = p.has(i) && p[i].is_none() ? fallback : p.integer(i, fallback);
        return std::clamp<std::int64_t>(v < 0 ? v + n : v, 0, n);
    };
    const std::int64_t from = bound(first, 0), to = std::max(bound(first + 1, n), from);
    offset = byte_offset(s, static_cast<std::size_t>(from));
    return s.substr(offset, byte_offset(s.substr(offset), static_cast<std::size_t>(to - from)));
}

template <bool Last, bool Required>
Value str_find(Interp& in, const Value& self, Args& args) {
    Params p(in, "find()", args, {"sub", "start", "end"}, 1);
    const std::string_view wanted = p.text(0);
    std::size_t offset = 0;
    const std::string_view s = part_of(in, self, p, 1, offset);
    if (!in.text_step(s.size())) return {};
    const std::size_t hit = Last ? s.rfind(wanted) : s.find(wanted);
    if (hit != std::string_view::npos)
        return static_cast<std::int64_t>(char_count(std::string_view(self.text()).substr(0, offset + hit)));
    return Required ? in.fail("index() did not find the text") : Value(-1);
}

Value str_count(Interp& in, const Value& self, Args& args) {
    Params p(in, "count()", args, {"sub", "start", "end"}, 1);
    const std::string_view wanted = p.text(0);
    std::size_t offset = 0;
    const std::string_view s = part_of(in, self, p, 1, offset);
    if (!in.text_step(s.size())) return {};
    if (wanted.empty()) return static_cast<std::int64_t>(char_count(s)) + 1;
    std::int64_t n = 0;
    for (std::size_t at = s.find(wanted); at != std::string_view::npos; at = s.find(wanted, at + wanted.size())) ++n;
    return n;
}

Value str_replace(Interp& in, const Value& self, Args& args) {
    Params p(in, "replace()", args, {"old", "new", "count"}, 2);
    p.text(0), p.text(1), p.integer(2, 0);
    return in.failed() ? Value() : find_filter("replace")->fn(in, self, args);
}

Value pieces(Interp& in, const std::vector<std::string_view>& parts, Shape shape = Shape::list) {
    std::vector<Value> items;
    items.reserve(parts.size());
    for (std::string_view part : parts) {
        if (!in.step()) return {};
        items.push_back(in.string(std::string(part)));
    }
    return in.list(std::move(items), shape);
}

/// split() on white space: runs of it separate, none at the ends.
std::vector<std::string_view> split_white(std::string_view s, std::int64_t most, bool from_right) {
    std::vector<std::string_view> parts;
    for (s = strip(s, !from_right, from_right, true, ""); !s.empty(); s = strip(s, !from_right, from_right, true, "")) {
        if (static_cast<std::int64_t>(parts.size()) == most) {
            parts.push_back(s);  // the rest keeps the white space at its far end
            break;
        }
        std::size_t cut = from_right ? s.size() : 0;
        while (from_right ? cut > 0 : cut < s.size()) {
            std::size_t at = cut;
            if (from_right) do
                    --at;
                while (at > 0 && (static_cast<unsigned char>(s[at]) & 0xC0) == 0x80);
            std::size_t end = at;
            if (is_space(next_char(s, end))) break;
            cut = from_right ? at : end;
        }
        parts.push_back(from_right ? s.substr(cut) : s.substr(0, cut));
        s = from_right ? s.substr(0, cut) : s.substr(cut);
    }
    if (from_right) std::reverse(parts.begin(), parts.end());
    return parts;
}

template <bool FromRight>
Value str_split(Interp& in, const Value& self, Args& args) {
    Params p(in, "split()", args, {"sep", "maxsplit"});
    std::int64_t most = p.integer(1, -1);
    if (most < 0) most = kNoLimit;
    const std::string_view s = self.text();
    if (!in.text_step(s.size())) return {};
    if (!p.has(0) || p[0].is_none()) return pieces(in, split_white(s, most, FromRight));
    const std::string_view sep = p.text(0);
    if (in.failed()) return {};
    if (sep.empty()) return in.fail("split() needs a separator that is not empty");
    std::vector<std::string_view> parts;
    std::string_view rest = s;
    while (static_cast<std::int64_t>(parts.size()) < most) {
        const std::size_t hit = FromRight ? rest.rfind(sep) : rest.find(sep);
        if (hit == std::string_view::npos) break;
        parts.push_back(FromRight ? rest.substr(hit + sep.size()) : rest.substr(0, hit));
        rest = FromRight ? rest.substr(0, hit) : rest.substr(hit + sep.size());
    }
    parts.push_back(rest);
    if (FromRight) std::reverse(parts.begin(), parts.end());
    return pieces(in, parts);
}

Value str_splitlines(Interp& in, const Value& self, Args& args) {
    Params p(in, "splitlines()", args, {"keepends"});
    const bool keep = p.flag(0);
    const std::string_view s = self.text();
    std::vector<std::string_view> lines;
    std::size_t start = 0;
    for (std::size_t at = 0; at < s.size();) {
        const std::size_t before = at;
        const char32_t c = next_char(s, at);
        const bool ends = (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (!ends) continue;
        if (c == '\r' && at < s.size() && s[at] == '\n') ++at;
        lines.push_back(s.substr(start, (keep ? at : before) - start));
        start = at;
    }
    if (start < s.size()) lines.push_back(s.substr(start));
    return in.failed() ? Value() : pieces(in, lines);
}

template <bool Last>
Value str_partition(Interp& in, const Value& self, Args& args) {
    Params p(in, "partition()", args, {"sep"}, 1);
    const std::string_view s = self.text(), sep = p.text(0);
    if (in.failed()) return {};
    if (sep.empty()) return in.fail("partition() needs a separator that is not empty");
    const std::size_t hit = Last ? s.rfind(sep) : s.find(sep);
    if (hit == std::string_view::npos)
        return pieces(in, Last ? std::vector<std::string_view>{"", "", s} : std::vector<std::string_view>{s, "", ""},
                      Shape::tuple);
    return pieces(in, {s.substr(0, hit), sep, s.substr(hit + sep.size())}, Shape::tuple);
}

Value str_join(Interp& in, const Value& self, Args& args) {
    Params p(in, "join()", args, {"iterable"}, 1);
    std::vector<Value> items;
    std::string out;
    if (in.failed() || !in.iterate(p[0], items)) return {};
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (!items[i].is_string()) return in.fail(std::string("join() needs strings, not a ") + items[i].type_name());
        if (i > 0) out += self.text();
        out += items[i].text();
        if (!in.text_step(out.size() > in.limits.max_output_bytes ? out.size() : items[i].text().size())) return {};
    }
    return in.string(std::move(out));
}

template <bool Prefix>
Value str_remove_affix(Interp& in, const Value& self, Args& args) {
    Params p(in, "removeprefix()", args, {"affix"}, 1);
    std::string_view s = self.text();
    const std::string_view affix = p.text(0);
    if (Prefix && s.starts_with(affix)) s.remove_prefix(affix.size());
    if (!Prefix && s.ends_with(affix)) s.remove_suffix(affix.size());
    return in.failed() ? Value() : in.string(std::string(s));
}

/// -1: text to the left, 0: centred, 1: to the right.
template <int Side>
Value str_pad(Interp& in, const Value& self, Args& args) {
    Params p(in, "padding", args, {"width", "fillchar"}, 1);
    const std::int64_t width = p.integer(0, 0);
    const std::string_view fill = p.text(1, " ");
    if (in.failed()) return {};
    if (char_count(fill) != 1) return in.fail("the fill character must be one character");
    const auto have = static_cast<std::int64_t>(in.length(self));
    if (width <= have) return self;
    const auto missing = static_cast<std::uint64_t>(width) - static_cast<std::uint64_t>(have);
    if (!in.text_step(missing < in.limits.max_output_bytes ? missing * fill.size() : missing)) return {};
    // Python puts the odd character of a centred text on the left only when the width is odd.
    const std::uint64_t left = Side < 0   ? 0
                               : Side > 0 ? missing
                                          : missing / 2 + (missing & static_cast<std::uint64_t>(width) & 1);
    std::string out;
    for (std::uint64_t i = 0; i < missing; ++i) {
        if (i == left) out += self.text();
        out += fill;
    }
    return in.string(left == missing ? out + self.text() : out);
}

template <bool (*Is)(char32_t)>
Value str_all(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "the method");
    const std::string& s = self.text();
    if (!in.text_step(s.size())) return {};
    for (std::size_t at = 0; at < s.size();)
        if (!Is(next_char(s, at))) return false;
    return !s.empty();
}

bool alnum(char32_t c) { return is_alpha(c) || is_digit(c); }

template <bool Upper>
Value str_case(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "the method");
    return find_test(Upper ? "upper" : "lower")->fn(in, self, args);
}

Value str_format(Interp& in, const Value& self, Args& args) { return in.string(brace_format(in, self.text(), args)); }

Value str_zfill(Interp& in, const Value& self, Args& args) {
    Params p(in, "zfill()", args, {"width"}, 1);
    const std::int64_t width = p.integer(0, 0);
    const auto have = static_cast<std::int64_t>(in.length(self));
    if (in.failed() || width <= have) return self;
    const auto missing = static_cast<std::uint64_t>(width) - static_cast<std::uint64_t>(have);
    if (!in.text_step(missing)) return {};
    const std::string& s = self.text();
    const std::size_t sign = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
    return in.string(s.substr(0, sign) + std::string(missing, '0') + s.substr(sign));
}

constexpr MethodDef kStr[] = {
    {"capitalize", map_text<capitalize>},
    {"casefold", nullptr},
    {"center", str_pad<0>},
    {"count", str_count},
    {"encode", nullptr},
    {"endswith", str_affix<false>},
    {"expandtabs", nullptr},
    {"find", str_find<false, false>},
    {"format", str_format},
    {"format_map", nullptr},
    {"index", str_find<false, true>},
    {"isalnum", str_all<alnum>},
    {"isalpha", str_all<is_alpha>},
    {"isascii", nullptr},
    {"isdecimal", str_all<is_digit>},
    {"isdigit", str_all<is_digit>},
    {"isidentifier", nullptr},
    {"islower", str_case<false>},
    {"isnumeric", str_all<is_digit>},
    {"isprintable", nullptr},
    {"isspace", str_all<is_space>},
    {"istitle", nullptr},
    {"isupper", str_case<true>},
    {"join", str_join},
    {"ljust", str_pad<-1>},
    {"lower", map_text<lower>},
    {"lstrip", str_strip<true, false>},
    {"maketrans", nullptr},
    {"partition", str_partition<false>},
    {"removeprefix", str_remove_affix<true>},
    {"removesuffix", str_remove_affix<false>},
    {"replace", str_replace},
    {"rfind", str_find<true, false>},
    {"rindex", str_find<true, true>},
    {"rjust", str_pad<1>},
    {"rpartition", str_partition<true>},
    {"rsplit", str_split<true>},
    {"rstrip", str_strip<false, true>},
    {"split", str_split<false>},
    {"splitlines", str_splitlines},
    {"startswith", str_affix<true>},
    {"strip", str_strip<true, true>},
    {"swapcase", nullptr},
    {"title", map_text<title>},
    {"translate", nullptr},
    {"upper", map_text<upper>},
    {"zfill", str_zfill},
};

// --- list and tuple ---------------------------------------------------------------------------------------------
// HF's sandbox refuses the methods that change a list or dict. They are harmless here: a rendering owns its values.

Value mutate(Interp& in, const Value& self) {
    self.list().recharge_items();
    in.changed(self);
    return None{};
}

Value list_append(Interp& in, const Value& self, Args& args) {
    Params p(in, "append()", args, {"object"}, 1);
    if (in.failed()) return {};
    self.list().depth = std::max(self.list().depth, p[0].depth() + 1);
    self.list().items.push_back(p[0]);
    return mutate(in, self);
}

Value list_extend(Interp& in, const Value& self, Args& args) {
    Params p(in, "extend()", args, {"iterable"}, 1);
    std::vector<Value> more;
    if (in.failed() || !in.iterate(p[0], more)) return {};
    for (Value& v : more) {
        self.list().depth = std::max(self.list().depth, v.depth() + 1);
        self.list().items.push_back(std::move(v));
    }
    return mutate(in, self);
}

Value list_insert(Interp& in, const Value& self, Args& args) {
    Params p(in, "insert()", args, {"index", "object"}, 2);
    auto& items = self.list().items;
    const auto n = static_cast<std::int64_t>(items.size());
    const std::int64_t i = p.integer(0, 0);
    if (in.failed() || !in.step(items.size() / 16)) return {};
    self.list().depth = std::max(self.list().depth, p[1].depth() + 1);
    items.insert(items.begin() + std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n), p[1]);
    return mutate(in, self);
}

Value list_pop(Interp& in, const Value& self, Args& args) {
    Params p(in, "pop()", args, {"index"});
    auto& items = self.list().items;
    const auto n = static_cast<std::int64_t>(items.size());
    std::int64_t i = p.integer(0, -1);
    if (i < 0) i += n;
    if (in.failed() || !in.step(items.size() / 16)) return {};
    if (i < 0 || i >= n) return in.fail(n == 0 ? "pop() from an empty list" : "pop() index out of range");
    Value v = items[static_cast<std::size_t>(i)];
    items.erase(items.begin() + i);
    mutate(in, self);
    return v;
}

/// Position of a value, or -1.
std::int64_t position(Interp& in, const Value& self, const Value& wanted) {
    const auto& items = self.list().items;
    for (std::size_t i = 0; i < items.size() && !in.failed(); ++i)
        if (in.equal(items[i], wanted)) return static_cast<std::int64_t>(i);
    return -1;
}

Value list_index(Interp& in, const Value& self, Args& args) {
    Params p(in, "index()", args, {"value"}, 1);
    const std::int64_t i = in.failed() ? 0 : position(in, self, p[0]);
    return i < 0 ? in.fail("index(): the value is not in the list") : Value(i);
}

Value list_remove(Interp& in, const Value& self, Args& args) {
    Params p(in, "remove()", args, {"value"}, 1);
    const std::int64_t i = in.failed() ? -1 : position(in, self, p[0]);
    if (i < 0) return in.fail("remove(): the value is not in the list");
    self.list().items.erase(self.list().items.begin() + i);
    return mutate(in, self);
}

Value list_count(Interp& in, const Value& self, Args& args) {
    Params p(in, "count()", args, {"value"}, 1);
    std::int64_t n = 0;
    for (const Value& v : self.list().items)
        if (!in.failed() && in.equal(v, p[0])) ++n;
    return n;
}

Value list_copy(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "copy()");
    std::vector<Value> items;
    return in.iterate(self, items) ? in.list(std::move(items)) : Value();
}

Value list_reverse(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "reverse()");
    if (!in.step(self.list().items.size() / 16)) return {};
    std::reverse(self.list().items.begin(), self.list().items.end());
    return None{};
}

Value list_clear(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "clear()");
    if (in.failed()) return {};
    self.list().items.clear();
    return mutate(in, self);
}

constexpr MethodDef kList[] = {
    {"append", list_append}, {"clear", list_clear},     {"copy", list_copy},     {"count", list_count},
    {"extend", list_extend}, {"index", list_index},     {"insert", list_insert}, {"pop", list_pop},
    {"remove", list_remove}, {"reverse", list_reverse}, {"sort", nullptr},
};
constexpr MethodDef kTuple[] = {{"count", list_count}, {"index", list_index}};

// --- dict -------------------------------------------------------------------------------------------------------

bool key_code(Interp& in, const Value& key, std::string& code) {
    if (encode_key(key, code)) return !in.failed();
    in.fail(std::string("a ") + key.type_name() + " cannot be a dict key");
    return false;
}

Value dict_get(Interp& in, const Value& self, Args& args) {
    Params p(in, "get()", args, {"key", "default"}, 1);
    std::string code;
    if (in.failed()) return {};
    if (p[0].is_undefined()) return p.has(1) ? p[1] : Value(None{});
    if (!key_code(in, p[0], code)) return {};
    if (const Value* v = self.dict_node().find_code(code)) return *v;
    return p.has(1) ? p[1] : Value(None{});
}

template <Shape S>
Value dict_view(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "the method");
    DictNode& d = self.dict_node();
    std::vector<Value> items;
    if (!in.step(d.size() / 4)) return {};
    for (std::size_t i = 0; i < d.size() && !in.failed(); ++i) {
        if constexpr (S == Shape::keys) items.push_back(d.key(i));
        if constexpr (S == Shape::values) items.push_back(d.value(i));
        if constexpr (S == Shape::items) items.push_back(in.list({d.key(i), d.value(i)}, Shape::tuple));
    }
    return in.list(std::move(items), S);
}

Value dict_pop(Interp& in, const Value& self, Args& args) {
    Params p(in, "pop()", args, {"key", "default"}, 1);
    std::string code;
    if (in.failed() || !key_code(in, p[0], code) || !in.step(self.dict_node().size() / 16)) return {};
    if (const Value* found = self.dict_node().find_code(code)) {
        Value v = *found;
        self.dict_node().erase_code(code);
        return v;
    }
    return p.has(1) ? p[1] : in.fail("pop(): the dict has no such key");
}

Value dict_setdefault(Interp& in, const Value& self, Args& args) {
    Params p(in, "setdefault()", args, {"key", "default"}, 1);
    std::string code;
    if (in.failed() || !key_code(in, p[0], code)) return {};
    if (const Value* v = self.dict_node().find_code(code)) return *v;
    Value v = p.has(1) ? p[1] : Value(None{});
    in.put(self.dict_node(), p[0], v);
    in.changed(self);
    return v;
}

Value dict_update(Interp& in, const Value& self, Args& args) {
    const Value more = in.call(find_function("dict"), args);
    for (std::size_t i = 0; !in.failed() && i < more.dict_node().size(); ++i)
        in.put(self.dict_node(), more.dict_node().key(i), more.dict_node().value(i));
    if (!in.failed()) in.changed(self);
    return None{};
}

Value dict_copy(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "copy()");
    const auto d = in.dict();
    for (std::size_t i = 0; i < self.dict_node().size() && !in.failed(); ++i)
        in.put(*d, self.dict_node().key(i), self.dict_node().value(i));
    return d;
}

Value dict_clear(Interp& in, const Value& self, Args& args) {
    no_args(in, args, "clear()");
    self.dict_node().clear();
    return None{};
}

constexpr MethodDef kDict[] = {
    {"clear", dict_clear},
    {"copy", dict_copy},
    {"fromkeys", nullptr},
    {"get", dict_get},
    {"items", dict_view<Shape::items>},
    {"keys", dict_view<Shape::keys>},
    {"pop", dict_pop},
    {"popitem", nullptr},
    {"setdefault", dict_setdefault},
    {"update", dict_update},
    {"values", dict_view<Shape::values>},
};

template <std::size_t N>
const MethodDef* search(const MethodDef (&table)[N], std::string_view name) {
    for (const MethodDef& m : table)
        if (m.name == name) return &m;
    return nullptr;
}

}  // namespace

const MethodDef* find_method(const Value& self, std::string_view name) {
    if (self.is_dict()) return search(kDict, name);
    if (self.is_string()) return search(kStr, name);
    if (!self.is_list()) return nullptr;
    if (self.list().shape == Shape::list) return search(kList, name);
    return self.list().shape == Shape::tuple || self.list().shape == Shape::range ? search(kTuple, name) : nullptr;
}

}  // namespace quern::text::jinja
