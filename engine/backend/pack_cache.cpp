// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/pack_cache.h"

#include <algorithm>
#include <filesystem>

#include "formats/hash.h"
#include "formats/text.h"
#include "kernels/table.h"

namespace quern::engine {
namespace {

constexpr std::size_t kPiece = 1 << 20;   // bytes that one thread hashes at a time; a part of the file's format
constexpr std::size_t kSample = 4096;     // bytes of a tensor's start, middle and end that tell it from another

std::string hex(std::uint64_t v) {
    std::string out(16, '0');
    for (std::size_t i = 16; i-- > 0; v >>= 4) out[i] = "0123456789abcdef"[v & 15];
    return out;
}

std::uint64_t hash_number(std::uint64_t v, std::uint64_t seed) { return hash_bytes(std::as_bytes(std::span(&v, 1)), seed); }

/// Start, middle and end; all of it where that is no more.
std::uint64_t hash_sample(std::span<const std::byte> data, std::uint64_t seed) {
    if (data.size() <= 3 * kSample) return hash_bytes(data, seed);
    for (const std::size_t at : {std::size_t{0}, data.size() / 2, data.size() - kSample}) seed = hash_bytes(data.subspan(at, kSample), seed);
    return seed;
}

struct Pieces {
    std::vector<std::span<const std::byte>> data;
    std::vector<std::uint64_t> hash;
};

std::uint32_t piece_count(void* context, std::uint32_t step) {
    return step ? Job::kEnd : static_cast<std::uint32_t>(static_cast<const Pieces*>(context)->data.size());
}
void hash_piece(void* context, std::uint32_t, std::uint32_t unit, std::uint32_t) {
    auto& p = *static_cast<Pieces*>(context);
    p.hash[unit] = hash_bytes(p.data[unit]);
}

}  // namespace

std::string pack_cache_path(const std::string& folder, const gguf::File& file) {
    namespace fs = std::filesystem;
    std::error_code none;
    const std::string absolute = fs::absolute(file.path(), none).lexically_normal().string();
    const std::string name = fs::path(file.path()).stem().string().substr(0, 128);
    const auto key = hash_bytes(std::as_bytes(std::span(absolute.data(), absolute.size())));
    return (fs::path(folder) / cat(name, "-", hex(key), ".qpack")).string();
}

std::uint64_t hash_model(const gguf::File& file) {
    std::uint64_t h = 0;
    for (std::uint32_t i = 0; i < file.mappings().size(); ++i) {
        const MappedFile& m = *file.mappings()[i];
        std::size_t head = m.bytes().size();
        for (const gguf::Tensor& t : file.tensors())
            if (t.split == i) head = std::min(head, static_cast<std::size_t>(t.data.data() - m.bytes().data()));
        h = hash_bytes(m.bytes().first(head), h);
    }
    for (const gguf::Tensor& t : file.tensors()) h = hash_sample(t.data, h);
    return h;
}

PackFile describe_source(const gguf::File& file) {
    PackFile out;
    out.layout = kernels::kPackLayout;
    out.source_size = file.file_size();
    out.source_hash = hash_model(file);
    for (const auto& m : file.mappings()) {
        out.source_time = std::max(out.source_time, m->modified_ns());
        out.source_hash = hash_number(static_cast<std::uint64_t>(m->modified_ns()), out.source_hash);
    }
    return out;
}

std::vector<std::uint64_t> pack_checksums(ThreadPool& pool, std::span<const std::span<const std::byte>> matrices) {
    Pieces p;
    for (const std::span<const std::byte> m : matrices)
        for (std::size_t at = 0; at < m.size(); at += kPiece) p.data.push_back(m.subspan(at, std::min(kPiece, m.size() - at)));
    p.hash.resize(p.data.size());
    pool.run({piece_count, hash_piece, &p}, pool.size());
    std::vector<std::uint64_t> out;
    std::size_t first = 0;
    for (const std::span<const std::byte> m : matrices) {
        const std::size_t n = (m.size() + kPiece - 1) / kPiece;
        out.push_back(hash_bytes(std::as_bytes(std::span(p.hash).subspan(first, n))));
        first += n;
    }
    return out;
}

}  // namespace quern::engine
