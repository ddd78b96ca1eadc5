// SPDX-License-Identifier: Apache-2.0
#include "formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/text.h"

namespace quern {
namespace {

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

Error system_error(const std::string& path, std::string_view doing, int code, std::string_view advice = {}) {
    return {Errc::io, cat(path, ": cannot ", doing, ": ", std::generic_category().message(code), advice)};
}

class Descriptor {
public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

private:
    int fd_;
};

/// Everything from the descriptor's position to its end; `hint` is the expected size.
Result<std::vector<std::byte>> read_all(const std::string& path, int fd, std::size_t hint) {
    constexpr std::size_t step = std::size_t{1} << 20;
    std::vector<std::byte> data;
    data.reserve(hint);
    std::size_t used = 0;
    for (;;) {
        if (used == data.size()) data.resize(used + std::max(step, used / 2));
        const ssize_t got = ::read(fd, data.data() + used, data.size() - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return system_error(path, "read", errno);
        if (got == 0) break;
        used += static_cast<std::size_t>(got);
    }
    data.resize(used);
    return data;
}

}  // namespace

Result<std::shared_ptr<MappedFile>> MappedFile::open(const std::string& path) {
    const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) {
        const int code = errno;
        const char* advice = code == ENOENT   ? "; check the path"
                             : code == EACCES ? "; check the permissions of the file and of its folders"
                                              : "";
        return system_error(path, "open", code, advice);
    }
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return system_error(path, "stat", errno);
    if (S_ISDIR(st.st_mode)) return Error{Errc::io, cat(path, ": is a directory; give the path of a file in it")};

    std::shared_ptr<MappedFile> file(new MappedFile);
    file->path_ = path;
    file->modified_ns_ = std::int64_t{st.st_mtim.tv_sec} * 1000000000 + st.st_mtim.tv_nsec;
    const auto size = static_cast<std::uint64_t>(st.st_size);
    if (size > std::numeric_limits<std::size_t>::max()) {
        return Error{Errc::unsupported, cat(path, ": ", size, " bytes do not fit this machine's address space")};
    }
    if (S_ISREG(st.st_mode) && size > 0) {
        void* p = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, fd.get(), 0);
        if (p != MAP_FAILED) {
            file->data_ = static_cast<const std::byte*>(p);
            file->size_ = static_cast<std::size_t>(size);
            file->mapped_ = true;
            return file;
        }
    }
    auto data = read_all(path, fd.get(), S_ISREG(st.st_mode) ? static_cast<std::size_t>(size) : 0);
    if (!data) return std::move(data).error();
    file->read_ = std::move(*data);
    file->data_ = file->read_.data();
    file->size_ = file->read_.size();
    return file;
}

MappedFile::~MappedFile() {
    if (mapped_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::will_need(std::size_t offset, std::size_t size) const {
    if (!mapped_ || offset >= size_) return;
    const std::size_t begin = offset / page_size() * page_size();
    const std::size_t end = offset + std::min(size, size_ - offset);
    // Advice only: where it is refused the pages are read when touched.
    (void)::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_WILLNEED);
}

void MappedFile::release(std::span<const std::byte> part) const {
    if (!mapped_ || part.data() < data_ || part.data() > data_ + size_) return;
    const auto offset = static_cast<std::size_t>(part.data() - data_);
    const std::size_t length = std::min(part.size(), size_ - offset), page = page_size();
    const std::size_t begin = (offset + page - 1) / page * page;
    // The mapping's last page has nothing of the file behind size_, so a part that reaches it may take it whole.
    const std::size_t end =
        offset + length == size_ ? (size_ + page - 1) / page * page : (offset + length) / page * page;
    if (begin < end) (void)::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::size_t MappedFile::resident_bytes() const {
    if (!mapped_) return size_;
    const std::size_t page = page_size(), window = 65536 * page;
    std::vector<unsigned char> present(std::min(window, size_ + page - 1) / page);
    std::size_t bytes = 0;
    for (std::size_t begin = 0; begin < size_; begin += window) {
        const std::size_t length = std::min(window, size_ - begin);
        if (::mincore(const_cast<std::byte*>(data_) + begin, length, present.data()) != 0) return size_;
        for (std::size_t p = 0; p * page < length; ++p) {
            if (present[p] & 1) bytes += std::min(page, length - p * page);
        }
    }
    return bytes;
}

}  // namespace quern
