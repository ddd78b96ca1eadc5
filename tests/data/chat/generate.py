#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes golden.json and snippets.json: what Python's Jinja2, set up as Hugging Face's apply_chat_template does,
makes of the templates beside this file and of snippets.txt. Run it after changing either; needs jinja2 only.

The .jinja files are written from knowledge of the models' published templates, but for smollm2.jinja, which is
tokenizer.chat_template of the SmolLM2-135M-Instruct GGUF.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent
NOW = 1753920000  # 2025-07-31 00:00:00 UTC


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks the assistant's tokens for training; prints its body."""
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(lineno)

    def _same(self, caller):
        return caller()


def environment(sandbox):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    now = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)
    env.globals["strftime_now"] = lambda format: now.strftime(format)
    return env


def render(env, template, variables):
    """{"text": ...} or {"error": the reason}."""
    try:
        return {"text": env.from_string(template).render(**variables)}
    except Exception as e:  # whatever the template does wrong is the answer
        return {"error": f"{type(e).__name__}: {e}"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the \"current\" weather <now> & later, in °C.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "City, e.g. Zürich"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "detail": {"type": "object", "properties": {"wind": {"type": "boolean"}, "limit": {"type": "number"}},
                   "required": ["wind"]},
        "either": {"oneOf": [{"type": "string", "description": "a"}, {"type": "number", "default": 1.5}]},
        "any": {"type": ["string", "null"]}},
        "required": ["city"]}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "description": "Tell the time", "parameters": {"type": "object", "properties": {}},
    "return": {"type": "string"}}}


def call(name, arguments, id="abc123def", **more):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}, **more}


SYSTEM = {"role": "system", "content": " Be brief.\n"}
TOOL_TURN = [user("Weather in Zürich?"),
             assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": [1, 2], "x": None, "y": 0.5})]),
             {"role": "tool", "name": "get_weather", "tool_call_id": "abc123def", "content": "{\"temp\": 21.0}"}]

CONVERSATIONS = {
    "one": [user("hi")],
    "system": [SYSTEM, user("What is 2+2?")],
    "multi": [user("a"), assistant("b"), user("c\n\n d ")],
    "system_multi": [SYSTEM, user("  a\t"), assistant(" b \n"), user("c")],
    "ends_with_assistant": [user("Count."), assistant("1, 2, 3")],
    "unicode": [user("Grüße, 世界! 🙂 e\u0301 \u200b|<|im_end|>"), assistant("नमस्ते"), user("'q' \"d\" \\ {{ x }}")],
    "empty": [],
    "empty_text": [user("")],
    "two_users": [user("a"), user("b")],
    "late_system": [user("a"), assistant("b"), SYSTEM, user("c")],
    "thinking": [user("a"), assistant("<think>\nhmm\n</think>\n\nb"), user("c"), assistant("<think>x</think>d")],
    "reasoning": [user("a"), assistant("b", reasoning_content="\nwhy\n", thinking="why")],
    "parts": [user([{"type": "text", "text": " look "}, {"type": "image"}, {"type": "text", "text": "here"}])],
    "system_parts": [{"role": "system", "content": [{"type": "text", "text": "S"}]}, user([{"type": "text", "text": "U"}])],
    "tool_call": TOOL_TURN,
    "tool_answer": TOOL_TURN + [assistant("21 degrees.")],
    "tool_again": [SYSTEM] + TOOL_TURN + [assistant("21 degrees."), user("And now?")],
    "tool_json_string": [user("t"), assistant(None, tool_calls=[call("clock", "{\"a\": 1}"), call("clock", "{}")]),
                         {"role": "tool", "tool_call_id": "abc123def", "content": "12:00"},
                         {"role": "tool", "tool_call_id": "abc123def", "content": "13:00"}],
    "tool_thinking": [user("t"), assistant("", thinking="let me see", tool_calls=[call("clock", {})])],
    "tool_bad_id": [user("t"), assistant(None, tool_calls=[call("clock", {}, id="x")])],
    "developer": [{"role": "developer", "content": "Do."}, user("x")],
    "odd_role": [user("x"), {"role": "critic", "content": "no"}],
    "no_content": [{"role": "user"}],
    "null_content": [user(None)],
    "channel_tags": [user("x"), assistant("<|channel|>final<|message|>y")],
}
TOOLS = {"none": None, "two": [WEATHER, CLOCK]}
EXTRA = {
    "qwen3": [{"enable_thinking": False}],
    "llama31": [{"builtin_tools": ["code_interpreter", "clock"]}, {"tools_in_user_message": False}],
    "llama32": [{"date_string": "1 Jan 2025"}],
    "gpt-oss": [{"reasoning_effort": "high", "builtin_tools": ["browser", "python"], "model_identity": "You are X."}],
}


def golden():
    env = environment(jinja2.sandbox.ImmutableSandboxedEnvironment)
    cases = []
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for extra in [{}] + EXTRA.get(path.stem, []):
            for name, messages in CONVERSATIONS.items():
                for tools_name, tools in TOOLS.items():
                    if tools and not ("tools" in source and name in ("one", "system", "empty", "multi") or "tool" in name):
                        continue
                    for prompt in (False, True):
                        variables = dict(messages=messages, tools=tools, documents=None, add_generation_prompt=prompt,
                                         bos_token="<s>", eos_token="</s>")
                        variables.update(extra)
                        cases.append({"template": path.stem, "conversation": name, "tools": tools_name, "extra": extra,
                                      "add_generation_prompt": prompt, **render(env, source, variables)})
    return {"now": NOW, "bos_token": "<s>", "eos_token": "</s>", "conversations": CONVERSATIONS, "tools": TOOLS,
            "cases": cases}


SNIPPET_VARIABLES = {
    "messages": [user("hi"), assistant("yo", tags=["x", "y"]), user("Bye")], "tools": None, "add_generation_prompt": True,
    "bos_token": "<s>", "eos_token": "</s>", "documents": None,
    "n": 7, "f": 2.5, "big": 1e16, "s": "Hello World", "u": "Grüße 世界", "empty": "", "yes": True, "no": False,
    "nothing": None, "l": [3, 1, 2], "words": ["b", "A", "c"], "d": {"b": 1, "a": {"x": [1, 2]}, "items": "shadow"},
    "people": [{"name": "Ann", "age": 30}, {"name": "bob", "age": 25}, {"name": "Cid"}],
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]}],
}


def snippets():
    """Blocks of snippets.txt, divided by lines of four hyphens or more; what follows the hyphens is a note."""
    # Not the immutable sandbox: Quern lets templates change lists they own.
    env = environment(jinja2.sandbox.SandboxedEnvironment)
    out, current = [], []
    for line in (HERE / "snippets.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith("----"):
            out.append("\n".join(current))
            current = []
        else:
            current.append(line)
    out = [s.replace("␍", "\r") for s in out[1:]]
    return {"now": NOW, "variables": SNIPPET_VARIABLES,
            "cases": [{"template": s, **render(env, s, SNIPPET_VARIABLES)} for s in out]}


def main():
    for name, data in (("golden.json", golden()), ("snippets.json", snippets())):
        with open(HERE / name, "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False, indent=0)
            f.write("\n")
        errors = sum("error" in c for c in data["cases"])
        print(f"{name}: {len(data['cases'])} cases, {errors} of them errors", file=sys.stderr)


if __name__ == "__main__":
    main()
