// SPDX-License-Identifier: Apache-2.0
// A template comes with a downloaded model: whatever it does, an error in bounded time and memory is the worst case.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/text/chat.h"

namespace quern::text {
namespace {

jinja::Limits small_limits() {
    jinja::Limits l;
    l.max_steps = 200'000;
    l.max_output_bytes = 1u << 20;
    l.max_memory_bytes = 8u << 20;
    return l;
}

Result<std::string> render(const std::string& source, const jinja::Limits& limits = small_limits()) {
    const auto t = jinja::Template::parse(source, limits);
    if (!t) return t.error();
    ChatInput in;
    in.messages_json = R"([{"role": "user", "content": "hello"}])";
    return render_chat(**t, in, limits);
}

std::string error_of(const std::string& source) {
    const auto r = render(source);
    return r ? "rendered " + r->substr(0, 100) : r.error().message;
}

std::string repeat(std::string_view s, int n) {
    std::string out;
    while (n-- > 0) out += s;
    return out;
}

void expect_error(const std::string& source, const std::string& part) {
    const std::string message = error_of(source);
    EXPECT_NE(message.find(part), std::string::npos) << source.substr(0, 200) << "\n" << message.substr(0, 300);
}

TEST(ChatHostile, DeepNestingStopsAtTheLimit) {
    const std::string deeper = "deeper than 200 levels";
    expect_error("{{ " + repeat("(", 60000) + "1" + repeat(")", 60000) + " }}", deeper);
    expect_error("{{ " + repeat("[", 60000) + "1" + repeat("]", 60000) + " }}", deeper);
    expect_error("{{ " + repeat("{1:", 60000) + "1" + repeat("}", 60000) + " }}", deeper);
    expect_error("{{ " + repeat("(", 60000), "ends inside a tag");
    expect_error("{{ " + repeat("not ", 60000) + "1 }}", deeper);
    expect_error("{{ " + repeat("-", 60000) + "1 }}", deeper);
    expect_error("{{ " + repeat("1 if 1 else ", 60000) + "1 }}", deeper);
    expect_error("{{ a" + repeat(".b", 60000) + " }}", deeper);
    expect_error("{{ a" + repeat("[0]", 60000) + " }}", deeper);
    expect_error("{{ a" + repeat("()", 60000) + " }}", deeper);
    expect_error("{{ a" + repeat("|trim", 60000) + " }}", deeper);
    expect_error("{{ a" + repeat(" is defined", 60000) + " }}", "two tests in a row");
    expect_error(repeat("{% if 1 %}", 60000), deeper);
    expect_error(repeat("{% for a in b %}", 60000), deeper);
    expect_error(repeat("{% macro a() %}", 60000), deeper);
    expect_error("{% set " + repeat("(", 60000) + "a" + repeat(")", 60000) + " = 1 %}", deeper);
    // Chains that only lean to one side are not deep.
    EXPECT_EQ(error_of("{{ 0" + repeat(" + 1", 5000) + " }}"), "rendered 5000");
    EXPECT_EQ(error_of("{% if 0 %}" + repeat("{% elif 0 %}", 5000) + "{% else %}x{% endif %}"), "rendered x");
}

TEST(ChatHostile, WorkIsBounded) {
    expect_error("{% for a in range(1000000000) %}{% endfor %}", "range() of more than");
    expect_error(repeat("{% for a in range(1000) %}", 4) + repeat("{% endfor %}", 4), "more than 200000 steps");
    expect_error("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recurses deeper");
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recurses deeper");
    expect_error("{% set l = [1] %}{% for a in l %}{% set _ = l.append(a) %}{% endfor %}", "steps");
    expect_error(
        "{% set ns = namespace(l=[0]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
        "{{ ns.l }}",
        "steps");
    expect_error(
        "{% set ns = namespace(l=[0], m=[0]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
        "{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
        "steps");
}

TEST(ChatHostile, MemoryIsBounded) {
    const std::string loop = "{% for i in range(99) %}", end = "{% endfor %}";
    expect_error("{% set ns = namespace(s='x') %}" + loop + "{% set ns.s = ns.s ~ ns.s %}" + end, "grows beyond");
    expect_error("{% set ns = namespace(s='x') %}" + loop + "{% set ns.s = ns.s * 9 %}" + end, "grows beyond");
    expect_error("{% set ns = namespace(s='xx') %}" + loop + "{% set ns.s = ns.s | replace('x', ns.s) %}" + end,
                 "grows beyond");
    expect_error("{% set ns = namespace(s=['x' * 9]) %}" + loop + "{% set ns.s = ns.s + ns.s %}" + end,
                 "values need more than");
    expect_error("{% set ns = namespace(l=[]) %}" + loop + "{% set ns.l = ns.l + [i ~ 'x' * 1000000] %}" + end,
                 "values need more than");
    expect_error("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "output grows beyond");
    expect_error("{{ 'x' * 9223372036854775807 }}", "grows beyond");
    expect_error("{{ [0] * 9223372036854775807 }}", "grows beyond");
    expect_error("{{ 'x' | center(9223372036854775807) }}", "grows beyond");
    expect_error("{{ 'x' | indent(9223372036854775807, true) }}", "grows beyond");
    expect_error("{{ '%9223372036854775807d' % 1 }}", "wider than");
    expect_error("{{ '{:99999}'.format(1) }}", "wider than");
    expect_error("{{ [1] | tojson(indent=999999999) }}", "indent of more than");
    expect_error("{{ [1] | batch(999999999, 'x') | list }}", "steps");
    EXPECT_EQ(error_of("{{ 'ab' * -5 }}{{ [1] * -9223372036854775807 }}"), "rendered []");
}

TEST(ChatHostile, ValuesThatContainThemselves) {
    const std::string self = "{% set l = [1] %}{% set _ = l.append(l) %}";
    expect_error(self + "{{ l }}", "nested too deeply");
    expect_error(self + "{{ l | tojson }}", "nested too deeply");
    expect_error(self + "{% set m = [1] %}{% set _ = m.append(m) %}{{ l == m }}", "nested too deeply");
    expect_error("{% set d = {} %}{% set _ = d.update(a=d) %}{{ d | tojson }}", "nested too deeply");
    EXPECT_EQ(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}ok"), "rendered ok");
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
                 "nested too deeply");
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x.index] %}{% endfor %}",
                 "nested too deeply");
    // A long chain made from the top down must not overflow the stack when it is destroyed.
    EXPECT_EQ(error_of("{% set ns = namespace() %}{% set root = [] %}{% set ns.c = root %}{% for i in range(9000) %}"
                       "{% set n = [] %}{% set _ = ns.c.append(n) %}{% set ns.c = n %}{% endfor %}ok"),
              "rendered ok");
}

TEST(ChatHostile, IntegersThatDoNotFit) {
    expect_error("{{ 9223372036854775807 + 1 }}", "does not fit in 64 bits");
    expect_error("{{ -9223372036854775807 - 2 }}", "does not fit in 64 bits");
    expect_error("{{ 9223372036854775807 * 2 }}", "does not fit in 64 bits");
    expect_error("{{ 2 ** 64 }}", "does not fit in 64 bits");
    expect_error("{{ (-9223372036854775807 - 1) // -1 }}", "does not fit in 64 bits");
    expect_error("{{ -(-9223372036854775807 - 1) }}", "negate");
    expect_error("{{ 99999999999999999999 }}", "does not fit in 64 bits");
    expect_error("{{ 1e30 | int }}", "does not fit in 64 bits");
    EXPECT_EQ(error_of("{{ (-9223372036854775807 - 1) % -1 }}"), "rendered 0");
    EXPECT_EQ(error_of("{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}"), "rendered a");
    EXPECT_EQ(error_of("{{ 'abc'[::-9223372036854775807 - 1] }}"), "rendered c");
}

TEST(ChatHostile, UnsupportedIsNamedWithItsLine) {
    const auto unsupported = [](const std::string& source, const std::string& message) {
        const auto t = jinja::Template::parse(source);
        ASSERT_FALSE(t) << source;
        EXPECT_EQ(t.error().code, Errc::unsupported);
        EXPECT_EQ(t.error().message, message);
    };
    unsupported("a\n{% if 0 %}{{ x | frob }}{% endif %}", "chat template, line 2: the filter 'frob' is not supported");
    unsupported("a\n\n{{ x is frob }}", "chat template, line 3: the test 'frob' is not supported");
    unsupported("{{ x | map('frob') }}", "chat template, line 1: the filter 'frob' is not supported");
    unsupported("{{ x | selectattr('a', 'frob') }}", "chat template, line 1: the test 'frob' is not supported");
    unsupported("{% block x %}{% endblock %}", "chat template, line 1: the statement 'block' is not supported");
    unsupported("{% include 'x' %}", "chat template, line 1: the statement 'include' is not supported");
    EXPECT_EQ(error_of("\n{{ 'x'.encode() }}"), "chat template, line 2: the method 'encode' of a str is not supported");
    EXPECT_EQ(error_of("\n\n{{ frob(1) }}"), "chat template, line 3: 'frob' is undefined");
    EXPECT_EQ(error_of("\n{{ raise_exception('no ' ~ 1) }}"), "chat template, line 2: raise_exception: no 1");
    EXPECT_EQ(error_of("x\n{{ '\xff' }}"), "chat template, line 2: the template is not UTF-8 at byte 6");
    EXPECT_EQ(error_of("{% if 1 %}\n\n"), "chat template, line 2: 'if' of line 1 is not closed");
}

TEST(ChatHostile, TheCallersValuesStayAsTheyAre) {
    const auto t = jinja::Template::parse("{% set _ = l.append(2) %}{% set _ = d.pop('a') %}{{ l }}{{ d }}");
    ASSERT_TRUE(t);
    const auto globals = jinja::Value::dict(), d = jinja::Value::dict(), l = jinja::Value::list({1});
    d.dict_node().set("a", 1);
    globals.dict_node().set("d", d);
    globals.dict_node().set("l", l);
    for (int i = 0; i < 2; ++i) {
        const auto r = (*t)->render(globals);
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(*r, "[1, 2]{}");
    }
    EXPECT_EQ(l.list().items.size(), 1u);
    EXPECT_EQ(d.dict_node().size(), 1u);
}

// What the fuzzer found, and its seeds: each must end, and the sanitizers of CI watch it.
TEST(ChatHostile, FuzzCorpusReplays) {
    int files = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(std::string(QUERN_SOURCE_DIR) + "/tests/fuzz/corpus/chat")) {
        std::ifstream f(entry.path(), std::ios::binary);
        std::stringstream s;
        s << f.rdbuf();
        const auto r = render(s.str());
        EXPECT_TRUE(r || !r.error().message.empty()) << entry.path();
        ++files;
    }
    EXPECT_GE(files, 20);
}

}  // namespace
}  // namespace quern::text
