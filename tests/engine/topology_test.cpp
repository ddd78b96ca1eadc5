// SPDX-License-Identifier: Apache-2.0
#include "engine/core/topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace quern::engine {
namespace {

namespace fs = std::filesystem;

/// A folder that stands for "/", gone with the test.
class FakeRoot : public testing::Test {
protected:
    void SetUp() override {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        root_ = fs::path(testing::TempDir()) / ("quern_topology_" + std::string(info->name()));
        fs::remove_all(root_);
        fs::create_directories(root_);
    }
    void TearDown() override { fs::remove_all(root_); }

    void put(const std::string& path, const std::string& text) {
        const fs::path p = root_ / path;
        fs::create_directories(p.parent_path());
        std::ofstream(p) << text << '\n';
    }
    void core(int cpu, const std::string& siblings) {
        put("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/core_cpus_list", siblings);
    }
    void cpu_file(int cpu, const std::string& name, const std::string& text) {
        put("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/" + name, text);
    }
    /// cgroup v2 mounted at the usual place; this process in /a/b.
    void cgroup2() {
        put("proc/self/cgroup", "0::/a/b");
        put("proc/self/mountinfo",
            "22 1 0:20 / /proc rw shared:5 - proc proc rw\n"
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate");
    }
    Topology read(const std::vector<int>& affinity) { return read_topology(root_.string(), affinity); }

    fs::path root_;
};

TEST_F(FakeRoot, NothingKnownIsOneCorePerCpu) {
    const Topology t = read({3, 1, 1});
    EXPECT_EQ(t.n_cores, 2u);
    EXPECT_EQ(t.n_threads, 2u);
    EXPECT_EQ(t.thread_cpus, (std::vector<int>{1, 3}));
    EXPECT_EQ(t.nodes, std::vector<int>{0});
    EXPECT_EQ(t.cpu_quota, 0);
    EXPECT_EQ(t.memory_total, 0u);
    EXPECT_EQ(t.reason, "2 physical cores (2 logical CPUs allowed)");
}

TEST_F(FakeRoot, HyperThreadsShareACore) {
    for (int i = 0; i < 8; ++i) core(i, std::to_string(i % 4) + "," + std::to_string(i % 4 + 4));
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).thread_cpus, (std::vector<int>{0, 1, 2, 3}));
    EXPECT_EQ(read({0, 4, 5}).thread_cpus, (std::vector<int>{0, 5})) << "only the mask's CPUs count";
    EXPECT_EQ(read({4, 5, 6, 7}).n_cores, 4u);
}

TEST_F(FakeRoot, OldKernelsAndPackageNumbers) {
    cpu_file(0, "topology/thread_siblings_list", "0-1");
    cpu_file(1, "topology/thread_siblings_list", "0-1");
    for (int i = 2; i < 6; ++i) {  // two packages that number their cores alike
        cpu_file(i, "topology/physical_package_id", std::to_string(i / 4));
        cpu_file(i, "topology/core_id", std::to_string(i % 2));
    }
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5}).n_cores, 5u);
}

TEST_F(FakeRoot, IntelHybrid) {
    for (int i = 0; i < 4; ++i) core(i, i < 2 ? "0-1" : "2-3");  // two fast cores of two threads, four slow ones
    put("sys/devices/cpu_core/cpus", "0-3");
    put("sys/devices/cpu_atom/cpus", "4-7");
    const Topology t = read({0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ(t.n_cores, 6u);
    EXPECT_EQ(t.n_efficiency, 4u);
    EXPECT_EQ(t.n_threads, 2u) << "a step of decode is as slow as its slowest thread";
    EXPECT_EQ(t.n_threads_batch, 6u);
    EXPECT_EQ(t.thread_cpus, (std::vector<int>{0, 2, 4, 5, 6, 7})) << "the fast ones first";
    EXPECT_EQ(t.reason, "2 fast physical cores (8 logical CPUs allowed, 4 efficiency cores for prefill only)");
    EXPECT_EQ(read({4, 5, 6}).n_threads, 3u) << "slow cores are used where there are no others";
    cgroup2();
    put("sys/fs/cgroup/cpu.max", "400000 100000");
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).n_threads, 2u) << "a quota cuts the slow cores first";
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).thread_cpus, (std::vector<int>{0, 2, 4, 5}));
    put("sys/fs/cgroup/cpu.max", "100000 100000");
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).n_threads_batch, 1u);
}

TEST_F(FakeRoot, ArmCapacities) {
    const char* capacity[] = {"250", "250", "250", "250", "870", "870", "1024", "1024"};
    for (int i = 0; i < 8; ++i) cpu_file(i, "cpu_capacity", capacity[i]);
    const Topology t = read({0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ(t.thread_cpus, (std::vector<int>{4, 5, 6, 7})) << "cores of a quarter of the speed hold prefill up";
    EXPECT_EQ(t.n_threads_batch, 4u);
    EXPECT_EQ(t.reason, "4 fast physical cores (8 logical CPUs allowed, 4 efficiency cores left out)");
    EXPECT_DOUBLE_EQ(t.cpus[0].speed, 250.0 / 1024);
    for (int i = 0; i < 4; ++i) cpu_file(i, "cpu_capacity", "520");
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).n_threads_batch, 8u) << "with half the speed they join";
    EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).n_threads, 4u);
}

TEST_F(FakeRoot, ClockTellsSlowCoresButFavouredCoresDoNot) {
    const char* clock[] = {"5400000", "5200000", "3900000", "3900000"};
    for (int i = 0; i < 4; ++i) cpu_file(i, "cpufreq/cpuinfo_max_freq", clock[i]);
    EXPECT_EQ(read({0, 1, 2, 3}).n_threads, 2u);
    EXPECT_EQ(read({0, 1, 2, 3}).thread_cpus, (std::vector<int>{0, 1, 2, 3}));
}

TEST_F(FakeRoot, PlacesAreCpusOfOneNodeAndKind) {
    for (int i = 0; i < 8; ++i) core(i, std::to_string(i % 4) + "," + std::to_string(i % 4 + 4));
    const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
    EXPECT_TRUE(thread_places(read(all), 4).cpus.empty()) << "CPUs that are all alike need no places";
    put("sys/devices/system/node/online", "0,2");
    put("sys/devices/system/node/node0/cpulist", "0-1,4-5");
    put("sys/devices/system/node/node2/cpulist", "2-3,6-7");
    const ThreadPlaces p = thread_places(read(all), 4);
    const std::vector<int> first{0, 1, 4, 5}, second{2, 3, 6, 7};
    EXPECT_EQ(p.cpus, (std::vector<std::vector<int>>{first, first, second, second}));
    EXPECT_EQ(p.queue, (std::vector<std::uint32_t>{0, 0, 1, 1}));
    EXPECT_EQ(p.nodes, (std::vector<int>{0, 2}));
    EXPECT_EQ(thread_places(read(all), 2).nodes, std::vector<int>{0}) << "only nodes that have threads";
    EXPECT_TRUE(thread_places(read(all), 5).cpus.empty()) << "more threads than cores";
}

TEST_F(FakeRoot, PlacesKeepDecodeOffSlowCores) {
    put("sys/devices/cpu_atom/cpus", "2-3");
    const ThreadPlaces p = thread_places(read({0, 1, 2, 3}), 4);
    EXPECT_EQ(p.cpus, (std::vector<std::vector<int>>{{0, 1}, {0, 1}, {2, 3}, {2, 3}}));
    EXPECT_EQ(p.nodes, std::vector<int>{0});
}

TEST_F(FakeRoot, BusyTimeOfTheAllowedCpus) {
    put("proc/stat", "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 5000 40 1 2 3 7 0\ncpu1 1 1 1 1 1 1 1 1 0 0\ncpu12 7 0 0 0 0 0 0 0\nintr 5");
    const std::vector<Cpu> cpus{{0}, {12}};
    EXPECT_DOUBLE_EQ(busy_seconds(cpus, root_.string()), 1.63) << "all but idle and iowait of cpu0 and cpu12";
    EXPECT_EQ(busy_seconds(cpus, "/nowhere"), 0);
}

TEST_F(FakeRoot, NumaNodesOneAfterTheOther) {
    put("sys/devices/system/node/online", "0-1");
    put("sys/devices/system/node/node0/cpulist", "0,2");
    put("sys/devices/system/node/node1/cpulist", "1,3");
    const Topology t = read({0, 1, 2, 3});
    EXPECT_EQ(t.nodes, (std::vector<int>{0, 1}));
    EXPECT_EQ(t.thread_cpus, (std::vector<int>{0, 2, 1, 3}));
    EXPECT_EQ(t.reason, "4 physical cores (4 logical CPUs allowed, 2 NUMA nodes)");
    EXPECT_EQ(read({1, 3}).nodes, std::vector<int>{1});
}

TEST_F(FakeRoot, Cgroup2QuotaOfAnyLevel) {
    const std::vector<int> cpus{0, 1, 2, 3, 4, 5, 6, 7};
    cgroup2();
    EXPECT_EQ(read(cpus).n_threads, 8u);
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000");
    EXPECT_EQ(read(cpus).cpu_quota, 0);
    put("sys/fs/cgroup/a/cpu.max", "350000 100000");
    const Topology t = read(cpus);
    EXPECT_DOUBLE_EQ(t.cpu_quota, 3.5);
    EXPECT_EQ(t.thread_cpus, (std::vector<int>{0, 1, 2}));
    EXPECT_EQ(t.reason, "8 physical cores (8 logical CPUs allowed), cut to 3 by the cgroup's quota of 3.5 CPUs");
    put("sys/fs/cgroup/a/b/cpu.max", "50000 100000");
    EXPECT_EQ(read(cpus).n_threads, 1u) << "half a CPU still runs one thread";
    put("sys/fs/cgroup/a/b/cpu.max", "1600000 100000");
    put("sys/fs/cgroup/a/cpu.max", "max 100000");
    EXPECT_EQ(read(cpus).n_threads, 8u) << "a quota above the core count changes nothing";
}

TEST_F(FakeRoot, Cgroup1QuotaInAContainer) {
    // Docker on cgroup v1: the mount shows the container's own group; /proc/self/cgroup names it from the host's root.
    put("proc/self/cgroup", "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/");
    put("proc/self/mountinfo",
        "40 39 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "41 39 0:31 /docker/abc /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000");
    put("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1000000");
    put("proc/meminfo", "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:   8000 kB");
    const Topology t = read({0, 1, 2, 3});
    EXPECT_DOUBLE_EQ(t.cpu_quota, 2);
    EXPECT_EQ(t.n_threads, 2u);
    EXPECT_EQ(t.memory_total, 2000000u);
    EXPECT_EQ(t.memory_available, 1500000u) << "the cache can be reclaimed";
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
    const Topology free = read({0, 1, 2, 3});
    EXPECT_EQ(free.cpu_quota, 0);
    EXPECT_EQ(free.memory_total, 16000u * 1024);
    EXPECT_EQ(free.memory_available, 8000u * 1024);
}

TEST_F(FakeRoot, Cgroup2MemoryLimit) {
    cgroup2();
    put("proc/meminfo", "MemTotal: 16000 kB\nMemAvailable: 8000 kB");
    put("sys/fs/cgroup/a/b/memory.max", "max");
    put("sys/fs/cgroup/a/memory.max", "4194304");
    put("sys/fs/cgroup/a/memory.current", "5000000");
    const Topology t = read({0});
    EXPECT_EQ(t.memory_total, 4194304u);
    EXPECT_EQ(t.memory_available, 0u) << "more held than allowed is none left, not a wrap";
}

TEST_F(FakeRoot, PathsThatLeaveTheTreeAndNonsense) {
    put("proc/self/cgroup", "0::/../../etc\nbroken\n:::\n7:cpu");
    put("proc/self/mountinfo", "x\n - \n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    put("sys/fs/cgroup/cpu.max", "0 0");
    put("proc/meminfo", "MemTotal:\nMemAvailable: x kB");
    put("sys/devices/system/node/online", "0-4000000000,5-x,-3");
    core(0, "9999999-99999999999,,-");
    const Topology t = read({0, 1});
    EXPECT_EQ(t.n_threads, 2u);
    EXPECT_EQ(t.cpu_quota, 0);
    EXPECT_EQ(t.memory_total, 0u);
}

TEST(Topology, ThisMachine) {
    cpu_set_t set;
    ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
    const Topology t = read_topology();
    EXPECT_EQ(t.cpus.size(), static_cast<std::size_t>(CPU_COUNT(&set)));
    EXPECT_GE(t.n_threads, 1u);
    EXPECT_LE(t.n_threads, t.n_cores);
    EXPECT_EQ(t.thread_cpus.size(), t.n_threads_batch);
    EXPECT_LE(t.n_threads, t.n_threads_batch);
    EXPECT_GT(busy_seconds(t.cpus), 0);
    EXPECT_GT(t.memory_available, 0u);
    EXPECT_LE(t.memory_available, t.memory_total);
    RecordProperty("reason", t.reason);
}

}  // namespace
}  // namespace quern::engine
