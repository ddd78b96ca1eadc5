// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a chat template, over a fixed conversation with tools.
#include "engine/text/chat.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace quern::text;
    jinja::Limits limits;
    limits.max_steps = 20'000;
    limits.max_output_bytes = 1u << 18;
    limits.max_memory_bytes = 4u << 20;
    const auto parsed = jinja::Template::parse(std::string_view(reinterpret_cast<const char*>(data), size), limits);
    if (!parsed) return 0;
    ChatInput in;
    in.messages_json = R"([{"role":"system","content":"s\u00e9"},{"role":"user","content":[{"type":"text","text":"u"}]},
        {"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5,true]}}}]},
        {"role":"tool","content":"<think>\n1</think> x"}])";
    in.tools_json = R"([{"type":"function","function":{"name":"f","parameters":{"type":"object","items":{}}}}])";
    in.extra_json = R"({"n":7,"l":[3,1,2],"d":{"b":1,"a":{"x":[1]}},"s":"Hello W\u00f6rld"})";
    in.bos_token = "<s>";
    in.eos_token = "</s>";
    (void)render_chat(**parsed, in, limits);
    return 0;
}
