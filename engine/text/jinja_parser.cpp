// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_parser.h"

#include <algorithm>

#include "engine/text/jinja_expr_parser.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

class Parser : private ExprParser {
public:
    Parser(std::vector<Token> tokens, Context& ctx) : ExprParser(std::move(tokens), ctx) {}

    Tree run() {
        tree_.body = body({}, "");
        return std::move(tree_);
    }

private:
    std::unique_ptr<Stmt> statement_node(Stmt::Kind kind) {
        count_node();
        auto s = std::make_unique<Stmt>();
        s->kind = kind;
        s->line = peek().line;
        return s;
    }

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

    std::size_t loops_ = 0;  ///< around the current token, within the innermost macro
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
