// SPDX-License-Identifier: Apache-2.0
#include "engine/tune/cache.h"

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>
#include <system_error>

#include "formats/text.h"

namespace quern::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHead = "quern thread counts 1\n";
constexpr std::size_t kMostBytes = 4096;

std::uint64_t fnv1a(std::string_view s) {
    std::uint64_t h = 0xcbf29ce484222325u;
    for (const char c : s) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return h;
}

std::string hex(std::uint64_t v) {
    char text[16];
    const auto [end, error] = std::to_chars(text, text + sizeof text, v, 16);
    static_cast<void>(error);  // sixteen digits hold any
    return {text, end};
}

std::string body(const std::string& key, const TuneChoice& c) {
    return cat(kHead, key, "\nthreads ", c.n_threads, "\nthreads-batch ", c.n_threads_batch, "\nbatch ", c.n_batch, "\n");
}

/// Reads "name 123\n" off the front of `text`.
bool read_field(std::string_view& text, std::string_view name, std::uint32_t& value) {
    if (!text.starts_with(name) || text.substr(name.size(), 1) != " ") return false;
    text.remove_prefix(name.size() + 1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end == text.data() + text.size() || *end != '\n') return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
    return true;
}

}  // namespace

std::string TuneCache::path(const std::string& key) const {
    return folder_.empty() ? "" : (fs::path(folder_) / cat("threads-", hex(fnv1a(key)), ".txt")).string();
}

std::optional<TuneChoice> TuneCache::load(const std::string& key) const {
    if (folder_.empty()) return std::nullopt;
    std::ifstream in(path(key), std::ios::binary);
    std::string text(kMostBytes, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    std::string_view rest = text;
    const std::string head = cat(kHead, key, "\n");
    if (!rest.starts_with(head)) return std::nullopt;
    rest.remove_prefix(head.size());
    TuneChoice c;
    if (!read_field(rest, "threads", c.n_threads) || !read_field(rest, "threads-batch", c.n_threads_batch) ||
        !read_field(rest, "batch", c.n_batch)) {
        return std::nullopt;
    }
    if (rest != cat("check ", hex(fnv1a(body(key, c))), "\n")) return std::nullopt;
    return c;
}

bool TuneCache::write(const std::string& path, const std::string& text) const {
    std::error_code error;
    fs::create_directories(folder_, error);
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (out) return true;
    fs::remove(path, error);
    return false;
}

bool TuneCache::store(const std::string& key, const TuneChoice& choice) const {
    if (folder_.empty()) return false;
    const std::string text = body(key, choice), to = path(key);
    // Two processes that measure at once write to files of their own.
    const std::string temporary = cat(to, ".", hex(std::random_device{}()));
    std::error_code error;
    if (!write(temporary, cat(text, "check ", hex(fnv1a(text)), "\n"))) return false;
    fs::rename(temporary, to, error);
    if (!error) return true;
    fs::remove(temporary, error);
    return false;
}

bool TuneCache::writable() const {
    if (folder_.empty()) return false;
    const std::string path = (fs::path(folder_) / cat("try.", hex(std::random_device{}()))).string();
    std::error_code error;
    return write(path, "") && fs::remove(path, error);
}

}  // namespace quern::engine
