// SPDX-License-Identifier: Apache-2.0
// Expressions, loosest binding first.
#include "engine/text/jinja_expr_parser.h"

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {

ExprPtr ExprParser::expression() {
    Level level(*this);
    if (failed()) return make(Op::constant);
    ExprPtr e = logical_or();
    while (!failed() && skip_name("if")) {
        auto cond = make(Op::conditional);
        adopt(*cond, logical_or());
        adopt(*cond, std::move(e));
        adopt(*cond, skip_name("else") ? expression() : nullptr);
        e = std::move(cond);
    }
    return e;
}

bool ExprParser::tuple_end(Names extra) const {
    const Type t = peek().type;
    return t == Type::print_end || t == Type::block_end || t == Type::end || at_op(")") ||
           (t == Type::name && one_of(peek().text, extra));
}

ExprPtr ExprParser::tuple(bool conditional, Names ends, bool parenthesized) {
    std::vector<ExprPtr> parts;
    bool is_tuple = false;
    while (!failed() && !tuple_end(ends)) {
        parts.push_back(conditional ? expression() : logical_or());
        if (!skip_op(",")) break;
        is_tuple = true;
    }
    if (!is_tuple && !parts.empty()) return std::move(parts[0]);
    if (!is_tuple && !parenthesized) fail("expected an expression, not " + found());
    auto e = make(Op::tuple);
    for (auto& p : parts) adopt(*e, std::move(p));
    return e;
}

ExprPtr ExprParser::logical_or() {
    return words(Op::logical_or, "or", [this] { return words(Op::logical_and, "and", [this] { return negation(); }); });
}

template <class Next>
ExprPtr ExprParser::words(Op op, std::string_view word, Next next) {
    ExprPtr first = next();
    if (!at_name(word)) return first;
    auto e = make(op);
    adopt(*e, std::move(first));
    while (!failed() && skip_name(word)) adopt(*e, next());
    return e;
}

ExprPtr ExprParser::negation() {
    if (!at_name("not")) return comparison();
    Level level(*this);
    take();
    auto e = make(Op::logical_not);
    adopt(*e, failed() ? nullptr : negation());
    return e;
}

bool ExprParser::comparison_op(Binary& op) {
    static constexpr std::pair<std::string_view, Binary> kOps[] = {{"==", Binary::eq}, {"!=", Binary::ne},
                                                                   {"<=", Binary::le}, {">=", Binary::ge},
                                                                   {"<", Binary::lt},  {">", Binary::gt}};
    for (const auto& [text, o] : kOps)
        if (skip_op(text)) return op = o, true;
    if (skip_name("in")) return op = Binary::in, true;
    if (!at_name("not") || peek(1).type != Type::name || peek(1).text != "in") return false;
    take();
    take();
    op = Binary::not_in;
    return true;
}

ExprPtr ExprParser::comparison() {
    ExprPtr first = sum();
    Binary op{};
    if (!comparison_op(op)) return first;
    auto e = make(Op::compare);
    adopt(*e, std::move(first));
    do {
        e->ops.push_back(op);
        adopt(*e, sum());
    } while (!failed() && comparison_op(op));
    return e;
}

template <class Next>
ExprPtr ExprParser::chain(Table table, Next next) {
    ExprPtr first = next();
    ExprPtr e;
    while (!failed()) {
        const auto* hit = std::find_if(table.begin(), table.end(), [&](const auto& t) { return at_op(t.first); });
        if (hit == table.end()) break;
        if (!e) {
            e = make(Op::chain);
            adopt(*e, std::move(first));
        }
        take();
        e->ops.push_back(hit->second);
        adopt(*e, next());
    }
    return e ? std::move(e) : std::move(first);
}

ExprPtr ExprParser::sum() {
    return chain({{"+", Binary::add}, {"-", Binary::sub}}, [this] { return concat(); });
}

ExprPtr ExprParser::concat() {
    ExprPtr first = product();
    if (!at_op("~")) return first;
    auto e = make(Op::concat);
    adopt(*e, std::move(first));
    while (!failed() && skip_op("~")) adopt(*e, product());
    return e;
}

ExprPtr ExprParser::product() {
    return chain({{"*", Binary::mul}, {"/", Binary::div}, {"//", Binary::floordiv}, {"%", Binary::mod}}, [this] {
        return chain({{"**", Binary::pow}}, [this] { return unary(true); });
    });
}

ExprPtr ExprParser::unary(bool with_filters) {
    ExprPtr e;
    if (at_op("-") || at_op("+")) {
        Level level(*this);
        if (failed()) return make(Op::constant);
        e = make(take().text == "-" ? Op::negative : Op::positive);
        adopt(*e, unary(false));
    } else {
        e = primary();
    }
    e = postfix(std::move(e));
    while (with_filters && !failed()) {
        if (skip_op("|"))
            e = filters(std::move(e));
        else if (skip_name("is"))
            e = test(std::move(e));
        else if (at_op("("))
            e = call(std::move(e));
        else
            break;
    }
    return e;
}

ExprPtr ExprParser::primary() {
    const Token t = take();
    switch (t.type) {
        case Type::name:
            if (t.text == "true" || t.text == "True") return constant(true);
            if (t.text == "false" || t.text == "False") return constant(false);
            if (t.text == "none" || t.text == "None") return constant(None{});
            return name(t.text);
        case Type::string: {
            std::string text = unescape(t, ctx_);
            while (!failed() && peek().type == Type::string) text += unescape(take(), ctx_);
            return constant(Value::string(text));
        }
        case Type::integer:
        case Type::floating:
            return number(t);
        case Type::op:
            break;
        default:
            at_ -= at_ > 0 ? 1 : 0;
            fail("expected an expression, not " + found());
            return make(Op::constant);
    }
    if (t.text == "(") {
        ExprPtr e = tuple(true, {}, true);
        expect_op(")");
        return e;
    }
    if (t.text == "[") {
        auto e = make(Op::list);
        separated("]", [&] { adopt(*e, expression()); });
        return e;
    }
    if (t.text == "{") {
        auto e = make(Op::dict);
        separated("}", [&] {
            adopt(*e, expression());
            expect_op(":");
            adopt(*e, expression());
        });
        return e;
    }
    fail("expected an expression, not '" + std::string(t.text) + "'");
    return make(Op::constant);
}

template <class Item>
void ExprParser::separated(std::string_view close, Item item) {
    while (!failed() && !at_op(close)) {
        item();
        if (!skip_op(",")) break;
    }
    expect_op(close);
}

ExprPtr ExprParser::name(std::string_view text) {
    auto e = make(Op::name);
    e->text = text;
    e->id = intern(text);
    for (Stmt* m : macros_) {
        m->uses_caller |= text == "caller";
        m->uses_varargs |= text == "varargs";
        m->uses_kwargs |= text == "kwargs";
    }
    return e;
}

ExprPtr ExprParser::number(const Token& t) {
    std::string text(t.text);
    std::int64_t i = 0;
    double d = 0;
    if (t.type == Type::floating && parse_double(text, d)) return constant(d);
    const char p = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
    const int base = p == 'x' ? 16 : p == 'o' ? 8 : p == 'b' ? 2 : 10;
    if (t.type == Type::integer && parse_integer(text, base, i)) return constant(i);
    fail("the number " + text.substr(0, 40) + " is malformed or does not fit in 64 bits");
    return make(Op::constant);
}

ExprPtr ExprParser::postfix(ExprPtr e) {
    while (!failed()) {
        if (skip_op("."))
            e = attribute(std::move(e));
        else if (skip_op("["))
            e = subscript(std::move(e));
        else if (at_op("("))
            e = call(std::move(e));
        else
            break;
    }
    return e;
}

ExprPtr ExprParser::attribute(ExprPtr object) {
    if (peek().type == Type::integer) {
        auto e = make(Op::getitem);
        adopt(*e, std::move(object));
        adopt(*e, number(take()));
        return e;
    }
    auto e = make(Op::getattr);
    e->text = expect_name("a field name");
    adopt(*e, std::move(object));
    return e;
}

ExprPtr ExprParser::subscript(ExprPtr object) {
    auto e = make(Op::slice);
    adopt(*e, std::move(object));
    ExprPtr part = at_op(":") ? nullptr : expression();
    if (part && !at_op(":")) {
        e->op = Op::getitem;
        if (at_op(",")) {  // x[1, 2]: the key is a tuple
            auto key = make(Op::tuple);
            adopt(*key, std::move(part));
            while (!failed() && skip_op(",") && !at_op("]")) adopt(*key, expression());
            part = std::move(key);
        }
        adopt(*e, std::move(part));
        expect_op("]");
        return e;
    }
    adopt(*e, std::move(part));
    for (int i = 0; i < 2; ++i) adopt(*e, skip_op(":") && !at_op(":") && !at_op("]") ? expression() : nullptr);
    expect_op("]");
    return e;
}

void ExprParser::arguments(Expr& e) {
    expect_op("(");
    separated(")", [&] {
        if (skip_op("**")) {
            if (e.star_star) fail("'**' twice in one call");
            e.star_star = below(e, expression());
        } else if (skip_op("*")) {
            if (e.star || e.star_star) fail("'*' must come once, before '**'");
            e.star = below(e, expression());
        } else if (peek().type == Type::name && peek(1).type == Type::op && peek(1).text == "=") {
            std::string key(take().text);
            take();
            for (const auto& kw : e.kwargs)
                if (kw.first == key) fail("the argument '" + key + "' is given twice");
            if (e.star_star) fail("an argument follows '**'");
            e.kwargs.emplace_back(std::move(key), below(e, expression()));
        } else {
            if (!e.kwargs.empty() || e.star || e.star_star) fail("a positional argument follows a named one");
            adopt(e, expression());
        }
    });
}

ExprPtr ExprParser::call(ExprPtr callee) {
    auto e = make(Op::call);
    adopt(*e, std::move(callee));
    arguments(*e);
    return e;
}

std::string ExprParser::dotted_name(std::string_view what) {
    std::string n = expect_name(what);
    while (!failed() && skip_op(".")) n += "." + expect_name(what);
    return n;
}

ExprPtr ExprParser::filters(ExprPtr input) {
    const bool whole_chain = input == nullptr;
    do {
        auto e = make(Op::filter);
        adopt(*e, std::move(input));
        const std::string n = dotted_name("a filter");
        e->filter = failed() ? nullptr : find_filter(n);
        if (!failed() && e->filter == nullptr) fail("the filter '" + n + "' is not supported", Errc::unsupported);
        if (at_op("(")) arguments(*e);
        check_named(*e, n);
        input = std::move(e);
    } while (whole_chain && !failed() && skip_op("|"));
    return input;
}

void ExprParser::check_named(const Expr& e, const std::string& filter) {
    const bool attr = filter == "selectattr" || filter == "rejectattr";
    if (!attr && filter != "map" && filter != "select" && filter != "reject") return;
    const std::size_t i = attr ? 2 : 1;
    if (failed() || e.kids.size() <= i || e.kids[i]->op != Op::constant || !e.kids[i]->value.is_string()) return;
    const std::string& n = e.kids[i]->value.text();
    const bool known = filter == "map" ? find_filter(n) != nullptr : find_test(n) != nullptr;
    if (!known)
        fail("the " + std::string(filter == "map" ? "filter" : "test") + " '" + n + "' is not supported",
             Errc::unsupported);
}

ExprPtr ExprParser::test(ExprPtr input) {
    auto e = make(Op::test);
    e->negated = skip_name("not");
    adopt(*e, std::move(input));
    const std::string n = dotted_name("a test");
    e->test = failed() ? nullptr : find_test(n);
    if (!failed() && e->test == nullptr) fail("the test '" + n + "' is not supported", Errc::unsupported);
    const Type t = peek().type;
    if (at_op("(")) {
        arguments(*e);
    } else if ((t == Type::name && !one_of(peek().text, {"else", "or", "and"})) || t == Type::string ||
               t == Type::integer || t == Type::floating || at_op("[") || at_op("{")) {
        if (at_name("is")) {
            fail("two tests in a row; use 'and'");
            return e;
        }
        adopt(*e, postfix(primary()));
    }
    return e;
}

}  // namespace quern::text::jinja
