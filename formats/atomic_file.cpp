// SPDX-License-Identifier: Apache-2.0
#include "formats/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

#include "formats/text.h"

namespace quern {
namespace {

Error io_error(const std::string& path, std::string_view doing) {
    const int code = errno;
    return {Errc::io, cat(path, ": cannot ", doing, ": ", std::generic_category().message(code),
                          code == ENOSPC ? "; free some space" : "")};
}

}  // namespace

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status AtomicFile::create(const std::string& path) {
    path_ = path;
    // The process id keeps two writers of one path apart; O_EXCL catches what is left of the rest.
    const std::string temporary = cat(path, ".part", ::getpid());
    fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) return io_error(temporary, "create");
    temporary_ = temporary;
    return {};
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error(temporary_, "write");
        bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

Status AtomicFile::finish() {
    if (::fsync(fd_) != 0) return io_error(temporary_, "flush");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return io_error(path_, "rename the finished file to");
    temporary_.clear();
    return {};
}

}  // namespace quern
