// SPDX-License-Identifier: Apache-2.0
// What the object files define, as nm tells it.
#include <cxxabi.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/policy/repo.h"

namespace quern::policy {
namespace {

struct Symbol {
    std::string name, section;
    char kind;  // nm's letter; capital: visible to the linker
};

std::vector<std::string> object_list(const std::string& name) {
    std::vector<std::string> out;
    std::ifstream in(std::string(QUERN_OBJECT_LISTS) + "/" + name);
    for (std::string line; std::getline(in, line);)
        if (!line.empty()) out.push_back(line);
    return out;
}

std::string trim(const std::string& s) {
    const std::size_t a = s.find_first_not_of(' '), b = s.find_last_not_of(' ');
    return a == std::string::npos ? "" : s.substr(a, b - a + 1);
}

std::string run(const std::string& command) {
    std::string text;
    FILE* pipe = popen(command.c_str(), "r");
    if (!pipe) return text;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    return pclose(pipe) == 0 ? text : "";
}

/// Columns of nm's sysv format: name | value | class | type | size | line | section.
std::vector<Symbol> symbols(const std::string& object) {
    std::vector<Symbol> out;
    std::istringstream in(run(std::string(QUERN_NM) + " --format=sysv '" + object + "'"));
    for (std::string line; std::getline(in, line);) {
        std::vector<std::string> cell;
        std::istringstream row(line);
        for (std::string c; std::getline(row, c, '|');) cell.push_back(trim(c));
        if (cell.size() < 6 || cell[2].size() != 1) continue;
        out.push_back({cell[0], cell.size() > 6 ? cell[6] : "", cell[2][0]});
    }
    return out;
}

bool defined_for_linker(const Symbol& s) { return s.kind == 'u' || (s.kind >= 'A' && s.kind <= 'Z' && s.kind != 'U'); }

const char* reason_to_skip() {
    const std::string type = QUERN_BUILD_TYPE;
    if (*QUERN_SANITIZERS) return "sanitizers add symbols of their own";
    if (type != "Release" && type != "RelWithDebInfo" && type != "MinSizeRel")
        return "without optimisation, inline functions are emitted";
    return nullptr;
}

TEST(Symbols, AnIsaUnitDefinesItsTableOnly) {
    if (const char* why = reason_to_skip()) GTEST_SKIP() << why;
    const std::vector<std::string> units = object_list("isa.txt");
    ASSERT_FALSE(units.empty());
    for (const std::string& unit : units) {
        std::vector<std::string> names;
        for (const Symbol& s : symbols(unit))
            if (defined_for_linker(s)) names.push_back(s.name);
        ASSERT_EQ(names.size(), 1u) << unit << " defines " << testing::PrintToString(names)
                                    << ": code built for one CPU must not be what the linker keeps for all";
        EXPECT_NE(names[0].find("kTable"), std::string::npos) << unit << ": " << names[0];
    }
}

TEST(Symbols, AnIsaUnitCallsOnlyTheCLibrary) {
    if (const char* why = reason_to_skip()) GTEST_SKIP() << why;
    const std::set<std::string> allowed = {"memcpy", "memset", "memmove", "memcmp",
                                           "fmaf",   "rintf",  "sqrtf",   "_GLOBAL_OFFSET_TABLE_"};
    for (const std::string& unit : object_list("isa.txt"))
        for (const Symbol& s : symbols(unit))
            EXPECT_TRUE(s.kind != 'U' || allowed.count(s.name)) << unit << " needs " << s.name;
}

/// Constants with addresses in them lie in .data.rel.ro, which the loader makes read-only; DW.ref.* are the compiler's
/// own references for exception handling.
bool is_mutable(const Symbol& s) {
    if (s.section.compare(0, 12, ".data.rel.ro") == 0 || s.name.compare(0, 7, "DW.ref.") == 0) return false;
    for (const char* prefix : {".data", ".bss", ".tdata", ".tbss", "*COM*"})
        if (s.section.compare(0, std::string(prefix).size(), prefix) == 0) return true;
    return false;
}

/// Names that the library's sources declare constexpr. GCC 12 puts a constexpr std::array of addresses into a writable
/// section, though nothing can write to it.
std::set<std::string> constexpr_names() {
    std::set<std::string> out;
    for (const char* room : {"formats", "kernels", "engine"})
        for (const std::string& file : sources(room))
            for (const std::string& line : lines(code_only(read(file)))) {
                const std::size_t equals = line.find_first_of("={[");
                if (line.find("constexpr ") == std::string::npos || equals == std::string::npos) continue;
                const std::size_t end = line.find_last_not_of(' ', equals - 1);
                if (end == std::string::npos) continue;
                const std::size_t start = line.find_last_of(" *&", end);
                if (start != std::string::npos) out.insert(line.substr(start + 1, end - start));
            }
    return out;
}

/// The last part of a mangled name, without its scopes.
std::string plain_name(const std::string& mangled) {
    int status = 0;
    char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
    const std::string name = text ? text : mangled;
    std::free(text);
    const std::size_t colons = name.rfind("::");
    return colons == std::string::npos ? name : name.substr(colons + 2);
}

TEST(Symbols, TheLibraryHasNoMutableGlobals) {
    if (const char* why = reason_to_skip()) GTEST_SKIP() << why;
    const std::set<std::string> constants = constexpr_names();
    EXPECT_TRUE(constants.count("kTables")) << "kernels/cpu/select.cpp has one";
    const std::vector<std::string> objects = object_list("library.txt");
    ASSERT_FALSE(objects.empty());
    std::size_t seen = 0;
    for (const std::string& object : objects) {
        for (const Symbol& s : symbols(object)) {
            ++seen;
            EXPECT_FALSE(is_mutable(s) && !(s.section == ".data.rel.local" && constants.count(plain_name(s.name))))
                << object << ": " << s.name << " in " << s.section;
        }
    }
    EXPECT_GT(seen, objects.size()) << QUERN_NM << " told nothing";
}

}  // namespace
}  // namespace quern::policy
