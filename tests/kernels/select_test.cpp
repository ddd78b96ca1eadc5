// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "tests/kernels/ops_support.h"

namespace quern::kernels::test {
namespace {

TEST(Select, NamesAndPrioritiesAreDistinct) {
    std::set<std::string> names;
    std::set<std::uint32_t> priorities;
    for (const KernelTable* t : compiled_tables()) {
        EXPECT_TRUE(names.insert(t->name).second) << t->name;
        EXPECT_TRUE(priorities.insert(t->priority).second) << t->name;
    }
    EXPECT_TRUE(names.count("scalar"));
}

TEST(Select, TablesAreComplete) {
    for (const KernelTable* t : compiled_tables()) {
        SCOPED_TRACE(t->name);
        for (std::uint32_t i = 0; i < kTypes; ++i) EXPECT_TRUE(t->matmul[i] && t->unpack_row[i]) << "type " << i;
        EXPECT_TRUE(t->quantize_act && t->quantize_act_fine && t->rms_norm && t->rope_norm && t->rope_neox &&
                    t->swiglu && t->geglu);
        EXPECT_TRUE(t->add && t->scale && t->attn_merge && t->attn_finish && t->argmax);
        for (int f = 0; f < kKvFormats; ++f) EXPECT_TRUE(t->attention[f]);
        for (int f = 0; f < kKvExactFormats; ++f) EXPECT_TRUE(t->kv_store[f]);
        for (int f = kKvExactFormats; f < kKvFormats; ++f) EXPECT_TRUE(t->kv_quantize[f - kKvExactFormats]);
    }
}

TEST(Select, NoFeaturesGiveTheScalarTable) {
    const auto best = select_table("", 0);
    ASSERT_TRUE(best.ok());
    EXPECT_STREQ((*best)->name, "scalar");
}

TEST(Select, TheHighestPriorityThatCanRunWins) {
    const KernelTable* want = nullptr;
    for (const KernelTable* t : runnable_tables())
        if (!want || t->priority > want->priority) want = t;
    const auto best = select_table("", cpu_features());
    ASSERT_TRUE(best.ok());
    EXPECT_EQ(*best, want);
}

TEST(Select, EachTableCanBeNamedWhereItsFeaturesAre) {
    for (const KernelTable* t : compiled_tables()) {
        const auto named = select_table(t->name, t->needs);
        ASSERT_TRUE(named.ok()) << named.error().message;
        EXPECT_EQ(*named, t);
    }
}

TEST(Select, AnUnknownNameListsWhatThisBuildHas) {
    const auto r = select_table("avx9", ~0u);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, Errc::invalid_argument);
    std::string list;
    for (const KernelTable* t : compiled_tables()) list += (list.empty() ? "" : ", ") + std::string(t->name);
    EXPECT_EQ(r.error().message, "ISA 'avx9' is not known; this build has: " + list);
}

TEST(Select, AMissingFeatureIsNamed) {
    for (const KernelTable* t : compiled_tables()) {
        if (!t->needs) continue;
        const auto r = select_table(t->name, 0);
        ASSERT_FALSE(r.ok()) << t->name;
        EXPECT_EQ(r.error().code, Errc::unsupported);
        const std::string& m = r.error().message;
        EXPECT_EQ(m.find("ISA '" + std::string(t->name) + "' needs "), 0u) << m;
        EXPECT_EQ(m.find("needs ,"), std::string::npos) << m;
        EXPECT_NE(m.find(", which this CPU lacks; it can run: scalar"), std::string::npos) << m;
    }
#if defined(__x86_64__)
    const auto r = select_table("avx512", ~std::uint32_t{kAvx512Vnni});
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().message, "ISA 'avx512' needs AVX-512 VNNI, which this CPU lacks; it can run: "
                                 "scalar, avx2, avxvnni");
#endif
}

TEST(Features, AreConsistent) {
    const std::uint32_t f = cpu_features();
    EXPECT_EQ(f, cpu_features());
    EXPECT_TRUE(!(f & kAvx512Vnni) || (f & kAvx512));
    EXPECT_TRUE(!(f & kAvx512) || (f & kAvx2));
#if defined(__x86_64__)  // the compiler's own detection, which also asks the system
    __builtin_cpu_init();
    EXPECT_EQ((f & kAvx2) != 0, __builtin_cpu_supports("avx2") != 0);
    EXPECT_EQ((f & kFma) != 0, __builtin_cpu_supports("fma") != 0);
    EXPECT_EQ((f & kBmi2) != 0, __builtin_cpu_supports("bmi2") != 0);
    EXPECT_EQ((f & kAvx512) != 0, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
    EXPECT_EQ((f & kAvx512Vnni) != 0, __builtin_cpu_supports("avx512vnni") != 0);
#endif
}

TEST(Features, CpuNameStaysInsideTheBuffer) {
    char buffer[64];
    const std::string full(cpu_name(buffer, sizeof buffer));
    EXPECT_FALSE(full.empty());
    std::memset(buffer, 'x', sizeof buffer);
    const std::string_view cut = cpu_name(buffer, 4);
    EXPECT_TRUE(full == "unknown" || cut == full.substr(0, 4)) << cut;
    EXPECT_EQ(buffer[4], 'x');
}

}  // namespace
}  // namespace quern::kernels::test
