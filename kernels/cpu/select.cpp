// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "kernels/cpu/tables.h"
#include "kernels/table.h"

namespace quern::kernels {
namespace {

/// To add an instruction set: one line here, one in kernels/CMakeLists.txt.
constexpr const KernelTable* kTables[] = {
    &kTableScalar,
#if defined(__x86_64__)
    &kTableAvx2,
    &kTableAvxVnni,
    &kTableAvx512,
    &kTableAmx,
#elif defined(__aarch64__)
    &kTableNeon,
    &kTableNeonI8mm,
#endif
};

struct FeatureName {
    Feature bit;
    const char* name;
};
constexpr FeatureName kFeatureNames[] = {
    {kAvx2, "AVX2"},
    {kFma, "FMA"},
    {kF16c, "F16C"},
    {kBmi2, "BMI2"},
    {kAvx512, "AVX-512 F/BW/VL/DQ"},
    {kAvx512Vnni, "AVX-512 VNNI"},
    {kAvx512Bf16, "AVX-512 BF16"},
    {kAvx512Fp16, "AVX-512 FP16"},
    {kAvxVnni, "AVX-VNNI"},
    {kAmxInt8, "AMX-INT8"},
    {kAmxBf16, "AMX-BF16"},
    {kNeon, "NEON"},
    {kDotprod, "the dot-product extension"},
    {kI8mm, "the int8 matrix extension"},
    {kFp16, "half-precision arithmetic"},
};

void append(std::string& list, std::string_view item) {
    if (!list.empty()) list += ", ";
    list += item;
}

bool can_run(const KernelTable& t, std::uint32_t features) { return (t.needs & ~features) == 0; }

}  // namespace

std::span<const KernelTable* const> compiled_tables() { return kTables; }

Result<const KernelTable*> select_table(std::string_view isa, std::uint32_t features) {
    const KernelTable* best = nullptr;
    const KernelTable* named = nullptr;
    std::string all, usable;
    for (const KernelTable* t : kTables) {
        append(all, t->name);
        if (isa == t->name) named = t;
        if (!can_run(*t, features)) continue;
        append(usable, t->name);
        if (!best || t->priority > best->priority) best = t;
    }
    if (isa.empty()) return best;  // never null: the scalar table needs nothing
    const std::string quoted = "ISA '" + std::string(isa) + "'";
    if (!named) return Error{Errc::invalid_argument, quoted + " is not known; this build has: " + all};
    if (can_run(*named, features)) return named;
    std::string missing;
    for (const FeatureName& f : kFeatureNames)
        if (named->needs & ~features & f.bit) append(missing, f.name);
    return Error{Errc::unsupported, quoted + " needs " + missing + ", which this CPU lacks; it can run: " + usable};
}

}  // namespace quern::kernels
