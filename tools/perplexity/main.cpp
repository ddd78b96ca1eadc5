// SPDX-License-Identifier: Apache-2.0
// perplexity: how well a model predicts a text, with the chunking of llama-perplexity, so that figures compare: the
// tokens are cut into chunks of n_ctx, each read in an empty context, and the second half of each chunk is scored.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quern/quern.hpp"
#include "tools/common/options.h"
#include "tools/common/process.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;
static_assert(std::endian::native == std::endian::little, "--dump-logits writes floats as they lie in memory");

constexpr const char* kProgram = "perplexity";
constexpr std::size_t kStep = 64;  // tokens whose logits are held at once: 64 x 151,936 floats are 39 MB

struct Flags {
    ModelFlags model;
    std::string text_file, tokens_file, dump_file, kl_file;
    std::uint32_t n_ctx = 512;
    std::uint64_t chunks = 0;
    bool json = false;
};

/// What is evaluated: whole chunks of n_ctx tokens, and the token put at the start of each, if any.
struct Input {
    std::vector<Token> tokens;
    std::optional<Token> bos;
};

/// Negative log-likelihoods in nats.
struct Score {
    double sum = 0, sum_squares = 0;
    std::uint64_t n = 0;
    void add(double nll) { sum += nll, sum_squares += nll * nll, ++n; }
    double mean() const { return n ? sum / double(n) : 0; }
    double mean_error() const {
        const double variance = n ? sum_squares / double(n) - mean() * mean() : 0;
        return n > 1 && variance > 0 ? std::sqrt(variance / double(n - 1)) : 0;
    }
    double perplexity() const { return std::exp(mean()); }
    double perplexity_error() const { return mean_error() * perplexity(); }
};

/// -log softmax(logits)[target], in double precision.
double negative_log_likelihood(std::span<const float> logits, Token target) {
    const float max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float x : logits) sum += std::exp(double(x) - double(max));
    return std::log(sum) + double(max) - double(logits[static_cast<std::size_t>(target)]);
}

Result<Input> input_from_json(const std::string& path, std::uint32_t n_vocab) {
    Result<std::string> bytes = read_file(path);
    if (!bytes) return std::move(bytes).error();
    const Json ids = Json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
    if (!ids.is_array()) return Error{Errc::invalid_argument, "'" + path + "' is not a JSON array of token ids"};
    Input out;
    for (const Json& id : ids) {
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= n_vocab) {
            return Error{Errc::invalid_argument, "'" + path + "': element " + std::to_string(out.tokens.size()) +
                                                     " is not a token id below " + std::to_string(n_vocab)};
        }
        out.tokens.push_back(id.get<Token>());
    }
    return out;
}

Result<Input> input_from_text(const Model& model, const std::string& path) {
    Result<std::string> text = read_file(path);
    if (!text) return std::move(text).error();
    Result<std::vector<Token>> tokens = model.tokenize(*text, {.add_special = true});
    if (!tokens) return std::move(tokens).error();
    Input out{std::move(*tokens), std::nullopt};
    // An empty text shows what this model adds; it may be an EOS only, so the id is compared.
    Result<std::vector<Token>> added = model.tokenize("", {.add_special = true});
    if (!added) return std::move(added).error();
    const auto bos = model.metadata("tokenizer.ggml.bos_token_id");
    if (!added->empty() && bos && *bos == std::to_string(added->front())) out.bos = added->front();
    return out;
}

/// Kullback-Leibler divergence of softmax(logits) from softmax(reference), in nats and double precision.
double divergence(std::span<const float> reference, std::span<const float> logits) {
    const auto log_sum = [](std::span<const float> x) { return negative_log_likelihood(x, 0) + double(x[0]); };
    const double p0 = log_sum(reference), q0 = log_sum(logits);
    double sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const double p = double(reference[i]) - p0;
        sum += std::exp(p) * (p - (double(logits[i]) - q0));
    }
    return sum;
}

/// Logits of an earlier run, to be compared with.
class Reference {
public:
    /// `path` as --dump-logits wrote it, for these tokens in chunks of n_ctx.
    static Result<Reference> open(const std::string& path, const std::vector<Token>& tokens, std::uint32_t n_ctx,
                                  std::uint32_t n_vocab) {
        const Error other{Errc::invalid_argument, "'" + path + "' is no file of --dump-logits for this text, vocabulary and -c"};
        Result<std::string> text = read_file(path + ".json");
        if (!text) return std::move(text).error();
        const Json index = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
        const Json want{{"token_ids", tokens}, {"shape", {tokens.size(), n_vocab}}, {"n_ctx", n_ctx}};
        if (!index.is_object()) return other;
        for (const auto& [key, value] : want.items())
            if (index.value(key, Json()) != value) return other;
        Reference out;
        out.in_.open(path, std::ios::binary | std::ios::ate);
        if (!out.in_ || static_cast<std::uint64_t>(out.in_.tellg()) != tokens.size() * sizeof(float) * n_vocab) return other;
        out.in_.seekg(0);
        return out;
    }
    /// Compares the next rows.
    void add(std::span<const float> logits, std::size_t n_vocab) {
        row_.resize(n_vocab);
        for (std::size_t i = 0; i < logits.size(); i += n_vocab, ++n_) {
            in_.read(reinterpret_cast<char*>(row_.data()), static_cast<std::streamsize>(n_vocab * sizeof(float)));
            sum_ += divergence(row_, logits.subspan(i, n_vocab));
        }
    }
    double mean() const { return sum_ / double(n_); }

private:
    std::ifstream in_;
    std::vector<float> row_;
    double sum_ = 0;
    std::uint64_t n_ = 0;
};

/// Evaluates chunks of one input, one after the other.
class Evaluation {
public:
    Evaluation(const Model& model, Session& session, std::uint32_t n_ctx, std::ofstream* dump, Reference* reference)
        : session_(session), n_vocab_(model.info().n_vocab), n_ctx_(n_ctx), dump_(dump), reference_(reference) {}

    /// tokens: [n_ctx]. Scores positions n_ctx/2 to n_ctx-2.
    Status chunk(std::span<const Token> tokens) {
        if (Status s = session_.truncate(0); !s) return s;
        const std::size_t first = n_ctx_ / 2;
        std::size_t at = 0;
        if (!dump_ && !reference_) {  // nobody looks at the logits of the first half
            if (Status s = session_.decode(tokens.first(first)); !s) return s;
            at = first;
        }
        while (at < n_ctx_) {
            const std::size_t n = std::min(kStep, n_ctx_ - at);
            if (Status s = session_.decode_all(tokens.subspan(at, n), logits_); !s) return s;
            for (std::size_t i = 0; i < n; ++i) {
                if (at + i < first || at + i + 1 >= n_ctx_) continue;
                score_.add(negative_log_likelihood(std::span(logits_).subspan(i * n_vocab_, n_vocab_), tokens[at + i + 1]));
            }
            if (dump_) {
                dump_->write(reinterpret_cast<const char*>(logits_.data()),
                             static_cast<std::streamsize>(n * n_vocab_ * sizeof(float)));
            }
            if (reference_) reference_->add(std::span(logits_).first(n * n_vocab_), n_vocab_);
            at += n;
        }
        return {};
    }

    const Score& score() const { return score_; }

private:
    Session& session_;
    std::size_t n_vocab_, n_ctx_;
    std::ofstream* dump_;
    Reference* reference_;
    std::vector<float> logits_;  // [kStep, n_vocab]
    Score score_;
};

Status write_dump_index(const Flags& f, const std::vector<Token>& tokens, std::uint32_t n_vocab) {
    const std::string path = f.dump_file + ".json";
    std::ofstream out(path);
    out << Json{{"token_ids", tokens}, {"shape", {tokens.size(), n_vocab}}, {"n_ctx", f.n_ctx}, {"type", "float32"},
                {"byte_order", "little"}}.dump() << '\n';
    if (!out.flush()) return Error{Errc::invalid_argument, "cannot write '" + path + "'"};
    return {};
}

Result<Input> chunks_of(Result<Input> input, const Flags& f) {
    if (!input) return input;
    std::uint64_t n = input->tokens.size() / f.n_ctx;
    if (n == 0) {
        return Error{Errc::invalid_argument, "the text has " + std::to_string(input->tokens.size()) +
                                                 " tokens and one chunk needs " + std::to_string(f.n_ctx) +
                                                 ": give more text, or a smaller -c"};
    }
    if (f.chunks > 0) n = std::min(n, f.chunks);
    input->tokens.resize(n * f.n_ctx);
    for (std::uint64_t i = 0; input->bos && i < n; ++i) input->tokens[i * f.n_ctx] = *input->bos;
    return input;
}

int run(const Flags& f) {
    ModelOptions options = f.model.options(kProgram);
    options.n_ctx = f.n_ctx;
    Result<Model> model = load_with_progress(f.model.path, std::move(options));
    if (!model) return report(kProgram, model.error());
    const std::uint32_t n_vocab = model->info().n_vocab;
    const Result<Input> input = chunks_of(f.tokens_file.empty() ? input_from_text(*model, f.text_file)
                                                                : input_from_json(f.tokens_file, n_vocab), f);
    if (!input) return report(kProgram, input.error());
    Result<Session> session = model->new_session(f.n_ctx);
    if (!session) return report(kProgram, session.error());

    std::ofstream dump;
    if (!f.dump_file.empty()) dump.open(f.dump_file, std::ios::binary | std::ios::trunc);
    std::optional<Reference> reference;
    if (!f.kl_file.empty()) {
        Result<Reference> opened = Reference::open(f.kl_file, input->tokens, f.n_ctx, n_vocab);
        if (!opened) return report(kProgram, opened.error());
        reference = std::move(*opened);
    }
    Evaluation evaluation(*model, *session, f.n_ctx, f.dump_file.empty() ? nullptr : &dump,
                          reference ? &*reference : nullptr);
    const std::span<const Token> tokens = input->tokens;
    const std::size_t n_chunks = tokens.size() / f.n_ctx;
    Progress progress;
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < n_chunks; ++i) {
        progress.show("chunk " + std::to_string(i + 1) + " of " + std::to_string(n_chunks) +
                      (i ? ", perplexity " + fixed(evaluation.score().perplexity(), 4) : ""), 0, 0);
        if (Status s = evaluation.chunk(tokens.subspan(i * f.n_ctx, f.n_ctx)); !s) return report(kProgram, s.error());
        if (!f.dump_file.empty() && !dump) {
            return report(kProgram, Error{Errc::invalid_argument, "cannot write '" + f.dump_file + "'"});
        }
    }
    progress.clear();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!f.dump_file.empty()) {
        dump.close();
        if (Status s = write_dump_index(f, input->tokens, n_vocab); !s || !dump) {
            return report(kProgram, s ? Error{Errc::invalid_argument, "cannot write '" + f.dump_file + "'"} : s.error());
        }
    }
    const Score& score = evaluation.score();
    const ModelInfo& info = model->info();
    if (f.json) {
        Json out{{"perplexity", score.perplexity()}, {"perplexity_error", score.perplexity_error()},
                 {"mean_nll", score.mean()}, {"mean_nll_error", score.mean_error()}, {"n_scored", score.n},
                 {"n_chunks", n_chunks}, {"n_ctx", f.n_ctx}, {"n_tokens", tokens.size()},
                 {"seconds", seconds}, {"tokens_per_second", double(tokens.size()) / seconds},
                 {"model", f.model.path}, {"model_type", info.architecture + " " + info.weight_type},
                 {"isa", info.isa}, {"type_k", f.model.kv_type()}, {"type_v", f.model.kv_type()},
                 {"n_threads", info.n_threads}, {"peak_memory_bytes", peak_memory_bytes()}};
        if (reference) out["mean_kl"] = reference->mean();
        std::cout << out.dump() << std::endl;
    } else {
        std::printf("Final estimate: PPL = %.4f +/- %.5f (%zu chunks of %u, %llu tokens scored)\n", score.perplexity(),
                    score.perplexity_error(), n_chunks, f.n_ctx, static_cast<unsigned long long>(score.n));
        if (reference) std::printf("Mean KL divergence to '%s': %.5f\n", f.kl_file.c_str(), reference->mean());
    }
    return kExitOk;
}

}  // namespace
}  // namespace quern::tools

int main(int argc, char** argv) {
    using namespace quern::tools;
    Flags f;
    CLI::App app("How well a GGUF model predicts a text (perplexity), counted as llama-perplexity counts.", kProgram);
    describe(app);
    f.model.add_to(app);
    auto* input = app.add_option_group("input");
    input->add_option("-f,--file", f.text_file, "The text; - for standard input")->type_name("FILE");
    input->add_option("--tokens", f.tokens_file, "Token ids as a JSON array instead; no BOS is put into them")
        ->type_name("FILE");
    input->require_option(1);
    app.add_option("-c,--ctx-size", f.n_ctx, "Tokens in a chunk")->check(CLI::Range(4, 1 << 24))->type_name("INT")
        ->capture_default_str();
    app.add_option("--chunks", f.chunks, "Most chunks to evaluate; 0: all")->capture_default_str();
    auto* dump = app.add_option("--dump-logits", f.dump_file,
                   "Write the logits after every token of the chunks (raw little-endian\n"
                   "float32, [tokens, n_vocab]) to FILE, and ids and shape to FILE.json")->type_name("FILE");
    app.add_option("--kl-base", f.kl_file, "Compare with the logits of the same text that --dump-logits wrote:\n"
                   "mean KL divergence over all tokens")
        ->type_name("FILE")->excludes(dump);
    app.add_flag("--json", f.json, "The result as one JSON object");
    if (const auto code = parse(app, argc, argv)) return *code;
    return run(f);
}
