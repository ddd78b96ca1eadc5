// SPDX-License-Identifier: Apache-2.0
#include "tools/common/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

namespace quern::tools {

const char* const kExitCodesHelp =
    "Exit codes: 0 success, 1 error, 2 wrong flags or values, 3 the model is missing, damaged or not supported,\n"
    "4 not enough memory (or --memory-limit too small), 5 the prompt does not fit in the context, 130 interrupted.";

int exit_code(const Error& error) {
    switch (error.code) {
        case Errc::invalid_argument: return kExitUsage;
        case Errc::io:
        case Errc::bad_file:
        case Errc::unsupported: return kExitModel;
        case Errc::out_of_memory: return kExitMemory;
        case Errc::cancelled: return kExitInterrupted;
        case Errc::context_full: return kExitContext;
        case Errc::internal:
        case Errc::queue_full:
        case Errc::deadline_exceeded:
        case Errc::device_lost: break;
    }
    return kExitError;
}

int report(std::string_view program, const Error& error) {
    std::fprintf(stderr, "%.*s: %s\n", static_cast<int>(program.size()), program.data(), error.message.c_str());
    return exit_code(error);
}

Result<std::string> read_file(const std::string& path) {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(nullptr, std::fclose);
    std::FILE* file = stdin;
    if (path != "-") {
        opened.reset(std::fopen(path.c_str(), "rb"));
        file = opened.get();
        if (!file) return Error{Errc::invalid_argument, "cannot open '" + path + "': " + std::strerror(errno)};
    }
    std::string out;
    char buffer[1 << 16];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, file)) out.append(buffer, n);
    if (std::ferror(file)) return Error{Errc::invalid_argument, "cannot read '" + path + "': " + std::strerror(errno)};
    return out;
}

namespace {

/// A figure in KiB of /proc/self/status as bytes; 0 where it is not there.
std::uint64_t status_bytes(std::string_view name) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::uint64_t kib = 0;
        if (word == name && status >> kib) return kib * 1024;
    }
    return 0;
}

}  // namespace

std::uint64_t peak_memory_bytes() {
    // getrusage also counts what this process was before exec, so the kernel's own figure comes first.
    if (const std::uint64_t bytes = status_bytes("VmHWM:")) return bytes;
    rusage usage{};
    return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_maxrss) * 1024 : 0;
}

std::uint64_t resident_memory_bytes() { return status_bytes("VmRSS:"); }

std::string fixed(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

std::string human_bytes(std::uint64_t bytes) {
    static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
    return fixed(value, unit == 0 ? 0 : unit == 3 ? 2 : 1) + " " + kUnits[unit];
}

std::function<void(LogLevel, std::string_view)> log_to_stderr(std::string program, bool verbose) {
    return [program = std::move(program), verbose](LogLevel level, std::string_view message) {
        if (!verbose && (level == LogLevel::debug || level == LogLevel::info)) return;
        std::fprintf(stderr, "%s: %.*s\n", program.c_str(), static_cast<int>(message.size()), message.data());
    };
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::show(std::string_view text, std::uint64_t done, std::uint64_t total) {
    if (!terminal_) return;
    std::string line(text);
    if (total > 0) line += " " + std::to_string(static_cast<int>(100.0 * double(done) / double(total))) + "%";
    if (line == line_) return;
    line_ = std::move(line);
    std::fprintf(stderr, "\r\x1b[K%s", line_.c_str());
}

void Progress::clear() {
    if (line_.empty()) return;
    std::fputs("\r\x1b[K", stderr);
    line_.clear();
}

}  // namespace quern::tools
