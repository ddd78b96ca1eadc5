// SPDX-License-Identifier: Apache-2.0
// Recursive descent over expressions; the statements' parser builds on it.
#ifndef QUERN_ENGINE_TEXT_JINJA_EXPR_PARSER_H
#define QUERN_ENGINE_TEXT_JINJA_EXPR_PARSER_H

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_context.h"
#include "engine/text/jinja_lexer.h"

namespace quern::text::jinja {

class ExprParser {
protected:
    using Type = Token::Type;
    using Names = std::initializer_list<std::string_view>;

    ExprParser(std::vector<Token> tokens, Context& ctx) : tokens_(std::move(tokens)), ctx_(ctx) {}

    static bool one_of(std::string_view word, Names names) {
        return std::find(names.begin(), names.end(), word) != names.end();
    }

    /// One level of nesting; refuses to go deeper than the limit.
    class Level {
    public:
        explicit Level(ExprParser& p) : p_(p) {
            if (++p_.depth_ > p_.ctx_.limits.max_depth) p_.fail_limit("the template is nested deeper than");
        }
        ~Level() { --p_.depth_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

    private:
        ExprParser& p_;
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
            case Type::end:
                return "the end of the template";
            case Type::block_end:
                return "'%}'";
            case Type::print_end:
                return "'}}'";
            default:
                return "'" + std::string(peek().text.substr(0, 40)) + "'";
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
            fail("the template has more than " + std::to_string(ctx_.limits.max_nodes) + " parts", Errc::out_of_memory);
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
    std::uint32_t intern(std::string_view name) {
        const auto [it, fresh] = ids_.emplace(name, static_cast<std::uint32_t>(tree_.names.size()));
        if (fresh) tree_.names.emplace_back(name);
        return it->second;
    }

    // --- for statements ---------------------------------------------------------------------------------------

    ExprPtr expression();
    /// An expression, or several with commas. Without `conditional`, "if" belongs to the statement around.
    ExprPtr tuple(bool conditional, Names ends = {}, bool parenthesized = false);
    ExprPtr unary(bool with_filters);
    /// After "|": one filter, and for a filter or set block (no input) all that follow.
    ExprPtr filters(ExprPtr input);

    std::vector<Token> tokens_;
    Context& ctx_;
    Tree tree_;
    std::vector<Stmt*> macros_;  ///< around the current token
    std::size_t at_ = 0, depth_ = 0, nodes_ = 0;

private:
    bool tuple_end(Names extra) const;
    ExprPtr logical_or();
    template <class Next>
    ExprPtr words(Op op, std::string_view word, Next next);
    ExprPtr negation();
    bool comparison_op(Binary& op);
    ExprPtr comparison();
    using Table = std::initializer_list<std::pair<std::string_view, Binary>>;
    template <class Next>
    ExprPtr chain(Table table, Next next);
    ExprPtr sum();
    ExprPtr concat();
    ExprPtr product();
    ExprPtr primary();
    template <class Item>
    void separated(std::string_view close, Item item);
    ExprPtr name(std::string_view text);
    ExprPtr number(const Token& t);
    ExprPtr postfix(ExprPtr e);
    ExprPtr attribute(ExprPtr object);
    ExprPtr subscript(ExprPtr object);
    /// "(a, b=c, *d, **e)" into a call, filter or test.
    void arguments(Expr& e);
    ExprPtr call(ExprPtr callee);
    std::string dotted_name(std::string_view what);
    /// map('upper'), select('defined'), selectattr('x', 'equalto', y): the names in them are known now.
    void check_named(const Expr& e, const std::string& filter);
    ExprPtr test(ExprPtr input);

    std::unordered_map<std::string, std::uint32_t> ids_;
};

}  // namespace quern::text::jinja
#endif
