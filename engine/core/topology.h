// SPDX-License-Identifier: Apache-2.0
// What this process may use of the machine: CPUs, cores, NUMA nodes, memory, and how many threads make sense.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern::engine {

/// One logical CPU in the affinity mask.
struct Cpu {
    int id = 0;
    int core = 0;  ///< CPUs with the same number are hardware threads of one core (index into the cores found)
    int node = 0;  ///< NUMA node
    bool efficiency = false;  ///< a slower core of a machine with two kinds
    double speed = 1;         ///< share of the fastest core's capacity or clock; 1 where not known
};

struct Topology {
    std::vector<Cpu> cpus;               ///< by id; never empty
    std::uint32_t n_cores = 1;           ///< physical cores among them
    std::uint32_t n_efficiency = 0;      ///< of which slower ones
    std::vector<int> nodes;              ///< NUMA nodes of the CPUs, ascending; {0} where not known
    double cpu_quota = 0;                ///< CPUs' worth of time that the cgroups grant; 0: no limit
    std::uint32_t n_threads = 1;         ///< for decode: one a fast core, no more than the quota's whole CPUs
    std::uint32_t n_threads_batch = 1;   ///< for prefill: efficiency cores at least half as fast join; >= n_threads
    /// [n_threads_batch] one logical CPU a thread: the fast cores, node after node, then the others.
    std::vector<int> thread_cpus;
    std::string reason;                  ///< how n_threads came about, for a person
    std::uint64_t memory_total = 0;      ///< bytes of the machine, or the cgroup's limit where that is less; 0: unknown
    std::uint64_t memory_available = 0;  ///< bytes that can be had now without swapping, within the cgroup's limit
};

/// Reads sysfs, procfs and the cgroup files (v1 and v2). What is missing counts as absent, so this cannot fail.
/// root: where "/proc" and "/sys" are found, for tests. affinity: CPUs allowed; empty: asks the system.
Topology read_topology(const std::string& root = "", std::span<const int> affinity = {});

/// Seconds that these CPUs together have been busy since the system started, for whomever, the host's other guests
/// included; 0 where not known.
double busy_seconds(std::span<const Cpu> cpus, const std::string& root = "");

/// Where threads should run, for ThreadPool. Empty where the machine's CPUs are all alike.
struct ThreadPlaces {
    std::vector<std::vector<int>> cpus;  ///< [thread] CPUs of the kind and node meant for it; empty: any
    std::vector<std::uint32_t> queue;    ///< [thread] index into nodes
    std::vector<int> nodes;              ///< nodes that have threads
};
/// n_threads: in all. Empty too where they are more than the cores: no place is then better than another.
ThreadPlaces thread_places(const Topology& topology, std::uint32_t n_threads);

}  // namespace quern::engine
