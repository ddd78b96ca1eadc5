// SPDX-License-Identifier: Apache-2.0
// Choices kept from run to run: one small text file for each machine and model shape.
#pragma once

#include <optional>
#include <string>

#include "engine/tune/search.h"

namespace quern::engine {

/// A folder of choices. `key` says in full what a choice depends on (any text); a file that is damaged, has another key
/// or comes from another version counts as absent and is overwritten.
class TuneCache {
public:
    explicit TuneCache(std::string folder) : folder_(std::move(folder)) {}

    std::optional<TuneChoice> load(const std::string& key) const;
    /// Makes the folder where it is missing; readers see the old file or the new one, never a part. False where the
    /// system refuses.
    bool store(const std::string& key, const TuneChoice& choice) const;
    /// Whether store() is likely to work, found out by writing.
    bool writable() const;
    std::string path(const std::string& key) const;

private:
    bool write(const std::string& path, const std::string& text) const;
    std::string folder_;  // empty: nothing is kept
};

}  // namespace quern::engine
