// SPDX-License-Identifier: Apache-2.0
// quern::Sampler of quern.hpp.
#include <utility>

#include "engine/sample/chain.h"
#include "quern/quern.hpp"

namespace quern {

struct Sampler::Impl {
    engine::Chain chain;
};

Sampler::Sampler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

Result<Sampler> Sampler::create(const SamplerOptions& options, std::uint32_t n_vocab) {
    auto chain = engine::Chain::create(options, n_vocab);
    if (!chain) return std::move(chain).error();
    return Sampler(std::make_unique<Impl>(Impl{*std::move(chain)}));
}

Result<Token> Sampler::sample(std::span<const float> logits) { return impl_->chain.sample(logits); }
void Sampler::accept(Token token) { impl_->chain.accept(token); }
void Sampler::reset() { impl_->chain.reset(); }

}  // namespace quern
