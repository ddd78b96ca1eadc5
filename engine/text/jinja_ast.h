// SPDX-License-Identifier: Apache-2.0
// The parsed template. Never changed after parsing, so one tree serves any number of threads.
#ifndef QUERN_ENGINE_TEXT_JINJA_AST_H
#define QUERN_ENGINE_TEXT_JINJA_AST_H

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja_value.h"

namespace quern::text::jinja {

struct FilterDef;
struct TestDef;
struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class Op : std::uint8_t {
    constant,  ///< value
    name,      ///< id
    tuple,     ///< kids
    list,      ///< kids
    dict,      ///< kids: key, value, key, value, ...
    getattr,   ///< kids[0].text
    getitem,   ///< kids[0][kids[1]]
    slice,     ///< kids[0][kids[1]:kids[2]:kids[3]], the last three may be null
    call,      ///< kids[0](kids[1..], kwargs, *star, **star_star)
    filter,    ///< kids[0] | filter(kids[1..], kwargs); kids[0] is null at the head of a filter block
    test,      ///< kids[0] is test(kids[1..]); `negated`
    negative,     ///< -kids[0]
    positive,     ///< +kids[0]
    logical_not,  ///< not kids[0]
    logical_and,  ///< all kids, left to right
    logical_or,   ///< all kids, left to right
    concat,       ///< all kids, left to right
    chain,       ///< kids[0] ops[0] kids[1] ops[1] kids[2] ..., left to right
    compare,     ///< the same, Python's chained comparison
    conditional  ///< kids[1] if kids[0] else kids[2] (null: undefined)
};

enum class Binary : std::uint8_t { add, sub, mul, div, floordiv, mod, pow, eq, ne, lt, le, gt, ge, in, not_in };

struct Expr {
    Op op = Op::constant;
    bool negated = false;
    std::uint32_t line = 0;
    std::uint32_t id = 0;     ///< index into Tree::names
    std::uint32_t depth = 1;  ///< of the tree below, itself included; bounds evaluation and destruction
    Value value;
    std::string text;
    const FilterDef* filter = nullptr;
    const TestDef* test = nullptr;
    std::vector<ExprPtr> kids;
    std::vector<Binary> ops;
    std::vector<std::pair<std::string, ExprPtr>> kwargs;
    ExprPtr star, star_star;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Param {
    std::uint32_t id = 0;
    ExprPtr fallback;  ///< null: undefined when not given
};

struct Stmt {
    enum class Kind : std::uint8_t {
        data,          ///< text
        print,         ///< expr
        branch,        ///< tests[i] -> bodies[i]; one body more than tests is the else
        loop,          ///< for target in expr if tests[0]: bodies[0], else bodies[1]
        set,           ///< target = expr
        set_block,     ///< target = bodies[0] through the filters of expr (may be null)
        macro,         ///< id, params, bodies[0]
        call_block,    ///< expr is the call, with a caller(params) made of bodies[0]
        filter_block,  ///< expr over bodies[0]
        with,          ///< params as names and values, bodies[0]
        scope,         ///< bodies[0], the generation block
        loop_break,
        loop_continue
    };
    Kind kind = Kind::data;
    bool recursive = false;
    bool uses_caller = false, uses_varargs = false, uses_kwargs = false;  ///< of a macro's body
    std::uint32_t line = 0;
    std::uint32_t id = 0;
    std::string text;
    ExprPtr expr, target;
    std::vector<ExprPtr> tests;
    std::vector<Body> bodies;
    std::vector<Param> params;
};

struct Tree {
    Body body;
    std::vector<std::string> names;
};

}  // namespace quern::text::jinja
#endif
