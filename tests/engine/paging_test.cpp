// SPDX-License-Identifier: Apache-2.0
// Sessions that share pages: what each computes is what it would compute alone, and every page comes back.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "engine/api/model_impl.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"
#include "tests/support/models.h"

namespace quern {
namespace {

constexpr std::uint32_t kPage = 16;

std::string tiny(const char* name = "llama-q4_0.gguf") { return (test::tiny_dir() / name).string(); }

std::vector<Token> random_tokens(std::size_t n, std::uint32_t seed) {
    std::mt19937 rng(seed);
    std::vector<Token> out(n);
    for (Token& t : out) t = static_cast<Token>(rng() % 512);
    return out;
}

std::uint32_t n_free(const Model& m) { return Internals::of(m).executor->pages().n_free(); }
std::uint32_t n_free_exact(const Model& m) { return Internals::of(m).executor->exact_pages()->n_free(); }

std::vector<float> logits(const Session& s) { return {s.logits().begin(), s.logits().end()}; }

std::vector<float> alone(const Model& m, std::span<const Token> tokens) {
    auto s = m.new_session();
    EXPECT_TRUE(s->decode(tokens).ok());
    return logits(*s);
}

std::vector<Token> joined(std::vector<Token> a, std::span<const Token> b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// What a prompt costs a new session: how much of it is reused, and the text that follows.
GenerateResult answer(const Model& m, std::span<const Token> prompt) {
    auto s = m.new_session();
    auto r = s->generate(prompt, {.sampler = {.temperature = 0}, .max_tokens = 6, .ignore_end_of_generation = true});
    EXPECT_TRUE(r.ok()) << r.error().message;
    return r ? std::move(*r) : GenerateResult{};
}

TEST(Fork, BranchesEqualRunsOfTheirOwn) {
    for (const KvType kv : {KvType::f16, KvType::f32}) {
        auto m = Model::load(tiny(), {.kv_type = kv, .prefix_cache = false});
        ASSERT_TRUE(m.ok());
        const std::uint32_t before = n_free(*m);
        for (const std::uint32_t n : {1u, 15u, 16u, 17u, 40u}) {  // on a page's border and inside
            const auto prompt = random_tokens(n, n), left = random_tokens(20, 100 + n), right = random_tokens(20, 200 + n);
            const auto want_left = alone(*m, joined(prompt, left)), want_right = alone(*m, joined(prompt, right));
            auto a = m->new_session();
            ASSERT_TRUE(a->decode(prompt).ok());
            const std::uint32_t with_one = n_free(*m);
            auto b = a->fork();
            ASSERT_TRUE(b.ok()) << b.error().message;
            EXPECT_EQ(n_free(*m), with_one) << "a fork alone takes no page";
            EXPECT_TRUE(same_bits(logits(*a), logits(*b)));
            auto c = b->fork();
            ASSERT_TRUE(c.ok());
            // Token by token in turns: each write would show in the other if a page were still shared.
            for (std::size_t i = 0; i < left.size(); ++i) {
                ASSERT_TRUE(a->decode({&left[i], 1}).ok());
                ASSERT_TRUE(b->decode({&right[i], 1}).ok());
            }
            EXPECT_TRUE(same_bits(logits(*a), want_left)) << n;
            EXPECT_TRUE(same_bits(logits(*b), want_right)) << n;
            ASSERT_TRUE(c->decode(left).ok());
            EXPECT_TRUE(same_bits(logits(*c), want_left)) << n;
        }
        EXPECT_EQ(n_free(*m), before) << "every page came back";
    }
}

TEST(Fork, TokensNotYetRunGoAlong) {
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    const GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 8, .ignore_end_of_generation = true};
    auto a = m->new_session();
    ASSERT_TRUE(a->generate(random_tokens(25, 1), o).ok());  // the last token is appended and not run
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    const auto x = a->generate({}, o), y = b->generate({}, o);
    ASSERT_TRUE(x.ok() && y.ok());
    EXPECT_EQ(x->tokens, y->tokens);
    EXPECT_TRUE(std::ranges::equal(a->tokens(), b->tokens()));
}

TEST(Fork, TruncatingIntoASharedPageLeavesTheOtherAlone) {
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    const auto prompt = random_tokens(48, 5), other = random_tokens(30, 6), more = random_tokens(3, 7);
    auto a = m->new_session();
    ASSERT_TRUE(a->decode(prompt).ok());
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    ASSERT_TRUE(b->truncate(20).ok());
    ASSERT_TRUE(b->decode(other).ok());
    EXPECT_TRUE(same_bits(logits(*b), alone(*m, joined({prompt.begin(), prompt.begin() + 20}, other))));
    ASSERT_TRUE(a->decode(more).ok());
    EXPECT_TRUE(same_bits(logits(*a), alone(*m, joined(prompt, more))));
}

TEST(Fork, WithoutAPageToCopyToIsAnError) {
    auto m = Model::load(tiny(), {.n_ctx = 2 * kPage});
    ASSERT_TRUE(m.ok());
    auto a = m->new_session();
    const auto prompt = random_tokens(20, 3);
    const Token t = 9;
    ASSERT_TRUE(a->decode(prompt).ok());
    {
        auto b = a->fork();
        ASSERT_TRUE(b.ok());
        const Status s = b->decode({&t, 1});
        ASSERT_FALSE(s.ok());
        EXPECT_EQ(s.error().code, Errc::context_full);
        EXPECT_NE(s.error().message.find("no page left"), std::string::npos) << s.error().message;
        EXPECT_EQ(b->tokens().size(), 20u);
    }
    ASSERT_TRUE(a->decode({&t, 1}).ok()) << "alone again, it writes where it is";
}

TEST(Fork, DecodingAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "the sanitizer brings its own operator new, which cannot be counted";
#endif
    for (const KvType kv : {KvType::f16, KvType::two_tier}) {   // where rings let go of shared pages and of published ones
        ModelOptions o;
        o.kv_type = kv;
        o.kv_tail = kv == KvType::two_tier ? 40 : -1;
        o.kv_sessions = 2;
        auto m = Model::load(tiny(), o);
        ASSERT_TRUE(m.ok());
        auto a = m->new_session();
        ASSERT_TRUE(a->decode(random_tokens(70, 4)).ok());
        auto b = a->fork();
        ASSERT_TRUE(b.ok());
        const auto before = test::allocation_count();
        for (Token t = 0; t < 100; ++t) ASSERT_TRUE(a->decode({&t, 1}).ok() && b->decode({&t, 1}).ok());
        EXPECT_EQ(test::allocation_count(), before);
    }
}

TEST(PrefixIndex, EqualHashesAreNotEqualTexts) {
    auto index = engine::PrefixIndex::create(40, 2, 0);
    ASSERT_TRUE(index.ok());
    engine::PrefixIndex& x = **index;
    constexpr auto none = engine::PrefixIndex::kNone;
    const auto block = [](Token t) { return std::vector<Token>{t, t}; };
    ASSERT_TRUE(x.insert(none, block(1), 5));
    ASSERT_TRUE(x.insert(none, block(2), 6));
    ASSERT_TRUE(x.insert(5, block(1), 7));
    EXPECT_EQ(x.find(none, block(1)), 5u);
    EXPECT_EQ(x.find(none, block(2)), 6u);
    EXPECT_EQ(x.find(5, block(1)), 7u);
    EXPECT_EQ(x.find(6, block(1)), none) << "the same words after another text";
    EXPECT_EQ(x.find(none, block(3)), none);
    std::uint32_t n = 9;
    EXPECT_EQ(x.find_part(none, std::vector<Token>{2, 3}, n), 6u);
    EXPECT_EQ(n, 1u);
    EXPECT_EQ(x.find_part(none, std::vector<Token>{3, 2}, n), none);
    EXPECT_EQ(n, 0u);
    // A page with new content is not the old one's parent.
    x.erase(5);
    ASSERT_TRUE(x.insert(none, block(4), 5));
    EXPECT_EQ(x.find(5, block(1)), none);
    EXPECT_EQ(x.find(none, block(1)), none);
    EXPECT_EQ(x.find_part(5, block(1), n), none);
    x.erase(7);
    EXPECT_EQ(x.find_part(none, block(4), n), 5u);
    EXPECT_EQ(x.find_part(none, block(2), n), 6u);
    ASSERT_TRUE(x.insert(5, block(1), 7));
    EXPECT_EQ(x.find_part(5, block(1), n), 7u);
    // A bucket takes 16 entries, so that no flood makes it slow.
    std::uint32_t taken = 3;
    for (std::uint32_t page = 8; page < 40; ++page) taken += x.insert(none, block(100 + static_cast<Token>(page)), page);
    EXPECT_EQ(taken, 16u);
}

TEST(PrefixCache, ASecondSessionRunsOnlyWhatIsNew) {
    auto m = Model::load(tiny(), {.n_ctx = 512}), without = Model::load(tiny(), {.n_ctx = 512, .prefix_cache = false});
    ASSERT_TRUE(m.ok() && without.ok());
    const auto system = random_tokens(100, 1);
    for (std::uint32_t i = 0; i < 3; ++i) {
        const auto prompt = joined(system, random_tokens(30 + i, 10 + i));
        const auto got = answer(*m, prompt), want = answer(*without, prompt);
        EXPECT_EQ(got.n_reused, i ? 100u : 0u) << "six pages, and four tokens of the seventh";
        EXPECT_EQ(got.n_prompt, prompt.size());
        EXPECT_EQ(got.tokens, want.tokens);
        EXPECT_EQ(want.n_reused, 0u);
        // The same prompt again: what its full pages hold.
        EXPECT_EQ(answer(*m, prompt).n_reused, (prompt.size() - 1) / kPage * kPage);
        EXPECT_TRUE(same_bits(alone(*m, prompt), alone(*without, prompt)));
    }
    EXPECT_EQ(m->memory_report().kv_used, 0u) << "what is kept is not in use";
    EXPECT_GT(m->memory_report().kv_kept, 0u);
    EXPECT_EQ(n_free(*m), 512 / kPage);
    EXPECT_EQ(without->memory_report().kv_kept, 0u);
}

TEST(PrefixCache, GeneratedTextCountsAndTheLastTokenIsAlwaysRun) {
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    const auto prompt = random_tokens(32, 2);
    std::vector<Token> all;
    {
        auto s = m->new_session();
        ASSERT_TRUE(s->generate(prompt, {.sampler = {.temperature = 0}, .max_tokens = 33, .ignore_end_of_generation = true}).ok());
        all.assign(s->tokens().begin(), s->tokens().end());
    }
    ASSERT_EQ(all.size(), 65u);
    EXPECT_EQ(answer(*m, all).n_reused, 64u);
    EXPECT_EQ(answer(*m, {all.data(), 64}).n_reused, 63u);
    EXPECT_EQ(answer(*m, {all.data(), 16}).n_reused, 15u);
    EXPECT_EQ(answer(*m, {all.data(), 1}).n_reused, 0u);
    EXPECT_EQ(answer(*m, {all.data(), 17}).n_reused, 16u);
}

TEST(PrefixCache, TwoLivingSessionsHoldOnePageOnce) {
    auto m = Model::load(tiny(), {.n_ctx = 512});
    ASSERT_TRUE(m.ok());
    const auto prompt = random_tokens(65, 3);
    auto a = m->new_session(), b = m->new_session();
    ASSERT_TRUE(a->decode(prompt).ok());
    const std::uint32_t with_one = n_free(*m);
    for (const Token t : prompt) ASSERT_TRUE(b->decode({&t, 1}).ok());  // nothing to take over when each is appended
    EXPECT_EQ(n_free(*m), with_one - 1) << "the full pages are the same ones, the last is its own";
    EXPECT_TRUE(same_bits(logits(*a), logits(*b)));
    // One goes back and on another way; the other still has its text.
    const auto other = random_tokens(20, 4);
    ASSERT_TRUE(b->truncate(40).ok());
    ASSERT_TRUE(b->decode(other).ok());
    auto plain = Model::load(tiny(), {.n_ctx = 512, .prefix_cache = false});
    EXPECT_TRUE(same_bits(logits(*b), alone(*plain, joined({prompt.begin(), prompt.begin() + 40}, other))));
    ASSERT_TRUE(a->decode(other).ok());
    EXPECT_TRUE(same_bits(logits(*a), alone(*plain, joined(prompt, other))));
}

TEST(PrefixCache, LeastRecentlyUsedGoesFirstAndNothingInUse) {
    auto m = Model::load(tiny(), {.n_ctx = 10 * kPage});
    ASSERT_TRUE(m.ok());
    const auto a = random_tokens(3 * kPage + 1, 1), b = random_tokens(3 * kPage + 1, 2);
    (void)alone(*m, a);
    (void)alone(*m, b);
    auto live = m->new_session();
    ASSERT_TRUE(live->decode(a).ok());  // takes over the three of a: now b is the oldest
    EXPECT_EQ(n_free(*m), 10u - 4);
    EXPECT_EQ(m->memory_report().kv_kept, 3 * kPage * m->memory_report().kv_bytes_per_token);
    // 3 free and 3 kept: a text of 4 pages costs the end of b first.
    (void)alone(*m, random_tokens(4 * kPage - 1, 3));
    EXPECT_EQ(answer(*m, b).n_reused, 2 * kPage);
    // All that can be given up is; what is in use stays, and asking for more is an error.
    auto big = m->new_session();
    EXPECT_FALSE(big->decode(random_tokens(7 * kPage, 4)).ok());
    ASSERT_TRUE(big->decode(random_tokens(6 * kPage, 4)).ok());
    EXPECT_EQ(n_free(*m), 0u);
    const Token t = 5;
    ASSERT_TRUE(live->decode({&t, 1}).ok());
    auto plain = Model::load(tiny(), {.prefix_cache = false});
    EXPECT_TRUE(same_bits(logits(*live), alone(*plain, joined(a, {&t, 1}))));
}

TEST(PrefixCache, AFullCacheCanStillRunItsLastTokenAgain) {
    auto m = Model::load(tiny(), {.n_ctx = 2 * kPage});
    ASSERT_TRUE(m.ok());
    auto s = m->new_session();
    ASSERT_TRUE(s->decode(random_tokens(2 * kPage, 1)).ok());
    ASSERT_TRUE(s->truncate(2 * kPage - 1).ok());
    auto r = s->generate({}, {.sampler = {.temperature = 0}, .max_tokens = 1, .ignore_end_of_generation = true});
    ASSERT_TRUE(r.ok()) << "no page is free for a copy of the published one: " << r.error().message;
    EXPECT_EQ(s->tokens().size(), 2 * kPage);
}

/// A cache without a tail: whole groups of 32 tokens, and the page of the first 16.
TEST(PrefixCache, QuantizedGroupsAreReused) {
    for (const KvType kv : {KvType::q8, KvType::q4}) {
        auto m = Model::load(tiny(), {.n_ctx = 512, .kv_type = kv}), without = Model::load(tiny(), {.n_ctx = 512, .kv_type = kv, .prefix_cache = false});
        ASSERT_TRUE(m.ok() && without.ok());
        const auto system = random_tokens(100, 1);
        for (std::uint32_t i = 0; i < 3; ++i) {
            const auto prompt = joined(system, random_tokens(30 + i, 10 + i));
            const auto got = answer(*m, prompt), want = answer(*without, prompt);
            EXPECT_EQ(got.n_reused, i ? 96u : 0u) << "three groups";
            EXPECT_EQ(got.tokens, want.tokens);
            EXPECT_TRUE(same_bits(alone(*m, prompt), alone(*without, prompt)));
        }
        // The first 16 tokens are known, the group is not.
        const auto other = joined({system.begin(), system.begin() + 20}, random_tokens(50, 7));
        EXPECT_EQ(answer(*m, other).n_reused, 16u);
        EXPECT_TRUE(same_bits(alone(*m, other), alone(*without, other)));
        // Another text takes the only sequence's exact pages, that of the first positions among them; the groups stay.
        (void)alone(*m, random_tokens(90, 8));
        EXPECT_EQ(answer(*m, joined(system, random_tokens(30, 10))).n_reused, 0u);
    }
}

ModelOptions two_tiers(std::int32_t tail, std::uint32_t sessions, std::uint32_t n_batch = 512) {
    ModelOptions o;
    o.n_batch = n_batch;
    o.kv_type = KvType::two_tier;
    o.n_ctx = 1024;
    o.kv_tail = tail;
    o.kv_sessions = sessions;
    return o;
}

/// What a text shares with one that was read before, at a page's border and inside, and around what is quantized: the pages up to
/// there, whether the first was read in steps that the ring takes or in longer ones.
TEST(PrefixCache, TwoTiersShareAllThatTheNextTokenNeeds) {
    for (const std::int32_t tail : {33, 64}) {
        ModelOptions o = two_tiers(tail, 2);
        o.prefix_cache = false;
        auto without = Model::load(tiny(), o);
        ASSERT_TRUE(without.ok());
        for (const std::uint32_t n_batch : {8u, 100u, 512u}) {
            auto m = Model::load(tiny(), two_tiers(tail, 4, n_batch));
            ASSERT_TRUE(m.ok());
            for (const std::uint32_t n : {15u, 16u, 47u, 64u, 97u, 128u, 250u, 367u}) {
                SCOPED_TRACE(testing::Message() << "tail " << tail << ", steps of " << n_batch << ", " << n << " shared");
                const auto system = random_tokens(n, n + n_batch);
                (void)answer(*m, joined(system, random_tokens(20, 1)));
                const auto prompt = joined(system, random_tokens(45, 2));
                auto s = m->new_session();
                ASSERT_TRUE(s->decode(prompt).ok());
                EXPECT_EQ(Internals::of(*s).sequence.n_reused(), n / 16 * 16);
                EXPECT_TRUE(same_bits(logits(*s), alone(*without, prompt)));
                for (Token t = 0; t < 40; ++t) ASSERT_TRUE(s->decode({&t, 1}).ok());   // quantizes what is shared
                std::vector<Token> all(s->tokens().begin(), s->tokens().end());
                EXPECT_TRUE(same_bits(logits(*s), alone(*without, all)));
            }
            EXPECT_EQ(n_free(*m), Internals::of(*m).executor->pages().n_pages());
            EXPECT_EQ(n_free_exact(*m), Internals::of(*m).executor->exact_pages()->n_pages());
        }
    }
}

/// A conversation that is read anew each time, with room for one session: it goes on where it ended. Another text takes the pages.
TEST(PrefixCache, TwoTiersOfOneSessionGoOnWhereTheyEnded) {
    auto m = Model::load(tiny(), two_tiers(40, 1));
    ModelOptions o = two_tiers(40, 1);
    o.prefix_cache = false;
    auto without = Model::load(tiny(), o);
    ASSERT_TRUE(m.ok() && without.ok());
    EXPECT_EQ(m->memory_report().kv_capacity, without->memory_report().kv_capacity) << "nothing is spared for one session";
    std::vector<Token> text = random_tokens(200, 3);
    for (std::uint32_t turn = 0; turn < 4; ++turn) {
        auto s = m->new_session();
        ASSERT_TRUE(s->decode(text).ok());
        EXPECT_EQ(Internals::of(*s).sequence.n_reused(), turn ? (text.size() - 30) / 16 * 16 : 0) << turn;
        EXPECT_TRUE(same_bits(logits(*s), alone(*without, text)));
        const auto r = s->generate({}, {.sampler = {.temperature = 0}, .max_tokens = 61, .ignore_end_of_generation = true});
        ASSERT_TRUE(r.ok());
        text.assign(s->tokens().begin(), s->tokens().end() - 1);   // the last one was not run
        const auto more = random_tokens(30, 10 + turn);
        text.insert(text.end(), more.begin(), more.end());
    }
    (void)alone(*m, random_tokens(150, 4));
    EXPECT_EQ(answer(*m, text).n_reused, 0u);
}

/// With a spare tail the whole pages of a prompt are still there when its answer is taken back, else its first one alone.
TEST(PrefixCache, TwoTiersOfOneSessionGoBackToWhereAnAnswerBegan) {
    ModelOptions o = two_tiers(40, 1);
    auto none = Model::load(tiny(), o);
    o.kv_spare_tails = 1;
    auto one = Model::load(tiny(), o);
    o.prefix_cache = false;
    auto without = Model::load(tiny(), o);
    ASSERT_TRUE(none.ok() && one.ok() && without.ok());
    EXPECT_EQ(without->memory_report().kv_capacity, none->memory_report().kv_capacity);
    EXPECT_GT(one->memory_report().kv_capacity, none->memory_report().kv_capacity);
    for (Model* m : {&*none, &*one}) {
        auto s = m->new_session();
        std::vector<Token> text = random_tokens(200, 3);
        ASSERT_TRUE(s->decode(text).ok());
        for (std::uint32_t again = 0; again < 3; ++again) {
            for (Token t = 0; t < 60; ++t) ASSERT_TRUE(s->decode({&t, 1}).ok());
            ASSERT_TRUE(s->truncate(static_cast<std::uint32_t>(text.size())).ok());
            const auto more = random_tokens(30, 10 + again);
            ASSERT_TRUE(s->decode(more).ok());
            EXPECT_EQ(Internals::of(*s).sequence.n_reused(), m == &*one ? text.size() / 16 * 16 : 16) << again;
            text.insert(text.end(), more.begin(), more.end());
            EXPECT_TRUE(same_bits(logits(*s), alone(*without, text)));
        }
    }
}

TEST(Fork, SharesTheExactTierUntilEitherWrites) {
    auto m = Model::load(tiny(), two_tiers(64, 3)), without = Model::load(tiny(), two_tiers(64, 3));
    ASSERT_TRUE(m.ok() && without.ok());
    for (const std::uint32_t n : {5u, 32u, 200u, 205u}) {
        const auto prompt = random_tokens(n, n), left = random_tokens(170, 1), right = random_tokens(90, 2);
        auto a = m->new_session();
        ASSERT_TRUE(a->decode(prompt).ok());
        const std::uint32_t with_one = n_free_exact(*m);
        auto b = a->fork(), c = a->fork();
        ASSERT_TRUE(b.ok() && c.ok());
        EXPECT_EQ(n_free_exact(*m), with_one);
        EXPECT_EQ(a->fork().ok(), n < 100) << "three have been promised all they can hold";
        for (std::size_t i = 0; i < right.size(); ++i) {
            ASSERT_TRUE(a->decode({&left[i], 1}).ok());
            ASSERT_TRUE(b->decode({&right[i], 1}).ok());
        }
        ASSERT_TRUE(c->decode(left).ok());   // in one step: beside what it shares
        EXPECT_TRUE(same_bits(logits(*a), alone(*without, joined(prompt, std::span(left).first(90)))));
        EXPECT_TRUE(same_bits(logits(*b), alone(*without, joined(prompt, right))));
        EXPECT_TRUE(same_bits(logits(*c), alone(*without, joined(prompt, left))));
    }
    EXPECT_EQ(n_free_exact(*m), Internals::of(*m).executor->exact_pages()->n_pages());
}

TEST(PagePool, PromisesAreKept) {
    engine::KvShape shape;
    shape.head_dim = 16;
    shape.n_head_kv = {1};
    auto made = engine::PagePool::create(shape, 6 * kPage);
    ASSERT_TRUE(made.ok() && (*made)->keep_prefixes(64).ok());
    engine::PagePool& p = **made;
    constexpr auto none = engine::PrefixIndex::kNone;
    const auto block = [](Token t, std::size_t n) { return std::vector<Token>(n, t); };
    p.set_spare(2);
    EXPECT_EQ(p.n_promises(), 4u);
    ASSERT_TRUE(p.promise(3));
    EXPECT_FALSE(p.promise(2));
    ASSERT_TRUE(p.promise(1));
    std::uint32_t a = none, b = none;
    ASSERT_TRUE(p.renew(a, false));
    const std::uint32_t was = a;
    ASSERT_TRUE(p.renew(a, false));
    EXPECT_EQ(a, was) << "alone with a page that nobody finds";
    // Texts are told apart by their length, and by what lies before.
    ASSERT_TRUE(p.publish_after(0, block(1, 16), a));
    EXPECT_EQ(p.reuse_after(0, block(1, 17)), none);
    EXPECT_EQ(p.reuse_after(7, block(1, 16)), none);
    EXPECT_EQ(b = p.reuse_after(0, block(1, 16)), a);
    // Shared: another page, with its contents; the other holder has the old one alone, and it stays known.
    std::vector<std::byte> bytes(shape.page_bytes(), std::byte{42}), got(shape.page_bytes());
    ASSERT_TRUE(p.write_page(a, bytes).ok());
    ASSERT_TRUE(p.renew(b, true));
    ASSERT_NE(b, a);
    ASSERT_TRUE(p.read_page(b, got).ok());
    EXPECT_EQ(got, bytes);
    // Published and held once: another page beside it, on loan; a free one stays kept for its text.
    const std::uint32_t beside = p.beside(a), lent = p.borrow();
    EXPECT_TRUE(beside != a && beside != none && lent != none);
    EXPECT_EQ(p.borrow(), none) << "two pages are spare";
    EXPECT_EQ(p.beside(a), a) << "given up";
    EXPECT_EQ(p.reuse_after(0, block(1, 16)), none);
    p.add_reference(b);
    EXPECT_EQ(p.beside(b), none) << "shared, and nothing left to borrow";
    p.release(beside);
    p.release(lent);
    p.repay(2);
    // The page of a text that others have used goes to who was promised one, but is not borrowed.
    ASSERT_TRUE(p.publish_after(0, block(2, 30), a));
    EXPECT_EQ(p.reuse_after(0, block(2, 30)), a);
    p.release(a);
    p.release(a);
    std::uint32_t c = none, d = none, e = none;
    ASSERT_TRUE(p.renew(c, false) && p.renew(d, false) && p.renew(e, false));
    EXPECT_EQ(p.n_free(), 2u);
    const std::uint32_t f = p.borrow();
    EXPECT_NE(f, none);
    EXPECT_EQ(p.borrow(), none) << "the last one is kept";
    ASSERT_TRUE(p.renew(b, false)) << "takes it: b is shared";
    EXPECT_EQ(p.n_free(), 0u);
}

struct Random { KvType kv; std::int32_t tail; };

TEST(PrefixCache, RandomSessionsEqualThoseWithout) {
    for (const Random c : {Random{KvType::f16, -1}, Random{KvType::q8, 0}, Random{KvType::q4, 20}, Random{KvType::two_tier, 33}}) {
        SCOPED_TRACE(testing::Message() << "type " << int(c.kv) << " tail " << c.tail);
        const bool exact = c.kv == KvType::f16;
        const std::uint32_t n_text = exact ? 60 : 120;
        ModelOptions o{.n_ctx = exact ? 12 * kPage : 24 * kPage, .kv_type = c.kv};
        o.kv_tail = c.tail;
        o.kv_sessions = 6;
        auto m = Model::load(tiny(), o);
        o.n_ctx = 0;
        o.prefix_cache = false;
        auto plain = Model::load(tiny(), o);
        ASSERT_TRUE(m.ok() && plain.ok());
        const std::uint32_t all_free = n_free(*m);
        const std::string path = testing::TempDir() + "quern_random_session_" + std::to_string(::getpid());
        std::mt19937 rng(11);
        std::vector<std::vector<Token>> texts;
        for (std::uint32_t i = 0; i < 3; ++i) texts.push_back(random_tokens(n_text, i));
        std::vector<Session> live;
        std::uint32_t reused = 0, checked = 0, restored = 0;
        for (int step = 0; step < 400; ++step) {
            const auto pick = [&] { return live.begin() + static_cast<std::ptrdiff_t>(rng() % live.size()); };
            const std::uint32_t what = rng() % 7;
            if (what == 0 || live.empty()) {
                if (live.size() < 5) live.push_back(*m->new_session());
            } else if (what == 1) {
                live.erase(pick());
            } else if (what == 2 && live.size() < 5) {
                if (auto f = pick()->fork()) live.push_back(*std::move(f));
            } else if (what == 3) {
                auto& s = *pick();
                ASSERT_TRUE(s.truncate(static_cast<std::uint32_t>(rng() % (s.tokens().size() + 1))).ok());
            } else if (what == 4) {
                ASSERT_TRUE(pick()->save(path).ok());
                restored += pick()->restore(path).ok();
            } else {  // goes on with a text that others may have read
                auto& s = *pick();
                const auto& text = texts[rng() % texts.size()];
                const std::size_t from = s.tokens().size(), n = 1 + rng() % 30;
                if (from + n > text.size()) continue;
                const std::vector<Token> before(s.tokens().begin(), s.tokens().end());
                if (!s.decode(std::span(text).subspan(from, n))) continue;  // no page: not of interest here
                reused += Internals::of(s).sequence.n_reused();
                if (rng() % 4) continue;
                ++checked;
                ASSERT_TRUE(same_bits(logits(s), alone(*plain, joined(before, std::span(text).subspan(from, n))))) << step;
            }
        }
        EXPECT_GT(reused, exact ? 100u : 30u);
        EXPECT_GT(checked, 10u);
        EXPECT_GT(restored, 10u);
        live.clear();
        std::remove(path.c_str());
        EXPECT_EQ(n_free(*m), all_free);
        if (const auto* ring = Internals::of(*m).executor->exact_pages()) {
            EXPECT_EQ(ring->n_free(), ring->n_pages());
        }
    }
}

// Pages are found, shared, exchanged and given up by several threads at once.
TEST(PrefixCache, ThreadsShareOneText) {
    auto m = Model::load(tiny(), {.n_threads = 2, .n_ctx = 20 * kPage}), plain = Model::load(tiny(), {.prefix_cache = false});
    ASSERT_TRUE(m.ok() && plain.ok());
    const auto system = random_tokens(40, 1);
    std::vector<std::vector<float>> got(12), want;
    for (std::uint32_t i = 0; i < got.size(); ++i) want.push_back(alone(*plain, joined(system, random_tokens(20, 50 + i % 6))));
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (std::uint32_t i = t; i < got.size(); i += 4) got[i] = alone(*m, joined(system, random_tokens(20, 50 + i % 6)));
        });
    for (std::thread& t : threads) t.join();
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(same_bits(got[i], want[i])) << i;
    EXPECT_EQ(n_free(*m), 20u);
}

}  // namespace
}  // namespace quern
