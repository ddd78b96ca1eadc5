// SPDX-License-Identifier: Apache-2.0
// Packed weights kept in a file between runs (formats/pack_file.h): where it lies, which model it belongs to, and whether
// its bytes are whole.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/core/thread_pool.h"
#include "formats/gguf.h"
#include "formats/pack_file.h"

namespace quern::engine {

struct PackCacheOptions {
    std::string folder;                            // empty: no cache
    std::function<void(const std::string&)> log;   // for a person; may be empty
    void say(const std::string& text) const { if (log) log(text); }
};

/// The cache file of the model `file` in `folder`: named after the model and its path, so that a model that is replaced
/// replaces its cache.
std::string pack_cache_path(const std::string& folder, const gguf::File& file);

/// A hash of the model's heads (metadata and the tensors' names, types, shapes, places) and of up to 12 KiB of each tensor.
std::uint64_t hash_model(const gguf::File& file);

/// What tells this model from others, without its matrices: the size and the time of its files, and hash_model().
/// Reading every byte would cost what the cache is to save. An edit that keeps size, time, and all of those bytes goes unseen.
PackFile describe_source(const gguf::File& file);

/// A checksum of each, computed in pieces on all threads of the pool.
std::vector<std::uint64_t> pack_checksums(ThreadPool& pool, std::span<const std::span<const std::byte>> matrices);

}  // namespace quern::engine
