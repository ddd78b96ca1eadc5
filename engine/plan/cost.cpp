// SPDX-License-Identifier: Apache-2.0
#include "engine/plan/cost.h"

namespace quern::engine {

PlanCost::PlanCost(const Plan& plan, const Weights& weights) {
    for (const Op& op : plan.ops) {
        for (std::uint32_t i = 0; i < op.n_parts; ++i) {   // only multiplications have parts
            const MatmulPart& part = op.parts[i];
            const gguf::Tensor& t = weights.matrix(part.weight, op.layer);
            Matrices& m = plan.values[op.in].rows == Rows::outputs ? per_output_ : per_token_;
            m.bytes += static_cast<double>(t.data.size());
            (is_float(t.type) ? m.f32_elements : m.int8_elements) += static_cast<double>(t.n_elements());
        }
    }
}

StepWork PlanCost::of(double tokens, double outputs, double kv_bytes) const {
    return {per_token_.bytes + (outputs > 0 ? per_output_.bytes : 0) + kv_bytes,
            2 * (tokens * per_token_.int8_elements + outputs * per_output_.int8_elements),
            2 * (tokens * per_token_.f32_elements + outputs * per_output_.f32_elements)};
}

}  // namespace quern::engine
