// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quern::text::jinja {
namespace {

constexpr std::size_t kLinearEntries = 8;

// What one dict entry costs: the entry itself, allocator and index overhead.
constexpr std::size_t kEntryBytes = 160;

bool all_ascii(const std::string& s) {
    return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

StringNode::StringNode(std::string t, Meter* meter) : Metered(meter), text(std::move(t)), ascii(all_ascii(text)) {
    recharge(sizeof(StringNode) + text.capacity());
}

ListNode::ListNode(std::vector<Value> v, Shape s, Meter* meter) : Metered(meter), items(std::move(v)), shape(s) {
    for (const Value& item : items) depth = std::max(depth, item.depth() + 1);
    recharge_items();
}

void ListNode::recharge_items() { recharge(sizeof(ListNode) + items.capacity() * sizeof(Value)); }

struct DictNode::Entry {
    std::string code;
    Value key;
    Value value;
};

DictNode::DictNode(Meter* meter) : Metered(meter) {}
DictNode::~DictNode() = default;
std::size_t DictNode::size() const { return entries_.size(); }
const Value& DictNode::key(std::size_t i) const { return entries_[i].key; }
Value& DictNode::value(std::size_t i) { return entries_[i].value; }
const std::string& DictNode::code(std::size_t i) const { return entries_[i].code; }

std::size_t DictNode::position(std::string_view code) {
    if (entries_.size() <= kLinearEntries) {
        for (std::size_t i = 0; i < entries_.size(); ++i)
            if (entries_[i].code == code) return i;
        return entries_.size();
    }
    if (index_.empty())
        for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].code, i);
    const auto it = index_.find(std::string(code));
    return it == index_.end() ? entries_.size() : it->second;
}

Value* DictNode::find_code(std::string_view code) {
    const std::size_t i = position(code);
    return i < entries_.size() ? &entries_[i].value : nullptr;
}

Value* DictNode::find(std::string_view text_key) {
    std::string code = "s";
    code += text_key;
    return find_code(code);
}

void DictNode::set(std::string_view text_key, Value value) {
    std::string code = "s";
    code += text_key;
    if (Value* old = find_code(code)) {
        depth = std::max(depth, value.depth() + 1);
        *old = std::move(value);
        return;
    }
    set_code(std::move(code), Value::string(text_key), std::move(value));
}

void DictNode::set_code(std::string code, Value key, Value value) {
    depth = std::max(depth, value.depth() + 1);
    const std::size_t i = position(code);
    if (i < entries_.size()) {
        entries_[i].value = std::move(value);
        return;
    }
    if (!index_.empty()) index_.emplace(code, i);
    entries_.push_back({std::move(code), std::move(key), std::move(value)});
    recharge(sizeof(DictNode) + entries_.size() * kEntryBytes);
}

bool DictNode::erase_code(std::string_view code) {
    const std::size_t i = position(code);
    if (i >= entries_.size()) return false;
    entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
    index_.clear();
    return true;
}

void DictNode::clear() {
    entries_.clear();
    index_.clear();
}

bool Callable::attribute(Interp&, std::string_view, Value&) { return false; }

Value Value::string(std::string_view text) { return std::make_shared<StringNode>(std::string(text), nullptr); }

Value Value::list(std::vector<Value> items) {
    return std::make_shared<ListNode>(std::move(items), Shape::list, nullptr);
}

Value Value::dict() { return std::make_shared<DictNode>(nullptr); }

const void* Value::node() const {
    switch (kind()) {
        case Kind::string:
            return share<StringNode>().get();
        case Kind::list:
            return share<ListNode>().get();
        case Kind::dict:
            return share<DictNode>().get();
        case Kind::name_space:
            return share<NamespaceNode>().get();
        case Kind::callable:
            return share<Callable>().get();
        default:
            return nullptr;
    }
}

std::uint32_t Value::depth() const {
    if (is_list()) return list().depth;
    if (is_dict()) return dict_node().depth;
    if (is(Kind::name_space)) return name_space().fields.depth;
    if (is(Kind::callable)) return callable().depth();
    return 0;
}

const char* Value::type_name() const {
    switch (kind()) {
        case Kind::undefined:
            return "Undefined";
        case Kind::none:
            return "None";
        case Kind::boolean:
            return "bool";
        case Kind::integer:
            return "int";
        case Kind::floating:
            return "float";
        case Kind::string:
            return "str";
        case Kind::dict:
            return "dict";
        case Kind::name_space:
            return "Namespace";
        case Kind::callable:
            return "function";
        case Kind::list:
            break;
    }
    switch (list().shape) {
        case Shape::list:
            return "list";
        case Shape::tuple:
            return "tuple";
        case Shape::range:
            return "range";
        case Shape::keys:
            return "dict_keys";
        case Shape::values:
            return "dict_values";
        case Shape::items:
            return "dict_items";
        case Shape::generator:
            return "generator";
    }
    return "object";
}

bool encode_key(const Value& key, std::string& out, int depth) {
    switch (key.kind()) {
        case Value::Kind::string:
            // Inside a tuple the length keeps ("a", "b") apart from ("ab",).
            out += depth == 0 ? "s" : "s" + std::to_string(key.text().size()) + ":";
            out += key.text();
            return true;
        case Value::Kind::none:
            out += "n;";
            return true;
        case Value::Kind::boolean:
        case Value::Kind::integer:
            out += "i" + std::to_string(key.integer()) + ";";
            return true;
        case Value::Kind::floating: {
            const double d = key.number();
            if (d == std::floor(d) && std::fabs(d) < 9e18) {
                out += "i" + std::to_string(static_cast<std::int64_t>(d)) + ";";
                return true;
            }
            char bytes[sizeof d];
            std::memcpy(bytes, &d, sizeof d);
            out.append("f").append(bytes, sizeof d);
            return true;
        }
        case Value::Kind::list:
            // 4 levels and 64 items: far beyond any template's keys, and no room for exponential sharing.
            if (key.list().shape != Shape::tuple || depth >= 4 || key.list().items.size() > 64) return false;
            out += "(";
            for (const Value& item : key.list().items)
                if (!encode_key(item, out, depth + 1)) return false;
            out += ")";
            return true;
        default:
            return false;
    }
}

}  // namespace quern::text::jinja
