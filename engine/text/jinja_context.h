// SPDX-License-Identifier: Apache-2.0
// Limits of one parse or rendering, the first error, and Python's semantics of values under those limits.
#ifndef QUERN_ENGINE_TEXT_JINJA_CONTEXT_H
#define QUERN_ENGINE_TEXT_JINJA_CONTEXT_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_value.h"
#include "quern/result.hpp"

namespace quern::text::jinja {

/// Bounds on what a template, which comes with a downloaded model and is not trusted, may use.
struct Limits {
    std::size_t max_template_bytes = 1u << 20;
    std::size_t max_nodes = 200'000;            ///< expressions and statements in the parsed template
    std::size_t max_depth = 200;                ///< nesting in the template; recursion while rendering
    std::size_t max_steps = 2'000'000;          ///< statements, loop rounds, expressions, KiB of text handled
    std::size_t max_output_bytes = 32u << 20;   ///< of the result, and of any one string on the way
    std::size_t max_memory_bytes = 128u << 20;  ///< of all values alive at one time
};

/// The first error wins and stays; every later operation returns at once. This keeps the recursive code free of
/// error plumbing while nothing throws: loops test failed(), everything else may ignore it.
class Context {
public:
    explicit Context(const Limits& limits) : limits(limits) {}
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    bool failed() const { return error_.has_value(); }
    const Error& error() const { return *error_; }
    /// Records "line N: message" and returns undefined.
    Value fail(std::string_view message, Errc code = Errc::invalid_argument);
    Value limit(std::string_view what);
    /// Counts work; false once a limit is passed or an error is there.
    bool step(std::size_t n = 1);
    /// Counts text handled, and refuses a string longer than the output may be.
    bool text_step(std::size_t bytes);

    Value string(std::string text);
    Value list(std::vector<Value> items, Shape shape = Shape::list);
    std::shared_ptr<DictNode> dict();
    /// Sets a key of a dict under construction; fails for an unhashable key.
    void put(DictNode& dict, const Value& key, Value value);
    void check_memory();

    bool truthy(const Value& v);
    bool equal(const Value& a, const Value& b, std::size_t depth = 0);
    bool less(const Value& a, const Value& b, std::string_view op = "<", std::size_t depth = 0);
    bool contains(const Value& container, const Value& item);
    std::string str(const Value& v);
    void repr(const Value& v, std::string& out, std::size_t depth = 0);
    /// Characters of a string, entries of a container.
    std::size_t length(const Value& v);
    /// Appends what iterating over v yields. A generator is emptied by it, as in Python.
    bool iterate(const Value& v, std::vector<Value>& out);
    Value deep_copy(const Value& v, std::size_t depth = 0);
    /// Fails with the reason why `v` cannot be used, if it is undefined.
    bool defined(const Value& v);

    const Limits limits;
    std::uint32_t line = 0;  ///< of the template, for messages; 0 while JSON input is read
    Meter meter;

private:
    std::size_t steps_ = 0;
    std::optional<Error> error_;
};

}  // namespace quern::text::jinja
#endif
