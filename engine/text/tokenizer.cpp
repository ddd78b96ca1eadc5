// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.h"

#include <algorithm>

#include "engine/text/unicode.h"
#include "formats/text.h"

namespace quern::text {

std::string output_bytes(const Vocab& vocab, Token t) {
    const auto i = static_cast<std::size_t>(t);
    const std::string_view piece = vocab.pieces[i];
    const TokenType type = vocab.types[i];
    if (const int byte = vocab.byte_value(t); byte >= 0) return std::string(1, static_cast<char>(byte));
    // Added tokens are stored as they appear in text.
    if (type != TokenType::normal && type != TokenType::unused) return std::string(piece);
    if (vocab.model != "gpt2") return unescape_spaces(piece);
    std::string out;
    for (std::size_t at = 0; at < piece.size();) {
        const CodePoint c = decode_utf8(piece.substr(at, 4));
        const std::size_t size = c.size == 0 ? 1 : c.size;
        const int byte = c.size == 0 ? -1 : byte_of_char(c.value);
        if (byte >= 0) {
            out.push_back(static_cast<char>(byte));
        } else {
            out.append(piece.substr(at, size));
        }
        at += size;
    }
    return out;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::create(const gguf::File& file) {
    auto vocab = Vocab::load(file);
    if (!vocab) return std::move(vocab).error();
    std::shared_ptr<Tokenizer> t(new Tokenizer(*std::move(vocab)));
    const Vocab& v = t->vocab_;
    auto encoder = v.model == "gpt2" ? make_bpe(v) : v.model == "llama" ? make_spm(v) : make_wordpiece(v);
    if (!encoder) return Error{encoder.error().code, cat(file.path(), ": ", encoder.error().message)};
    t->encoder_ = *std::move(encoder);
    t->index_special();
    t->build_pieces();
    return std::shared_ptr<const Tokenizer>(std::move(t));
}

void Tokenizer::index_special() {
    std::vector<std::pair<std::string_view, Token>> user, all;
    for (std::size_t i = 0; i < vocab_.size(); ++i) {
        const auto token = static_cast<Token>(i);
        const bool user_defined = vocab_.types[i] == TokenType::user_defined;
        if (user_defined) user.emplace_back(vocab_.pieces[i], token);
        if (user_defined || is_special(token)) all.emplace_back(vocab_.pieces[i], token);
    }
    user_defined_ = PrefixMatcher(std::move(user));
    all_special_ = PrefixMatcher(std::move(all));
}

void Tokenizer::build_pieces() {
    ends_.reserve(vocab_.size() + 1);
    ends_.push_back(0);
    for (std::size_t i = 0; i < vocab_.size(); ++i) {
        bytes_ += output_bytes(vocab_, static_cast<Token>(i));
        ends_.push_back(bytes_.size());
    }
}

bool Tokenizer::is_special(Token t) const {
    const TokenType type = vocab_.types[static_cast<std::size_t>(t)];
    return type == TokenType::control || type == TokenType::unknown;
}

Status Tokenizer::encode_text(std::string_view text, std::vector<Token>& out) const {
    if (text.empty()) return {};
    if (!vocab_.add_space_prefix) return encoder_->encode(text, out);
    std::string spaced;
    spaced.reserve(text.size() + 1);
    spaced.push_back(' ');
    spaced.append(text);
    return encoder_->encode(spaced, out);
}

Result<std::vector<Token>> Tokenizer::encode(std::string_view text, TokenizeOptions options) const {
    if (text.size() > kMaxTextBytes) {
        return Error{Errc::invalid_argument,
                     cat("the text has ", text.size(), " bytes; the limit is ", kMaxTextBytes, ": split it")};
    }
    std::vector<Token> out;
    if (options.add_special && vocab_.add_bos) out.push_back(vocab_.bos);
    const PrefixMatcher& special = options.parse_special ? all_special_ : user_defined_;
    std::size_t begin = 0;
    auto literal = options.literal.begin();
    for (std::size_t at = 0; at < text.size();) {
        while (literal != options.literal.end() && *literal < at) ++literal;
        const bool plain = literal != options.literal.end() && *literal == at;
        const auto match = (plain ? user_defined_ : special).longest(text.substr(at));
        if (match.size == 0) {
            ++at;
            continue;
        }
        if (Status s = encode_text(text.substr(begin, at - begin), out); !s) return std::move(s).error();
        out.push_back(match.token);
        begin = at += match.size;
    }
    if (Status s = encode_text(text.substr(begin), out); !s) return std::move(s).error();
    if (options.add_special && vocab_.add_sep) out.push_back(vocab_.sep);
    if (options.add_special && vocab_.add_eos) out.push_back(vocab_.eos);
    return out;
}

std::string_view Tokenizer::piece(Token t, bool special) const {
    if (!in_vocab(t) || (!special && is_special(t))) return {};
    const auto i = static_cast<std::size_t>(t);
    return std::string_view(bytes_).substr(ends_[i], ends_[i + 1] - ends_[i]);
}

std::string_view Tokenizer::next_bytes(Token t, bool special, bool& skip_space) const {
    std::string_view bytes = piece(t, special);
    if (!in_vocab(t)) return bytes;
    const TokenType type = vocab_.types[static_cast<std::size_t>(t)];
    if (type == TokenType::control || type == TokenType::user_defined) {
        skip_space |= vocab_.add_space_prefix;
        return bytes;
    }
    if (skip_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
    skip_space = false;
    return bytes;
}

std::string Tokenizer::decode(std::span<const Token> tokens, bool special) const {
    std::string out;
    bool skip_space = starts_with_added_space();
    for (const Token t : tokens) out += next_bytes(t, special, skip_space);
    return out;
}

bool Tokenizer::is_end_of_generation(Token t) const {
    return std::binary_search(vocab_.end_of_generation.begin(), vocab_.end_of_generation.end(), t);
}

bool Tokenizer::is_control(Token t) const {
    return in_vocab(t) && vocab_.types[static_cast<std::size_t>(t)] == TokenType::control;
}

bool Tokenizer::starts_with_control(std::string_view text) const {
    const auto match = all_special_.longest(text);
    return match.size > 0 && is_control(match.token);
}

}  // namespace quern::text
