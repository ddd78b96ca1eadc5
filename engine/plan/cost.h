// SPDX-License-Identifier: Apache-2.0
// What a step asks of the machine, counted from the plan; docs/benchmarks.md defines bytes and operations.
#pragma once

#include "engine/plan/plan.h"

namespace quern::engine {

/// Bytes read and operations done, by arithmetic (a multiply-add is two).
struct StepWork {
    double bytes = 0, int8_ops = 0, f32_ops = 0;
    double ops() const { return int8_ops + f32_ops; }
};

/// A model's matrices, split by what needs them: every token, or only a token whose logits are wanted.
class PlanCost {
public:
    PlanCost() = default;
    PlanCost(const Plan& plan, const Weights& weights);
    /// Of a step with so many tokens and logits, and so many bytes of keys and values that attention sees.
    StepWork of(double tokens, double outputs, double kv_bytes) const;

private:
    struct Matrices { double bytes = 0, int8_elements = 0, f32_elements = 0; };
    Matrices per_token_, per_output_;
};

}  // namespace quern::engine
