// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"

namespace quern::text {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool at_start, bool special)
    : tokenizer_(std::move(tokenizer)), at_start_(at_start), special_(special) {
    reset();
}

std::string_view StreamDecoder::push(Token t) {
    text_.erase(0, given_);
    text_ += tokenizer_->next_bytes(t, special_, skip_space_);
    given_ = text_.size() - incomplete_utf8_tail(text_);
    return std::string_view(text_).substr(0, given_);
}

std::string StreamDecoder::flush() {
    std::string rest = text_.substr(given_);
    text_.clear();
    given_ = 0;
    return rest;
}

void StreamDecoder::reset() {
    text_.clear();
    given_ = 0;
    skip_space_ = at_start_ && tokenizer_->starts_with_added_space();
}

}  // namespace quern::text
