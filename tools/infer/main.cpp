// SPDX-License-Identifier: Apache-2.0
// infer: text from a model. Text goes to standard output, everything else to standard error.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "quern/quern.hpp"
#include "tools/common/options.h"
#include "tools/common/process.h"
#include "tools/infer/answer.h"
#include "tools/infer/conversation.h"
#include "tools/infer/interrupt.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProgram = "infer";
constexpr std::uint32_t kDefaultContext = 4096;

struct Flags {
    ModelFlags model;
    std::string prompt, prompt_file, system, chat_template_file, session_file, draft, metrics;
    DraftOptions draft_options;
    std::uint32_t n_ctx = 0;
    std::int64_t seed = -1, keep = -1;
    GenerateOptions generate;
    std::vector<std::string> logit_bias;
    bool chat = false, json = false, echo = false, parse_special = false, no_perf = false, shrink = false;
};

void add_sampling(CLI::App& app, Flags& f) {
    SamplerOptions& s = f.generate.sampler;
    app.add_option("-s,--seed", f.seed, "Same seed, same text; -1: a new one each run")
        ->check(CLI::Range(std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()))->type_name("INT")
        ->capture_default_str();
    app.add_option("--temp", s.temperature, "Temperature; 0: always the likeliest token")->capture_default_str();
    app.add_option("--top-k", s.top_k, "Only the K likeliest; 0: off")->capture_default_str();
    app.add_option("--top-p", s.top_p, "Only the likeliest that sum to P; 1: off")->capture_default_str();
    app.add_option("--min-p", s.min_p, "Only those at least P times the likeliest; 0: off")->capture_default_str();
    app.add_option("--typical", s.typical_p, "Locally typical sampling; 1: off")->capture_default_str();
    app.add_option("--repeat-penalty", s.repeat_penalty, "Divides logits of recent tokens; 1: off")
        ->capture_default_str();
    app.add_option("--frequency-penalty", s.frequency_penalty, "Subtracted for each recent use; 0: off")
        ->capture_default_str();
    app.add_option("--presence-penalty", s.presence_penalty, "Subtracted if recently used; 0: off")
        ->capture_default_str();
    app.add_option("--repeat-last-n", s.penalty_last_n, "How many tokens are recent; -1: all")->capture_default_str();
    app.add_option("-l,--logit-bias", f.logit_bias, "Token id and what is added to its logit: 42+1.5 or 42-inf")
        ->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_flags(CLI::App& app, Flags& f) {
    f.model.add_to(app);
    auto* prompt = app.add_option("-p,--prompt", f.prompt, "Text to go on from; with --chat the first message");
    app.add_option("-f,--file", f.prompt_file, "The prompt from a file; - for standard input")
        ->excludes(prompt)->type_name("FILE");
    app.add_option("-n,--n-predict", f.generate.max_tokens, "Most tokens to generate; -1: until the model ends")
        ->check(CLI::Range(std::int64_t{-1}, std::int64_t{1} << 40))->type_name("INT")->capture_default_str();
    app.add_option("-c,--ctx-size", f.n_ctx,
                   "Tokens of context; 0: " + std::to_string(kDefaultContext) + ", or the model's own if smaller")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 31))->type_name("INT")->capture_default_str();
    app.add_option("--preset", f.model.preset, "Cache, context policy and lookup for a use, where no other flag sets them")
        ->transform(CLI::CheckedTransformer(std::map<std::string, Preset>{{"chat-short", Preset::chat_short}, {"chat-long", Preset::chat_long},
                                                                          {"document", Preset::document}, {"code", Preset::code}}))
        ->option_text("chat-short|chat-long|document|code");
    app.add_option("--ctx-policy", f.generate.context_policy,
                   "When the context is full: stop; slide: drop the older half of what follows --keep and read the\n"
                   "rest again; compress: the half that gets least attention. Between the turns of --chat both\n"
                   "drop the oldest messages. Standard error says so")
        ->transform(CLI::CheckedTransformer(std::map<std::string, ContextPolicy>{{"stop", ContextPolicy::stop}, {"slide", ContextPolicy::slide}, {"compress", ContextPolicy::compress}}))
        ->option_text("stop|slide|compress [stop]")->default_str("stop");
    app.add_option("--keep", f.keep, "Tokens at the start that are never dropped; -1: the message of --system, else 16")
        ->check(CLI::Range(std::int64_t{-1}, std::int64_t{1} << 31))->type_name("INT")->capture_default_str();
    app.add_flag("--allow-smaller-context", f.shrink, "Shrink the context rather than refuse, with --memory-limit");
    app.add_option("--stop,-r,--reverse-prompt", f.generate.stop, "Text that ends the answer; may be repeated")
        ->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_flag("--lookup", f.generate.lookup,
                 "Try what followed the same words earlier, several tokens a step: the same text, faster where it repeats");
    auto* draft = app.add_option("--draft", f.draft,
                   "A smaller model of the same vocabulary: what it says comes next is tried, several tokens a step;\n"
                   "the same text with --temp 0, text of the same distribution without")->type_name("FILE");
    app.add_option("--draft-tokens", f.draft_options.n_tokens, "Tokens of the draft to try at a time; 0: as many as pay, by measurement")
        ->check(CLI::Range(0, 15))->needs(draft)->type_name("INT")->capture_default_str();
    app.add_flag("--ignore-eos", f.generate.ignore_end_of_generation, "Go on past the token that ends an answer");
    app.add_flag("--parse-special", f.parse_special, "Special tokens written in the prompt are special");
    app.add_flag("--echo", f.echo, "Print the prompt before the answer");
    app.add_flag("--chat", f.chat,
                 "Talk, with the model's chat template: -p, then lines from the terminal;\n"
                 "without -p, lines from standard input. /exit or Ctrl-D ends it");
    app.add_option("--system", f.system, "System message of --chat")->needs("--chat");
    app.add_option("--chat-template-file", f.chat_template_file, "A template instead of the model's")->needs("--chat");
    app.add_option("--session", f.session_file,
                   "Go on from the session in this file if it is there, and save it there at the end;\n"
                   "the prompt follows what the session holds")->type_name("FILE");
    app.add_flag("--json", f.json, "One JSON object at the end instead of streamed text");
    app.add_option("--metrics", f.metrics, "At the end, on standard error: where the time went and what binds, as text or as JSON")
        ->check(CLI::IsMember({"text", "json"}))->type_name("text|json");
    app.add_flag("--no-perf", f.no_perf, "No line with speeds at the end");
    add_sampling(app, f);
}

Status parse_logit_bias(Flags& f) {
    for (const std::string& text : f.logit_bias) {
        const std::size_t sign = text.find_first_of("+-", 1);
        try {
            std::size_t id_end = 0, bias_end = 0;
            const int id = std::stoi(text, &id_end);
            const float bias = sign == std::string::npos ? 0 : std::stof(text.substr(sign), &bias_end);
            if (id_end == sign && sign + bias_end == text.size()) {
                f.generate.sampler.logit_bias.emplace_back(id, bias);
                continue;
            }
        } catch (const std::logic_error&) {  // not a number, or out of range: the message below
        }
        return Error{Errc::invalid_argument, "--logit-bias: '" + text + "' is not a token id and a bias, as in 42-1.5"};
    }
    return {};
}

Result<Model> load(const Flags& f) {
    ModelOptions options = f.model.options(kProgram);
    options.n_ctx = f.n_ctx ? f.n_ctx : kDefaultContext;
    options.allow_smaller_context = f.shrink;
    // The template may give less of an answer than was generated: thoughts, for one.
    if (f.chat && options.kv_spare_tails < 0) options.kv_spare_tails = 1;
    return load_with_progress(f.model.path, std::move(options));
}

/// The model of --draft, within what --memory-limit leaves.
Status use_draft(const Model& model, Session& session, const Flags& f) {
    ModelOptions options = f.model.options(kProgram);
    options.n_ctx = session.n_ctx();
    if (const std::uint64_t limit = options.memory_limit) {
        const std::uint64_t taken = model.memory_report().total;
        options.memory_limit = limit > taken ? limit - taken : 1;
    }
    auto draft = load_with_progress(f.draft, std::move(options));
    if (!draft) return std::move(draft).error();
    if (f.model.verbose) std::fprintf(stderr, "%s: draft %s, %s\n%s\n", kProgram, draft->info().name.c_str(), draft->info().weight_type.c_str(), draft->memory_report().to_string().c_str());
    return session.use_draft(*draft, f.draft_options);
}

void print_model(const Model& model, const Flags& f) {
    const ModelInfo& info = model.info();
    std::fprintf(stderr, "%s: %s, %s, %s, %.1f M parameters, trained for %u tokens of context\n", kProgram,
                 info.name.c_str(), info.architecture.c_str(), info.weight_type.c_str(), double(info.n_params) / 1e6,
                 info.n_ctx_train);
    std::fprintf(stderr, "%s: %s, kernels %s, threads %d, for prompts %d in steps of %u, seed %llu\n", kProgram,
                 info.cpu.c_str(), info.isa.c_str(), info.n_threads, info.n_threads_batch, info.n_batch, static_cast<unsigned long long>(f.generate.sampler.seed));
    if (f.model.gpu.n_gpu_layers() != 0) std::fprintf(stderr, "%s: %s", kProgram, model.verify_gpu_utilization().to_string().c_str());
    std::fprintf(stderr, "%s\n", model.memory_report().to_string().c_str());
}

/// Measures on a model's first run on this machine, when nobody waits for the answer any more.
void tune_for_next_time(const Model& model, const Flags& f) {
    if (!f.model.may_tune() || model.info().tuned) return;
    std::fflush(stdout);
    const Result<TuneResult> found = model.tune(/*unasked=*/true);
    if (!found || found->seconds == 0 || !f.model.verbose) return;
    if (found->disturbed) {
        std::fprintf(stderr, "%s: thread counts were not measured: other programs keep the CPUs busy\n", kProgram);
    } else {
        std::fprintf(stderr, "%s: measured in %.1f s: -t %d -tb %d -b %u; kept in %s\n", kProgram, found->seconds,
                     found->n_threads, found->n_threads_batch, found->n_batch, found->kept_in.c_str());
    }
}

/// Says on standard error what a user would otherwise wonder about.
void explain_stop(const GenerateResult& result, const Session& session) {
    if (result.stop_reason == StopReason::context_full) {
        std::fprintf(stderr, "%s: stopped, the context of %u tokens is full; a larger one is set with -c, or go on with --ctx-policy slide or compress\n", kProgram,
                     session.n_ctx());
    }
}

Result<Json> complete(const Model& model, Session& session, Answerer& answerer, const Flags& f, std::string&) {
    auto tokens = model.tokenize(f.prompt, {.add_special = session.tokens().empty(), .parse_special = f.parse_special});
    if (!tokens) return std::move(tokens).error();
    if (tokens->empty()) return Error{Errc::invalid_argument, "the prompt is empty: give some text with -p or -f"};
    Result<GenerateResult> result = answerer.answer(*tokens, f.echo ? f.prompt : std::string());
    if (!result) return std::move(result).error();
    explain_stop(*result, session);
    return to_json(*result);
}

/// note: the messages of the session's conversation so far, as JSON; in and out.
Result<Json> converse(const Model& model, Session& session, Answerer& answerer, const Flags& f, std::string& note) {
    ChatOptions options;
    if (!f.chat_template_file.empty()) {
        Result<std::string> text = read_file(f.chat_template_file);
        if (!text) return std::move(text).error();
        options.chat_template = std::move(*text);
    }
    Conversation conversation(model, session, answerer, options, f.system);
    conversation.set_slides(f.generate.context_policy != ContextPolicy::stop);
    if (!note.empty() && !conversation.resume(Json::parse(note, nullptr, false)))
        return Error{Errc::bad_file, f.session_file + ": this session holds no conversation; use it without --chat"};
    const bool terminal = isatty(STDIN_FILENO) == 1;
    Json answers = Json::array();
    std::string line = f.prompt;
    const bool only_one = !line.empty() && !terminal;
    for (;;) {
        if (line.empty()) {
            if (terminal) std::fputs("> ", stderr);
            if (!std::getline(std::cin, line) || line == "/exit") break;
            if (line.empty()) continue;
        }
        Result<GenerateResult> result = conversation.turn(line);
        if (!result) return std::move(result).error();
        explain_stop(*result, session);
        answers.push_back(to_json(*result));
        if (only_one || !answerer.output_ok() || (answerer.interrupted() && !terminal)) break;
        line.clear();
    }
    note = conversation.messages().dump(-1, ' ', false, Json::error_handler_t::replace);
    return Json{{"answers", std::move(answers)}, {"messages", conversation.messages()}};
}

/// What is never dropped, and the message when something is.
void set_sliding(GenerateOptions& o, const Model& model, const Session& session, const Flags& f) {
    if (f.keep >= 0) o.context_keep = static_cast<std::uint32_t>(f.keep);
    else if (!f.system.empty()) {
        const std::string message = Json::array({{{"role", "system"}, {"content", f.system}}}).dump(-1, ' ', false, Json::error_handler_t::replace);
        ChatOptions options;
        options.add_generation_prompt = false;
        if (const auto tokens = model.tokenize_chat(message, options)) o.context_keep = static_cast<std::uint32_t>(tokens->size());
    }
    const char* which = o.context_policy == ContextPolicy::compress ? " that got least attention" : "";
    o.on_slide = [n_ctx = session.n_ctx(), which](std::uint32_t dropped, std::uint32_t left) {
        std::fprintf(stderr, "%s: the context of %u tokens was full: dropped %u%s, read the other %u again\n", kProgram, n_ctx, dropped, which, left);
    };
}

int run(Flags& f, Interrupts& interrupts, Clock::time_point start) {
    Result<Model> model = load(f);
    if (!model) return report(kProgram, model.error());
    const std::uint32_t trained = model->info().n_ctx_train;
    Result<Session> session = model->new_session(f.n_ctx || !trained ? 0 : std::min(trained, model->info().n_ctx));
    if (!session) return report(kProgram, session.error());
    if (!f.draft.empty())
        if (Status s = use_draft(*model, *session, f); !s) return report(kProgram, s.error());
    const double load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (f.model.verbose) print_model(*model, f);

    set_sliding(f.generate, *model, *session, f);
    Answerer answerer(*session, f.generate, interrupts, start, !f.json);
    std::string note;
    if (!f.session_file.empty() && std::filesystem::exists(f.session_file))
        if (Status s = session->restore(f.session_file, &note); !s) return report(kProgram, s.error());
    const std::size_t restored = session->tokens().size();
    if (f.model.verbose && restored > 0) std::fprintf(stderr, "%s: %zu tokens from %s\n", kProgram, restored, f.session_file.c_str());
    Result<Json> answer = (f.chat ? converse : complete)(*model, *session, answerer, f, note);
    if (!answer) return report(kProgram, answer.error());
    if (!f.session_file.empty())
        if (Status s = session->save(f.session_file, note); !s) return report(kProgram, s.error());
    if (f.json) {
        answer->update(to_json(answerer.totals()));
        answer->update({{"load_seconds", load_seconds}, {"seed", f.generate.sampler.seed}, {"isa", model->info().isa},
                        {"n_threads", model->info().n_threads}, {"model", f.model.path}});
        std::cout << answer->dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
    }
    if (!f.no_perf) std::fprintf(stderr, "%s\n", summary(answerer.totals()).c_str());
    if (const Metrics m = session->metrics(); !f.metrics.empty())
        std::fprintf(stderr, "%s\n", (f.metrics == "json" ? m.to_json() : m.to_string()).c_str());
    if (!answerer.output_ok() || !std::cout) {
        std::fprintf(stderr, "%s: cannot write to standard output\n", kProgram);
        return kExitError;
    }
    if (answerer.interrupted() && !f.chat) return kExitInterrupted;
    tune_for_next_time(*model, f);
    return kExitOk;
}

int main_with(int argc, char** argv) {
    const Clock::time_point start = Clock::now();
    Flags f;
    CLI::App app("Generates text from a GGUF model.", kProgram);
    describe(app);
    add_flags(app, f);
    if (const auto code = parse(app, argc, argv)) return *code;
    if (f.model.preset) {
        const PresetOptions o = preset_options(*f.model.preset);
        if (app.count("--ctx-policy") == 0) f.generate.context_policy = o.context_policy;
        f.generate.lookup |= o.lookup;
    }
    if (Status status = parse_logit_bias(f); !status) return report(kProgram, status.error());
    if (!f.prompt_file.empty()) {
        Result<std::string> text = read_file(f.prompt_file);
        if (!text) return report(kProgram, text.error());
        f.prompt = std::move(*text);
    } else if (f.prompt.empty() && !f.chat) {
        std::fprintf(stderr, "%s: no prompt: give one with -p TEXT or -f FILE, or talk with --chat\n", kProgram);
        return kExitUsage;
    }
    f.generate.sampler.seed = f.seed >= 0 ? static_cast<std::uint64_t>(f.seed) : std::random_device{}();
    Interrupts interrupts;
    return run(f, interrupts, start);
}

}  // namespace
}  // namespace quern::tools

int main(int argc, char** argv) { return quern::tools::main_with(argc, argv); }
