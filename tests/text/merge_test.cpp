// SPDX-License-Identifier: Apache-2.0
#include "engine/text/merge.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace quern::text {
namespace {

using Ranks = std::map<std::pair<Token, Token>, Merged<std::uint32_t>>;

void fill(Merger<std::uint32_t>& m, const std::vector<Token>& tokens) {
    m.symbols().clear();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        m.symbols().push_back({static_cast<std::uint32_t>(i), 1, -1, -1, tokens[i]});
    }
    m.link();
}

std::vector<Token> result(Merger<std::uint32_t>& m) {
    std::vector<Token> out;
    for (const Symbol& s : m.symbols()) {
        if (s.size != 0) out.push_back(s.token);
    }
    return out;
}

auto lookup(const Ranks& ranks) {
    return [&ranks](const Symbol& a, const Symbol& b) -> std::optional<Merged<std::uint32_t>> {
        const auto it = ranks.find({a.token, b.token});
        return it == ranks.end() ? std::nullopt : std::optional(it->second);
    };
}

/// The definition: merge the best pair, leftmost among equals, until none is left.
std::vector<Token> merge_plainly(std::vector<Token> t, const Ranks& ranks) {
    for (;;) {
        std::size_t best = t.size();
        for (std::size_t i = 0; i + 1 < t.size(); ++i) {
            const auto it = ranks.find({t[i], t[i + 1]});
            if (it == ranks.end()) continue;
            if (best == t.size() || it->second.cost < ranks.at({t[best], t[best + 1]}).cost) best = i;
        }
        if (best == t.size()) return t;
        t[best] = ranks.at({t[best], t[best + 1]}).token;
        t.erase(t.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

TEST(Merge, EqualsTheDefinitionOnRandomRanks) {
    std::mt19937 rng(20240607);
    for (int round = 0; round < 300; ++round) {
        Ranks ranks;
        Token next = 4;
        for (std::uint32_t r = 0; r < 12; ++r) {
            const auto any = [&] { return static_cast<Token>(rng() % static_cast<unsigned>(next)); };
            if (ranks.try_emplace({any(), any()}, Merged<std::uint32_t>{r, next}).second) ++next;
        }
        std::vector<Token> tokens(rng() % 60);
        for (Token& t : tokens) t = static_cast<Token>(rng() % 4);
        Merger<std::uint32_t> m;
        fill(m, tokens);
        m.run(lookup(ranks));
        ASSERT_EQ(result(m), merge_plainly(tokens, ranks)) << "round " << round;
    }
}

TEST(Merge, WorkIsLinearInTheSymbols) {
    // a a -> aa -> aaaa -> ...: the longest chain of merges that one letter can give.
    Ranks ranks;
    for (Token t = 0; t < 18; ++t) ranks[{t, t}] = {static_cast<std::uint32_t>(t), t + 1};
    for (const std::size_t n : {1u << 10, 1u << 18}) {
        Merger<std::uint32_t> m;
        fill(m, std::vector<Token>(n, 0));
        EXPECT_LE(m.run(lookup(ranks)), 3 * n);
        EXPECT_EQ(result(m).size(), std::max<std::size_t>(1, n >> 18));
    }
}

TEST(Merge, EmptyAndSingle) {
    Merger<std::uint32_t> m;
    fill(m, {});
    EXPECT_EQ(m.run(lookup({})), 0u);
    fill(m, {3});
    m.run(lookup({}));
    EXPECT_EQ(result(m), std::vector<Token>{3});
}

}  // namespace
}  // namespace quern::text
