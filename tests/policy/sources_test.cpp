// SPDX-License-Identifier: Apache-2.0
// Rules that can be read off the sources: what the library must not call, sizes, options, what lies at the top.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <set>

#include "tests/policy/repo.h"

namespace quern::policy {
namespace {

struct Word {
    std::string text;
    std::size_t line;
    bool called;  // the next character that is no blank is an opening parenthesis
};

bool word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

std::vector<Word> words(const std::string& code) {
    std::vector<Word> out;
    std::size_t line = 1;
    for (std::size_t i = 0; i < code.size();) {
        if (!word_char(code[i])) {
            line += code[i++] == '\n';
            continue;
        }
        const std::size_t start = i;
        while (i < code.size() && word_char(code[i])) ++i;
        const std::size_t next = code.find_first_not_of(" \t\n", i);
        out.push_back({code.substr(start, i - start), line, next != std::string::npos && code[next] == '('});
    }
    return out;
}

std::vector<std::string> library_sources() {
    std::vector<std::string> out;
    for (const char* room : {"formats", "kernels", "engine"})
        for (const std::string& f : sources(room)) out.push_back(f);
    return out;
}

TEST(Sources, OneFileReadsTheEnvironment) {
    for (const std::string& file : library_sources()) {
        if (file == "engine/core/env.cpp") continue;
        for (const Word& w : words(code_only(read(file))))
            EXPECT_TRUE(w.text != "getenv" && w.text != "secure_getenv" && w.text != "environ")
                << file << ':' << w.line << " reads the environment; engine/core/env.cpp is the place for it";
    }
}

TEST(Sources, TheLibraryNeitherStopsTheProgramNorPrints) {
    const std::set<std::string> calls = {"abort",     "exit",   "_exit",   "_Exit",   "quick_exit",
                                         "terminate", "printf", "fprintf", "vprintf", "vfprintf",
                                         "puts",      "fputs",  "putchar", "perror"};
    const std::set<std::string> names = {"cout", "cerr", "clog", "stdout", "stderr"};
    for (const std::string& file : library_sources())
        for (const Word& w : words(code_only(read(file))))
            EXPECT_FALSE((w.called && calls.count(w.text)) || names.count(w.text))
                << file << ':' << w.line << " uses " << w.text << "; the library returns errors and logs by callback";
}

TEST(Sources, EveryFileNamesItsLicence) {
    for (const std::string& file : all_sources()) {
        const std::vector<std::string> text = lines(read(file));
        EXPECT_TRUE(!text.empty() && text[0].find("SPDX-License-Identifier: Apache-2.0") != std::string::npos) << file;
    }
}

/// Functions by layout: a line that opens a brace after a parenthesis, up to the brace that closes at its indentation.
/// Good enough for a report.
struct Function {
    std::size_t line, length;
};
std::vector<Function> functions(const std::vector<std::string>& text) {
    const std::set<std::string> others = {"if", "for", "while", "switch", "namespace", "struct", "class", "else", "}"};
    std::vector<Function> out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::string& s = text[i];
        const std::size_t indent = s.find_first_not_of(' ');
        if (indent == std::string::npos || indent > 4 || s.back() != '{' || s.find(')') == std::string::npos) continue;
        const std::string head = s.substr(indent, s.find_first_of(" (", indent) - indent);
        if (others.count(head)) continue;
        for (std::size_t j = i + 1; j < text.size(); ++j)
            if (text[j].find_first_not_of(' ') == indent && text[j][indent] == '}') {
                out.push_back({i + 1, j - i + 1});
                break;
            }
    }
    return out;
}

// 600 lines, 80 lines a function and 300 lines a public header are where one should think; 700 is where one must.
TEST(Sources, Sizes) {
    for (const std::string& file : all_sources()) {
        const std::vector<std::string> text = lines(read(file));
        const bool is_public = file.find("/include/") != std::string::npos;
        EXPECT_LE(text.size(), 700u) << file << " is too long";
        if (text.size() > 600) std::printf("size: %s has %zu lines (600)\n", file.c_str(), text.size());
        if (is_public && text.size() > 300)
            std::printf("size: public header %s has %zu lines (300)\n", file.c_str(), text.size());
        for (const Function& f : functions(lines(code_only(read(file)))))
            if (f.length > 80)
                std::printf("size: %s:%zu: a function of %zu lines (80)\n", file.c_str(), f.line, f.length);
    }
}

TEST(Sources, AtMostTenBuildOptions) {
    std::vector<std::string> found;
    const std::vector<std::string> top = {"CMakeLists.txt",       "kernels/CMakeLists.txt", "tests/CMakeLists.txt",
                                          "tools/CMakeLists.txt", "bench/CMakeLists.txt",   "shaders/CMakeLists.txt"};
    for (const std::string& file : top)
        for (const std::string& line : lines(read(file))) {
            const std::size_t start = line.find_first_not_of(' ');
            if (start == std::string::npos) continue;
            const bool option = line.compare(start, 7, "option(") == 0;
            const bool cached = line.compare(start, 4, "set(") == 0 && line.find(" CACHE ") != std::string::npos &&
                                line.find(" INTERNAL ") == std::string::npos &&
                                line.compare(start, 10, "set(CMAKE_") != 0;
            if (option || cached) found.push_back(line);
        }
    EXPECT_GE(found.size(), 1u);
    EXPECT_LE(found.size(), 10u) << testing::PrintToString(found);
}

TEST(Tree, NoPathsOfSomeMachine) {
    const std::vector<std::string> files = tracked_files();
    if (files.empty()) GTEST_SKIP() << "not a git checkout, so there is no list of tracked files";
    // In two parts, so that this file passes its own test.
    const std::string patterns[] = {std::string("/wo") + "rk/", std::string("/fa") + "rm/", std::string("/ho") + "me/",
                                    std::string("/ro") + "ot/"};
    for (const std::string& file : files) {
        if (file.compare(0, 11, "tests/data/") == 0 || file.compare(0, 11, "tests/fuzz/") == 0) continue;
        const std::vector<std::string> text = lines(read(file));
        for (std::size_t i = 0; i < text.size(); ++i)
            for (const std::string& p : patterns)
                for (std::size_t at = text[i].find(p); at != std::string::npos; at = text[i].find(p, at + 1))
                    EXPECT_TRUE(at > 0 && (word_char(text[i][at - 1]) || text[i][at - 1] == '.'))
                        << file << ':' << i + 1 << " names a path of one machine: " << text[i];
    }
}

TEST(Tree, TheTopIsShort) {
    const std::vector<std::string> files = tracked_files();
    if (files.empty()) GTEST_SKIP() << "not a git checkout, so there is no list of tracked files";
    const std::set<std::string> allowed = {
        "CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "bench", "docs",
        "engine",         "formats",           "kernels", "shaders",   "tests", "tools"};
    std::set<std::string> top;
    for (const std::string& f : files) top.insert(f.substr(0, f.find('/')));
    for (const std::string& name : top)
        EXPECT_TRUE(name[0] == '.' || allowed.count(name)) << name << " does not belong at the top of the tree";
}

TEST(CodeOnly, BlanksCommentsAndLiterals) {
    EXPECT_EQ(code_only("a // b\nc /* d\n e */ f"), "a     \nc     \n      f");
    EXPECT_EQ(code_only("x = \"exit(\\\"1)\"; y = '\\''; z = 1'000;"), "x =            ; y =     ; z = 1'000;");
    EXPECT_EQ(code_only("R\"(abort())\" k"), "             k");
}

}  // namespace
}  // namespace quern::policy
