// SPDX-License-Identifier: Apache-2.0
// Statements, scopes, macros and loops. Expressions are in jinja_expr.cpp.
#include "engine/text/jinja_eval.h"

#include <algorithm>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_scope.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

class Macro final : public Callable {
public:
    Macro(const Stmt& s, Scope* scope) : stmt_(s), scope_(scope) {}
    std::string name() const override { return stmt_.text; }
    Value call(Interp& in, Args& args) override { return in.call_macro(stmt_, scope_, args); }
    bool attribute(Interp& in, std::string_view attr, Value& out) override {
        if (attr != "name") return false;
        out = in.string(stmt_.text);
        return true;
    }

private:
    const Stmt& stmt_;
    Scope* scope_;
};

/// The `loop` variable. Items are pulled one by one, so a filter sees what the body has set, as in Jinja2.
class Loop final : public Callable, public std::enable_shared_from_this<Loop> {
public:
    Loop(const Stmt& s, Scope* outer, std::size_t depth) : stmt_(s), outer_(outer), depth_(depth) {}

    bool start(Interp& in, const Value& iterable) {
        if (iterable.is_list() && iterable.list().shape != Shape::generator) {
            source_ = iterable.share<ListNode>();
            return true;
        }
        std::vector<Value> items;
        if (!in.iterate(iterable, items)) return false;
        const Value list = in.list(std::move(items));
        if (list.is_list()) source_ = list.share<ListNode>();
        return source_ != nullptr;
    }

    bool advance(Interp& in) {
        Value next;
        if (!ahead_.empty()) {
            next = std::move(ahead_.front());
            ahead_.erase(ahead_.begin());
        } else if (!pull(in, next)) {
            return false;
        }
        previous_ = std::move(current_);
        current_ = std::move(next);
        ++index_;
        return true;
    }
    const Value& current() const { return current_; }

    /// The body is over: nothing may reach into the scopes around it any more, nor keep values alive in a circle.
    void finish() {
        outer_ = nullptr;
        source_.reset();
        ahead_.clear();
        current_ = previous_ = last_changed_ = Value();
    }

    std::string name() const override { return "loop"; }
    Value call(Interp& in, Args& args) override {
        if (!stmt_.recursive) return in.fail("loop(...) needs a loop marked 'recursive'");
        if (outer_ == nullptr) return in.fail("loop(...) is called after its loop");
        if (args.pos.size() != 1 || !args.kw.empty()) return in.fail("loop(...) takes one argument");
        return in.run_loop(stmt_, outer_, args.pos[0], depth_ + 1);
    }
    bool attribute(Interp& in, std::string_view attr, Value& out) override;

    Value cycle(Interp& in, Args& args) const {
        if (args.pos.empty()) return in.fail("loop.cycle() has nothing to cycle through");
        return args.pos[static_cast<std::size_t>(index_) % args.pos.size()];
    }
    Value has_changed(Interp& in, Args& args) {
        Value now = in.list(args.pos, Shape::tuple);
        const bool same = last_changed_.is_list() && in.equal(now, last_changed_);
        last_changed_ = std::move(now);
        return !same;
    }

private:
    bool pull(Interp& in, Value& out) {
        while (source_ && next_ < source_->items.size() && in.step()) {
            Value v = source_->items[next_++];
            if (!stmt_.tests.empty()) {
                if (outer_ == nullptr) return false;
                LocalScope scope(in, *outer_);
                if (!in.assign(*stmt_.target, v, *scope)) return false;
                if (!in.truthy(in.eval(*stmt_.tests[0], *scope))) continue;
            }
            out = std::move(v);
            return !in.failed();
        }
        return false;
    }
    bool peek(Interp& in) {
        if (!ahead_.empty()) return true;
        Value v;
        if (!pull(in, v)) return false;
        ahead_.push_back(std::move(v));
        return true;
    }
    std::int64_t length(Interp& in) {
        if (stmt_.tests.empty() && source_) return static_cast<std::int64_t>(source_->items.size());
        for (Value v; pull(in, v);) ahead_.push_back(std::move(v));
        return index_ + 1 + static_cast<std::int64_t>(ahead_.size());
    }

    const Stmt& stmt_;
    Scope* outer_;
    std::size_t depth_;
    std::shared_ptr<ListNode> source_;
    std::size_t next_ = 0;
    std::int64_t index_ = -1;
    std::vector<Value> ahead_;
    Value current_, previous_, last_changed_;
};

/// loop.cycle and loop.changed, bound to their loop.
class LoopMethod final : public Callable {
public:
    LoopMethod(std::shared_ptr<Callable> loop, bool cycle) : loop_(std::move(loop)), cycle_(cycle) {}
    std::string name() const override { return cycle_ ? "loop.cycle" : "loop.changed"; }
    Value call(Interp& in, Args& args) override {
        auto& loop = static_cast<Loop&>(*loop_);
        return cycle_ ? loop.cycle(in, args) : loop.has_changed(in, args);
    }

private:
    std::shared_ptr<Callable> loop_;
    bool cycle_;
};

bool Loop::attribute(Interp& in, std::string_view attr, Value& out) {
    if (attr == "index0") return out = index_, true;
    if (attr == "index") return out = index_ + 1, true;
    if (attr == "first") return out = index_ == 0, true;
    if (attr == "last") return out = !peek(in), true;
    if (attr == "length") return out = length(in), true;
    if (attr == "revindex") return out = length(in) - index_, true;
    if (attr == "revindex0") return out = length(in) - index_ - 1, true;
    if (attr == "depth") return out = static_cast<std::int64_t>(depth_) + 1, true;
    if (attr == "depth0") return out = static_cast<std::int64_t>(depth_), true;
    if (attr == "cycle" || attr == "changed")
        return out = std::shared_ptr<Callable>(std::make_shared<LoopMethod>(shared_from_this(), attr == "cycle")), true;
    if (attr == "previtem") {
        if (index_ > 0) out = previous_;
        return index_ > 0;
    }
    if (attr == "nextitem") {
        if (!peek(in)) return false;
        out = ahead_.front();
        return true;
    }
    return false;
}

}  // namespace

LocalScope::LocalScope(Interp& in, Scope& parent) : in_(in), scope_(std::make_unique<Scope>()) {
    scope_->parent = &parent;
}

LocalScope::~LocalScope() {
    if (scope_->captured) in_.kept_.push_back(std::move(scope_));
}

Level::Level(Interp& in) : in_(in) {
    if (++in.depth_ > in.limits.max_depth)
        in.limit("the template recurses deeper than " + std::to_string(in.limits.max_depth) + " levels");
}

Level::~Level() { --in_.depth_; }

Interp::~Interp() {
    for (const Value& v : changed_) {
        if (v.is_list()) v.list().items.clear();
        if (v.is_dict()) v.dict_node().clear();
        if (v.is(Value::Kind::name_space)) v.name_space().fields.clear();
    }
}

std::string Interp::run(const Value& globals) {
    root_.resize(tree_.names.size());
    const Value own = deep_copy(globals);
    for (std::size_t i = 0; i < root_.size() && !failed(); ++i) {
        const Value* given = own.is_dict() ? own.dict_node().find(tree_.names[i]) : nullptr;
        root_[i] = given ? *given : find_function(tree_.names[i]);
    }
    exec(tree_.body, top_);
    return failed() ? "" : std::move(output_);
}

void Interp::changed(const Value& container) {
    bool* flag = container.is_list()   ? &container.list().mutated
                 : container.is_dict() ? &container.dict_node().mutated
                                       : &container.name_space().fields.mutated;
    if (!*flag) changed_.push_back(container);
    *flag = true;
    check_memory();
}

Scope* Interp::capture_scope(Scope& scope) {
    for (Scope* s = &scope; s != &top_ && !s->captured; s = s->parent) {
        s->captured = true;
        // Scopes themselves are not metered until something keeps them.
        meter.live += 256 + s->vars.size() * 64;
    }
    check_memory();
    return &scope;
}

void Interp::write(std::string_view text) {
    if (!text_step(text.size())) return;
    if (out_->size() + text.size() > limits.max_output_bytes) {
        limit("the output grows beyond " + std::to_string(limits.max_output_bytes) + " bytes");
        return;
    }
    out_->append(text);
}

void Interp::print(const Value& v) {
    if (v.is_string())
        write(v.text());
    else if (!failed())
        write(str(v));
}

std::string Interp::capture(const Body& body, Scope& scope) {
    std::string text;
    std::string* const before = std::exchange(out_, &text);
    exec(body, scope);
    out_ = before;
    return text;
}

Interp::Flow Interp::exec(const Body& body, Scope& scope) {
    for (const auto& s : body) {
        if (!step()) break;
        line = s->line;
        const Flow flow = exec(*s, scope);
        if (flow != Flow::normal || failed()) return flow;
    }
    return Flow::normal;
}

Interp::Flow Interp::exec(const Stmt& s, Scope& scope) {
    const Level level(*this);
    if (failed()) return Flow::normal;
    switch (s.kind) {
        case Stmt::Kind::data:
            write(s.text);
            break;
        case Stmt::Kind::print:
            print(eval(*s.expr, scope));
            break;
        case Stmt::Kind::branch:
            for (std::size_t i = 0; i < s.bodies.size(); ++i)
                if (i >= s.tests.size() || truthy(eval(*s.tests[i], scope)))
                    return failed() ? Flow::normal : exec(s.bodies[i], scope);
            break;
        case Stmt::Kind::loop:
            return loop(s, &scope, eval(*s.expr, scope), 0);
        case Stmt::Kind::set:
            assign(*s.target, eval(*s.expr, scope), scope);
            break;
        case Stmt::Kind::set_block: {
            LocalScope local(*this, scope);
            Value text = string(capture(s.bodies[0], *local));
            if (s.expr) text = apply_filter(*s.expr, scope, &text);
            assign(*s.target, text, scope);
            break;
        }
        case Stmt::Kind::macro: {
            Expr name;
            name.op = Op::name;
            name.id = s.id;
            assign(name, Value(std::shared_ptr<Callable>(std::make_shared<Macro>(s, capture_scope(scope)))), scope);
            break;
        }
        case Stmt::Kind::call_block: {
            const Expr& e = *s.expr;
            const Value callee = eval(*e.kids[0], scope);
            Args args = arguments(e, scope);
            args.kw.emplace_back("caller", std::shared_ptr<Callable>(std::make_shared<Macro>(s, capture_scope(scope))));
            print(call(callee, args));
            break;
        }
        case Stmt::Kind::filter_block: {
            LocalScope local(*this, scope);
            const Value text = string(capture(s.bodies[0], *local));
            print(apply_filter(*s.expr, scope, &text));
            break;
        }
        case Stmt::Kind::with: {
            LocalScope local(*this, scope);
            for (const Param& p : s.params) local->vars[p.id] = eval(*p.fallback, scope);
            return exec(s.bodies[0], *local);
        }
        case Stmt::Kind::scope:
            return exec(s.bodies[0], scope);
        case Stmt::Kind::loop_break:
            return Flow::loop_break;
        case Stmt::Kind::loop_continue:
            return Flow::loop_continue;
    }
    return Flow::normal;
}

Value Interp::run_loop(const Stmt& s, Scope* outer, Value iterable, std::size_t depth) {
    std::string text;
    std::string* const before = std::exchange(out_, &text);
    loop(s, outer, std::move(iterable), depth);
    out_ = before;
    return string(std::move(text));
}

Interp::Flow Interp::loop(const Stmt& s, Scope* outer, Value iterable, std::size_t depth) {
    const Level level(*this);
    if (failed()) return Flow::normal;
    const auto loop = std::make_shared<Loop>(s, outer, depth);
    bool any = false;
    if (loop->start(*this, iterable)) {
        while (!failed() && loop->advance(*this)) {
            any = true;
            if (!step()) break;
            LocalScope local(*this, *outer);
            local->vars[s.id] = Value(std::shared_ptr<Callable>(loop));
            if (!assign(*s.target, loop->current(), *local)) break;
            if (exec(s.bodies[0], *local) == Flow::loop_break) break;
        }
    }
    loop->finish();
    if (any || s.bodies.size() < 2 || failed()) return Flow::normal;
    LocalScope local(*this, *outer);
    return exec(s.bodies[1], *local);
}

Value Interp::call_macro(const Stmt& m, Scope* scope, Args& args) {
    const Level level(*this);
    if (!step()) return {};
    const std::string who = "the macro '" + m.text + "'";
    LocalScope local(*this, *scope);
    std::vector<Value> rest;
    for (std::size_t i = m.params.size(); i < args.pos.size(); ++i) rest.push_back(args.pos[i]);
    if (!rest.empty() && !m.uses_varargs)
        return fail(who + " takes at most " + std::to_string(m.params.size()) + " arguments");
    const auto extra = dict();
    Value caller;
    std::vector<bool> given(m.params.size());
    for (std::size_t i = 0; i < std::min(args.pos.size(), m.params.size()); ++i) {
        local->vars[m.params[i].id] = args.pos[i];
        given[i] = true;
    }
    for (auto& [key, value] : args.kw) {
        const auto hit =
            std::find_if(m.params.begin(), m.params.end(), [&](const Param& p) { return tree_.names[p.id] == key; });
        const auto i = static_cast<std::size_t>(hit - m.params.begin());
        if (hit != m.params.end()) {
            if (given[i]) return fail(who + " got the argument '" + key + "' twice");
            local->vars[hit->id] = value;
            given[i] = true;
        } else if (key == "caller" && m.uses_caller) {
            caller = value;
        } else if (m.uses_kwargs) {
            extra->set(key, value);
        } else {
            return fail(who + " has no parameter '" + key + "'");
        }
    }
    for (std::size_t i = 0; i < m.params.size() && !failed(); ++i) {
        if (given[i]) continue;
        const Param& p = m.params[i];
        local->vars[p.id] = p.fallback ? eval(*p.fallback, *local)
                                       : Value(Undefined{std::make_shared<const std::string>(
                                             "parameter '" + tree_.names[p.id] + "' was not provided")});
    }
    for (std::uint32_t id = 0; (m.uses_caller || m.uses_varargs || m.uses_kwargs) && id < tree_.names.size(); ++id) {
        if (m.uses_caller && tree_.names[id] == "caller") local->vars.emplace(id, caller);
        if (m.uses_varargs && tree_.names[id] == "varargs") local->vars.emplace(id, list(rest, Shape::tuple));
        if (m.uses_kwargs && tree_.names[id] == "kwargs") local->vars.emplace(id, extra);
    }
    if (failed()) return {};
    const std::uint32_t call_line = line;
    std::string text = capture(m.bodies[0], *local);
    if (!failed()) line = call_line;
    return string(std::move(text));
}

bool Interp::assign(const Expr& target, const Value& value, Scope& scope) {
    if (!step()) return false;
    if (target.op == Op::name) {
        if (&scope == &top_)
            root_[target.id] = value;
        else
            scope.vars[target.id] = value;
        return true;
    }
    if (target.op == Op::getattr) {
        const Value object = eval(*target.kids[0], scope);
        if (!object.is(Value::Kind::name_space)) {
            fail("only a namespace has fields that can be set, not a " + std::string(object.type_name()));
            return false;
        }
        object.name_space().fields.set(target.text, value);
        changed(object);
        return !failed();
    }
    std::vector<Value> items;
    if (!defined(value) || !iterate(value, items)) return false;
    if (items.size() != target.kids.size()) {
        fail("cannot unpack " + std::to_string(items.size()) + " values into " + std::to_string(target.kids.size()) +
             " names");
        return false;
    }
    for (std::size_t i = 0; i < items.size(); ++i)
        if (!assign(*target.kids[i], items[i], scope)) return false;
    return true;
}

}  // namespace quern::text::jinja
