// SPDX-License-Identifier: Apache-2.0
// Who may include what: formats <- kernels <- engine <- tools, and embedders see the public headers only.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/policy/repo.h"

namespace quern::policy {
namespace {

struct Include {
    std::string file, name;
    std::size_t line;
    bool angle;
};

std::vector<Include> includes_of(const std::string& file) {
    std::vector<Include> out;
    const std::vector<std::string> text = lines(read(file));
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::size_t p = text[i].find_first_not_of(" \t");
        if (p == std::string::npos || text[i][p] != '#') continue;
        p = text[i].find_first_not_of(" \t", p + 1);
        if (p == std::string::npos || text[i].compare(p, 7, "include") != 0) continue;
        p = text[i].find_first_of("<\"", p);
        if (p == std::string::npos) continue;  // a macro
        const bool angle = text[i][p] == '<';
        const std::size_t end = text[i].find(angle ? '>' : '"', p + 1);
        out.push_back({file, text[i].substr(p + 1, end - p - 1), i + 1, angle});
    }
    return out;
}

bool starts(const std::string& s, std::string_view prefix) { return s.compare(0, prefix.size(), prefix) == 0; }

/// C++ standard headers have neither a dot nor a slash.
bool is_standard(const Include& i) { return i.angle && i.name.find_first_of("./") == std::string::npos; }

/// Headers of the system and of libraries, and the files that may include them. A new row needs a reason.
const std::map<std::string, std::set<std::string>> kPlatform = {
    {"formats/mapped_file.cpp", {"fcntl.h", "sys/mman.h", "sys/stat.h", "unistd.h"}},
    {"formats/atomic_file.cpp", {"fcntl.h", "unistd.h"}},  // a file is complete on disk before it gets its name
    {"kernels/cpu/features.cpp", {"cpuid.h", "sys/auxv.h", "sys/syscall.h", "unistd.h"}},
    {"kernels/vulkan/instance.cpp", {"dlfcn.h"}},  // the loader is looked for at run time
    {"kernels/vulkan/vk.h", {"vulkan/vulkan_core.h"}},
    {"kernels/cpu/simd/avx2.h", {"immintrin.h"}},
    {"kernels/cpu/simd/avx512.h", {"immintrin.h"}},
    {"kernels/cpu/simd/neon.h", {"arm_neon.h"}},
    {"engine/core/memory.cpp", {"sys/mman.h", "unistd.h"}},
    {"engine/core/numa.cpp", {"linux/mempolicy.h", "sys/syscall.h", "unistd.h"}},
    {"engine/core/topology.cpp", {"sched.h"}},
    {"engine/core/thread_pool.cpp", {"linux/futex.h", "pthread.h", "sched.h", "signal.h", "sys/syscall.h", "unistd.h"}},
    {"engine/text/pretokenize.cpp", {"pcre2.h"}},
    {"engine/text/jinja_strings.cpp", {"utf8proc.h"}},
    {"engine/text/wordpiece.cpp", {"utf8proc.h"}},
};

bool may_include_platform(const Include& i) {
    if (i.name == "nlohmann/json.hpp") return starts(i.file, "engine/") && i.file.find(".cpp") != std::string::npos;
    const auto row = kPlatform.find(i.file);
    return row != kPlatform.end() && row->second.count(i.name);
}

/// Every include of a room is the standard library's, one of its rooms', or listed above.
void check_room(const std::string& room, const std::vector<std::string>& allowed) {
    const std::vector<std::string> files = sources(room);
    ASSERT_FALSE(files.empty()) << room;
    for (const std::string& file : files)
        for (const Include& i : includes_of(file)) {
            if (starts(file, "engine/api/include/")) continue;  // stricter: PublicHeadersStandAlone
            bool ok = is_standard(i) || may_include_platform(i);
            for (const std::string& prefix : allowed) ok = ok || (!i.angle && starts(i.name, prefix));
            EXPECT_TRUE(ok) << i.file << ':' << i.line << " includes " << i.name << ", which " << room
                            << " may not (allowed: the standard library and its own rooms; see kPlatform)";
        }
}

TEST(Includes, FormatsKnowOnlyThemselves) { check_room("formats", {"formats/", "quern/result.hpp"}); }
TEST(Includes, KernelsKnowFormats) { check_room("kernels", {"kernels/", "formats/", "quern/result.hpp"}); }
TEST(Includes, EngineKnowsKernelsAndFormats) { check_room("engine", {"engine/", "kernels/", "formats/", "quern/"}); }

TEST(Includes, PublicHeadersStandAlone) {
    std::vector<std::string> files = sources("formats/include");
    for (const std::string& f : sources("engine/api/include")) files.push_back(f);
    ASSERT_FALSE(files.empty());
    for (const std::string& file : files) {
        const bool c = file.find(".hpp") == std::string::npos;  // quern.h is C99
        for (const Include& i : includes_of(file)) {
            const bool c_standard = c && (i.name == "stddef.h" || i.name == "stdint.h" || i.name == "stdbool.h");
            EXPECT_TRUE(c_standard || (!c && is_standard(i)) || starts(i.name, "quern/"))
                << file << ':' << i.line << " includes " << i.name;
        }
    }
}

TEST(Includes, EveryExceptionIsStillNeeded) {
    for (const auto& [file, names] : kPlatform) {
        std::set<std::string> found;
        for (const Include& i : includes_of(file)) found.insert(i.name);
        for (const std::string& name : names)
            EXPECT_TRUE(found.count(name)) << file << " no longer includes " << name << ": remove it from kPlatform";
    }
}

}  // namespace
}  // namespace quern::policy
