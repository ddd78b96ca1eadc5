// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "quern/quern.hpp"

namespace quern {

std::vector<Result<GenerateResult>> generate_batch(const Model& model, std::span<const Request> requests,
                                                   const BatcherOptions& options, BatchMetrics* metrics) {
    constexpr std::size_t kAtATime = 4096;  // submitted, and so in memory
    std::vector<Result<GenerateResult>> out;
    out.reserve(requests.size());
    BatcherOptions o = options;
    o.max_waiting = kAtATime;
    auto batcher = Batcher::create(model, o);
    if (!batcher) {
        out.assign(requests.size(), batcher.error());
        return out;
    }
    for (std::size_t done = 0; done < requests.size(); done += kAtATime) {
        std::vector<Result<Ticket>> tickets;
        for (const Request& r : requests.subspan(done, std::min(kAtATime, requests.size() - done)))
            tickets.push_back(batcher->submit(r));
        batcher->run_until_idle();
        for (const auto& t : tickets) out.push_back(t ? t->result() : Result<GenerateResult>(t.error()));
    }
    if (metrics) *metrics = batcher->metrics();
    return out;
}

}  // namespace quern
