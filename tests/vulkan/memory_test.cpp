// SPDX-License-Identifier: Apache-2.0
// Buffers and copies, what happens when memory or the device goes, and the pipeline cache on disk.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/vulkan/support.h"

namespace quern::vulkan::test {
namespace {

class VulkanMemory : public DeviceTest {
protected:
    /// A device of its own for tests that break something; its messages are collected.
    std::unique_ptr<Device> own(DeviceOptions o) {
        o.log = [this](const std::string& line) { said_ += line + "\n"; };
        Result<std::unique_ptr<Device>> d = open(std::move(o));
        if (d) return std::move(*d);
        ADD_FAILURE() << d.error().message;
        return nullptr;
    }
    void TearDown() override {
        DeviceTest::TearDown();
        EXPECT_EQ(said_.find("validation: "), std::string::npos) << "also when the device was closed: " << said_;
    }
    std::string said_;
};

std::vector<std::byte> pattern(std::size_t n) {
    std::vector<std::byte> out(n);
    std::uint32_t state = 1;
    for (std::byte& b : out) b = static_cast<std::byte>((state = state * 1664525u + 1013904223u) >> 24);
    return out;
}

/// Writes in two pieces at odd offsets and reads back in two others.
void round_trip(Device& d, std::size_t n, MemoryKind kind) {
    const std::vector<std::byte> data = pattern(n);
    const Result<Buffer> b = d.allocate(n, kind, "round trip");
    ASSERT_TRUE(b) << b.error().message;
    const std::span<const std::byte> all(data);
    const std::size_t cut = n / 3;
    ASSERT_TRUE(d.write(*b, cut, all.subspan(cut)));
    ASSERT_TRUE(d.write(*b, 0, all.first(cut)));
    std::vector<std::byte> back(n);
    ASSERT_TRUE(d.read(*b, 0, std::span(back).first(n / 2)));
    ASSERT_TRUE(d.read(*b, n / 2, std::span(back).subspan(n / 2)));
    EXPECT_TRUE(back == data) << n << " bytes";
}

TEST_F(VulkanMemory, RoundTripsThroughTheHostsView) {
    for (const MemoryKind kind : {MemoryKind::device, MemoryKind::upload, MemoryKind::readback})
        for (const std::size_t n : {std::size_t{1}, std::size_t{4097}, std::size_t{3} << 20})
            round_trip(device(), n, kind);
}

TEST_F(VulkanMemory, RoundTripsThroughStaging) {
    DeviceOptions o = options();
    o.disable = kHostVisible;
    const std::unique_ptr<Device> d = own(o);
    ASSERT_TRUE(d);
    const Result<Buffer> b = d->allocate(64, MemoryKind::device, "test");
    ASSERT_TRUE(b);
    EXPECT_TRUE(b->host().empty());
    // The last is five parts of 16 MiB and a bit: both staging parts are used again.
    for (const std::size_t n : {std::size_t{1}, std::size_t{4097}, std::size_t{16} << 20, (std::size_t{80} << 20) + 5})
        round_trip(*d, n, MemoryKind::device);
    EXPECT_EQ(d->n_validation_messages(), 0u) << said_;
}

TEST_F(VulkanMemory, KindsThatTheHostSees) {
    for (const MemoryKind kind : {MemoryKind::upload, MemoryKind::readback}) {
        const Buffer b = buffer(1000, kind);
        EXPECT_EQ(b.host().size(), 1000u);
        EXPECT_EQ(b.address() % 256, 0u);
        EXPECT_NE(b.address(), 0u);
    }
    EXPECT_EQ(buffer(1000).host().empty(), !device().has(kHostVisible));
}

TEST_F(VulkanMemory, IsCountedAndReleased) {
    const std::uint64_t before = device().held_bytes();
    {
        Buffer a = buffer(1000), b = buffer(5000);
        EXPECT_EQ(device().held_bytes(), before + 6000);
        const std::uint64_t address = b.address();
        a = std::move(b);
        EXPECT_EQ(device().held_bytes(), before + 5000);
        EXPECT_EQ(a.address(), address);
        EXPECT_FALSE(b);  // NOLINT: what a moved-from buffer is, is being tested
        Buffer& same = a;
        a = std::move(same);
        EXPECT_EQ(a.size(), 5000u);
    }
    EXPECT_EQ(device().held_bytes(), before);
}

TEST_F(VulkanMemory, RefusesWhatIsTooLargeAndSaysSo) {
    const Result<Buffer> b = device().allocate(device().info().max_allocation + 1, MemoryKind::device, "the weights");
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().code, Errc::out_of_memory);
    EXPECT_NE(b.error().message.find("the weights"), std::string::npos);
    EXPECT_NE(b.error().message.find("split it"), std::string::npos) << b.error().message;
    EXPECT_FALSE(device().allocate(0, MemoryKind::device, "nothing"));
}

TEST_F(VulkanMemory, RefusesRangesOutsideABuffer) {
    const Buffer b = buffer(100);
    std::vector<std::byte> bytes(50);
    EXPECT_FALSE(device().write(b, 51, bytes));
    EXPECT_FALSE(device().read(b, 51, bytes));
    EXPECT_FALSE(device().write(b, ~std::size_t{0}, bytes));
    EXPECT_FALSE(device().read(Buffer(), 0, bytes));
    check(device().write(b, 50, bytes));
    check(device().write(Buffer(), 0, {}));
}

TEST_F(VulkanMemory, AnyAllocationMayFailAndAllIsReleased) {
    for (std::uint32_t nth = 1; nth <= 6; ++nth) {
        DeviceOptions o = options();
        o.disable = kHostVisible;  // so that copies allocate too
        o.faults.allocation = nth;
        const std::unique_ptr<Device> d = own(o);
        ASSERT_TRUE(d);
        std::vector<std::byte> bytes(100);
        std::uint32_t failures = 0;
        {
            std::vector<Buffer> held;
            for (int i = 0; i < 4; ++i) {
                Result<Buffer> b = d->allocate(100, MemoryKind::device, "layer 3");
                if (b) {
                    held.push_back(std::move(*b));
                } else {
                    ++failures;
                    EXPECT_EQ(b.error().code, Errc::out_of_memory);
                    EXPECT_NE(b.error().message.find("layer 3: 100 bytes"), std::string::npos) << b.error().message;
                }
            }
            ASSERT_FALSE(held.empty());
            for (int i = 0; i < 2; ++i) {  // each takes a staging part
                const Status s = d->write(held[0], 0, bytes);
                if (s) continue;
                ++failures;
                EXPECT_EQ(s.error().code, Errc::out_of_memory);
            }
            EXPECT_TRUE(d->write(held[0], 0, bytes)) << "what failed once is tried again";
            EXPECT_TRUE(d->read(held[0], 0, bytes));
            std::swap(held.front(), held.back());
        }
        EXPECT_EQ(failures, 1u) << "of allocation " << nth;
        EXPECT_LE(d->held_bytes(), std::uint64_t{2} << 24) << "staging memory alone";
        EXPECT_EQ(d->n_validation_messages(), 0u) << said_;
    }
}

TEST_F(VulkanMemory, ALostDeviceStaysLost) {
    for (const std::uint32_t nth : {1u, 2u, 3u}) {
        DeviceOptions o = options();
        o.disable = kHostVisible;
        o.faults.submit = nth;
        const std::unique_ptr<Device> d = own(o);
        ASSERT_TRUE(d);
        Result<Buffer> b = d->allocate(1 << 20, MemoryKind::device, "test");
        Result<Commands> one = d->record(), two = d->record();
        ASSERT_TRUE(b && one && two);
        one->fill(*b, 0, b->size(), 1);
        two->fill(*b, 0, b->size(), 2);
        ASSERT_TRUE(one->finish() && two->finish());
        std::vector<std::byte> bytes(1000);
        const Status written = d->write(*b, 0, bytes);  // the first submission, left under way
        EXPECT_EQ(written.ok(), nth != 1);
        Commands* const both[] = {&*one, &*two};
        const Status lost = d->run(both, "decoding a token");
        ASSERT_FALSE(lost);
        EXPECT_EQ(lost.error().code, Errc::device_lost);
        EXPECT_NE(lost.error().message.find("decoding a token"), std::string::npos) << lost.error().message;
        EXPECT_NE(lost.error().message.find(d->info().name), std::string::npos);
        const Status again = d->run(*one, "something else"), write = d->write(*b, 0, bytes),
                     read = d->read(*b, 0, bytes);
        for (const Status* s : {&again, &write, &read}) {
            ASSERT_FALSE(*s);
            EXPECT_EQ(s->error().code, Errc::device_lost);
            EXPECT_NE(s->error().message.find(nth == 1 ? "lost during a write" : "lost during decoding a token"),
                      std::string::npos)
                << s->error().message;
        }
        b = Buffer();  // released while lost, with an upload under way
        EXPECT_EQ(d->n_validation_messages(), 0u) << said_;
    }
}

// ---- Pipeline cache ----

class VulkanCache : public VulkanMemory {
protected:
    void SetUp() override {
        VulkanMemory::SetUp();
        if (IsSkipped()) return;
        folder_ = std::filesystem::temp_directory_path() / ("quern-vulkan-" + std::to_string(::getpid())) / "cache";
        std::filesystem::remove_all(folder_);
    }
    void TearDown() override {
        VulkanMemory::TearDown();
        if (!folder_.empty()) std::filesystem::remove_all(folder_.parent_path());
    }
    /// Opens a device with the cache, makes and runs a kernel, closes it; what was said about the cache.
    std::string session() {
        said_.clear();
        DeviceOptions o = options();
        o.cache_dir = folder_.string();
        const std::unique_ptr<Device> d = own(o);
        if (!d) return "";
        EXPECT_TRUE(d->kernel("copy", std::vector<std::uint32_t>{64, 1}));
        d->save_cache();
        EXPECT_EQ(d->n_validation_messages(), 0u) << said_;
        return said_;
    }
    /// The one file in the folder.
    std::filesystem::path file() const {
        std::vector<std::filesystem::path> found;
        for (const auto& entry : std::filesystem::directory_iterator(folder_)) found.push_back(entry.path());
        EXPECT_EQ(found.size(), 1u) << "no temporary file may stay";
        return found.empty() ? "" : found[0];
    }
    static std::string read_all(const std::filesystem::path& p) {
        std::ifstream in(p, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static void write_all(const std::filesystem::path& p, const std::string& bytes) {
        std::ofstream(p, std::ios::binary | std::ios::trunc) << bytes;
    }
    std::filesystem::path folder_;
};

TEST_F(VulkanCache, IsKeptAndTaken) {
    EXPECT_EQ(session(), "") << "there is none yet";
    const std::string kept = read_all(file());
    ASSERT_GT(kept.size(), 56u);
    const std::string bytes = std::to_string(kept.size() - 56) + " bytes";
    EXPECT_NE(session().find(bytes), std::string::npos) << said_;
    EXPECT_EQ(read_all(file()).size(), kept.size()) << "nothing new, so nothing written";
}

TEST_F(VulkanCache, IsLeftAsideWhereAnythingIsWrong) {
    session();
    const std::filesystem::path path = file();
    const std::string good = read_all(path);
    ASSERT_GT(good.size(), 57u);
    struct Case {
        std::size_t at;  // the byte that is changed
        const char* said;
    };
    const Case cases[] = {{0, "no pipeline cache"},
                          {8, "no pipeline cache"},
                          {12, "another device or driver"},
                          {16, "another device or driver"},
                          {20, "another device or driver"},
                          {24, "another device or driver"},
                          {39, "another device or driver"},
                          {40, "size"},
                          {48, "checksum"},
                          {56, "checksum"},
                          {good.size() - 1, "checksum"}};
    for (const Case& c : cases) {
        std::string bad = good;
        bad[c.at] = static_cast<char>(bad[c.at] ^ 0x40);
        write_all(path, bad);
        const std::string said = session();
        EXPECT_NE(said.find("left aside"), std::string::npos) << "byte " << c.at << ": " << said;
        EXPECT_NE(said.find(c.said), std::string::npos) << "byte " << c.at << ": " << said;
        EXPECT_EQ(read_all(path), good) << "a good one takes its place";
    }
    for (const std::size_t n : {std::size_t{1}, std::size_t{55}, std::size_t{56}, good.size() - 1}) {
        write_all(path, good.substr(0, n));
        EXPECT_NE(session().find("left aside"), std::string::npos) << n << " bytes";
    }
    write_all(path, good + "x");
    EXPECT_NE(session().find("left aside"), std::string::npos);
    write_all(path, "");
    session();
    EXPECT_EQ(read_all(path), good);
}

TEST_F(VulkanCache, AFolderThatCannotBeIsNoError) {
    std::filesystem::create_directories(folder_.parent_path());
    write_all(folder_, "a file where the folder should be");
    EXPECT_NE(session().find("not kept"), std::string::npos) << said_;
}

}  // namespace
}  // namespace quern::vulkan::test
