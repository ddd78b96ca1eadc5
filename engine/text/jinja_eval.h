// SPDX-License-Identifier: Apache-2.0
// Runs a parsed template once.
#ifndef QUERN_ENGINE_TEXT_JINJA_EVAL_H
#define QUERN_ENGINE_TEXT_JINJA_EVAL_H

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_context.h"

namespace quern::text::jinja {

struct Scope {
    Scope* parent = nullptr;
    std::unordered_map<std::uint32_t, Value> vars;
    bool captured = false;  ///< a macro refers to it: it lives to the end of the rendering
};

/// One rendering: values, scopes, output. It is a Context, so built-ins get at limits, errors and Python's semantics.
class Interp : public Context {
public:
    Interp(const Tree& tree, const Limits& limits) : Context(limits), tree_(tree) {}
    ~Interp();

    /// The text, or "" and failed(). `globals` is copied: a template that changes a list changes its own.
    std::string run(const Value& globals);

    // For built-ins and callables.
    Value attribute(const Value& object, const std::string& name);
    Value item(const Value& object, const Value& key);
    Value call(const Value& callee, Args& args);
    Value binary(Binary op, const Value& a, const Value& b);
    bool compare(Binary op, const Value& a, const Value& b);
    /// A container that has been changed may now contain itself; it is emptied at the end.
    void changed(const Value& container);
    Value call_macro(const Stmt& macro, Scope* scope, Args& args);
    Value run_loop(const Stmt& s, Scope* outer, Value iterable, std::size_t depth);
    bool assign(const Expr& target, const Value& value, Scope& scope);
    Value eval(const Expr& e, Scope& scope);

private:
    enum class Flow : std::uint8_t { normal, loop_break, loop_continue };
    friend class LocalScope;
    friend class Level;

    Flow exec(const Body& body, Scope& scope);
    Flow exec(const Stmt& s, Scope& scope);
    Flow loop(const Stmt& s, Scope* outer, Value iterable, std::size_t depth);
    std::string capture(const Body& body, Scope& scope);
    void write(std::string_view text);
    void print(const Value& v);

    Value dispatch(const Expr& e, Scope& scope);
    Value lookup(const Expr& e, Scope& scope);
    Value make_dict(const Expr& e, Scope& scope);
    Value slice(const Expr& e, Scope& scope);
    Value call_expr(const Expr& e, Scope& scope);
    Value apply_filter(const Expr& e, Scope& scope, const Value* input);
    Value compare_chain(const Expr& e, Scope& scope);
    Value concat(const Expr& e, Scope& scope);
    Args arguments(const Expr& e, Scope& scope);
    Value arithmetic(Binary op, const Value& a, const Value& b);
    Value repeat(const Value& sequence, std::int64_t times);
    Scope* capture_scope(Scope& scope);

    const Tree& tree_;
    std::size_t depth_ = 0;
    std::string output_;
    std::string* out_ = &output_;
    std::vector<Value> root_;  ///< top-level variables by name id
    Scope top_;                ///< marks the top level; its variables are in root_
    std::vector<std::unique_ptr<Scope>> kept_;
    std::vector<Value> changed_;
};

}  // namespace quern::text::jinja
#endif
