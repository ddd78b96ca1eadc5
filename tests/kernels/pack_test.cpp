// SPDX-License-Identifier: Apache-2.0
// Packing loses nothing: unpack_row of every table gives back what formats' decoder gives for the source row.
#include <algorithm>

#include "formats/dtype.h"
#include "tests/kernels/ops_support.h"

namespace quern::kernels::test {
namespace {

/// Raw bytes are the strongest input here: codes and scales that no encoder emits, NaN and infinite scales included.
std::vector<std::byte> random_rows(DType t, std::uint32_t n_rows, std::uint32_t n_k, std::mt19937& rng) {
    std::vector<std::byte> rows(n_rows * row_bytes(t, n_k).value());
    for (std::byte& b : rows) b = static_cast<std::byte>(rng());
    return rows;
}

std::vector<std::uint32_t> row_lengths(DType t) {
    const std::uint32_t block = info(t).block_elements;
    if (block == 256) return {256, 512, 768, 2048};
    if (block == 32) return {32, 64, 96, 576, 800};
    return {1, 2, 31, 32, 33, 100};
}

TEST(Pack, IndexFollowsTheListOfTypes) {
    ASSERT_EQ(all_types().size(), kTypes);
    for (std::uint32_t i = 0; i < kTypes; ++i) EXPECT_EQ(type_index(all_types()[i].type), i);
}

TEST(Pack, PanelsTakeHardlyMoreThanTheFile) {
    for (const QuantInfo& q : all_types()) {
        const std::size_t packed = panel_bytes(q.type, 4096), raw = kLanes * row_bytes(q.type, 4096).value();
        EXPECT_EQ(packed % 64, 0u) << q.name;
        EXPECT_GE(packed, raw) << q.name;
        EXPECT_LE(static_cast<double>(packed), 1.04 * static_cast<double>(raw)) << q.name;
    }
}

TEST_P(EveryTable, UnpackRowEqualsTheDecoder) {
    for (const QuantInfo& q : all_types()) {
        for (const std::uint32_t n_k : row_lengths(q.type)) {
            for (const std::uint32_t n_rows : {1u, 5u, 16u}) {
                SCOPED_TRACE(std::string(q.name) + " k " + std::to_string(n_k) + " rows " + std::to_string(n_rows));
                const std::size_t stride = row_bytes(q.type, n_k).value();
                const Guarded<std::byte> rows(random_rows(q.type, n_rows, n_k, rng));
                const Guarded<std::byte> panel(panel_bytes(q.type, n_k));  // whole cache lines: ends aligned at a page
                pack_panel(q.type, rows.data(), stride, n_rows, n_k, panel.data());
                const Guarded<float> got(n_k);
                std::vector<float> want(n_k);
                for (std::uint32_t r = 0; r < kLanes; ++r) {
                    std::fill(want.begin(), want.end(), 0.0f);
                    if (r < n_rows) q.decode(rows.data() + r * stride, want.data(), n_k);
                    table().unpack_row[type_index(q.type)](panel.data(), r, n_k, got.data());
                    if (r >= n_rows)  // a missing row is zero up to its sign
                        for (float& v : std::span(got.data(), n_k)) v += 0.0f;
                    const std::size_t at = first_difference(got.data(), want.data(), n_k);
                    ASSERT_EQ(at, n_k) << "row " << r << ": " << got[at] << " for " << want[at];
                }
            }
        }
    }
}

TEST(Pack, EverySourceBitChangesThePanel) {
    std::mt19937 rng(seed());
    for (const QuantInfo& q : all_types()) {
        const std::uint32_t n_k = q.block_elements == 1 ? 32 : q.block_elements;
        std::vector<std::byte> rows = random_rows(q.type, 3, n_k, rng);
        const std::size_t stride = rows.size() / 3;
        std::vector<std::byte> before(panel_bytes(q.type, n_k)), after(before.size());
        pack_panel(q.type, rows.data(), stride, 3, n_k, before.data());
        for (std::size_t bit = 0; bit < rows.size() * 8; ++bit) {
            rows[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            pack_panel(q.type, rows.data(), stride, 3, n_k, after.data());
            rows[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            EXPECT_NE(before, after) << q.name << " bit " << bit;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Pack, EveryTable, testing::ValuesIn(runnable_tables()), table_name);

}  // namespace
}  // namespace quern::kernels::test
