// SPDX-License-Identifier: Apache-2.0
// Values of the template language: Python's str, int, list, dict, ... as far as chat templates see them.
#ifndef QUERN_ENGINE_TEXT_JINJA_VALUE_H
#define QUERN_ENGINE_TEXT_JINJA_VALUE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace quern::text::jinja {

class Interp;
class Value;
struct Args;

/// Bytes held by the values of one rendering. Values made outside a rendering have no meter.
struct Meter {
    std::size_t live = 0;
};

/// What strings, lists and dicts share: their bytes are on the meter for as long as they live.
class Metered {
public:
    Metered() = default;
    explicit Metered(Meter* meter) : meter_(meter) {}
    Metered(const Metered&) = delete;
    Metered& operator=(const Metered&) = delete;
    ~Metered() { recharge(0); }
    void recharge(std::size_t bytes) {
        if (meter_ == nullptr) return;
        meter_->live += bytes - charged_;
        charged_ = bytes;
    }

private:
    Meter* meter_ = nullptr;
    std::size_t charged_ = 0;
};

/// Immutable text, always valid UTF-8.
struct StringNode : Metered {
    StringNode(std::string t, Meter* meter);
    const std::string text;
    const bool ascii;  ///< then a byte offset is a character offset
};

/// Python has many sequences. They differ in how they print, compare, and whether they can be read twice.
enum class Shape : std::uint8_t { list, tuple, range, keys, values, items, generator };

struct ListNode : Metered {
    ListNode(std::vector<Value> v, Shape s, Meter* meter);
    void recharge_items();
    std::vector<Value> items;
    Shape shape;
    bool mutated = false;     ///< known to Interp, which empties it at the end (it may be part of a cycle)
    std::uint32_t depth = 1;  ///< containers below, itself included, when it was built
    std::int64_t range[3] = {0, 0, 1};
};

/// Ordered by insertion. Keys are scalars, or tuples of them.
class DictNode : public Metered {
public:
    explicit DictNode(Meter* meter);
    ~DictNode();

    Value* find(std::string_view text_key);
    Value* find_code(std::string_view code);
    void set(std::string_view text_key, Value value);
    void set_code(std::string code, Value key, Value value);
    bool erase_code(std::string_view code);
    void clear();
    std::size_t size() const;
    const Value& key(std::size_t i) const;
    Value& value(std::size_t i);
    /// The key as bytes: equal keys (1, 1.0, true) have equal codes.
    const std::string& code(std::size_t i) const;

    bool mutated = false;
    std::uint32_t depth = 1;

private:
    struct Entry;
    std::size_t position(std::string_view code);
    std::vector<Entry> entries_;
    std::unordered_map<std::string, std::size_t> index_;  // filled when the dict outgrows a linear search
};

struct NamespaceNode {
    explicit NamespaceNode(Meter* meter) : fields(meter) {}
    DictNode fields;
};

/// Macros, built-in functions, bound methods, and the `loop` variable (which has attributes too).
struct Callable {
    virtual ~Callable() = default;
    virtual std::string name() const = 0;
    virtual Value call(Interp& in, Args& args) = 0;
    virtual bool attribute(Interp& in, std::string_view attr, Value& out);
    virtual std::uint32_t depth() const { return 0; }  ///< of the value that a bound method holds
};

struct None {};
struct Undefined {
    std::shared_ptr<const std::string> hint;  ///< "'x' is undefined"; null where nothing is known
};

class Value {
public:
    enum class Kind : std::uint8_t {
        undefined,
        none,
        boolean,
        integer,
        floating,
        string,
        list,
        dict,
        name_space,
        callable
    };

    Value() = default;  // undefined
    Value(None) : v_(None{}) {}
    Value(bool b) : v_(b) {}
    Value(std::int64_t i) : v_(i) {}
    Value(int i) : v_(std::int64_t{i}) {}
    Value(double d) : v_(d) {}
    Value(const void*) = delete;  // else a string literal would become a bool
    Value(Undefined u) : v_(std::move(u)) {}
    Value(std::shared_ptr<StringNode> s) : v_(std::move(s)) {}
    Value(std::shared_ptr<ListNode> l) : v_(std::move(l)) {}
    Value(std::shared_ptr<DictNode> d) : v_(std::move(d)) {}
    Value(std::shared_ptr<NamespaceNode> n) : v_(std::move(n)) {}
    Value(std::shared_ptr<Callable> c) : v_(std::move(c)) {}

    /// For callers who fill the globals of a template. Text must be valid UTF-8.
    static Value string(std::string_view text);
    static Value list(std::vector<Value> items);
    static Value dict();

    Kind kind() const { return static_cast<Kind>(v_.index()); }
    bool is(Kind k) const { return kind() == k; }
    bool is_undefined() const { return is(Kind::undefined); }
    bool is_none() const { return is(Kind::none); }
    bool is_string() const { return is(Kind::string); }
    bool is_list() const { return is(Kind::list); }
    bool is_dict() const { return is(Kind::dict); }
    bool is_int_like() const { return is(Kind::integer) || is(Kind::boolean); }
    bool is_number() const { return is_int_like() || is(Kind::floating); }

    bool boolean() const { return *std::get_if<bool>(&v_); }
    /// Of an integer or a boolean.
    std::int64_t integer() const { return is(Kind::boolean) ? (boolean() ? 1 : 0) : *std::get_if<std::int64_t>(&v_); }
    /// Of any number.
    double number() const { return is(Kind::floating) ? *std::get_if<double>(&v_) : static_cast<double>(integer()); }
    const std::string& text() const { return (*std::get_if<std::shared_ptr<StringNode>>(&v_))->text; }
    bool ascii() const { return (*std::get_if<std::shared_ptr<StringNode>>(&v_))->ascii; }
    ListNode& list() const { return **std::get_if<std::shared_ptr<ListNode>>(&v_); }
    DictNode& dict_node() const { return **std::get_if<std::shared_ptr<DictNode>>(&v_); }
    NamespaceNode& name_space() const { return **std::get_if<std::shared_ptr<NamespaceNode>>(&v_); }
    Callable& callable() const { return **std::get_if<std::shared_ptr<Callable>>(&v_); }
    const std::string* undefined_hint() const { return std::get_if<Undefined>(&v_)->hint.get(); }
    template <class Node>
    std::shared_ptr<Node> share() const {
        return *std::get_if<std::shared_ptr<Node>>(&v_);
    }

    /// Identity of the node, null for plain values.
    const void* node() const;
    /// Containers on the deepest path, 0 for a scalar.
    std::uint32_t depth() const;
    /// Python's name of the type: "str", "dict", ...
    const char* type_name() const;

private:
    std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<StringNode>, std::shared_ptr<ListNode>,
                 std::shared_ptr<DictNode>, std::shared_ptr<NamespaceNode>, std::shared_ptr<Callable>>
        v_;
};

/// Arguments of one call.
struct Args {
    std::vector<Value> pos;
    std::vector<std::pair<std::string, Value>> kw;
};

/// The bytes that stand for a dict key; false if the value cannot be one.
bool encode_key(const Value& key, std::string& out, int depth = 0);

}  // namespace quern::text::jinja
#endif
