// SPDX-License-Identifier: Apache-2.0
// Argument checking, functions and tests.
#include "engine/text/jinja_builtins.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

using Kind = Value::Kind;

class Function final : public Callable {
public:
    Function(std::string_view name, Native fn) : name_(name), fn_(fn) {}
    std::string name() const override { return std::string(name_); }
    Value call(Interp& in, Args& args) override { return fn_(in, Value(), args); }

private:
    std::string_view name_;
    Native fn_;
};

class BoundMethod final : public Callable {
public:
    BoundMethod(Value self, const MethodDef& method) : self_(std::move(self)), method_(method) {}
    std::string name() const override { return std::string(method_.name); }
    Value call(Interp& in, Args& args) override { return call_method(in, self_, method_, args); }
    std::uint32_t depth() const override { return self_.depth() + 1; }

private:
    Value self_;
    const MethodDef& method_;
};

class Clock final : public Callable {
public:
    explicit Clock(std::int64_t seconds) : seconds_(seconds) {}
    std::string name() const override { return "strftime_now"; }
    Value call(Interp& in, Args& args) override {
        Params p(in, "strftime_now()", args, {"format"}, 1);
        const std::string format(p.text(0));
        return in.failed() ? Value() : in.string(strftime_utc(in, seconds_, format));
    }

private:
    std::int64_t seconds_;
};

Value fn_range(Interp& in, const Value&, Args& args) {
    // HF renders in a sandbox, whose range() stops here.
    constexpr std::uint64_t kMaxRange = 100'000;
    Params p(in, "range()", args, {"start", "stop", "step"}, 1);
    std::int64_t start = p.has(1) ? p.integer(0, 0) : 0;
    const std::int64_t stop = p.has(1) ? p.integer(1, 0) : p.integer(0, 0);
    const std::int64_t step = p.integer(2, 1);
    if (in.failed()) return {};
    if (step == 0) return in.fail("range() step must not be zero");
    const bool up = step > 0;
    const auto magnitude = up ? static_cast<std::uint64_t>(step) : 0 - static_cast<std::uint64_t>(step);
    const std::uint64_t distance = up ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                      : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
    const std::uint64_t count = (up ? stop > start : start > stop) ? (distance - 1) / magnitude + 1 : 0;
    if (count > kMaxRange) return in.limit("range() of more than " + std::to_string(kMaxRange) + " numbers");
    std::vector<Value> items;
    items.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i)
        items.emplace_back(
            static_cast<std::int64_t>(static_cast<std::uint64_t>(start) + i * static_cast<std::uint64_t>(step)));
    Value v = in.list(std::move(items), Shape::range);
    if (!v.is_list()) return v;
    v.list().range[0] = start;
    v.list().range[1] = stop;
    v.list().range[2] = step;
    return v;
}

std::shared_ptr<DictNode> fill_dict(Interp& in, Args& args, std::string_view who) {
    const auto d = in.dict();
    if (args.pos.size() > 1) in.fail(std::string(who) + " takes one mapping at most");
    if (!in.failed() && !args.pos.empty()) {
        const Value& from = args.pos[0];
        std::vector<Value> entries;
        if (from.is_dict()) {
            DictNode& source = from.dict_node();
            for (std::size_t i = 0; i < source.size() && !in.failed(); ++i) in.put(*d, source.key(i), source.value(i));
        } else if (in.iterate(from, entries)) {
            for (const Value& e : entries) {
                std::vector<Value> pair;
                if (!in.iterate(e, pair)) break;
                if (pair.size() != 2) {
                    in.fail(std::string(who) + " needs pairs of key and value");
                    break;
                }
                in.put(*d, pair[0], pair[1]);
            }
        }
    }
    for (const auto& [key, value] : args.kw)
        if (!in.failed()) in.put(*d, in.string(key), value);
    return d;
}

Value fn_dict(Interp& in, const Value&, Args& args) { return fill_dict(in, args, "dict()"); }

Value fn_namespace(Interp& in, const Value&, Args& args) {
    const auto fields = fill_dict(in, args, "namespace()");
    const auto ns = std::make_shared<NamespaceNode>(&in.meter);
    for (std::size_t i = 0; i < fields->size() && !in.failed(); ++i)
        in.put(ns->fields, fields->key(i), fields->value(i));
    return ns;
}

Value fn_raise(Interp& in, const Value&, Args& args) {
    Params p(in, "raise_exception()", args, {"message"}, 1);
    return in.failed() ? Value() : in.fail("raise_exception: " + in.str(p[0]));
}

// --- tests ------------------------------------------------------------------------------------------------------

template <Kind K>
bool is_kind(Interp&, const Value& v, Args&) {
    return v.is(K);
}

template <Binary B>
bool compares(Interp& in, const Value& v, Args& args) {
    Params p(in, "the test", args, {"other"}, 1);
    return !in.failed() && in.compare(B, v, p[0]);
}

bool cased(Interp& in, const Value& v, bool want_upper) {
    const std::string s = in.str(v);
    bool any = false;
    for (std::size_t at = 0; at < s.size();) {
        const char32_t c = next_char(s, at);
        if (want_upper ? is_lower(c) : is_upper(c)) return false;
        any |= want_upper ? is_upper(c) : is_lower(c);
    }
    return any;
}

bool remainder_is(Interp& in, const Value& v, const Value& divisor, std::int64_t wanted) {
    const Value r = in.binary(Binary::mod, v, divisor);
    return !in.failed() && r.is_number() && r.number() == static_cast<double>(wanted);
}

bool test_iterable(Interp&, const Value& v, Args&) {
    return v.is_undefined() || v.is_string() || v.is_list() || v.is_dict();
}
bool test_sequence(Interp&, const Value& v, Args&) {
    return v.is_undefined() || v.is_string() || v.is_dict() || (v.is_list() && v.list().shape <= Shape::range);
}

constexpr TestDef kTests[] = {
    {"!=", compares<Binary::ne>},
    {"<", compares<Binary::lt>},
    {"<=", compares<Binary::le>},
    {"==", compares<Binary::eq>},
    {">", compares<Binary::gt>},
    {">=", compares<Binary::ge>},
    {"boolean", is_kind<Kind::boolean>},
    {"callable", [](Interp&, const Value& v, Args&) { return v.is(Kind::callable) || v.is_undefined(); }},
    {"defined", [](Interp&, const Value& v, Args&) { return !v.is_undefined(); }},
    {"divisibleby",
     [](Interp& in, const Value& v, Args& args) {
         Params p(in, "the test 'divisibleby'", args, {"num"}, 1);
         return !in.failed() && remainder_is(in, v, p[0], 0);
     }},
    {"eq", compares<Binary::eq>},
    {"equalto", compares<Binary::eq>},
    {"even", [](Interp& in, const Value& v, Args&) { return remainder_is(in, v, 2, 0); }},
    {"false", [](Interp&, const Value& v, Args&) { return v.is(Kind::boolean) && !v.boolean(); }},
    {"filter", [](Interp&, const Value& v, Args&) { return v.is_string() && find_filter(v.text()) != nullptr; }},
    {"float", is_kind<Kind::floating>},
    {"ge", compares<Binary::ge>},
    {"greaterthan", compares<Binary::gt>},
    {"gt", compares<Binary::gt>},
    {"in", compares<Binary::in>},
    {"integer", is_kind<Kind::integer>},
    {"iterable", test_iterable},
    {"le", compares<Binary::le>},
    {"lessthan", compares<Binary::lt>},
    {"lower", [](Interp& in, const Value& v, Args&) { return cased(in, v, false); }},
    {"lt", compares<Binary::lt>},
    {"mapping", is_kind<Kind::dict>},
    {"ne", compares<Binary::ne>},
    {"none", is_kind<Kind::none>},
    {"number", [](Interp&, const Value& v, Args&) { return v.is_number(); }},
    {"odd", [](Interp& in, const Value& v, Args&) { return remainder_is(in, v, 2, 1); }},
    {"sameas",
     [](Interp& in, const Value& v, Args& args) {
         Params p(in, "the test 'sameas'", args, {"other"}, 1);
         if (in.failed() || v.kind() != p[0].kind()) return false;
         return v.node() != nullptr && !v.is_string() ? v.node() == p[0].node() : in.equal(v, p[0]);
     }},
    {"sequence", test_sequence},
    {"string", is_kind<Kind::string>},
    {"test", [](Interp&, const Value& v, Args&) { return v.is_string() && find_test(v.text()) != nullptr; }},
    {"true", [](Interp&, const Value& v, Args&) { return v.is(Kind::boolean) && v.boolean(); }},
    {"undefined", is_kind<Kind::undefined>},
    {"upper", [](Interp& in, const Value& v, Args&) { return cased(in, v, true); }},
};

}  // namespace

Params::Params(Interp& in, std::string_view who, Args& args, std::initializer_list<std::string_view> names,
               std::size_t required)
    : in_(in), who_(who), values_(names.size()), given_(names.size()) {
    if (args.pos.size() > names.size())
        in.fail(std::string(who) + " takes at most " + std::to_string(names.size()) + " arguments");
    for (std::size_t i = 0; i < std::min(args.pos.size(), names.size()); ++i) {
        values_[i] = args.pos[i];
        given_[i] = true;
    }
    for (const auto& [key, value] : args.kw) {
        const auto* hit = std::find(names.begin(), names.end(), key);
        const auto i = static_cast<std::size_t>(hit - names.begin());
        if (hit == names.end() || given_[i]) {
            in.fail(std::string(who) + (hit == names.end() ? " has no argument '" : " got twice the argument '") + key +
                    "'");
            return;
        }
        values_[i] = value;
        given_[i] = true;
    }
    for (std::size_t i = 0; i < required; ++i)
        if (!given_[i]) in.fail(std::string(who) + " needs the argument '" + std::string(names.begin()[i]) + "'");
}

std::string_view Params::text(std::size_t i, std::string_view fallback) {
    if (!given_[i]) return fallback;
    if (values_[i].is_string()) return values_[i].text();
    if (in_.defined(values_[i]))
        in_.fail(std::string(who_) + " needs a string, not a " + std::string(values_[i].type_name()));
    return fallback;
}

std::int64_t Params::integer(std::size_t i, std::int64_t fallback) {
    if (!given_[i]) return fallback;
    if (values_[i].is_int_like()) return values_[i].integer();
    if (in_.defined(values_[i]))
        in_.fail(std::string(who_) + " needs an integer, not a " + std::string(values_[i].type_name()));
    return fallback;
}

bool Params::flag(std::size_t i, bool fallback) { return given_[i] ? in_.truthy(values_[i]) : fallback; }

const TestDef* find_test(std::string_view name) {
    const auto* hit =
        std::find_if(std::begin(kTests), std::end(kTests), [&](const TestDef& t) { return t.name == name; });
    return hit == std::end(kTests) ? nullptr : hit;
}

Value find_function(std::string_view name) {
    static constexpr FilterDef kFunctions[] = {
        {"range", fn_range}, {"dict", fn_dict}, {"namespace", fn_namespace}, {"raise_exception", fn_raise}};
    for (const FilterDef& f : kFunctions)
        if (f.name == name) return std::shared_ptr<Callable>(std::make_shared<Function>(f.name, f.fn));
    return {};
}

Value bind_method(const Value& self, const MethodDef& method) {
    return std::shared_ptr<Callable>(std::make_shared<BoundMethod>(self, method));
}

Value call_method(Interp& in, const Value& self, const MethodDef& method, Args& args) {
    if (method.fn == nullptr)
        return in.fail("the method '" + std::string(method.name) + "' of a " + self.type_name() + " is not supported",
                       Errc::unsupported);
    return in.step() ? method.fn(in, self, args) : Value();
}

Value make_strftime_now(std::int64_t seconds) { return std::shared_ptr<Callable>(std::make_shared<Clock>(seconds)); }

}  // namespace quern::text::jinja
