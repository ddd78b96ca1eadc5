// SPDX-License-Identifier: Apache-2.0
// Expressions: names, items, calls, operators.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_scope.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

Value undefined(std::string hint) { return Undefined{std::make_shared<const std::string>(std::move(hint))}; }

/// "dict object", as Jinja2's messages say it.
std::string object_name(const Value& v) { return v.is_none() ? "None" : std::string(v.type_name()) + " object"; }

const char* symbol(Binary op) {
    static constexpr const char* kSymbols[] = {
        "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
    return kSymbols[static_cast<std::size_t>(op)];
}

/// Start and count of items of a Python slice over `n` items.
struct Span {
    std::int64_t start = 0, step = 1, count = 0;
};

Span slice_span(std::int64_t n, const Value& start, const Value& stop, std::int64_t step) {
    const auto clamp = [&](const Value& v, std::int64_t fallback) {
        if (v.is_none()) return fallback;
        std::int64_t i = v.integer();
        if (i < 0) i = i < -n ? -1 : i + n;
        return step > 0 ? std::clamp<std::int64_t>(i, 0, n) : std::clamp<std::int64_t>(i, -1, n - 1);
    };
    Span s;
    s.step = step;
    s.start = clamp(start, step > 0 ? 0 : n - 1);
    const std::int64_t end = clamp(stop, step > 0 ? n : -1);
    if (step > 0 && end > s.start) s.count = (end - s.start - 1) / step + 1;
    if (step < 0 && end < s.start)
        s.count = static_cast<std::int64_t>(
            static_cast<std::uint64_t>(s.start - end - 1) / (0 - static_cast<std::uint64_t>(step)) + 1);
    return s;
}

bool power(std::int64_t base, std::int64_t exponent, std::int64_t& out) {
    out = 1;
    while (exponent > 0) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) return false;
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return false;
    }
    return true;
}

}  // namespace

Value Interp::eval(const Expr& e, Scope& scope) {
    const Level level(*this);
    if (!step()) return {};
    line = e.line;
    Value v = dispatch(e, scope);
    return failed() ? Value() : v;
}

Value Interp::dispatch(const Expr& e, Scope& scope) {
    switch (e.op) {
        case Op::constant:
            return e.value;
        case Op::name:
            return lookup(e, scope);
        case Op::tuple:
        case Op::list: {
            std::vector<Value> items;
            for (const auto& k : e.kids) items.push_back(eval(*k, scope));
            return list(std::move(items), e.op == Op::list ? Shape::list : Shape::tuple);
        }
        case Op::dict:
            return make_dict(e, scope);
        case Op::getattr:
            return attribute(eval(*e.kids[0], scope), e.text);
        case Op::getitem: {
            const Value object = eval(*e.kids[0], scope);
            return item(object, eval(*e.kids[1], scope));
        }
        case Op::slice:
            return slice(e, scope);
        case Op::call:
            return call_expr(e, scope);
        case Op::filter:
            return apply_filter(e, scope, nullptr);
        case Op::test: {
            const Value v = eval(*e.kids[0], scope);
            Args args = arguments(e, scope);
            return !failed() && e.test->fn(*this, v, args) != e.negated;
        }
        case Op::negative: {
            const Value v = eval(*e.kids[0], scope);
            if (v.is(Value::Kind::floating)) return -v.number();
            if (v.is_int_like() && v.integer() != std::numeric_limits<std::int64_t>::min()) return -v.integer();
            return defined(v) ? fail(std::string("cannot negate a ") + v.type_name()) : Value();
        }
        case Op::positive: {
            const Value v = eval(*e.kids[0], scope);
            if (v.is_number()) return v.is_int_like() ? Value(v.integer()) : v;
            return defined(v) ? fail(std::string("unary + of a ") + v.type_name()) : Value();
        }
        case Op::logical_not:
            return !truthy(eval(*e.kids[0], scope));
        case Op::logical_and:
        case Op::logical_or: {
            Value v;
            for (const auto& k : e.kids) {
                v = eval(*k, scope);
                if (failed() || truthy(v) == (e.op == Op::logical_or)) break;
            }
            return v;
        }
        case Op::concat:
            return concat(e, scope);
        case Op::chain: {
            Value v = eval(*e.kids[0], scope);
            for (std::size_t i = 0; i < e.ops.size() && !failed(); ++i)
                v = binary(e.ops[i], v, eval(*e.kids[i + 1], scope));
            return v;
        }
        case Op::compare:
            return compare_chain(e, scope);
        case Op::conditional:
            if (truthy(eval(*e.kids[0], scope))) return eval(*e.kids[1], scope);
            if (e.kids[2]) return eval(*e.kids[2], scope);
            return undefined("the inline if-expression was false and has no else");
    }
    return {};
}

Value Interp::lookup(const Expr& e, Scope& scope) {
    for (Scope* s = &scope; s != &top_; s = s->parent)
        if (const auto it = s->vars.find(e.id); it != s->vars.end()) return it->second;
    const Value& v = root_[e.id];
    if (v.is_undefined() && v.undefined_hint() == nullptr) return undefined("'" + e.text + "' is undefined");
    return v;
}

Value Interp::make_dict(const Expr& e, Scope& scope) {
    const auto d = dict();
    for (std::size_t i = 0; i + 1 < e.kids.size() && !failed(); i += 2) {
        const Value key = eval(*e.kids[i], scope);
        put(*d, key, eval(*e.kids[i + 1], scope));
    }
    return d;
}

Value Interp::attribute(const Value& object, const std::string& name) {
    if (failed() || (object.is_undefined() && !defined(object))) return {};
    if (const MethodDef* m = find_method(object, name)) return bind_method(object, *m);
    if (object.is_dict()) {
        if (const Value* v = object.dict_node().find(name)) return *v;
    } else if (object.is(Value::Kind::name_space)) {
        if (const Value* v = object.name_space().fields.find(name)) return *v;
    } else if (object.is(Value::Kind::callable)) {
        Value v;
        if (object.callable().attribute(*this, name, v)) return v;
    }
    return undefined("'" + object_name(object) + "' has no attribute '" + name + "'");
}

Value Interp::item(const Value& object, const Value& key) {
    if (failed() || !defined(object)) return {};
    if (object.is_dict()) {
        std::string code;
        if (encode_key(key, code))
            if (const Value* v = object.dict_node().find_code(code)) return *v;
    } else if (key.is_int_like() && (object.is_list() || object.is_string())) {
        const bool sequence = object.is_string() || object.list().shape <= Shape::range;
        const auto n = sequence ? static_cast<std::int64_t>(length(object)) : 0;
        const std::int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
        if (i >= 0 && i < n) {
            if (object.is_list()) return object.list().items[static_cast<std::size_t>(i)];
            const std::string& s = object.text();
            if (object.ascii()) return string(s.substr(static_cast<std::size_t>(i), 1));
            if (!text_step(s.size())) return {};
            const std::size_t at = byte_offset(s, static_cast<std::size_t>(i));
            return string(s.substr(at, byte_offset(std::string_view(s).substr(at), 1)));
        }
    }
    if (key.is_string()) {
        if (object.is_dict() && find_method(object, key.text()) == nullptr)
            return undefined("'dict object' has no attribute '" + key.text() + "'");
        return attribute(object, key.text());
    }
    if (failed()) return {};
    std::string shown;
    repr(key, shown);
    return undefined(object_name(object) + " has no element " + shown);
}

Value Interp::slice(const Expr& e, Scope& scope) {
    const Value object = eval(*e.kids[0], scope);
    Value part[3] = {None{}, None{}, None{}};
    for (std::size_t i = 0; i < 3; ++i)
        if (e.kids[i + 1]) part[i] = eval(*e.kids[i + 1], scope);
    if (failed() || !defined(object)) return {};
    for (const Value& p : part)
        if (!p.is_none() && !p.is_int_like()) return fail("slice bounds must be integers or none");
    const std::int64_t by = part[2].is_none() ? 1 : part[2].integer();
    if (by == 0) return fail("a slice step cannot be zero");
    const bool sequence = object.is_string() || (object.is_list() && object.list().shape <= Shape::range);
    if (!sequence) return fail(std::string("a ") + object.type_name() + " cannot be sliced");
    const Span span = slice_span(static_cast<std::int64_t>(length(object)), part[0], part[1], by);
    if (!step(static_cast<std::size_t>(span.count) / 16)) return {};
    if (object.is_list()) {
        std::vector<Value> items;
        for (std::int64_t i = 0; i < span.count; ++i)
            items.push_back(object.list().items[static_cast<std::size_t>(span.start + i * by)]);
        // A slice of a range is a range in Python; only its printed form would differ.
        return list(std::move(items), object.list().shape == Shape::tuple ? Shape::tuple : Shape::list);
    }
    const std::string& s = object.text();
    if (by == 1) {
        const std::size_t from = object.ascii() ? static_cast<std::size_t>(span.start)
                                                : byte_offset(s, static_cast<std::size_t>(span.start));
        const std::string_view rest = std::string_view(s).substr(from);
        const auto n = static_cast<std::size_t>(span.count);
        return string(std::string(rest.substr(0, object.ascii() ? n : byte_offset(rest, n))));
    }
    if (!text_step(s.size() * 4)) return {};
    std::vector<std::size_t> offsets;  // of every character, and the end
    for (std::size_t at = 0; at < s.size(); next_char(s, at)) offsets.push_back(at);
    offsets.push_back(s.size());
    std::string out;
    for (std::int64_t i = 0; i < span.count; ++i) {
        const auto c = static_cast<std::size_t>(span.start + i * by);
        out.append(s, offsets[c], offsets[c + 1] - offsets[c]);
    }
    return string(std::move(out));
}

Args Interp::arguments(const Expr& e, Scope& scope) {
    Args args;
    for (std::size_t i = 1; i < e.kids.size(); ++i) args.pos.push_back(eval(*e.kids[i], scope));
    for (const auto& [key, value] : e.kwargs) args.kw.emplace_back(key, eval(*value, scope));
    if (e.star) {
        const Value more = eval(*e.star, scope);
        if (defined(more)) iterate(more, args.pos);
    }
    if (e.star_star) {
        const Value more = eval(*e.star_star, scope);
        if (!failed() && !more.is_dict()) fail("'**' needs a dict, not a " + std::string(more.type_name()));
        for (std::size_t i = 0; !failed() && i < more.dict_node().size(); ++i) {
            const Value& key = more.dict_node().key(i);
            if (!key.is_string()) {
                fail("keywords must be strings");
            } else if (std::any_of(args.kw.begin(), args.kw.end(), [&](auto& kw) { return kw.first == key.text(); })) {
                fail("the argument '" + key.text() + "' is given twice");
            } else if (step(args.kw.size() / 16)) {
                args.kw.emplace_back(key.text(), more.dict_node().value(i));
            }
        }
    }
    return args;
}

Value Interp::call_expr(const Expr& e, Scope& scope) {
    const Expr& callee = *e.kids[0];
    if (callee.op == Op::getattr) {  // a method call, without making a bound method
        const Value object = eval(*callee.kids[0], scope);
        if (failed()) return {};
        if (const MethodDef* m = find_method(object, callee.text)) {
            Args args = arguments(e, scope);
            line = e.line;
            return failed() ? Value() : call_method(*this, object, *m, args);
        }
        const Value field = attribute(object, callee.text);
        if (field.is_undefined() && !failed() && !object.is_dict() && !object.is(Value::Kind::name_space))
            return fail(std::string("a ") + object.type_name() + " has no method '" + callee.text + "'");
        Args args = arguments(e, scope);
        return call(field, args);
    }
    const Value f = eval(callee, scope);
    Args args = arguments(e, scope);
    line = e.line;
    return call(f, args);
}

Value Interp::call(const Value& callee, Args& args) {
    if (failed() || !defined(callee)) return {};
    if (!callee.is(Value::Kind::callable)) return fail(std::string("a ") + callee.type_name() + " cannot be called");
    const Level level(*this);
    // A macro may replace the variable that holds it while it runs.
    const auto keep = callee.share<Callable>();
    return failed() ? Value() : keep->call(*this, args);
}

Value Interp::apply_filter(const Expr& e, Scope& scope, const Value* input) {
    Value v;
    if (e.kids[0] == nullptr) {
        v = *input;
    } else if (input != nullptr && e.kids[0]->op == Op::filter) {
        const Level level(*this);
        if (failed()) return {};
        v = apply_filter(*e.kids[0], scope, input);
    } else {
        v = eval(*e.kids[0], scope);
    }
    Args args = arguments(e, scope);
    line = e.line;
    return failed() ? Value() : e.filter->fn(*this, v, args);
}

bool Interp::compare(Binary op, const Value& a, const Value& b) {
    switch (op) {
        case Binary::eq:
            return equal(a, b);
        case Binary::ne:
            return !equal(a, b);
        case Binary::lt:
            return less(a, b);
        case Binary::gt:
            return less(b, a, ">");
        case Binary::le: {
            if (a.is_number() && b.is_number())
                return a.number() == a.number() && b.number() == b.number() && !less(b, a);
            return !less(b, a, "<=");
        }
        case Binary::ge: {
            if (a.is_number() && b.is_number())
                return a.number() == a.number() && b.number() == b.number() && !less(a, b);
            return !less(a, b, ">=");
        }
        case Binary::in:
            return contains(b, a);
        default:
            return !contains(b, a);
    }
}

Value Interp::compare_chain(const Expr& e, Scope& scope) {
    Value left = eval(*e.kids[0], scope);
    for (std::size_t i = 0; i < e.ops.size() && !failed(); ++i) {
        Value right = eval(*e.kids[i + 1], scope);
        if (failed() || !compare(e.ops[i], left, right)) return false;
        left = std::move(right);
    }
    return true;
}

Value Interp::concat(const Expr& e, Scope& scope) {
    std::string out;
    for (const auto& k : e.kids) {
        const Value v = eval(*k, scope);
        if (failed()) return {};
        if (v.is_string())
            out += v.text();
        else
            out += str(v);
        if (!text_step(out.size())) return {};
    }
    return string(std::move(out));
}

Value Interp::repeat(const Value& sequence, std::int64_t times) {
    times = std::max<std::int64_t>(times, 0);
    const std::size_t n = sequence.is_string() ? sequence.text().size() : sequence.list().items.size();
    std::size_t total = 0;
    if (__builtin_mul_overflow(n, static_cast<std::size_t>(times), &total) || total > limits.max_output_bytes)
        return limit("a repeated sequence grows beyond " + std::to_string(limits.max_output_bytes) + " bytes");
    if (sequence.is_string()) {
        std::string out;
        out.reserve(total);
        for (std::int64_t i = 0; i < times && n > 0; ++i) out += sequence.text();
        return string(std::move(out));
    }
    if (!step(total / 4)) return {};
    std::vector<Value> items;
    for (std::int64_t i = 0; i < times && n > 0; ++i)
        items.insert(items.end(), sequence.list().items.begin(), sequence.list().items.end());
    return list(std::move(items), sequence.list().shape);
}

Value Interp::binary(Binary op, const Value& a, const Value& b) {
    if (failed() || !defined(a) || !defined(b)) return {};
    const auto plain_list = [](const Value& v) {
        return v.is_list() && (v.list().shape == Shape::list || v.list().shape == Shape::tuple);
    };
    if (op == Binary::add && a.is_string() && b.is_string()) {
        if (!text_step(a.text().size() + b.text().size())) return {};
        return string(a.text() + b.text());
    }
    if (op == Binary::add && plain_list(a) && plain_list(b) && a.list().shape == b.list().shape) {
        if (!step((a.list().items.size() + b.list().items.size()) / 4)) return {};
        std::vector<Value> items = a.list().items;
        items.insert(items.end(), b.list().items.begin(), b.list().items.end());
        return list(std::move(items), a.list().shape);
    }
    if (op == Binary::mul && (a.is_string() || plain_list(a)) && b.is_int_like()) return repeat(a, b.integer());
    if (op == Binary::mul && (b.is_string() || plain_list(b)) && a.is_int_like()) return repeat(b, a.integer());
    if (op == Binary::mod && a.is_string()) return string(percent_format(*this, a.text(), b));
    if (a.is_number() && b.is_number()) return arithmetic(op, a, b);
    return fail(std::string("'") + symbol(op) + "' is not supported between " + a.type_name() + " and " +
                b.type_name());
}

Value Interp::arithmetic(Binary op, const Value& a, const Value& b) {
    const bool divides = op == Binary::div || op == Binary::floordiv || op == Binary::mod;
    if (divides && b.number() == 0) return fail("division by zero");
    const bool ints = a.is_int_like() && b.is_int_like();
    if (ints && op != Binary::div && !(op == Binary::pow && b.integer() < 0)) {
        const std::int64_t x = a.integer(), y = b.integer();
        std::int64_t r = 0;
        bool overflow = false;
        switch (op) {
            case Binary::add:
                overflow = __builtin_add_overflow(x, y, &r);
                break;
            case Binary::sub:
                overflow = __builtin_sub_overflow(x, y, &r);
                break;
            case Binary::mul:
                overflow = __builtin_mul_overflow(x, y, &r);
                break;
            case Binary::pow:
                overflow = !power(x, y, r);
                break;
            default:
                // Rounded towards minus infinity, so that the remainder has the divisor's sign.
                if (y == -1) {
                    overflow = op == Binary::floordiv && __builtin_sub_overflow(std::int64_t{0}, x, &r);
                    break;
                }
                r = x % y;
                if (r != 0 && (r < 0) != (y < 0)) r += y;
                if (op == Binary::floordiv) r = x / y - (x % y != 0 && ((x < 0) != (y < 0)) ? 1 : 0);
        }
        return overflow ? fail("an integer does not fit in 64 bits") : Value(r);
    }
    const double x = a.number(), y = b.number();
    switch (op) {
        case Binary::add:
            return x + y;
        case Binary::sub:
            return x - y;
        case Binary::mul:
            return x * y;
        case Binary::div:
            return x / y;
        case Binary::pow: {
            if (x == 0 && y < 0) return fail("zero cannot be raised to a negative power");
            if (x < 0 && y != std::floor(y)) return fail("a negative number to a fractional power is complex");
            const double r = std::pow(x, y);
            return std::isinf(r) && std::isfinite(x) && std::isfinite(y) ? fail("a power is too large") : Value(r);
        }
        default:
            break;
    }
    double mod = std::fmod(x, y);
    if (mod != 0 && (mod < 0) != (y < 0)) mod += y;
    if (mod == 0) mod = std::copysign(0.0, y);
    if (op == Binary::mod) return mod;
    const double quotient = (x - mod) / y;
    const double floored = std::floor(quotient);
    return quotient - floored > 0.5 ? floored + 1 : quotient == 0 ? std::copysign(0.0, x / y) : floored;
}

}  // namespace quern::text::jinja
