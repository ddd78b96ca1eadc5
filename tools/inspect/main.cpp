// SPDX-License-Identifier: Apache-2.0
// inspect: what is in a model file, how it splits text, what a chat template makes of messages.
#include <CLI/CLI.hpp>
#include <ctime>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "engine/text/chat.h"
#include "engine/text/tokenizer.h"
#include "formats/gguf.h"
#include "tools/common/options.h"
#include "tools/common/process.h"
#include "tools/inspect/info.h"

namespace quern::tools {
namespace {

constexpr const char* kProgram = "inspect";
constexpr std::size_t kShortArray = 32;  // longer arrays are left out of `info --json` unless asked for

struct Flags {
    std::string model, chat_template, messages, tools, bos, eos;
    bool json = false, arrays = false, no_parse_special = false, generation_prompt = false;
};

int print(const std::string& text) {
    std::cout << text << std::flush;
    return std::cout ? kExitOk : kExitError;
}

int info(const Flags& f) {
    const Result<gguf::File> file = gguf::File::open(f.model);
    if (!file) return report(kProgram, file.error());
    if (!f.json) return print(describe_file_text(*file));
    const std::size_t most = f.arrays ? std::numeric_limits<std::size_t>::max() : kShortArray;
    // A file's strings need not be UTF-8; JSON's must.
    return print(describe_file(*file, most).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

int tokenize(const Flags& f) {
    const Result<gguf::File> file = gguf::File::open(f.model);
    if (!file) return report(kProgram, file.error());
    const auto tokenizer = text::Tokenizer::create(*file);
    if (!tokenizer) return report(kProgram, tokenizer.error());
    const Result<std::string> input = read_file("-");
    if (!input) return report(kProgram, input.error());
    const auto tokens = (*tokenizer)->encode(*input, {.add_special = false, .parse_special = !f.no_parse_special});
    if (!tokens) return report(kProgram, tokens.error());
    return print(nlohmann::json(*tokens).dump() + "\n");
}

int render(const Flags& f) {
    text::ChatInput input;
    const std::pair<const std::string&, std::string*> files[] = {{f.messages, &input.messages_json},
                                                                 {f.tools, &input.tools_json}};
    for (const auto& [path, content] : files) {
        if (path.empty()) continue;
        Result<std::string> bytes = read_file(path);
        if (!bytes) return report(kProgram, bytes.error());
        *content = std::move(*bytes);
    }
    const Result<std::string> source = read_file(f.chat_template);
    if (!source) return report(kProgram, source.error());
    const auto parsed = text::jinja::Template::parse(*source);
    if (!parsed) return report(kProgram, {parsed.error().code, f.chat_template + ": " + parsed.error().message});
    input.add_generation_prompt = f.generation_prompt;
    input.bos_token = f.bos;
    input.eos_token = f.eos;
    input.now = std::time(nullptr);
    const Result<std::string> text = text::render_chat(**parsed, input);
    if (!text) return report(kProgram, {text.error().code, f.chat_template + ": " + text.error().message});
    return print(*text);
}

void add_info(CLI::App& app, Flags& f) {
    CLI::App* sub = app.add_subcommand("info", "Metadata, tensors and sizes of a GGUF file");
    sub->add_option("model", f.model, "GGUF file")->required()->type_name("FILE");
    sub->add_flag("--json", f.json, "As one JSON object");
    sub->add_flag("--arrays", f.arrays, "With --json: long arrays too, token by token");
}

void add_tokenize(CLI::App& app, Flags& f) {
    CLI::App* sub = app.add_subcommand("tokenize", "Token ids of standard input as a JSON array, nothing added");
    sub->add_option("model", f.model, "GGUF file; a vocabulary without tensors will do")->required()->type_name("FILE");
    sub->add_flag("--no-parse-special", f.no_parse_special, "Special tokens written in the text stay text");
}

void add_render(CLI::App& app, Flags& f) {
    CLI::App* sub = app.add_subcommand("render", "A chat template's text for a conversation");
    sub->add_option("--template", f.chat_template, "The template (Jinja)")->required()->type_name("FILE");
    sub->add_option("--messages", f.messages, "JSON array of messages with role and content")->required()
        ->type_name("FILE");
    sub->add_option("--tools", f.tools, "JSON array of tools")->type_name("FILE");
    sub->add_flag("--add-generation-prompt", f.generation_prompt, "End where the assistant's answer begins");
    sub->add_option("--bos", f.bos, "Text of the token that begins a conversation");
    sub->add_option("--eos", f.eos, "Text of the token that ends one");
}

}  // namespace
}  // namespace quern::tools

int main(int argc, char** argv) {
    using namespace quern::tools;
    Flags f;
    CLI::App app("Looks into GGUF models.", kProgram);
    describe(app);
    app.require_subcommand(1);
    add_info(app, f);
    add_tokenize(app, f);
    add_render(app, f);
    if (const auto code = parse(app, argc, argv)) return *code;
    if (app.got_subcommand("info")) return info(f);
    return app.got_subcommand("tokenize") ? tokenize(f) : render(f);
}
