// SPDX-License-Identifier: Apache-2.0
// What the CPU can do AND the operating system saves on a context switch.
#include <cstring>

#include "kernels/table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace quern::kernels {

#if defined(__x86_64__)
namespace {

constexpr bool bit(std::uint32_t word, int i) { return (word >> i) & 1u; }

/// XCR0: the register states that the system saves. Needs OSXSAVE.
std::uint64_t saved_states() {
    std::uint32_t lo = 0, hi = 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return std::uint64_t{hi} << 32 | lo;
}

/// Linux gives the tiles' state to processes that ask for it (Documentation/arch/x86/xstate.rst).
bool ask_for_tiles() {
#ifdef __linux__
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

}  // namespace

std::uint32_t cpu_features() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const bool os_xsave = bit(c, 27), avx = bit(c, 28), fma = bit(c, 12), f16c = bit(c, 29);
    if (!os_xsave || !avx) return 0;
    const std::uint64_t states = saved_states();
    constexpr std::uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
    if ((states & kYmm) != kYmm) return 0;

    std::uint32_t f = 0;
    if (fma) f |= kFma;
    if (f16c) f |= kF16c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
    const unsigned sub_leaves = a;
    if (bit(b, 5)) f |= kAvx2;
    if (bit(b, 8)) f |= kBmi2;
    const bool zmm = (states & kZmm) == kZmm && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // F DQ BW VL
    if (zmm) f |= kAvx512;
    if (zmm && bit(c, 11)) f |= kAvx512Vnni;
    if (zmm && bit(d, 23)) f |= kAvx512Fp16;
    if ((states & kTiles) == kTiles && bit(d, 24) && ask_for_tiles()) {  // AMX-TILE
        if (bit(d, 25)) f |= kAmxInt8;
        if (bit(d, 22)) f |= kAmxBf16;
    }
    if (sub_leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        if (bit(a, 4)) f |= kAvxVnni;
        if (zmm && bit(a, 5)) f |= kAvx512Bf16;
    }
    return f;
}

std::string_view cpu_name(char* buffer, std::size_t size) {
    unsigned word[12] = {};
    for (unsigned i = 0; i < 3; ++i)
        if (!__get_cpuid(0x80000002u + i, &word[4 * i], &word[4 * i + 1], &word[4 * i + 2], &word[4 * i + 3]))
            return "unknown";
    char text[sizeof word + 1] = {};
    std::memcpy(text, word, sizeof word);
    std::string_view name(text);
    while (!name.empty() && name.front() == ' ') name.remove_prefix(1);
    while (!name.empty() && name.back() == ' ') name.remove_suffix(1);
    if (name.empty()) return "unknown";
    name = name.substr(0, size);
    std::memcpy(buffer, name.data(), name.size());
    return {buffer, name.size()};
}

#else

std::uint32_t cpu_features() {
    std::uint32_t f = 0;
#if defined(__aarch64__) && defined(__linux__)
    const unsigned long hw = getauxval(AT_HWCAP), hw2 = getauxval(AT_HWCAP2);  // bits: Linux, asm/hwcap.h
    if (hw & 1ul << 1) f |= kNeon;
    if (hw & 1ul << 20) f |= kDotprod;
    if ((hw & 1ul << 9) && (hw & 1ul << 10)) f |= kFp16;
    if (hw2 & 1ul << 13) f |= kI8mm;
#endif
    return f;
}

std::string_view cpu_name(char*, std::size_t) { return "unknown"; }

#endif

}  // namespace quern::kernels
