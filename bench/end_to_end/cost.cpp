// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/cost.h"

#include <algorithm>

#include "engine/api/model_impl.h"

namespace quern::bench {

std::string Threads::text() const {
    return std::to_string(decode) + (prefill == decode ? "" : "/" + std::to_string(prefill));
}

int Test::n_threads_timed() const {
    return n_prompt == 0 ? threads.decode : n_gen == 0 ? threads.prefill : std::max(threads.decode, threads.prefill);
}

std::string Test::name() const {
    std::string out;
    if (n_streams > 0) out += std::to_string(n_streams) + " x ";
    if (n_prompt > 0) out += "pp" + std::to_string(n_prompt);
    if (n_gen > 0) out += (n_prompt > 0 ? "+tg" : "tg") + std::to_string(n_gen);
    if (n_depth > 0) out += " @ d" + std::to_string(n_depth);
    return out;
}

ModelCost::ModelCost(const Model& model) {
    const Model::Impl& impl = Internals::of(model);
    executor_ = impl.executor.get();
    for (const gguf::Tensor& t : impl.file->tensors()) tensor_bytes_ += t.data.size();
}

void ModelCost::add_step(Cost& to, const Roofline& roofline, double tokens, double outputs, double kv_bytes) const {
    const engine::StepWork work = executor_->cost().of(tokens, outputs, kv_bytes);
    const double bytes = work.bytes, int8 = work.int8_ops, f32 = work.f32_ops;
    to.bytes += bytes;
    to.int8_ops += int8;
    to.f32_ops += f32;
    if (roofline.threads > 0) {
        to.least_seconds += std::max(
            roofline.least_seconds(bytes, 0, Arithmetic::int8),
            roofline.least_seconds(0, int8, Arithmetic::int8) + roofline.least_seconds(0, f32, Arithmetic::f32));
    }
}

Cost ModelCost::of_test(const Test& test, std::uint32_t n_batch, const Roofline& roofline) const {
    Cost out;
    for (std::uint32_t done = 0; done < test.n_prompt;) {
        const std::uint32_t n = std::min(n_batch, test.n_prompt - done);
        done += n;
        add_step(out, roofline, n, done == test.n_prompt, executor_->kv_bytes(test.n_depth + done));
    }
    const double n = std::max(1u, test.n_streams);
    for (std::uint32_t i = 1; i <= test.n_gen; ++i)
        add_step(out, roofline, n, n, n * executor_->kv_bytes(test.n_depth + test.n_prompt + i));
    return out;
}

}  // namespace quern::bench
