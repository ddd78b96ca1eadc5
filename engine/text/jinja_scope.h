// SPDX-License-Identifier: Apache-2.0
#ifndef QUERN_ENGINE_TEXT_JINJA_SCOPE_H
#define QUERN_ENGINE_TEXT_JINJA_SCOPE_H

#include <memory>

#include "engine/text/jinja_eval.h"

namespace quern::text::jinja {

/// Variables of a loop round, a macro call or a block. Ends with it, unless a macro defined inside refers to it.
class LocalScope {
public:
    LocalScope(Interp& in, Scope& parent);
    ~LocalScope();
    LocalScope(const LocalScope&) = delete;
    LocalScope& operator=(const LocalScope&) = delete;
    Scope& operator*() { return *scope_; }
    Scope* operator->() { return scope_.get(); }

private:
    Interp& in_;
    std::unique_ptr<Scope> scope_;
};

/// One level of recursion of the interpreter.
class Level {
public:
    explicit Level(Interp& in);
    ~Level();
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

private:
    Interp& in_;
};

}  // namespace quern::text::jinja
#endif
