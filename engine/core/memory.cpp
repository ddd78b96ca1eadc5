// SPDX-License-Identifier: Apache-2.0
#include "engine/core/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <system_error>
#include <utility>

#include "formats/text.h"

namespace quern::engine {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

Result<Mapping> Mapping::create(std::size_t size, std::string_view purpose, const MappingOptions& options) {
    std::size_t alignment = options.alignment;
    if (!std::has_single_bit(alignment) || alignment > (std::size_t{1} << 30)) {
        return Error{Errc::invalid_argument,
                     cat(purpose, ": alignment ", alignment, " is not a power of two up to 1 GiB")};
    }
    Mapping m;
    if (size == 0) return m;
    if (options.huge_pages && size >= kHugePage) alignment = std::max(alignment, kHugePage);
    const std::size_t page = page_size();
    // mmap aligns to pages; for more, map more and start inside.
    const std::size_t slack = alignment > page ? alignment - page : 0;
    std::size_t total = 0;
    if (__builtin_add_overflow(size, slack, &total)) {
        return Error{Errc::out_of_memory, cat(purpose, ": ", size, " bytes are more than there are addresses")};
    }
    void* base = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        const int code = errno;
        return Error{Errc::out_of_memory,
                     cat(purpose, ": cannot map ", format_bytes(size), ": ", std::generic_category().message(code))};
    }
    m.base_ = base;
    m.base_size_ = total;
    m.size_ = size;
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    m.data_ = static_cast<std::byte*>(base) + ((address + alignment - 1) / alignment * alignment - address);
#ifdef MADV_HUGEPAGE
    if (options.huge_pages) ::madvise(base, total, MADV_HUGEPAGE);
#endif
    return m;
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      base_(std::exchange(other.base_, nullptr)),
      base_size_(std::exchange(other.base_size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(base_, other.base_);
    std::swap(base_size_, other.base_size_);
    return *this;
}

Mapping::~Mapping() {
    if (base_ != nullptr) ::munmap(base_, base_size_);
}

void Mapping::release(std::size_t offset, std::size_t size) const {
    assert(offset <= size_ && size <= size_ - offset);
    const std::size_t page = page_size();
    const auto start = reinterpret_cast<std::uintptr_t>(data_) + offset;
    const std::uintptr_t first = (start + page - 1) / page * page, last = (start + size) / page * page;
    if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

ProcessMemory process_memory() {
    ProcessMemory m;
    // Not getrusage for the peak: Linux hands the figure of a parent on through exec.
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        const bool now = line.starts_with("VmRSS:"), peak = line.starts_with("VmHWM:");
        if (!now && !peak) continue;
        const std::size_t digit = line.find_first_of("0123456789");
        if (digit == std::string::npos) continue;
        std::uint64_t kib = 0;
        std::from_chars(line.data() + digit, line.data() + line.size(), kib);
        (now ? m.resident : m.peak_resident) = kib * 1024;
    }
    m.peak_resident = std::max(m.peak_resident, m.resident);
    return m;
}

std::string format_bytes(std::uint64_t bytes) {
    if (bytes < 1024) return cat(bytes, bytes == 1 ? " byte" : " bytes");
    constexpr const char* units[] = {" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    int unit = 0;
    // Integers only: printf follows the locale. 1023.96 KiB rounds to 1.0 MiB, hence the comparison with tenths.
    const auto tenths = [&] {
        const int shift = 10 * (unit + 1);
        const std::uint64_t whole = bytes >> shift, rest = bytes & ((std::uint64_t{1} << shift) - 1);
        const std::uint64_t scaled = shift > 50 ? (rest >> 10) * 10 : rest * 10;  // 10 * rest must fit
        const int down = shift > 50 ? shift - 10 : shift;
        return whole * 10 + ((scaled + (std::uint64_t{1} << (down - 1))) >> down);
    };
    while (unit < 5 && tenths() >= 10240) ++unit;
    const std::uint64_t t = tenths();
    return t % 10 == 0 ? cat(t / 10, units[unit]) : cat(t / 10, ".", t % 10, units[unit]);
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
    const auto bad = [&](std::string_view why) {
        return Error{Errc::invalid_argument,
                     cat("size ", quoted(text), " ", why, "; write it like 512M, 1.5GiB or 4000000000")};
    };
    const char* const end = text.data() + text.size();
    std::uint64_t whole = 0;
    auto [at, error] = std::from_chars(text.data(), end, whole);
    if (error == std::errc::result_out_of_range) return bad("is too large");
    if (error != std::errc()) return bad("does not begin with a number");
    // The fraction in millionths; further digits cannot matter to a person.
    std::uint64_t millionths = 0;
    if (at != end && *at == '.') {
        std::uint64_t place = 100000;
        const char* const first = ++at;
        for (; at != end && *at >= '0' && *at <= '9'; ++at, place /= 10) {
            millionths += static_cast<std::uint64_t>(*at - '0') * place;
        }
        if (at == first) return bad("has no digit after the point");
    }
    while (at != end && *at == ' ') ++at;
    std::string unit;
    for (; at != end; ++at) unit += lower(*at);
    std::uint64_t factor = 1;
    if (unit != "" && unit != "b") {
        const std::size_t power = std::string_view("kmgt").find(unit[0]);
        const std::string_view rest = std::string_view(unit).substr(1);
        if (power == std::string_view::npos || (rest != "" && rest != "b" && rest != "ib"))
            return bad("has an unknown unit");
        for (std::size_t i = 0; i <= power; ++i) factor *= rest == "b" ? 1000 : 1024;
    }
    std::uint64_t bytes = 0;
    const std::uint64_t part = factor / 1000000 * millionths + factor % 1000000 * millionths / 1000000;
    if (__builtin_mul_overflow(whole, factor, &bytes) || __builtin_add_overflow(bytes, part, &bytes)) {
        return bad("is too large");
    }
    return bytes;
}

}  // namespace quern::engine
