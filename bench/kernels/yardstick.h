// SPDX-License-Identifier: Apache-2.0
// Float products by others, on the same shapes with the same columns printed: a measure of what ours are worth.
#pragma once

#include <cstring>

#include "bench/kernels/context.h"

namespace quern::bench {

/// multiply(w, x, y): y[col][row] = sum over k of w[row][k] * x[col][k], all dense, on `threads` threads.
template <class Multiply>
void add_yardstick(Context& context, const std::string& name, Shape shape, std::uint32_t n_cols, unsigned threads,
                   const Multiply& multiply) {
    const std::string full = "sgemm/" + name + '/' + shape.name() + '/' + std::to_string(n_cols) +
                             "/threads:" + std::to_string(threads);
    add(full, [&context, shape, n_cols, threads, multiply](benchmark::State& state) {
        const std::size_t n = std::size_t{shape.rows} * shape.k;
        const auto fill = [&](std::byte* out) {
            const std::vector<float> w = random_floats(n);
            std::memcpy(out, w.data(), n * sizeof(float));
        };
        const Status filled =
            context.ring.prepare("dense" + shape.name(), n * sizeof(float), context.cold_bytes, fill);
        if (!filled) return state.SkipWithError(filled.error().message.c_str());
        const std::vector<float> x = random_floats(std::size_t{n_cols} * shape.k, 2);
        std::vector<float> y(std::size_t{n_cols} * shape.rows);
        const Work work{static_cast<double>(n * sizeof(float)), 2.0 * static_cast<double>(n) * n_cols, Arithmetic::f32};
        context.run(state, threads, work,
                    [&] {
                        const auto* w = reinterpret_cast<const float*>(context.ring.next());
                        multiply(w, x.data(), y.data(), shape, n_cols, threads);
                    },
                    [&] {
                        double sum = 0;  // others may add in another order on each machine
                        for (const float v : y) sum += v;
                        return sum;
                    });
    });
}

}  // namespace quern::bench
