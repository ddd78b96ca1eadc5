// SPDX-License-Identifier: Apache-2.0
// Choosing a device, kernels, recorded commands, timestamps.
#include "kernels/vulkan/device.h"

#include <atomic>
#include <set>
#include <thread>

#include "tests/vulkan/support.h"

namespace quern::vulkan::test {
namespace {

class VulkanDevice : public DeviceTest {};

struct CopyPush {
    std::uint64_t from, to;
    std::uint32_t n, flip;
};

std::vector<std::uint32_t> numbers(std::uint32_t n) {
    std::vector<std::uint32_t> words(n);
    for (std::uint32_t i = 0; i < n; ++i) words[i] = i * 2654435761u;
    return words;
}

TEST_F(VulkanDevice, RunsAKernelWithConstantsAndPushedNumbers) {
    std::vector<std::uint32_t> words = numbers(4 * 1000);
    const Buffer from = upload(words), to = buffer(words.size() * 4);
    dispatch(kernel("copy", {64, 3}), CopyPush{from.address(), to.address(), 1000, 0xff00u}, {(1000 + 191) / 192});
    for (std::uint32_t& w : words) w ^= 0xff00u;
    EXPECT_EQ(download<std::uint32_t>(to, words.size()), words);
}

TEST_F(VulkanDevice, MakesAKernelOnce) {
    const Kernel* k = kernel("copy", {64, 3});
    EXPECT_EQ(kernel("copy", {64, 3}), k);
    EXPECT_NE(kernel("copy", {64, 2}), k);
}

TEST_F(VulkanDevice, NamesTheKernelThatCannotBe) {
    const Result<const Kernel*> none = device().kernel("nothing of this name");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::invalid_argument);
    EXPECT_NE(none.error().message.find("'nothing of this name'"), std::string::npos);
    for (const std::string_view missing : missing_modules()) {
        const Result<const Kernel*> k = device().kernel(missing.substr(0, missing.find(':')));
        ASSERT_FALSE(k);
        EXPECT_NE(k.error().message.find(missing), std::string::npos) << k.error().message;
    }
    const Result<const Kernel*> size =
        device().kernel("copy", std::vector<std::uint32_t>{256, 1}, device().info().max_subgroup * 2);
    ASSERT_FALSE(size);
    EXPECT_NE(size.error().message.find("subgroup"), std::string::npos);
}

TEST_F(VulkanDevice, AsksForASubgroupSize) {
    if (!device().has(kSubgroupSize)) GTEST_SKIP() << device().info().name << " has one subgroup size";
    const std::vector<std::uint32_t> words = numbers(256);
    const Buffer from = upload(words), to = buffer(words.size() * 4);
    for (std::uint32_t size = device().info().min_subgroup; size <= device().info().max_subgroup; size *= 2) {
        dispatch(kernel("copy", {64, 1}, size), CopyPush{from.address(), to.address(), 64, size}, {1});
        EXPECT_EQ(download<std::uint32_t>(to, 1)[0], words[0] ^ size);
    }
}

TEST_F(VulkanDevice, ModulesHaveNamesOfTheirOwn) {
    std::set<std::string_view> names;
    for (const ModuleInfo& m : modules()) {
        EXPECT_TRUE(names.insert(m.name).second) << m.name;
        EXPECT_GE(m.bytes, 20u) << m.name;  // SPIR-V's head
    }
    EXPECT_TRUE(names.count("copy"));
    EXPECT_LE(modules().size() + missing_modules().size(), 120u) << "numbers should be specialization constants";
}

// ---- Commands ----

TEST_F(VulkanDevice, WhatFollowsABarrierSeesWhatCameBefore) {
    const std::vector<std::uint32_t> words = numbers(4 * 4096);
    const Buffer a = upload(words), b = buffer(words.size() * 4), c = buffer(words.size() * 4 + 64);
    const Kernel* k = kernel("copy", {64, 1});
    run([&](Commands& commands) {
        commands.fill(c, 0, c.size(), 0xabcdu);
        commands.dispatch(*k, CopyPush{a.address(), b.address(), 4096, 1}, {64});
        commands.barrier();
        commands.dispatch(*k, CopyPush{b.address(), a.address(), 4096, 2}, {64});
        commands.barrier();
        commands.copy(a, 16, c, 32, words.size() * 4 - 16);
    });
    std::vector<std::uint32_t> expected(c.size() / 4, 0xabcdu);
    for (std::size_t i = 4; i < words.size(); ++i) expected[i + 4] = words[i] ^ 3u;
    EXPECT_EQ(download<std::uint32_t>(c, expected.size()), expected);
}

TEST_F(VulkanDevice, RecordedCommandsRunAgainWithNewNumbers) {
    const std::vector<std::uint32_t> words = numbers(4 * 256);
    const Buffer from = upload(words), to = buffer(words.size() * 4);
    const Buffer groups = buffer(64, MemoryKind::upload);
    const Kernel* k = kernel("copy", {64, 1});
    Result<Commands> clear = device().record(), work = device().record();
    ASSERT_TRUE(clear && work);
    clear->fill(to, 0, to.size(), 0);
    work->dispatch_indirect(*k, CopyPush{from.address(), to.address(), 256, 0}, groups, 8);
    check(clear->finish());
    check(work->finish());
    for (const std::uint32_t n : {3u, 1u, 4u, 0u}) {
        const std::uint32_t head[] = {99, 99, n, 1, 1};
        std::memcpy(groups.host().data(), head, sizeof head);
        Commands* const both[] = {&*clear, &*work};
        check(device().run(both, "test"));
        std::vector<std::uint32_t> expected = words;
        std::fill(expected.begin() + n * 256, expected.end(), 0u);
        EXPECT_EQ(download<std::uint32_t>(to, words.size()), expected) << n << " groups";
    }
}

TEST_F(VulkanDevice, ManyCommandsRunInOrder) {
    const Buffer b = buffer(4 * 40);
    std::vector<Commands> all;
    std::vector<Commands*> list;
    for (std::uint32_t i = 0; i < 40; ++i) {  // each overwrites a word less than the one before
        Result<Commands> c = device().record();
        ASSERT_TRUE(c);
        c->fill(b, 0, 4 * (40 - i), i);
        check(c->finish());
        all.push_back(std::move(*c));
    }
    for (Commands& c : all) list.push_back(&c);
    check(device().run(list, "test"));
    check(device().run({}, "nothing"));
    std::vector<std::uint32_t> expected(40);
    for (std::uint32_t i = 0; i < 40; ++i) expected[i] = 39 - i;
    EXPECT_EQ(download<std::uint32_t>(b, 40), expected);
}

TEST_F(VulkanDevice, WhatCannotBeRecordedIsToldAtTheEnd) {
    const Buffer small = buffer(64);
    const Kernel* k = kernel("copy", {64, 1});
    const std::vector<std::byte> zeros(136);
    const std::span<const std::byte> push(zeros);
    const std::vector<std::pair<const char*, std::function<void(Commands&)>>> cases = {
        {"136 bytes of push constants", [&](Commands& c) { c.dispatch(*k, push, {1}); }},
        {"6 bytes of push constants", [&](Commands& c) { c.dispatch(*k, push.first(6), {1}); }},
        {"groups",
         [&](Commands& c) {
             c.dispatch(*k, CopyPush{}, {1, 0xffffffffu, 1});
         }},
        {"three words at 56", [&](Commands& c) { c.dispatch_indirect(*k, CopyPush{}, small, 56); }},
        {"three words at 2", [&](Commands& c) { c.dispatch_indirect(*k, CopyPush{}, small, 2); }},
        {"a copy", [&](Commands& c) { c.copy(small, 32, small, 0, 33); }},
        {"a fill", [&](Commands& c) { c.fill(small, 60, 8, 0); }},
        {"timestamps",
         [&](Commands& c) {
             for (int i = 0; i < 1025; ++i) c.timestamp();
         }},
    };
    for (const auto& [what, body] : cases) {
        Result<Commands> c = device().record();
        ASSERT_TRUE(c);
        body(*c);
        const Status finished = c->finish();
        ASSERT_FALSE(finished) << what;
        EXPECT_NE(finished.error().message.find(what), std::string::npos) << finished.error().message;
        const Status ran = device().run(*c, "refused");
        ASSERT_FALSE(ran) << what;
        EXPECT_EQ(ran.error().code, Errc::invalid_argument);
    }
    Result<Commands> unfinished = device().record();
    ASSERT_TRUE(unfinished);
    EXPECT_FALSE(device().run(*unfinished, "unfinished"));
}

TEST_F(VulkanDevice, TimestampsAreInOrder) {
    if (!device().has(kTimestamps)) GTEST_SKIP() << device().info().name << " has no timestamps";
    const Buffer a = buffer(1 << 20);
    Result<Commands> c = device().record(), none = device().record();
    ASSERT_TRUE(c && none);
    for (int i = 0; i < 3; ++i) {
        c->timestamp();
        c->fill(a, 0, a.size(), 1);
        c->barrier();
    }
    check(c->finish());
    check(none->finish());
    EXPECT_FALSE(device().timestamps(*c)) << "before it ran";
    check(device().run(*c, "test"));
    check(device().run(*none, "test"));
    const Result<std::vector<double>> t = device().timestamps(*c), empty = device().timestamps(*none);
    ASSERT_TRUE(t && empty);
    ASSERT_EQ(t->size(), 3u);
    EXPECT_EQ((*t)[0], 0.0);
    EXPECT_LE((*t)[0], (*t)[1]);
    EXPECT_LE((*t)[1], (*t)[2]);
    EXPECT_TRUE(empty->empty());
}

TEST_F(VulkanDevice, ThreadsAllocateAndMakeKernelsTogether) {
    const std::uint64_t before = device().held_bytes();
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&failures] {
            for (std::uint32_t i = 0; i < 8; ++i) {
                const Result<Buffer> b = device().allocate(4096 * (i + 1), MemoryKind::device, "thread");
                const Result<const Kernel*> k = device().kernel("copy", std::vector<std::uint32_t>{64, 4 + i % 4}, 0);
                Result<Commands> c = device().record();
                failures += !b || !k || !c || !c->finish();
            }
        });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(failures, 0);
    EXPECT_EQ(device().held_bytes(), before);
}

// ---- Choice ----

TEST_F(VulkanDevice, ListsWhatThereIs) {
    const Result<std::vector<DeviceInfo>> all = list_devices();
    ASSERT_TRUE(all) << all.error().message;
    const DeviceInfo& mine = device().info();
    ASSERT_LT(mine.index, all->size());
    for (std::size_t i = 0; i < all->size(); ++i) EXPECT_EQ((*all)[i].index, i);
    const DeviceInfo& d = (*all)[mine.index];
    EXPECT_EQ(d.name, mine.name);
    EXPECT_FALSE(d.driver.empty());
    EXPECT_TRUE(d.refusal.empty()) << d.refusal;
    EXPECT_GT(d.memory_bytes, 0u);
    EXPECT_LE(d.free_bytes, d.memory_bytes);
    EXPECT_GE(d.max_allocation, std::uint64_t{1} << 30);  // what Vulkan asks of every device
    EXPECT_GE(d.shared_bytes, 16384u);
    EXPECT_GE(d.max_invocations, 128u);
    EXPECT_LE(d.min_subgroup, d.subgroup);
    EXPECT_LE(d.subgroup, d.max_subgroup);
}

TEST_F(VulkanDevice, IsChosenByIndexOrPartOfItsName) {
    std::string upper = device().info().name.substr(0, 5);
    for (char& c : upper) c = static_cast<char>(std::toupper(c));
    for (const std::string& wanted : {std::to_string(device().info().index), upper}) {
        DeviceOptions o;
        o.device = wanted;
        const Result<std::unique_ptr<Device>> d = Device::create(o);
        ASSERT_TRUE(d) << d.error().message;
        EXPECT_EQ((*d)->info().name, device().info().name) << wanted;
    }
    for (const char* wanted : {"no such device", "99", "-1", "0x"}) {
        DeviceOptions o;
        o.device = wanted;
        const Result<std::unique_ptr<Device>> d = Device::create(o);
        ASSERT_FALSE(d) << wanted;
        EXPECT_EQ(d.error().code, Errc::invalid_argument);
        EXPECT_NE(d.error().message.find(device().info().name.substr(0, 8)), std::string::npos)
            << "the message lists what there is: " << d.error().message;
    }
}

TEST_F(VulkanDevice, ACpuIsNeverTakenUnasked) {
    const Result<std::unique_ptr<Device>> d = Device::create({});
    if (d) {
        EXPECT_NE((*d)->info().kind, DeviceKind::cpu);
    } else {
        EXPECT_NE(d.error().message.find("no GPU"), std::string::npos) << d.error().message;
        EXPECT_NE(d.error().message.find("only by name or index"), std::string::npos) << d.error().message;
    }
}

TEST_F(VulkanDevice, FeaturesCanBeTakenAway) {
    DeviceOptions o = options();
    std::string said;
    o.disable = kFloat16 | kTimestamps | kHostVisible;
    o.log = [&](const std::string& line) { said += line; };
    Result<std::unique_ptr<Device>> d = open(o);
    ASSERT_TRUE(d) << d.error().message;
    for (const Feature f : {kFloat16, kTimestamps, kHostVisible}) EXPECT_FALSE((*d)->has(f));
    EXPECT_EQ((*d)->has(kSubgroupSize), device().has(kSubgroupSize));
    (*d)->disable(kSubgroupSize, "a test says so");
    EXPECT_FALSE((*d)->has(kSubgroupSize));
    EXPECT_NE(said.find("subgroup-size is off: a test says so"), std::string::npos) << said;
    Result<Commands> c = (*d)->record();
    ASSERT_TRUE(c);
    c->timestamp();
    EXPECT_FALSE(c->finish());
}

TEST_F(VulkanDevice, EveryFeatureHasAName) {
    for (std::uint32_t i = 0; 1u << i <= kTimestamps; ++i) EXPECT_FALSE(feature_name(i).empty()) << i;
    EXPECT_TRUE(feature_name(6).empty());
}

// The other tests expect no message; this one shows that a message would be seen.
TEST_F(VulkanDevice, CountsValidationMessages) {
    DeviceOptions o = options();
    std::string said;
    o.log = [&](const std::string& line) { said += line; };
    Result<std::unique_ptr<Device>> d = Device::create(o);
    if (!d) GTEST_SKIP() << d.error().message;
    EXPECT_EQ((*d)->n_validation_messages(), 0u) << said;
    const Result<Buffer> b = (*d)->allocate(64, MemoryKind::device, "test");
    Result<Commands> c = (*d)->record();
    ASSERT_TRUE(b && c);
    c->copy(*b, 0, *b, 16, 32);  // the two ranges overlap
    EXPECT_GE((*d)->n_validation_messages(), 1u);
    EXPECT_NE(said.find("CopyBuffer"), std::string::npos) << said;
}

}  // namespace
}  // namespace quern::vulkan::test
