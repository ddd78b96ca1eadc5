// SPDX-License-Identifier: Apache-2.0
#include "tests/policy/repo.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace quern::policy {
namespace fs = std::filesystem;

std::vector<std::string> tracked_files() {
    std::vector<std::string> out;
    if (!fs::exists(fs::path(QUERN_SOURCE_DIR) / ".git")) return out;
    FILE* git = popen("git -c safe.directory='*' -C '" QUERN_SOURCE_DIR "' ls-files", "r");
    if (!git) return out;
    std::string text;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, git)) > 0;) text.append(buffer, n);
    pclose(git);
    out = lines(text);
    std::sort(out.begin(), out.end());
    return out;
}

std::vector<std::string> sources(std::string_view folder) {
    std::vector<std::string> out;
    const fs::path root = QUERN_SOURCE_DIR, top = root / folder;
    if (!fs::exists(top)) return out;
    for (const auto& entry : fs::recursive_directory_iterator(top)) {
        const std::string ext = entry.path().extension().string();
        if (ext == ".h" || ext == ".hpp" || ext == ".cpp" || ext == ".inl" || ext == ".c")
            out.push_back(fs::relative(entry.path(), root).generic_string());
    }
    std::sort(out.begin(), out.end());
    return out;
}

std::vector<std::string> all_sources() {
    std::vector<std::string> out;
    for (const char* folder : {"formats", "kernels", "engine", "tools", "bench", "tests"}) {
        const std::vector<std::string> more = sources(folder);
        out.insert(out.end(), more.begin(), more.end());
    }
    return out;
}

std::string read(const std::string& path) {
    std::ifstream in(fs::path(QUERN_SOURCE_DIR) / path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

namespace {

/// Length of the raw string literal at i (which is at its R), or 0 if there is none.
std::size_t raw_literal(const std::string& s, std::size_t i) {
    if (s[i] != 'R' || i + 1 >= s.size() || s[i + 1] != '"') return 0;
    const std::size_t open = s.find('(', i);
    if (open == std::string::npos) return 0;
    const std::string close = ")" + s.substr(i + 2, open - i - 2) + "\"";
    const std::size_t end = s.find(close, open);
    return end == std::string::npos ? 0 : end + close.size() - i;
}

/// Length of the comment or literal at i, or 0.
std::size_t skipped(const std::string& s, std::size_t i) {
    if (s.compare(i, 2, "//") == 0) return std::min(s.find('\n', i), s.size()) - i;
    if (s.compare(i, 2, "/*") == 0) {
        const std::size_t end = s.find("*/", i + 2);
        return end == std::string::npos ? s.size() - i : end + 2 - i;
    }
    if (const std::size_t n = raw_literal(s, i)) return n;
    const bool separator = s[i] == '\'' && i > 0 && std::isxdigit(static_cast<unsigned char>(s[i - 1]));  // 1'000
    if (s[i] != '"' && (s[i] != '\'' || separator)) return 0;
    std::size_t j = i + 1;
    while (j < s.size() && s[j] != s[i] && s[j] != '\n') j += s[j] == '\\' ? 2 : 1;
    return std::min(j + 1, s.size()) - i;
}

}  // namespace

std::string code_only(const std::string& text) {
    std::string out = text;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t n = skipped(text, i);
        for (std::size_t j = i; j < i + n; ++j)
            if (out[j] != '\n') out[j] = ' ';
        i += std::max<std::size_t>(n, 1);
    }
    return out;
}

}  // namespace quern::policy
