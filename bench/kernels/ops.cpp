// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels on one row of a real size, which lies in cache as it does when a model runs.
#include <cmath>

#include "bench/kernels/context.h"

namespace quern::bench {
namespace {

using kernels::KernelTable;
constexpr double kFloat = sizeof(float);

void add_norm(Context& context, const KernelTable& t, std::uint32_t n) {
    add(std::string("rms_norm/") + t.name + '/' + std::to_string(n), [&context, &t, n](benchmark::State& state) {
        const std::vector<float> x = random_floats(n), w = random_floats(n, 2);
        std::vector<float> out(n);
        context.run(state, 1, {3 * kFloat * n}, [&] { t.rms_norm(x.data(), w.data(), 1e-5f, n, out.data()); },
                    [&] { return checksum(out); });
    });
}

void add_rope(Context& context, const KernelTable& t, bool neox, std::uint32_t heads, std::uint32_t head_dim) {
    const std::string shape = std::to_string(heads) + 'x' + std::to_string(head_dim);
    const std::string name = std::string(neox ? "rope_neox/" : "rope_norm/") + t.name + '/' + shape;
    add(name, [&context, &t, neox, heads, head_dim](benchmark::State& state) {
        const std::size_t n = std::size_t{heads} * head_dim;
        const std::vector<float> start = random_floats(n);
        std::vector<float> x = start, cs(head_dim);
        for (std::uint32_t i = 0; i < head_dim / 2; ++i) {
            cs[2 * i] = static_cast<float>(std::cos(0.1 * i));
            cs[2 * i + 1] = static_cast<float>(std::sin(0.1 * i));
        }
        const auto rotate = neox ? t.rope_neox : t.rope_norm;
        context.run(state, 1, {kFloat * static_cast<double>(2 * n + head_dim)},
                    [&] { rotate(x.data(), heads, head_dim, head_dim, cs.data()); },
                    [&] {
                        x = start;  // it works in place: one rotation does not depend on the number of iterations
                        rotate(x.data(), heads, head_dim, head_dim, cs.data());
                        return checksum(x);
                    });
    });
}

void add_glu(Context& context, const KernelTable& t, bool gelu, std::uint32_t n) {
    const std::string name = std::string(gelu ? "geglu/" : "swiglu/") + t.name + '/' + std::to_string(n);
    add(name, [&context, &t, gelu, n](benchmark::State& state) {
        const std::vector<float> gate = random_floats(n), up = random_floats(n, 2);
        std::vector<float> out(n);
        const auto kernel = gelu ? t.geglu : t.swiglu;
        context.run(state, 1, {3 * kFloat * n}, [&] { kernel(gate.data(), up.data(), n, out.data()); },
                    [&] { return checksum(out); });
    });
}

void add_quantize(Context& context, const KernelTable& t, bool fine, std::uint32_t n) {
    const std::string kernel_name = fine ? "quantize_act_fine/" : "quantize_act/";
    const std::string name = kernel_name + t.name + '/' + std::to_string(n);
    add(name, [&context, &t, fine, n](benchmark::State& state) {
        const std::vector<float> x = random_floats(n);
        const std::size_t bytes = kernels::ActLayout(n).bytes * (fine ? 2 : 1);
        auto out = engine::Mapping::create(bytes, "kernels_bench's column");
        if (!out) return state.SkipWithError(out.error().message.c_str());
        const auto kernel = fine ? t.quantize_act_fine : t.quantize_act;
        context.run(state, 1, {kFloat * n + static_cast<double>(bytes)}, [&] { kernel(x.data(), 0, n, n, out->data()); },
                    [&] { return checksum_bytes(out->bytes()); });
    });
}

void add_argmax(Context& context, const KernelTable& t, std::uint32_t n) {
    add(std::string("argmax/") + t.name + '/' + std::to_string(n), [&context, &t, n](benchmark::State& state) {
        const std::vector<float> x = random_floats(n);
        std::uint32_t found = 0;
        context.run(state, 1, {kFloat * n}, [&] { benchmark::DoNotOptimize(found = t.argmax(x.data(), n)); },
                    [&] { return static_cast<double>(found); });
    });
}

}  // namespace

void register_ops(Context& context) {
    for (const KernelTable* t : context.tables) {
        for (const std::uint32_t n : {2048u, 3584u}) add_norm(context, *t, n);
        for (const bool neox : {false, true}) {
            add_rope(context, *t, neox, 32, 64);
            add_rope(context, *t, neox, 28, 128);
        }
        for (const std::uint32_t n : {8192u, 18944u}) {
            add_glu(context, *t, false, n);
            add_glu(context, *t, true, n);
            add_quantize(context, *t, false, n);
            add_quantize(context, *t, true, n);
        }
        for (const std::uint32_t n : {49152u, 151936u}) add_argmax(context, *t, n);
    }
}

}  // namespace quern::bench
