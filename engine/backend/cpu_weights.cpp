// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/cpu_weights.h"

#include <algorithm>
#include <filesystem>

#include "engine/backend/pack_panels.h"
#include "formats/text.h"

namespace quern::engine {
namespace {

// Source bytes packed before their pages go back to the system: bounds what load holds beyond the model itself.
constexpr std::uint64_t kReleaseBytes = 32u << 20;

}  // namespace

template <class Fn>
void CpuWeights::each_tensor(Fn&& fn) const {
    const auto visit = [&](const gguf::Tensor* t, Slot s, std::uint32_t layer) {
        if (t && !(s == Slot::token_embd && mapped_embedding())) fn(*t, s, layer);
    };
    for (std::size_t s = 0; s < static_cast<std::size_t>(kFirstLayerSlot); ++s)
        if (whole() || static_cast<Slot>(s) == Slot::rope_freqs) visit(weights_.global[s], static_cast<Slot>(s), 0);
    for (std::uint32_t l = 0; l < n_layers_; ++l)
        for (std::size_t s = static_cast<std::size_t>(kFirstLayerSlot); s < kSlots; ++s)
            visit(weights_.layers[l][s], static_cast<Slot>(s), l);
}

const gguf::Tensor* CpuWeights::mapped_embedding() const {
    return weights_.get(Slot::output, 0) || !packed_ || !whole() ? weights_.get(Slot::token_embd, 0) : nullptr;
}

std::uint64_t CpuWeights::packed_bytes() const {
    std::uint64_t n = 0;
    each_tensor([&](const gguf::Tensor& t, Slot s, std::uint32_t) {
        if (is_vector(s)) n += t.n_elements() * sizeof(float);
        else if (packed_) n += packed_size(t);
    });
    return n;
}

std::uint64_t CpuWeights::mapped_bytes() const {
    const gguf::Tensor* t = mapped_embedding();
    std::uint64_t n = t ? t->data.size() : 0;
    if (!packed_) each_tensor([&](const gguf::Tensor& m, Slot s, std::uint32_t) { n += is_vector(s) ? 0 : m.data.size(); });
    return n;
}

const float* CpuWeights::vector(Slot s, std::uint32_t layer) const {
    if (s == Slot::count) return nullptr;
    const auto& v = vectors_[index(s, layer)];
    return v.empty() ? nullptr : v.data();
}

template <class Fn>
void CpuWeights::each_matrix(Fn&& fn) {
    each_tensor([&](const gguf::Tensor& t, Slot s, std::uint32_t l) {
        if (!is_vector(s)) fn(t, matrices_[index(s, l)]);
    });
}

Status CpuWeights::read_cache(ThreadPool& pool, const std::string& path, PackFile& head) {
    const auto refuse = [&](const std::string& why) { return Error{Errc::bad_file, path + ": " + why}; };
    if (std::error_code unknown; !std::filesystem::exists(path, unknown)) return refuse("not there yet");
    auto file = MappedFile::open(path);
    if (!file) return std::move(file).error();
    if (auto s = head.read((*file)->bytes()); !s) return refuse(s.error().message);
    if (!(*file)->is_mapped()) return refuse("it cannot be mapped");   // panels must be aligned
    (*file)->will_need(0, (*file)->bytes().size());
    std::vector<std::span<const std::byte>> data;
    for (const PackFile::Matrix& m : head.matrices) data.push_back((*file)->bytes().subspan(m.offset, m.bytes));
    const std::vector<std::uint64_t> sums = pack_checksums(pool, data);
    for (std::size_t i = 0; i < sums.size(); ++i)
        if (sums[i] != head.matrices[i].checksum) return refuse(cat("tensor ", quoted(head.matrices[i].name), " is damaged in it"));
    cache_ = std::move(*file);
    std::size_t i = 0;
    each_matrix([&](const gguf::Tensor&, PackedMatrix& m) { m.panels = data[i++].data(); });
    return {};
}

Status CpuWeights::write_cache(ThreadPool& pool, const std::string& path, PackFile& head) {
    std::vector<std::span<const std::byte>> data;
    each_matrix([&](const gguf::Tensor&, PackedMatrix& m) { data.emplace_back(m.panels, m.n_panels() * m.panel_stride); });
    const std::vector<std::uint64_t> sums = pack_checksums(pool, data);
    for (std::size_t i = 0; i < sums.size(); ++i) head.matrices[i].checksum = sums[i];
    std::error_code failed;   // a folder that cannot be made shows when the file is created
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
    return head.write(path, data);
}

Status CpuWeights::load(ThreadPool& pool, const PrepareProgress& progress, const PackCacheOptions& cache) {
    const std::size_t slots = std::max<std::size_t>(1, weights_.layers.size()) * kSlots;
    matrices_.assign(slots, {});
    vectors_.assign(slots, {});
    const auto place = [&](const gguf::Tensor& t, Slot s, std::uint32_t l) {
        PackedMatrix& m = matrices_[index(s, l)];
        m.type = t.type;
        m.n_rows = static_cast<std::uint32_t>(t.ne[1]);
        m.n_k = static_cast<std::uint32_t>(t.ne[0]);
        m.panel_stride = kernels::panel_bytes(t.type, m.n_k);
        m.row_bytes = t.data.size() / t.ne[1];
        if (!packed_) m.rows = t.data.data();
    };
    each_tensor([&](const gguf::Tensor& t, Slot s, std::uint32_t l) {
        if (is_vector(s)) vectors_[index(s, l)] = read_vector(t);
        else place(t, s, l);
    });
    if (!packed_) {
        if (!whole()) return {};
        place(weights_.matrix(Slot::output, 0), Slot::output, 0);   // may be the embedding, which is left out above
        return {};
    }
    // A part of the model would replace the whole in its file.
    const std::string path = cache.folder.empty() || !whole() ? "" : pack_cache_path(cache.folder, file_);
    Status cached = Error{Errc::io, ""};
    PackFile head;
    if (!path.empty()) {
        head = describe_source(file_);
        each_matrix([&](const gguf::Tensor& t, PackedMatrix&) { head.matrices.push_back({t.name, t.type, t.ne[1], t.ne[0], packed_size(t)}); });
        head.place();
        cached = read_cache(pool, path, head);
        if (!cached)   // not asked for before: with a cache most of the model is not read
            for (const auto& m : file_.mappings()) m->will_need(0, m->bytes().size());
        cache.say(cached ? "packed weights come from " + path : "packed weights are made anew: " + cached.error().message);
    }
    if (!cached) {
        if (auto s = pack(pool, progress); !s) return s;
        if (!path.empty())
            if (auto s = write_cache(pool, path, head); !s) cache.say("packed weights are not kept: " + s.error().message);
    }
    if (whole() && !weights_.get(Slot::output, 0)) matrices_[index(Slot::output, 0)] = matrices_[index(Slot::token_embd, 0)];
    return {};
}

Status CpuWeights::pack(ThreadPool& pool, const PrepareProgress& progress) {
    std::uint64_t matrix_bytes = 0, total = 0, done = 0;
    each_tensor([&](const gguf::Tensor& t, Slot s, std::uint32_t) {
        if (is_vector(s)) return;
        total += t.data.size();
        matrix_bytes += packed_size(t);
    });
    auto memory = Mapping::create(matrix_bytes, "packed weights", {.huge_pages = true});
    if (!memory) return std::move(memory).error();
    memory_ = std::move(*memory);
    if (numa_.mode() == NumaMode::interleave) numa_.interleave(memory_.bytes());
    std::byte* at = memory_.data();
    bool cancelled = false;
    each_tensor([&](const gguf::Tensor& t, Slot s, std::uint32_t l) {
        if (cancelled || is_vector(s)) return;
        PackedMatrix& m = matrices_[index(s, l)];
        m.panels = at;
        numa_.local(at, m.n_panels(), m.panel_stride);
        const std::uint64_t batch = std::max<std::uint64_t>(1, kReleaseBytes / (m.row_bytes * kernels::kLanes));
        for (std::uint64_t p = 0; p < m.n_panels() && !cancelled; p += batch) {
            const std::uint64_t n = std::min<std::uint64_t>(batch, m.n_panels() - p);
            pack_panels(pool, t, p, n, at + p * m.panel_stride);
            release_panels(file_, t, p, n);
            const std::uint64_t to = std::min<std::uint64_t>(t.data.size(), (p + n) * kernels::kLanes * m.row_bytes);
            if (progress && !progress(done + to, total)) cancelled = true;
        }
        at += m.n_panels() * m.panel_stride;
        done += t.data.size();
    });
    if (cancelled) return Error{Errc::cancelled, "loading was cancelled"};
    return {};
}

}  // namespace quern::engine
