// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <unordered_map>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

using Type = Token::Type;
using Names = std::initializer_list<std::string_view>;

bool one_of(std::string_view word, Names names) { return std::find(names.begin(), names.end(), word) != names.end(); }

class Parser {
public:
    Parser(std::vector<Token> tokens, Context& ctx) : tokens_(std::move(tokens)), ctx_(ctx) {}

    Tree run() {
        tree_.body = body({}, "");
        return std::move(tree_);
    }

private:
    /// One level of nesting; refuses to go deeper than the limit.
    class Level {
    public:
        explicit Level(Parser& p) : p_(p) {
            if (++p_.depth_ > p_.ctx_.limits.max_depth) p_.fail_limit("the template is nested deeper than");
        }
        ~Level() { --p_.depth_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

    private:
        Parser& p_;
    };

    // --- tokens -----------------------------------------------------------------------------------------------

    const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
    bool at_op(std::string_view op) const { return peek().type == Type::op && peek().text == op; }
    bool at_name(std::string_view name) const { return peek().type == Type::name && peek().text == name; }
    Token take() {
        const Token t = peek();
        if (at_ + 1 < tokens_.size()) ++at_;
        ctx_.line = t.line;
        return t;
    }
    bool skip_op(std::string_view op) {
        if (!at_op(op)) return false;
        take();
        return true;
    }
    bool skip_name(std::string_view name) {
        if (!at_name(name)) return false;
        take();
        return true;
    }
    void expect_op(std::string_view op) {
        if (!skip_op(op)) fail("expected '" + std::string(op) + "', not " + found());
    }
    std::string expect_name(std::string_view what) {
        if (peek().type == Type::name) return std::string(take().text);
        fail("expected " + std::string(what) + ", not " + found());
        return "";
    }
    std::string found() const {
        switch (peek().type) {
            case Type::end: return "the end of the template";
            case Type::block_end: return "'%}'";
            case Type::print_end: return "'}}'";
            default: return "'" + std::string(peek().text.substr(0, 40)) + "'";
        }
    }
    /// Also moves to the end, so that every loop over tokens stops.
    void fail(const std::string& message, Errc code = Errc::invalid_argument) {
        ctx_.line = peek().line;
        ctx_.fail(message, code);
        at_ = tokens_.size() - 1;
    }
    void fail_limit(const std::string& what) {
        fail(what + " " + std::to_string(ctx_.limits.max_depth) + " levels", Errc::out_of_memory);
    }
    bool failed() const { return ctx_.failed(); }

    // --- nodes ------------------------------------------------------------------------------------------------

    void count_node() {
        if (++nodes_ > ctx_.limits.max_nodes)
            fail("the template has more than " + std::to_string(ctx_.limits.max_nodes) + " parts",
                 Errc::out_of_memory);
    }
    ExprPtr make(Op op) {
        count_node();
        auto e = std::make_unique<Expr>();
        e->op = op;
        e->line = peek().line;
        return e;
    }
    ExprPtr constant(Value v) {
        auto e = make(Op::constant);
        e->value = std::move(v);
        return e;
    }
    /// Takes note of a child's depth. Left-leaning chains (a.b.c) grow here without recursion of the parser.
    ExprPtr below(Expr& parent, ExprPtr kid) {
        if (kid) parent.depth = std::max(parent.depth, kid->depth + 1);
        if (parent.depth > ctx_.limits.max_depth) fail_limit("an expression is nested deeper than");
        return kid;
    }
    void adopt(Expr& parent, ExprPtr kid) { parent.kids.push_back(below(parent, std::move(kid))); }
    std::unique_ptr<Stmt> statement_node(Stmt::Kind kind) {
        count_node();
        auto s = std::make_unique<Stmt>();
        s->kind = kind;
        s->line = peek().line;
        return s;
    }
    std::uint32_t intern(std::string_view name) {
        const auto [it, fresh] = ids_.emplace(name, static_cast<std::uint32_t>(tree_.names.size()));
        if (fresh) tree_.names.emplace_back(name);
        return it->second;
    }

    // --- statements -------------------------------------------------------------------------------------------

    /// Statements up to a block tag whose name is in `ends`; that name is the next token then.
    Body body(Names ends, std::string_view opener) {
        Level level(*this);
        Body out;
        const std::uint32_t opened = ctx_.line;
        while (!failed()) {
            switch (peek().type) {
                case Type::data: {
                    auto s = statement_node(Stmt::Kind::data);
                    s->text = take().text;
                    out.push_back(std::move(s));
                    break;
                }
                case Type::print_begin: {
                    take();
                    auto s = statement_node(Stmt::Kind::print);
                    s->expr = tuple(true);
                    if (peek().type != Type::print_end) fail("expected '}}', not " + found());
                    take();
                    out.push_back(std::move(s));
                    break;
                }
                case Type::block_begin:
                    take();
                    if (peek().type == Type::name && one_of(peek().text, ends)) return out;
                    if (auto s = statement()) out.push_back(std::move(s));
                    break;
                default:
                    if (!opener.empty())
                        fail("'" + std::string(opener) + "' of line " + std::to_string(opened) + " is not closed");
                    return out;
            }
        }
        return out;
    }

    void block_end() {
        if (peek().type != Type::block_end) fail("expected '%}', not " + found());
        take();
    }
    void end_tag() {
        take();
        block_end();
    }

    std::unique_ptr<Stmt> statement() {
        const std::string word = expect_name("a statement");
        if (failed()) return nullptr;
        if (word == "if") return branch();
        if (word == "for") return loop();
        if (word == "set") return set();
        if (word == "macro") return macro();
        if (word == "call") return call_block();
        if (word == "filter") return filter_block();
        if (word == "with") return with();
        if (word == "generation") {
            auto s = statement_node(Stmt::Kind::scope);
            block_end();
            s->bodies.push_back(body({"endgeneration"}, word));
            end_tag();
            return s;
        }
        if (word == "break" || word == "continue") {
            auto s = statement_node(word == "break" ? Stmt::Kind::loop_break : Stmt::Kind::loop_continue);
            if (loops_ == 0) fail("'" + word + "' outside a loop");
            block_end();
            return s;
        }
        if (word.starts_with("end") || word == "else" || word == "elif")
            fail("'" + word + "' closes nothing");
        else
            fail("the statement '" + word + "' is not supported", Errc::unsupported);
        return nullptr;
    }

    std::unique_ptr<Stmt> branch() {
        auto s = statement_node(Stmt::Kind::branch);
        while (!failed()) {
            s->tests.push_back(tuple(false));
            block_end();
            s->bodies.push_back(body({"elif", "else", "endif"}, "if"));
            if (skip_name("elif")) continue;
            if (skip_name("else")) {
                block_end();
                s->bodies.push_back(body({"endif"}, "else"));
            }
            end_tag();
            break;
        }
        return s;
    }

    std::unique_ptr<Stmt> loop() {
        auto s = statement_node(Stmt::Kind::loop);
        s->id = intern("loop");
        s->target = target(false);
        if (!skip_name("in")) fail("expected 'in', not " + found());
        s->expr = tuple(false, {"recursive"});
        if (skip_name("if")) s->tests.push_back(expression());
        s->recursive = skip_name("recursive");
        block_end();
        ++loops_;
        s->bodies.push_back(body({"else", "endfor"}, "for"));
        --loops_;
        if (skip_name("else")) {
            block_end();
            s->bodies.push_back(body({"endfor"}, "else"));
        }
        end_tag();
        return s;
    }

    std::unique_ptr<Stmt> set() {
        auto s = statement_node(Stmt::Kind::set);
        s->target = target(true);
        if (skip_op("=")) {
            s->expr = tuple(true);
            block_end();
            return s;
        }
        s->kind = Stmt::Kind::set_block;
        if (skip_op("|")) s->expr = filters(nullptr);
        block_end();
        s->bodies.push_back(body({"endset"}, "set"));
        end_tag();
        return s;
    }

    /// What can stand left of "=" or "in": a name, a tuple of names, and (for set) ns.name.
    ExprPtr target(bool allow_namespace) {
        Level level(*this);
        std::vector<ExprPtr> parts;
        bool is_tuple = false;
        auto e = make(Op::tuple);
        while (!failed()) {
            if (skip_op("(")) {
                parts.push_back(target(allow_namespace));
                expect_op(")");
            } else {
                parts.push_back(single_target(allow_namespace));
            }
            if (!skip_op(",")) break;
            is_tuple = true;
            if (peek().type == Type::block_end || at_op("=") || at_op(")") || at_name("in")) break;
        }
        if (!is_tuple && !failed()) return std::move(parts[0]);
        for (auto& p : parts) adopt(*e, std::move(p));
        return e;
    }

    ExprPtr single_target(bool allow_namespace) {
        auto e = make(Op::name);
        const std::string name = expect_name("a name to assign to");
        if (one_of(name, {"true", "false", "none", "True", "False", "None"})) fail("cannot assign to '" + name + "'");
        e->text = name;
        e->id = intern(name);
        if (!allow_namespace || !skip_op(".")) return e;
        auto field = make(Op::getattr);
        field->text = expect_name("a field of a namespace");
        adopt(*field, std::move(e));
        return field;
    }

    void signature(Stmt& s) {
        expect_op("(");
        while (!failed() && !at_op(")")) {
            if (!s.params.empty()) expect_op(",");
            if (at_op(")")) break;
            Param p;
            p.id = intern(expect_name("a parameter"));
            if (skip_op("="))
                p.fallback = expression();
            else if (!s.params.empty() && s.params.back().fallback)
                fail("a parameter without a default follows one with a default");
            s.params.push_back(std::move(p));
        }
        expect_op(")");
    }

    void macro_body(Stmt& s, std::string_view end, std::string_view opener) {
        block_end();
        macros_.push_back(&s);
        const std::size_t loops = std::exchange(loops_, 0);
        s.bodies.push_back(body({end}, opener));
        loops_ = loops;
        macros_.pop_back();
        end_tag();
    }

    std::unique_ptr<Stmt> macro() {
        auto s = statement_node(Stmt::Kind::macro);
        s->text = expect_name("the macro's name");
        s->id = intern(s->text);
        signature(*s);
        macro_body(*s, "endmacro", "macro");
        return s;
    }

    std::unique_ptr<Stmt> call_block() {
        auto s = statement_node(Stmt::Kind::call_block);
        s->text = "caller";
        if (at_op("(")) signature(*s);
        s->expr = unary(true);
        if (s->expr && s->expr->op != Op::call) fail("'call' needs a call");
        macro_body(*s, "endcall", "call");
        return s;
    }

    std::unique_ptr<Stmt> filter_block() {
        auto s = statement_node(Stmt::Kind::filter_block);
        s->expr = filters(nullptr);
        block_end();
        s->bodies.push_back(body({"endfilter"}, "filter"));
        end_tag();
        return s;
    }

    std::unique_ptr<Stmt> with() {
        auto s = statement_node(Stmt::Kind::with);
        while (!failed() && peek().type != Type::block_end) {
            if (!s->params.empty()) expect_op(",");
            Param p;
            p.id = intern(expect_name("a name"));
            expect_op("=");
            p.fallback = expression();
            s->params.push_back(std::move(p));
        }
        block_end();
        s->bodies.push_back(body({"endwith"}, "with"));
        end_tag();
        return s;
    }

    // --- expressions, loosest binding first --------------------------------------------------------------------

    ExprPtr expression() {
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

    bool tuple_end(Names extra) const {
        const Type t = peek().type;
        return t == Type::print_end || t == Type::block_end || t == Type::end || at_op(")") ||
               (t == Type::name && one_of(peek().text, extra));
    }

    /// An expression, or several with commas. Without `conditional`, "if" belongs to the statement around.
    ExprPtr tuple(bool conditional, Names ends = {}, bool parenthesized = false) {
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

    ExprPtr logical_or() {
        return words(Op::logical_or, "or", [this] { return words(Op::logical_and, "and", [this] { return negation(); }); });
    }

    template <class Next>
    ExprPtr words(Op op, std::string_view word, Next next) {
        ExprPtr first = next();
        if (!at_name(word)) return first;
        auto e = make(op);
        adopt(*e, std::move(first));
        while (!failed() && skip_name(word)) adopt(*e, next());
        return e;
    }

    ExprPtr negation() {
        if (!at_name("not")) return comparison();
        Level level(*this);
        take();
        auto e = make(Op::logical_not);
        adopt(*e, failed() ? nullptr : negation());
        return e;
    }

    bool comparison_op(Binary& op) {
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

    ExprPtr comparison() {
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

    using Table = std::initializer_list<std::pair<std::string_view, Binary>>;

    template <class Next>
    ExprPtr chain(Table table, Next next) {
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

    ExprPtr sum() {
        return chain({{"+", Binary::add}, {"-", Binary::sub}}, [this] { return concat(); });
    }
    ExprPtr concat() {
        ExprPtr first = product();
        if (!at_op("~")) return first;
        auto e = make(Op::concat);
        adopt(*e, std::move(first));
        while (!failed() && skip_op("~")) adopt(*e, product());
        return e;
    }
    ExprPtr product() {
        return chain({{"*", Binary::mul}, {"/", Binary::div}, {"//", Binary::floordiv}, {"%", Binary::mod}},
                     [this] { return chain({{"**", Binary::pow}}, [this] { return unary(true); }); });
    }

    ExprPtr unary(bool with_filters) {
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

    ExprPtr primary() {
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
            case Type::floating: return number(t);
            case Type::op: break;
            default: at_ -= at_ > 0 ? 1 : 0; fail("expected an expression, not " + found()); return make(Op::constant);
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
    void separated(std::string_view close, Item item) {
        while (!failed() && !at_op(close)) {
            item();
            if (!skip_op(",")) break;
        }
        expect_op(close);
    }

    ExprPtr name(std::string_view text) {
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

    ExprPtr number(const Token& t) {
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

    ExprPtr postfix(ExprPtr e) {
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

    ExprPtr attribute(ExprPtr object) {
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

    ExprPtr subscript(ExprPtr object) {
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
        for (int i = 0; i < 2; ++i)
            adopt(*e, skip_op(":") && !at_op(":") && !at_op("]") ? expression() : nullptr);
        expect_op("]");
        return e;
    }

    /// "(a, b=c, *d, **e)" into a call, filter or test.
    void arguments(Expr& e) {
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

    ExprPtr call(ExprPtr callee) {
        auto e = make(Op::call);
        adopt(*e, std::move(callee));
        arguments(*e);
        return e;
    }

    std::string dotted_name(std::string_view what) {
        std::string n = expect_name(what);
        while (!failed() && skip_op(".")) n += "." + expect_name(what);
        return n;
    }

    /// After "|": one filter, and for a filter or set block (no input) all that follow.
    ExprPtr filters(ExprPtr input) {
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

    /// map('upper'), select('defined'), selectattr('x', 'equalto', y): the names in them are known now.
    void check_named(const Expr& e, const std::string& filter) {
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

    ExprPtr test(ExprPtr input) {
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

    std::vector<Token> tokens_;
    Context& ctx_;
    Tree tree_;
    std::unordered_map<std::string, std::uint32_t> ids_;
    std::vector<Stmt*> macros_;
    std::size_t at_ = 0, depth_ = 0, loops_ = 0, nodes_ = 0;
};

}  // namespace

Tree parse_template(std::string_view source, Context& ctx) {
    ctx.line = 1;
    if (source.size() > ctx.limits.max_template_bytes) {
        ctx.limit("the template is larger than " + std::to_string(ctx.limits.max_template_bytes) + " bytes");
        return {};
    }
    if (const std::size_t bad = invalid_utf8(source); bad != std::string_view::npos) {
        ctx.line = 1 + static_cast<std::uint32_t>(
                           std::count(source.begin(), source.begin() + static_cast<std::ptrdiff_t>(bad), '\n'));
        ctx.fail("the template is not UTF-8 at byte " + std::to_string(bad));
        return {};
    }
    const std::string text = normalize_source(source);
    std::vector<Token> tokens = tokenize(text, ctx);
    if (ctx.failed()) return {};
    return Parser(std::move(tokens), ctx).run();
}

}  // namespace quern::text::jinja
