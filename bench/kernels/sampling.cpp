// SPDX-License-Identifier: Apache-2.0
// From logits to a token, through the public interface.
#include "bench/kernels/context.h"
#include "quern/quern.hpp"

namespace quern::bench {
namespace {

struct Setting {
    const char* name;
    SamplerOptions options;
};

std::vector<Setting> settings() {
    SamplerOptions greedy, plain, penalties;
    greedy.temperature = 0;
    plain.top_k = 0;
    plain.top_p = 1;
    plain.min_p = 0;
    penalties.repeat_penalty = 1.1f;
    return {{"greedy", greedy}, {"default", {}}, {"temperature_only", plain}, {"penalties", penalties}};
}

void run(benchmark::State& state, Context& context, const SamplerOptions& options, std::uint32_t n_vocab) {
    Result<Sampler> sampler = Sampler::create(options, n_vocab);
    if (!sampler) return state.SkipWithError(sampler.error().message.c_str());
    std::vector<float> logits = random_floats(n_vocab);
    for (float& x : logits) x *= 12;  // so that a few hundred tokens share most of the probability
    const auto draw = [&] {
        const Result<Token> token = sampler->sample(logits);
        if (!token) return Token{-1};
        sampler->accept(*token);
        return *token;
    };
    context.run(state, 1, {static_cast<double>(sizeof(float)) * n_vocab}, [&] { benchmark::DoNotOptimize(draw()); },
                [&] {
                    sampler->reset();
                    std::uint32_t sum = 0;
                    for (int i = 0; i < 16; ++i) sum = sum * 31 + static_cast<std::uint32_t>(draw());
                    return static_cast<double>(sum);
                });
}

}  // namespace

void register_sampling(Context& context) {
    for (const Setting& s : settings())
        for (const std::uint32_t n_vocab : {49152u, 151936u})
            add(std::string("sample/") + s.name + '/' + std::to_string(n_vocab),
                [&context, s, n_vocab](benchmark::State& state) { run(state, context, s.options, n_vocab); });
}

}  // namespace quern::bench
