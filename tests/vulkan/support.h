// SPDX-License-Identifier: Apache-2.0
// The device of a test program: lavapipe with the validation layer, or what QUERN_TEST_VULKAN_DEVICE names.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/vulkan/device.h"

namespace quern::vulkan::test {

inline std::string device_name() {
    const char* name = std::getenv("QUERN_TEST_VULKAN_DEVICE");
    return name && *name ? name : "llvmpipe";
}

/// Options for the tests' device: validated where the layer is installed, messages to stdout.
inline DeviceOptions options() {
    DeviceOptions o;
    o.device = device_name();
    o.validation = true;
    o.log = [](const std::string& line) { std::printf("vulkan: %s\n", line.c_str()); };
    return o;
}

/// Opens a device; without the validation layer where that is not installed.
inline Result<std::unique_ptr<Device>> open(DeviceOptions o) {
    Result<std::unique_ptr<Device>> device = Device::create(o);
    if (device || device.error().message.find("validation") == std::string::npos) return device;
    std::printf("vulkan: not validated: %s\n", device.error().message.c_str());
    o.validation = false;
    return Device::create(o);
}

/// One device a program, closed at its end; integer dot products are on where they exist, though slow.
struct Shared {
    std::unique_ptr<Device> device;
    std::string skip;                   // why there is none
    std::atomic<int> n_complaints = 0;  // of the validation layer
    Shared() {
        DeviceOptions o = options();
        o.force_integer_dot = true;
        o.log = [this, print = o.log](const std::string& line) {
            print(line);
            n_complaints += line.rfind("validation: ", 0) == 0;
        };
        Result<std::unique_ptr<Device>> made = open(o);
        if (made)
            device = std::move(*made);
        else
            skip = made.error().message;
    }
};
inline Shared& shared() {
    static Shared s;
    return s;
}

/// Closes the device after the last test: the validation layer names what was not released.
class Closing : public testing::Environment {
    void TearDown() override {
        if (!shared().device) return;
        const int before = shared().n_complaints;
        shared().device.reset();
        EXPECT_EQ(shared().n_complaints, before) << "closing the device: the log above has the messages";
    }
};
inline testing::Environment* const kClosing = testing::AddGlobalTestEnvironment(new Closing);

/// Base of tests that use the program's device. Whatever the validation layer says fails the test that provoked it.
class DeviceTest : public testing::Test {
protected:
    void SetUp() override {
        if (!shared().device) GTEST_SKIP() << "no Vulkan device for tests: " << shared().skip;
        before_ = device().n_validation_messages();
    }
    void TearDown() override {
        if (!shared().device) return;
        EXPECT_EQ(device().n_validation_messages(), before_) << "the log above has the messages";
    }
    static Device& device() { return *shared().device; }

    /// Fail the test, and give something empty, where they cannot.
    static Buffer buffer(std::size_t bytes, MemoryKind kind = MemoryKind::device) {
        Result<Buffer> b = device().allocate(bytes, kind, "test");
        if (b) return std::move(*b);
        ADD_FAILURE() << b.error().message;
        return {};
    }
    template <class T>
    static Buffer upload(const std::vector<T>& values) {
        Buffer b = buffer(std::max<std::size_t>(1, values.size() * sizeof(T)));
        if (b) check(device().write(b, 0, std::as_bytes(std::span(values))));
        return b;
    }
    template <class T>
    static std::vector<T> download(const Buffer& b, std::size_t n, std::size_t offset_bytes = 0) {
        std::vector<T> out(n);
        check(device().read(b, offset_bytes, std::as_writable_bytes(std::span(out))));
        return out;
    }
    static const Kernel* kernel(std::string_view module, const std::vector<std::uint32_t>& constants = {},
                                std::uint32_t required_subgroup = 0) {
        Result<const Kernel*> k = device().kernel(module, constants, required_subgroup);
        if (k) return *k;
        ADD_FAILURE() << k.error().message;
        return nullptr;
    }
    /// Records with `body(Commands&)`, runs once and waits.
    template <class Body>
    static void run(Body&& body) {
        Result<Commands> c = device().record();
        ASSERT_TRUE(c) << c.error().message;
        body(*c);
        const Status finished = c->finish();
        ASSERT_TRUE(finished) << finished.error().message;
        check(device().run(*c, "test"));
    }
    /// One dispatch, run once.
    template <class Push>
    static void dispatch(const Kernel* k, const Push& push, Groups groups) {
        if (k) run([&](Commands& c) { c.dispatch(*k, push, groups); });
    }
    static void check(const Status& s) { EXPECT_TRUE(s) << (s ? "" : s.error().message); }

private:
    std::uint32_t before_ = 0;
};

}  // namespace quern::vulkan::test
