// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_context.h"

#include <algorithm>

#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

// Nesting of values. Bounds the recursion of repr, comparison and destruction; a list inside itself ends here too.
constexpr std::size_t kMaxValueDepth = 200;

std::string range_text(const std::int64_t r[3]) {
    std::string s = "range(" + std::to_string(r[0]) + ", " + std::to_string(r[1]);
    return s + (r[2] == 1 ? ")" : ", " + std::to_string(r[2]) + ")");
}

bool positional(Shape s) { return s == Shape::list || s == Shape::tuple || s == Shape::range; }

}  // namespace

Value Context::fail(std::string_view message, Errc code) {
    if (error_) return {};
    const std::string where = line == 0 ? "" : "chat template, line " + std::to_string(line) + ": ";
    error_ = Error{code, where + std::string(message)};
    return {};
}

Value Context::limit(std::string_view what) { return fail(what, Errc::out_of_memory); }

bool Context::step(std::size_t n) {
    if (failed()) return false;
    if (n > limits.max_steps - std::min(steps_, limits.max_steps)) {
        limit("the template takes more than " + std::to_string(limits.max_steps) + " steps");
        return false;
    }
    steps_ += n;
    return true;
}

bool Context::text_step(std::size_t bytes) {
    if (bytes > limits.max_output_bytes)
        limit("a text grows beyond " + std::to_string(limits.max_output_bytes) + " bytes");
    return step(bytes / 1024);
}

void Context::check_memory() {
    if (meter.live > limits.max_memory_bytes)
        limit("the template's values need more than " + std::to_string(limits.max_memory_bytes) + " bytes");
}

Value Context::string(std::string text) {
    if (!text_step(text.size())) return {};
    auto node = std::make_shared<StringNode>(std::move(text), &meter);
    check_memory();
    return node;
}

Value Context::list(std::vector<Value> items, Shape shape) {
    if (!step(items.size() / 16)) return {};
    auto node = std::make_shared<ListNode>(std::move(items), shape, &meter);
    if (node->depth > kMaxValueDepth) limit("a list is nested too deeply");
    check_memory();
    return node;
}

std::shared_ptr<DictNode> Context::dict() { return std::make_shared<DictNode>(&meter); }

void Context::put(DictNode& dict, const Value& key, Value value) {
    std::string code;
    if (!step() || !defined(key)) return;
    if (!encode_key(key, code)) {
        fail(std::string("a ") + key.type_name() + " cannot be a dict key");
        return;
    }
    dict.set_code(std::move(code), key, std::move(value));
    if (dict.depth > kMaxValueDepth) limit("a dict is nested too deeply");
    check_memory();
}

bool Context::defined(const Value& v) {
    if (!v.is_undefined()) return !failed();
    const std::string* hint = v.undefined_hint();
    fail(hint ? *hint : "a value is undefined");
    return false;
}

bool Context::truthy(const Value& v) {
    switch (v.kind()) {
        case Value::Kind::undefined:
        case Value::Kind::none:
            return false;
        case Value::Kind::boolean:
        case Value::Kind::integer:
            return v.integer() != 0;
        case Value::Kind::floating:
            return v.number() != 0;
        case Value::Kind::string:
            return !v.text().empty();
        case Value::Kind::list:
            return v.list().shape == Shape::generator || !v.list().items.empty();
        case Value::Kind::dict:
            return v.dict_node().size() != 0;
        default:
            return true;
    }
}

bool Context::equal(const Value& a, const Value& b, std::size_t depth) {
    if (!step()) return false;
    if (depth > kMaxValueDepth) {
        limit("comparison of values nested too deeply");
        return false;
    }
    if (a.is_number() && b.is_number()) {
        if (a.is_int_like() && b.is_int_like()) return a.integer() == b.integer();
        return a.number() == b.number();
    }
    if (a.kind() != b.kind()) return false;
    switch (a.kind()) {
        case Value::Kind::undefined:
        case Value::Kind::none:
            return true;
        case Value::Kind::string:
            return text_step(a.text().size()) && a.text() == b.text();
        case Value::Kind::list: {
            if (a.node() == b.node()) return true;
            const ListNode &x = a.list(), &y = b.list();
            if (x.shape != y.shape || !positional(x.shape) || x.items.size() != y.items.size()) return false;
            for (std::size_t i = 0; i < x.items.size(); ++i)
                if (!equal(x.items[i], y.items[i], depth + 1)) return false;
            return true;
        }
        case Value::Kind::dict: {
            if (a.node() == b.node()) return true;
            DictNode &x = a.dict_node(), &y = b.dict_node();
            if (x.size() != y.size()) return false;
            for (std::size_t i = 0; i < x.size(); ++i) {
                const Value* other = y.find_code(x.code(i));
                if (other == nullptr || !equal(x.value(i), *other, depth + 1)) return false;
            }
            return true;
        }
        default:
            return a.node() == b.node();
    }
}

bool Context::less(const Value& a, const Value& b, std::string_view op, std::size_t depth) {
    if (!step() || !defined(a) || !defined(b)) return false;
    if (a.is_number() && b.is_number()) {
        if (a.is_int_like() && b.is_int_like()) return a.integer() < b.integer();
        return a.number() < b.number();
    }
    // UTF-8 keeps the order of code points.
    if (a.is_string() && b.is_string()) return text_step(a.text().size()) && a.text() < b.text();
    const bool lists = a.is_list() && b.is_list() && a.list().shape == b.list().shape && depth < kMaxValueDepth &&
                       (a.list().shape == Shape::list || a.list().shape == Shape::tuple);
    if (!lists) {
        fail("'" + std::string(op) + "' is not supported between " + a.type_name() + " and " + b.type_name());
        return false;
    }
    const auto &x = a.list().items, &y = b.list().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
        if (!equal(x[i], y[i], depth + 1)) return !failed() && less(x[i], y[i], op, depth + 1);
    return x.size() < y.size();
}

bool Context::contains(const Value& container, const Value& item) {
    switch (container.kind()) {
        case Value::Kind::undefined:
            return false;
        case Value::Kind::string:
            if (!item.is_string()) {
                fail(std::string("'in <string>' requires a string on the left, not ") + item.type_name());
                return false;
            }
            return text_step(container.text().size()) && container.text().find(item.text()) != std::string::npos;
        case Value::Kind::dict: {
            std::string code;
            if (!encode_key(item, code)) {
                if (!item.is_undefined()) fail(std::string("a ") + item.type_name() + " cannot be a dict key");
                return false;
            }
            return container.dict_node().find_code(code) != nullptr;
        }
        case Value::Kind::list: {
            std::vector<Value> items;
            if (!iterate(container, items)) return false;
            for (const Value& v : items)
                if (equal(v, item) || failed()) return !failed();
            return false;
        }
        default:
            fail(std::string("a ") + container.type_name() + " cannot be searched with 'in'");
            return false;
    }
}

std::string Context::str(const Value& v) {
    if (v.is_undefined()) return "";
    if (v.is_string()) return v.text();
    std::string out;
    repr(v, out);
    return out;
}

void Context::repr(const Value& v, std::string& out, std::size_t depth) {
    if (!step()) return;
    if (depth > kMaxValueDepth || out.size() > limits.max_output_bytes) {
        limit("a value is too large or nested too deeply to print");
        return;
    }
    switch (v.kind()) {
        case Value::Kind::undefined:
            out += "Undefined";
            return;
        case Value::Kind::none:
            out += "None";
            return;
        case Value::Kind::boolean:
            out += v.boolean() ? "True" : "False";
            return;
        case Value::Kind::integer:
            out += std::to_string(v.integer());
            return;
        case Value::Kind::floating:
            out += repr_double(v.number());
            return;
        case Value::Kind::string:
            if (text_step(v.text().size())) repr_string(v.text(), out);
            return;
        case Value::Kind::dict: {
            DictNode& d = v.dict_node();
            out += '{';
            for (std::size_t i = 0; i < d.size() && !failed(); ++i) {
                if (i > 0) out += ", ";
                repr(d.key(i), out, depth + 1);
                out += ": ";
                repr(d.value(i), out, depth + 1);
            }
            out += '}';
            return;
        }
        case Value::Kind::list:
            break;
        default:
            fail(std::string("a ") + v.type_name() + " has no text; call it or take one of its fields");
            return;
    }
    const ListNode& l = v.list();
    const char *open = "[", *close = "]";
    switch (l.shape) {
        case Shape::range:
            out += range_text(l.range);
            return;
        case Shape::generator:
            fail("a generator has no text; use the 'list' or 'join' filter on it");
            return;
        case Shape::tuple:
            open = "(", close = l.items.size() == 1 ? ",)" : ")";
            break;
        case Shape::keys:
            open = "dict_keys([", close = "])";
            break;
        case Shape::values:
            open = "dict_values([", close = "])";
            break;
        case Shape::items:
            open = "dict_items([", close = "])";
            break;
        case Shape::list:
            break;
    }
    out += open;
    for (std::size_t i = 0; i < l.items.size() && !failed(); ++i) {
        if (i > 0) out += ", ";
        repr(l.items[i], out, depth + 1);
    }
    out += close;
}

std::size_t Context::length(const Value& v) {
    switch (v.kind()) {
        case Value::Kind::undefined:
            return 0;
        case Value::Kind::string:
            return v.ascii() ? v.text().size() : char_count(v.text());
        case Value::Kind::dict:
            return v.dict_node().size();
        case Value::Kind::list:
            if (v.list().shape != Shape::generator) return v.list().items.size();
            break;
        default:
            break;
    }
    fail(std::string("a ") + v.type_name() + " has no length");
    return 0;
}

bool Context::iterate(const Value& v, std::vector<Value>& out) {
    switch (v.kind()) {
        case Value::Kind::undefined:
            return !failed();
        case Value::Kind::list: {
            ListNode& l = v.list();
            // Copies are not metered; the steps bound them, and they die with the call that made them.
            if (!step(l.items.size() / 4)) return false;
            out.insert(out.end(), l.items.begin(), l.items.end());
            if (l.shape == Shape::generator) l.items.clear();
            return true;
        }
        case Value::Kind::dict: {
            DictNode& d = v.dict_node();
            if (!step(d.size() / 4)) return false;
            for (std::size_t i = 0; i < d.size(); ++i) out.push_back(d.key(i));
            return true;
        }
        case Value::Kind::string: {
            const std::string& s = v.text();
            for (std::size_t at = 0; at < s.size() && step();) {
                const std::size_t start = at;
                next_char(s, at);
                out.push_back(string(s.substr(start, at - start)));
            }
            return !failed();
        }
        default:
            fail(std::string("a ") + v.type_name() + " is not iterable");
            return false;
    }
}

Value Context::deep_copy(const Value& v, std::size_t depth) {
    if (!step()) return {};
    if (depth > kMaxValueDepth) return limit("the input is nested too deeply");
    if (v.is_list()) {
        std::vector<Value> items;
        items.reserve(v.list().items.size());
        for (const Value& item : v.list().items) items.push_back(deep_copy(item, depth + 1));
        return list(std::move(items), v.list().shape);
    }
    if (v.is_dict()) {
        auto copy = dict();
        DictNode& d = v.dict_node();
        for (std::size_t i = 0; i < d.size() && !failed(); ++i)
            copy->set_code(d.code(i), d.key(i), deep_copy(d.value(i), depth + 1));
        check_memory();
        return copy;
    }
    return v;
}

}  // namespace quern::text::jinja
