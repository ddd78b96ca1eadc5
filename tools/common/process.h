// SPDX-License-Identifier: Apache-2.0
// What every program shares with the shell: exit codes, messages, files, progress on a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quern/quern.hpp"

namespace quern::tools {

enum ExitCode : int {
    kExitOk = 0,
    kExitError = 1,         // anything not below
    kExitUsage = 2,         // flags or values that cannot be right
    kExitModel = 3,         // the model is missing, damaged, or not supported by this build or machine
    kExitMemory = 4,        // does not fit in --memory-limit or in the system's memory
    kExitContext = 5,       // the prompt does not fit in the context
    kExitInterrupted = 130  // Ctrl-C
};

/// The table of exit codes that every --help ends with.
extern const char* const kExitCodesHelp;

int exit_code(const Error& error);
/// Prints "PROGRAM: message" to standard error and returns the exit code that belongs to the error.
int report(std::string_view program, const Error& error);

/// The bytes of a file; "-" is standard input.
Result<std::string> read_file(const std::string& path);

/// Most memory this process has held at once (resident), in bytes; 0 where the system does not say.
std::uint64_t peak_memory_bytes();
/// Memory of this process that is resident now, in bytes; 0 where the system does not say.
std::uint64_t resident_memory_bytes();

/// "94.1 MiB".
std::string human_bytes(std::uint64_t bytes);
/// `value` with `digits` digits after the point.
std::string fixed(double value, int digits);

/// Log callback for ModelOptions::on_log: warnings and errors to standard error, the rest only when `verbose`.
std::function<void(LogLevel, std::string_view)> log_to_stderr(std::string program, bool verbose);

/// One line on standard error that replaces itself. Silent unless standard error is a terminal.
class Progress {
public:
    Progress();
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    /// Shows "text 42%"; writes only when the line changes.
    void show(std::string_view text, std::uint64_t done, std::uint64_t total);
    void clear();

private:
    bool terminal_;
    std::string line_;
};

}  // namespace quern::tools
