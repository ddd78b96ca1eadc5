// SPDX-License-Identifier: Apache-2.0
// Templates of models, and small snippets, against what Python's Jinja2 makes of them (data/chat/generate.py).
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "engine/text/chat.h"

namespace quern::text {
namespace {

using Json = nlohmann::ordered_json;

const std::string kData = std::string(QUERN_TEST_DATA) + "/chat/";

std::string read(const std::string& path) {
    std::ifstream f(path, std::ios::binary);
    EXPECT_TRUE(f) << path;
    std::stringstream s;
    s << f.rdbuf();
    return s.str();
}

Json read_json(const std::string& path) { return Json::parse(read(path)); }

std::shared_ptr<const jinja::Template> parse_file(const std::string& name) {
    auto t = jinja::Template::parse(read(kData + name + ".jinja"));
    EXPECT_TRUE(t) << name << ": " << t.error().message;
    return t ? *t : nullptr;
}

/// Text for text; an error where Python has one. The text of raise_exception must come through.
void compare(const Result<std::string>& got, const Json& expected, const std::string& what) {
    if (expected.contains("text")) {
        ASSERT_TRUE(got) << what << "\n" << got.error().message;
        EXPECT_EQ(*got, expected["text"].get<std::string>()) << what;
        return;
    }
    const std::string reason = expected["error"];
    ASSERT_FALSE(got) << what << "\nPython: " << reason << "\nQuern: " << *got;
    EXPECT_TRUE(got.error().message.find("chat template, line ") == 0) << got.error().message;
    const std::string raised = "TemplateError: ";
    if (reason.starts_with(raised)) {
        EXPECT_NE(got.error().message.find(reason.substr(raised.size())), std::string::npos) << got.error().message;
    }
}

TEST(ChatGolden, ModelTemplatesEqualPython) {
    const Json golden = read_json(kData + "golden.json");
    std::map<std::string, std::shared_ptr<const jinja::Template>> templates;
    for (const Json& c : golden["cases"]) {
        const std::string name = c["template"];
        auto& t = templates[name];
        if (!t) t = parse_file(name);
        ASSERT_TRUE(t);
        ChatInput in;
        in.messages_json = golden["conversations"][c["conversation"].get<std::string>()].dump();
        const Json& tools = golden["tools"][c["tools"].get<std::string>()];
        if (!tools.is_null()) in.tools_json = tools.dump();
        if (!c["extra"].empty()) in.extra_json = c["extra"].dump();
        in.add_generation_prompt = c["add_generation_prompt"];
        in.bos_token = golden["bos_token"];
        in.eos_token = golden["eos_token"];
        in.now = golden["now"];
        compare(render_chat(*t, in), c, name + ": " + Json(c).dump().substr(0, 200));
    }
    EXPECT_GE(templates.size(), 15u);
}

TEST(ChatGolden, SnippetsEqualPython) {
    const Json golden = read_json(kData + "snippets.json");
    Json extra = golden["variables"];
    ChatInput in;
    in.messages_json = extra["messages"].dump();
    in.now = golden["now"];
    in.extra_json = extra.dump();
    for (const Json& c : golden["cases"]) {
        const std::string source = c["template"];
        const auto t = jinja::Template::parse(source);
        compare(t ? render_chat(**t, in) : Result<std::string>(t.error()), c, source);
    }
    EXPECT_GE(golden["cases"].size(), 200u);
}

TEST(ChatGolden, Smollm2EqualsOracle) {
    const std::string path = std::string(QUERN_SHARED_DIR) + "/oracle/smollm2/chat.json";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << ": the oracle is not in this checkout";
    const auto t = parse_file("smollm2");
    ASSERT_TRUE(t);
    for (const Json& c : read_json(path)) {
        ChatInput in;
        in.messages_json = c["messages"].dump();
        in.add_generation_prompt = c["add_generation_prompt"];
        const auto got = render_chat(*t, in);
        ASSERT_TRUE(got) << got.error().message;
        EXPECT_EQ(*got, c["text"].get<std::string>());
    }
}

TEST(ChatGolden, OneTemplateServesManyThreads) {
    const auto t = parse_file("qwen3");
    ASSERT_TRUE(t);
    ChatInput in;
    in.messages_json = R"([{"role": "user", "content": "hi"}])";
    const auto expected = render_chat(*t, in);
    ASSERT_TRUE(expected);
    std::atomic<int> different = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int k = 0; k < 50; ++k) {
                const auto got = render_chat(*t, in);
                if (!got || *got != *expected) ++different;
            }
        });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(different, 0);
}

TEST(ChatInput, BadJsonNamesTheInputAndTheByte) {
    const auto t = jinja::Template::parse("{{ messages[0].content }}");
    ASSERT_TRUE(t);
    const auto message = [&](const char* messages, const char* tools, const char* extra) {
        ChatInput in;
        in.messages_json = messages;
        in.tools_json = tools;
        in.extra_json = extra;
        const auto r = render_chat(**t, in);
        return r ? "rendered " + *r : r.error().message;
    };
    EXPECT_EQ(message(R"([{"content": "x"}])", "", ""), "rendered x");
    EXPECT_EQ(message("[{", "", "").find("messages is not valid JSON at byte "), 0u);
    EXPECT_EQ(message("{}", "", ""), "messages must be a JSON array");
    EXPECT_EQ(message("", "", ""), "messages must be a JSON array");
    EXPECT_EQ(message("[]", "{", "").find("tools is not valid JSON at byte "), 0u);
    EXPECT_EQ(message("[]", "", "[]"), "the extra template variables must be a JSON object");
    EXPECT_EQ(message("[18446744073709551615]", "", ""), "messages has an integer that does not fit in 64 bits");
    EXPECT_EQ(message("[99999999999999999999]", "", ""), "messages has an integer that does not fit in 64 bits");
    EXPECT_EQ(message("[\"\xff\"]", "", "").find("messages is not valid JSON"), 0u);
    const std::string deep(5000, '[');
    EXPECT_EQ(message(deep.c_str(), "", ""), "messages is nested deeper than 150 levels");
    EXPECT_EQ(message(R"([{"content": "a", "content": "b"}])", "", ""), "rendered b");
}

}  // namespace
}  // namespace quern::text
