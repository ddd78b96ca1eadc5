// SPDX-License-Identifier: Apache-2.0
#include "formats/pack_file.h"

#include <algorithm>
#include <cstring>

#include "formats/atomic_file.h"
#include "formats/bytes.h"
#include "formats/hash.h"
#include "formats/text.h"

namespace quern {
namespace {

constexpr std::string_view kMagic("quern\0pk", 8);
constexpr std::uint32_t kFormat = 1, kByteOrder = 0x01020304;
constexpr std::size_t kFixed = 48, kEntry = 48;    // bytes of the head, and of an entry, before the names
constexpr std::size_t kChecksumAt = 40;             // in an entry

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

std::uint64_t entry_bytes(const PackFile::Matrix& m) { return kEntry + round_up(m.name.size(), 8); }

std::uint64_t table_end(const PackFile& f) {
    std::uint64_t n = kFixed;
    for (const PackFile::Matrix& m : f.matrices) n += entry_bytes(m);
    return n;
}

class Bytes {
public:
    void put(std::uint64_t v, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<std::byte>(v >> (8 * i)));
    }
    void put(std::string_view text) {
        const auto* p = reinterpret_cast<const std::byte*>(text.data());
        out.insert(out.end(), p, p + text.size());
    }
    void pad(std::size_t to) { out.resize(round_up(out.size(), to)); }
    std::vector<std::byte> out;
};

Error differs(std::string_view what) { return {Errc::bad_file, std::string(what)}; }

/// What the bytes at `at` are, for the message: `a` and `b` differ there.
Error first_difference(const PackFile& f, std::size_t at) {
    if (at < 8) return differs("it is no packed cache of Quern");
    if (at < 20) return differs("it was written by another version of Quern");
    if (at < 24) return differs("it holds another number of tensors");
    if (at < kFixed) return differs("the model file has changed since");
    std::uint64_t end = kFixed;
    for (const PackFile::Matrix& m : f.matrices) {
        end += entry_bytes(m);
        if (at < end) return differs(cat("its entry of tensor ", quoted(m.name), " does not fit the model"));
    }
    return differs("its head is damaged");
}

}  // namespace

std::uint64_t PackFile::place() {
    std::uint64_t at = round_up(table_end(*this) + 8, 64);
    for (Matrix& m : matrices) {
        m.offset = at;
        at += m.bytes;
    }
    return at;
}

std::vector<std::byte> PackFile::head() const {
    Bytes b;
    b.put(kMagic);
    b.put(kFormat, 4);
    b.put(kByteOrder, 4);
    b.put(layout, 4);
    b.put(matrices.size(), 4);
    b.put(source_size, 8);
    b.put(static_cast<std::uint64_t>(source_time), 8);
    b.put(source_hash, 8);
    for (const Matrix& m : matrices) {
        b.put(static_cast<std::uint32_t>(m.type), 4);
        b.put(m.name.size(), 4);
        for (const std::uint64_t v : {m.rows, m.cols, m.offset, m.bytes, m.checksum}) b.put(v, 8);
        b.put(m.name);
        b.pad(8);
    }
    b.put(hash_bytes(b.out), 8);
    b.pad(64);
    return std::move(b.out);
}

Status PackFile::read(std::span<const std::byte> file) {
    // With the file's own checksums taken over, the head must be what would be written, hash and padding included.
    PackFile found = *this;
    const std::uint64_t size = found.place();
    std::uint64_t at = kFixed;
    for (Matrix& m : found.matrices) {
        if (at + entry_bytes(m) > file.size()) break;
        m.checksum = load_le(file.data() + at + kChecksumAt, 8);
        at += entry_bytes(m);
    }
    const std::vector<std::byte> want = found.head();
    const std::size_t n = std::min(want.size(), file.size());
    const auto a = std::mismatch(want.begin(), want.begin() + static_cast<std::ptrdiff_t>(n), file.begin()).first;
    if (a != want.begin() + static_cast<std::ptrdiff_t>(n)) return first_difference(*this, static_cast<std::size_t>(a - want.begin()));
    if (file.size() != size) return differs(cat("it has ", file.size(), " bytes, not ", size));
    for (std::size_t i = 0; i < matrices.size(); ++i) matrices[i].checksum = found.matrices[i].checksum;
    return {};
}

Status PackFile::write(const std::string& path, std::span<const std::span<const std::byte>> data) const {
    AtomicFile file;
    if (Status s = file.create(path); !s) return s;
    if (Status s = file.write(head()); !s) return s;
    for (const std::span<const std::byte> d : data)
        if (Status s = file.write(d); !s) return s;
    return file.finish();
}

}  // namespace quern
