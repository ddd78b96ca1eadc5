// SPDX-License-Identifier: Apache-2.0
#include "formats/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace quern {
namespace {

namespace fs = std::filesystem;

class MappedFiles : public testing::Test {
protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "quern-map-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override {
        std::error_code ignored;
        fs::remove_all(folder_, ignored);
    }
    std::string file(const std::string& text) const {
        const std::string p = (folder_ / "f").string();
        std::ofstream(p, std::ios::binary) << text;
        return p;
    }
    fs::path folder_;
};

std::string text_of(const MappedFile& f) { return {reinterpret_cast<const char*>(f.bytes().data()), f.bytes().size()}; }

TEST_F(MappedFiles, AFileIsMappedWhole) {
    const std::string text = std::string(10000, 'x') + "end";
    const auto f = MappedFile::open(file(text));
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_TRUE((*f)->is_mapped());
    EXPECT_EQ(text_of(**f), text);
    EXPECT_EQ((*f)->resident_bytes(), text.size()) << "all of it was just read";
}

TEST_F(MappedFiles, AnEmptyFileHasNoBytes) {
    const auto f = MappedFile::open(file(""));
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_TRUE((*f)->bytes().empty());
    EXPECT_EQ((*f)->resident_bytes(), 0u);
    (*f)->will_need(0, 100);
    (*f)->release((*f)->bytes());
}

TEST_F(MappedFiles, APipeIsRead) {
    const std::string path = (folder_ / "pipe").string(), text(3000000, 'p');
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    std::thread writer([&] { std::ofstream(path, std::ios::binary) << text; });
    const auto f = MappedFile::open(path);
    writer.join();
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_FALSE((*f)->is_mapped());
    EXPECT_EQ(text_of(**f), text);
    EXPECT_EQ((*f)->resident_bytes(), text.size());
    (*f)->release((*f)->bytes());
    EXPECT_EQ(text_of(**f), text) << "read bytes cannot be given back";
}

/// Kilobytes of the mapping at `p` that count as this process's memory, from /proc/self/smaps.
long rss_kb(const void* p) {
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    bool mine = false;
    while (std::getline(maps, line)) {
        std::size_t begin = 0, end = 0;
        if (std::sscanf(line.c_str(), "%zx-%zx ", &begin, &end) == 2) {
            mine = reinterpret_cast<std::size_t>(p) >= begin && reinterpret_cast<std::size_t>(p) < end;
        } else if (mine && line.rfind("Rss:", 0) == 0) {
            return std::atol(line.c_str() + 4);
        }
    }
    return -1;
}

TEST_F(MappedFiles, ReleaseGivesBackWholePagesOnly) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::string text(64 * page + 100, 'a');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / page % 26);
    const auto opened = MappedFile::open(file(text));
    ASSERT_TRUE(opened);
    const MappedFile& f = **opened;
    EXPECT_EQ(text_of(f), text);
    const long before = rss_kb(f.bytes().data());
    if (before < 0) GTEST_SKIP() << "/proc/self/smaps has no figure for the mapping here (an emulator?)";
    const long page_kb = static_cast<long>(page / 1024);
    EXPECT_EQ(before, 65 * page_kb);
    f.release(f.bytes().subspan(page + 1, page - 1));  // ends with a page, does not start with one: no whole page
    EXPECT_EQ(rss_kb(f.bytes().data()), before);
    f.release(f.bytes().subspan(10 * page - 1, 3 * page + 2));  // three whole pages inside
    EXPECT_EQ(rss_kb(f.bytes().data()), before - 3 * page_kb);
    f.release(f.bytes());
    EXPECT_EQ(rss_kb(f.bytes().data()), 0) << "the last, partial page is given back too";
    EXPECT_EQ(text_of(f), text) << "read again from the file";
}

TEST_F(MappedFiles, AdviceOutsideTheFileIsIgnored) {
    const auto f = MappedFile::open(file("abc"));
    ASSERT_TRUE(f);
    const std::byte elsewhere[10] = {};
    (*f)->will_need(0, SIZE_MAX);
    (*f)->will_need(3, 1);
    (*f)->will_need(SIZE_MAX, SIZE_MAX);
    (*f)->release(elsewhere);
    (*f)->release({});
    EXPECT_EQ(text_of(**f), "abc");
}

TEST_F(MappedFiles, ManyFailuresLeaveNoDescriptorOpen) {
    const auto open_descriptors = [] {
        return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
    };
    const auto before = open_descriptors();
    for (int i = 0; i < 20; ++i) {
        EXPECT_FALSE(MappedFile::open(folder_.string()));
        EXPECT_FALSE(MappedFile::open((folder_ / "none").string()));
        EXPECT_TRUE(MappedFile::open(file("abc")));
    }
    EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace quern
