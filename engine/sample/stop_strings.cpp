// SPDX-License-Identifier: Apache-2.0
#include "engine/sample/stop_strings.h"

#include <algorithm>
#include <utility>

#include "formats/text.h"

namespace quern::engine {
namespace {

/// Bytes at the end of `s` that begin a UTF-8 character without ending it: 0 to 3.
std::size_t unfinished_character(std::string_view s) {
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, s.size()); ++back) {
        const auto byte = static_cast<unsigned char>(s[s.size() - back]);
        if ((byte & 0xc0) == 0x80) continue;  // a continuation: the lead is further back
        const std::size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        return length > back && byte < 0xf8 ? back : 0;
    }
    return 0;
}

}  // namespace

Result<StopMatcher> StopMatcher::create(std::vector<std::string> stops) {
    StopMatcher m;
    for (std::string& text : stops) {
        if (text.empty()) {
            return Error{Errc::invalid_argument,
                         cat("stop string ", m.stops_.size(), " is empty; every text would end at once")};
        }
        Stop s{std::move(text), {}, 0};
        s.border.resize(s.text.size());
        for (std::size_t i = 1, k = 0; i < s.text.size(); ++i) {
            while (k > 0 && s.text[k] != s.text[i]) k = s.border[k - 1];
            if (s.text[k] == s.text[i]) ++k;
            s.border[i] = k;
        }
        m.stops_.push_back(std::move(s));
    }
    return m;
}

void StopMatcher::advance(char byte) {
    for (std::size_t n = 0; n < stops_.size(); ++n) {
        Stop& s = stops_[n];
        while (s.matched > 0 && s.text[s.matched] != byte) s.matched = s.border[s.matched - 1];
        if (s.text[s.matched] == byte) ++s.matched;
        if (s.matched < s.text.size()) continue;
        if (matched_ < 0 || s.text.size() > stop(matched_).size()) matched_ = static_cast<int>(n);
    }
}

std::string_view StopMatcher::push(std::string_view piece) {
    if (matched_ >= 0) return {};
    pending_.erase(0, std::exchange(given_, 0));
    for (const char byte : piece) {
        pending_ += byte;
        advance(byte);
        if (matched_ < 0) continue;
        // All of the match is still here: no byte that could begin one was let through.
        pending_.resize(pending_.size() - stop(matched_).size());
        given_ = pending_.size();
        return pending_;
    }
    std::size_t held = 0;
    for (const Stop& s : stops_) held = std::max(held, s.matched);
    std::string_view ready(pending_.data(), pending_.size() - held);
    ready.remove_suffix(unfinished_character(ready));
    given_ = ready.size();
    return ready;
}

std::string_view StopMatcher::flush() {
    if (matched_ >= 0) return {};
    pending_.erase(0, given_);
    given_ = pending_.size();
    for (Stop& s : stops_) s.matched = 0;
    return pending_;
}

void StopMatcher::reset() {
    pending_.clear();
    given_ = 0;
    matched_ = -1;
    for (Stop& s : stops_) s.matched = 0;
}

}  // namespace quern::engine
