// SPDX-License-Identifier: Apache-2.0
#include "engine/core/topology.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "formats/text.h"

namespace quern::engine {
namespace {

using std::string;
using std::string_view;

constexpr int kMaxCpu = 1 << 16;  // no list may name more, whatever a file says
// A core is an efficiency core below these shares of the best core's figure. Capacity is at equal work (Arm little
// cores: 25 to 45 %, middle ones 75 % and up); clock alone differs less (Intel E-cores: 70 to 77 %, favoured cores 96
// %).
constexpr double kCapacityShare = 0.7, kFrequencyShare = 0.8;
// A step of prefill has about eight units a thread, so its end waits for at most one unit of the slowest: with half the
// speed that is an eighth of the step, less than what the core adds; with a quarter (Arm little cores) it is not.
constexpr double kPrefillShare = 0.5;

/// Up to 64 KB of a file; nothing if it cannot be read.
std::optional<string> read_text(const string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    string text(std::size_t{64} << 10, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    return text;
}

string_view trimmed(string_view s) {
    const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    while (!s.empty() && space(s.front())) s.remove_prefix(1);
    while (!s.empty() && space(s.back())) s.remove_suffix(1);
    return s;
}

/// Cuts `s` at the first `separator`: returns what is before it and leaves the rest in `s`.
string_view next_part(string_view& s, char separator) {
    const std::size_t at = s.find(separator);
    const string_view part = s.substr(0, at);
    s.remove_prefix(at == string_view::npos ? s.size() : at + 1);
    return part;
}

template <class T>
std::optional<T> number(string_view s) {
    s = trimmed(s);
    T value{};
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
    if (error != std::errc() || end != s.data() + s.size()) return std::nullopt;
    return value;
}

template <class T>
std::optional<T> read_number(const string& path) {
    const auto text = read_text(path);
    return text ? number<T>(*text) : std::nullopt;
}

/// "0-3,8,10-11" as numbers.
std::vector<int> parse_list(string_view s) {
    std::vector<int> out;
    s = trimmed(s);
    while (!s.empty()) {
        string_view range = next_part(s, ',');
        const auto first = number<int>(next_part(range, '-'));
        const auto last = range.empty() ? first : number<int>(range);
        if (!first || !last || *first < 0 || *last > kMaxCpu) continue;
        for (int i = *first; i <= *last; ++i) out.push_back(i);
    }
    return out;
}

std::vector<int> read_list(const string& path) {
    const auto text = read_text(path);
    return text ? parse_list(*text) : std::vector<int>{};
}

std::vector<int> system_affinity() {
    std::vector<int> out;
#ifdef __linux__
    for (std::size_t n = CPU_SETSIZE; n <= kMaxCpu; n *= 2) {  // fails while the kernel has more CPUs than the set
        std::vector<cpu_set_t> set(n / CPU_SETSIZE);
        const std::size_t bytes = set.size() * sizeof(cpu_set_t);
        if (::sched_getaffinity(0, bytes, set.data()) != 0) continue;
        for (std::size_t i = 0; i < n; ++i) {
            if (CPU_ISSET_S(i, bytes, set.data())) out.push_back(static_cast<int>(i));
        }
        break;
    }
#endif
    return out;
}

// ---- cgroups ----

/// One cgroup hierarchy: the folder of this process's group and of every group above it, as far as they are visible.
struct CgroupPath {
    bool v2 = false;
    std::vector<string> folders;
};

bool has_word(string_view list, string_view word) {
    while (!list.empty()) {
        if (next_part(list, ',') == word) return true;
    }
    return false;
}

/// The groups that limit `controller` ("cpu" or "memory"): the v1 hierarchy that has it, else the v2 one.
/// Formats: cgroups(7) for /proc/self/cgroup, proc_pid_mountinfo(5).
std::vector<CgroupPath> find_cgroups(const string& root, string_view controller) {
    std::vector<CgroupPath> out;
    const string groups = read_text(root + "/proc/self/cgroup").value_or("");
    const string mounts = read_text(root + "/proc/self/mountinfo").value_or("");
    for (string_view rest = groups; !rest.empty();) {
        string_view path = next_part(rest, '\n');
        const string_view hierarchy = next_part(path, ':'), controllers = next_part(path, ':');
        const bool v2 = hierarchy == "0" && controllers.empty();
        if (!v2 && !has_word(controllers, controller)) continue;
        for (string_view lines = mounts; !lines.empty();) {
            string_view line = next_part(lines, '\n');
            const std::size_t dash = line.find(" - ");
            if (dash == string_view::npos) continue;
            string_view tail = line.substr(dash + 3);
            const string_view type = next_part(tail, ' ');
            next_part(tail, ' ');  // source
            if (v2 ? type != "cgroup2" : type != "cgroup" || !has_word(tail, controller)) continue;
            for (int skip = 0; skip < 3; ++skip) next_part(line, ' ');
            const string_view mount_root = next_part(line, ' '), mount_point = next_part(line, ' ');
            // Inside a container the mount may show a part of the tree only, or one that this path is not below.
            string_view below = path;
            if (mount_root != "/") {
                const bool inside = below.substr(0, mount_root.size()) == mount_root &&
                                    (below.size() == mount_root.size() || below[mount_root.size()] == '/');
                below = inside ? below.substr(mount_root.size()) : string_view{};
            }
            if (below.find("/..") != string_view::npos) below = {};
            CgroupPath found{v2, {}};
            while (!below.empty() && below != "/") {
                found.folders.push_back(cat(root, mount_point, below));
                below = below.substr(0, below.rfind('/'));
            }
            found.folders.push_back(cat(root, mount_point));
            out.push_back(std::move(found));
            break;
        }
    }
    return out;
}

/// The least CPU quota of all groups, in CPUs; 0: none.
double read_cpu_quota(const string& root) {
    double least = 0;
    for (const CgroupPath& group : find_cgroups(root, "cpu")) {
        for (const string& folder : group.folders) {
            std::optional<double> quota, period;
            if (group.v2) {
                const string text = read_text(folder + "/cpu.max").value_or("");  // "max 100000" or "150000 100000"
                string_view rest = trimmed(text);
                quota = number<double>(next_part(rest, ' '));
                period = number<double>(rest);
            } else {
                quota = read_number<double>(folder + "/cpu.cfs_quota_us");  // -1: none
                period = read_number<double>(folder + "/cpu.cfs_period_us");
            }
            if (!quota || !period || !(*quota > 0) || !(*period > 0)) continue;
            const double cpus = *quota / *period;
            if (least == 0 || cpus < least) least = cpus;
        }
    }
    return least;
}

/// The number after `key` in a file of "key value" lines ("MemTotal:   123 kB" gives 123).
std::optional<std::uint64_t> find_value(string_view text, string_view key) {
    while (!text.empty()) {
        string_view line = next_part(text, '\n');
        if (line.substr(0, key.size()) != key) continue;
        line = trimmed(line.substr(key.size()));
        return number<std::uint64_t>(next_part(line, ' '));
    }
    return std::nullopt;
}

void read_memory(const string& root, Topology& t) {
    constexpr std::uint64_t unlimited = std::uint64_t{1} << 60;  // v1 says "no limit" by a number near 2^63
    const string info = read_text(root + "/proc/meminfo").value_or("");
    const auto bytes = [&](string_view key) { return find_value(info, key).value_or(0) * 1024; };
    t.memory_total = bytes("MemTotal:");
    t.memory_available = bytes("MemAvailable:");
    for (const CgroupPath& group : find_cgroups(root, "memory")) {
        for (const string& folder : group.folders) {
            const auto limit =
                read_number<std::uint64_t>(folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
            if (!limit || *limit >= unlimited) continue;
            const auto used =
                read_number<std::uint64_t>(folder + (group.v2 ? "/memory.current" : "/memory.usage_in_bytes"))
                    .value_or(0);
            // Page cache counts as use, but goes when memory is needed.
            const string stat = read_text(folder + "/memory.stat").value_or("");
            const auto cache = find_value(stat, group.v2 ? "inactive_file " : "total_inactive_file ").value_or(0);
            const std::uint64_t held = used - std::min(used, cache);
            const std::uint64_t left = *limit - std::min(*limit, held);
            if (t.memory_total == 0 || *limit < t.memory_total) t.memory_total = *limit;
            t.memory_available = std::min(t.memory_available, left);
        }
    }
}

// ---- CPUs ----

void read_nodes(const string& root, Topology& t) {
    const string folder = root + "/sys/devices/system/node";
    for (const int node : read_list(folder + "/online")) {
        for (const int id : read_list(cat(folder, "/node", node, "/cpulist"))) {
            for (Cpu& c : t.cpus) {
                if (c.id == id) c.node = node;
            }
        }
    }
    std::set<int> nodes;
    for (const Cpu& c : t.cpus) nodes.insert(c.node);
    t.nodes.assign(nodes.begin(), nodes.end());
}

void read_cores(const string& root, Topology& t) {
    std::map<std::pair<int, int>, int> found;
    for (Cpu& c : t.cpus) {
        const string folder = cat(root, "/sys/devices/system/cpu/cpu", c.id, "/topology");
        std::vector<int> siblings = read_list(folder + "/core_cpus_list");
        if (siblings.empty()) siblings = read_list(folder + "/thread_siblings_list");  // its name before Linux 5.4
        const auto package = read_number<int>(folder + "/physical_package_id");
        const auto core = read_number<int>(folder + "/core_id");
        std::pair<int, int> key{-2, c.id};  // nothing known: a core of its own
        if (!siblings.empty()) {
            key = {-1, *std::min_element(siblings.begin(), siblings.end())};
        } else if (package && core) {
            key = {std::max(*package, 0), *core};
        }
        c.core = found.try_emplace(key, static_cast<int>(found.size())).first->second;
    }
    t.n_cores = static_cast<std::uint32_t>(found.size());
}

/// Sets each CPU's speed to its share of the best one's figure in `file`. Returns whether every CPU has the file.
bool read_speeds(const string& root, const char* file, Topology& t) {
    std::vector<double> figures;
    for (const Cpu& c : t.cpus) {
        const auto value = read_number<double>(cat(root, "/sys/devices/system/cpu/cpu", c.id, file));
        if (!value) return false;
        figures.push_back(*value);
    }
    const double best = *std::max_element(figures.begin(), figures.end());
    for (std::size_t i = 0; i < figures.size(); ++i) t.cpus[i].speed = best > 0 ? figures[i] / best : 1;
    return true;
}

void read_efficiency(const string& root, Topology& t) {
    // Intel's hybrid machines list their kinds; Arm gives capacities; elsewhere the highest clock has to do.
    const bool capacities = read_speeds(root, "/cpu_capacity", t);
    if (!capacities) read_speeds(root, "/cpufreq/cpuinfo_max_freq", t);
    const std::vector<int> atoms = read_list(root + "/sys/devices/cpu_atom/cpus");
    if (!atoms.empty()) {
        for (Cpu& c : t.cpus) c.efficiency = std::find(atoms.begin(), atoms.end(), c.id) != atoms.end();
        const auto slow = [](const Cpu& c) { return c.efficiency; };
        if (std::all_of(t.cpus.begin(), t.cpus.end(), slow)) {
            for (Cpu& c : t.cpus) c.efficiency = false;  // the mask leaves no others: nothing to prefer
        }
    } else {
        for (Cpu& c : t.cpus) c.efficiency = c.speed < (capacities ? kCapacityShare : kFrequencyShare);
    }
    std::set<int> slow_cores;
    for (const Cpu& c : t.cpus) {
        if (c.efficiency) slow_cores.insert(c.core);
    }
    t.n_efficiency = static_cast<std::uint32_t>(slow_cores.size());
}

string decimal(double v) {  // "1.5"; not printf, which follows the locale
    const auto tenths = static_cast<std::uint64_t>(v * 10 + 0.5);
    return tenths % 10 == 0 ? cat(tenths / 10) : cat(tenths / 10, ".", tenths % 10);
}

void recommend(Topology& t) {
    std::set<int> taken;
    for (const int node : t.nodes) {
        for (const Cpu& c : t.cpus) {
            if (c.node == node && !c.efficiency && taken.insert(c.core).second) t.thread_cpus.push_back(c.id);
        }
    }
    const auto count = [](std::size_t n, const char* what) { return cat(n, what, n == 1 ? "" : "s"); };
    const std::size_t n_fast = t.thread_cpus.size();
    for (const Cpu& c : t.cpus) {
        if (c.efficiency && c.speed >= kPrefillShare && taken.insert(c.core).second) t.thread_cpus.push_back(c.id);
    }
    t.reason = cat(count(n_fast, t.n_efficiency != 0 ? " fast physical core" : " physical core"), " (",
                   count(t.cpus.size(), " logical CPU"), " allowed");
    if (t.n_efficiency != 0) {
        t.reason += cat(", ", count(t.n_efficiency, " efficiency core"),
                        t.thread_cpus.size() > n_fast ? " for prefill only" : " left out");
    }
    if (t.nodes.size() > 1) t.reason += cat(", ", t.nodes.size(), " NUMA nodes");
    t.reason += ")";
    t.n_threads = static_cast<std::uint32_t>(n_fast);
    if (t.cpu_quota > 0) {
        // Threads meet at barriers: one that the quota stops holds up all, so a part of a CPU does not count.
        const double whole = std::max(1.0, t.cpu_quota + 1e-6);
        if (whole < static_cast<double>(t.thread_cpus.size())) {
            t.thread_cpus.resize(static_cast<std::size_t>(whole));
            t.n_threads = std::min(t.n_threads, static_cast<std::uint32_t>(whole));
            t.reason +=
                cat(", cut to ", t.thread_cpus.size(), " by the cgroup's quota of ", decimal(t.cpu_quota), " CPUs");
        }
    }
    t.n_threads_batch = static_cast<std::uint32_t>(t.thread_cpus.size());
}

}  // namespace

double busy_seconds(std::span<const Cpu> cpus, const string& root) {
    constexpr double kTick = 0.01;  // USER_HZ is 100 on every architecture that Quern runs on
    const string text = read_text(root + "/proc/stat").value_or("");
    double ticks = 0;
    for (string_view rest = text; !rest.empty();) {
        string_view line = next_part(rest, '\n');
        const string_view name = next_part(line, ' ');
        const auto is_this = [&](const Cpu& c) { return name == cat("cpu", c.id); };
        if (std::none_of(cpus.begin(), cpus.end(), is_this)) continue;
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice.
        for (int i = 0; i < 8; ++i) {
            const auto value = number<double>(next_part(line, ' '));
            if (i != 3 && i != 4) ticks += value.value_or(0);
        }
    }
    return ticks * kTick;
}

ThreadPlaces thread_places(const Topology& t, std::uint32_t n_threads) {
    if (n_threads > t.thread_cpus.size() || (t.nodes.size() < 2 && t.n_efficiency == 0)) return {};
    ThreadPlaces out;
    for (std::uint32_t i = 0; i < n_threads; ++i) {
        const auto its_cpu = [&](const Cpu& c) { return c.id == t.thread_cpus[i]; };
        const Cpu& own = *std::find_if(t.cpus.begin(), t.cpus.end(), its_cpu);
        // Not one CPU each: the system still evens out what else runs there.
        std::vector<int>& cpus = out.cpus.emplace_back();
        for (const Cpu& c : t.cpus) {
            if (c.node == own.node && c.efficiency == own.efficiency) cpus.push_back(c.id);
        }
        auto node = std::find(out.nodes.begin(), out.nodes.end(), own.node);
        if (node == out.nodes.end()) node = out.nodes.insert(node, own.node);
        out.queue.push_back(static_cast<std::uint32_t>(node - out.nodes.begin()));
    }
    return out;
}

Topology read_topology(const string& root, std::span<const int> affinity) {
    std::vector<int> ids(affinity.begin(), affinity.end());
    if (ids.empty()) ids = system_affinity();
    if (ids.empty()) {
        for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
            ids.push_back(static_cast<int>(i));
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    Topology t;
    for (const int id : ids) t.cpus.push_back(Cpu{id, 0, 0, false});
    read_cores(root, t);
    read_efficiency(root, t);
    read_nodes(root, t);
    t.cpu_quota = read_cpu_quota(root);
    recommend(t);
    read_memory(root, t);
    return t;
}

}  // namespace quern::engine
