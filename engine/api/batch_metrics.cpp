// SPDX-License-Identifier: Apache-2.0
// Metrics of the batcher as JSON.
#include <nlohmann/json.hpp>

#include "quern/quern.hpp"

namespace quern {

using Json = nlohmann::ordered_json;

std::string RequestMetrics::to_json() const {
    return Json{{"queue_seconds", queue_seconds},
                {"prefill_seconds", prefill_seconds},
                {"first_token_seconds", first_token_seconds},
                {"decode_seconds", decode_seconds},
                {"total_seconds", total_seconds},
                {"n_prompt", n_prompt},
                {"n_generated", n_generated},
                {"n_reused", n_reused},
                {"n_preemptions", n_preemptions},
                {"n_recomputed", n_recomputed}}
        .dump();
}

std::string BatchMetrics::to_json() const {
    Json out{{"n_submitted", n_submitted},
             {"n_refused", n_refused},
             {"n_finished", n_finished},
             {"n_cancelled", n_cancelled},
             {"n_expired", n_expired},
             {"n_failed", n_failed},
             {"n_running", n_running},
             {"n_waiting", n_waiting},
             {"max_running", max_running},
             {"n_prefill", n_prefill},
             {"n_steps", n_steps},
             {"n_preemptions", n_preemptions},
             {"n_recomputed", n_recomputed},
             {"busy_seconds", busy_seconds},
             {"mean_sequences", mean_sequences},
             {"mean_tokens", mean_tokens},
             {"occupancy", occupancy},
             {"pages_total", pages_total},
             {"pages_used", pages_used},
             {"pages_peak", pages_peak}};
    out.update(Json::parse(Metrics::to_json()));
    return out.dump();
}

}  // namespace quern
