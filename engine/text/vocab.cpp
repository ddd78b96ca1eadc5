// SPDX-License-Identifier: Apache-2.0
#include "engine/text/vocab.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <span>

#include "engine/text/pretokenize.h"
#include "formats/bytes.h"
#include "formats/text.h"

namespace quern::text {

namespace {

constexpr std::string_view kModel = "tokenizer.ggml.model";
constexpr std::string_view kPre = "tokenizer.ggml.pre";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kConvertAgain = "; convert the model again with a current converter";

struct SpecialId {
    std::string_view key;                      // after "tokenizer.ggml."
    Token Vocab::*field;
};

// The names before fim_* are the older ones of the same thing; "seperator" is how the key is spelled in the field.
constexpr std::array kSpecialIds = {
    SpecialId{"bos_token_id", &Vocab::bos},         SpecialId{"eos_token_id", &Vocab::eos},
    SpecialId{"eot_token_id", &Vocab::eot},         SpecialId{"eom_token_id", &Vocab::eom},
    SpecialId{"unknown_token_id", &Vocab::unk},     SpecialId{"separator_token_id", &Vocab::sep},
    SpecialId{"seperator_token_id", &Vocab::sep},   SpecialId{"padding_token_id", &Vocab::pad},
    SpecialId{"cls_token_id", &Vocab::cls},         SpecialId{"mask_token_id", &Vocab::mask},
    SpecialId{"prefix_token_id", &Vocab::fim_pre},  SpecialId{"suffix_token_id", &Vocab::fim_suf},
    SpecialId{"middle_token_id", &Vocab::fim_mid},  SpecialId{"fim_pre_token_id", &Vocab::fim_pre},
    SpecialId{"fim_suf_token_id", &Vocab::fim_suf}, SpecialId{"fim_mid_token_id", &Vocab::fim_mid},
    SpecialId{"fim_pad_token_id", &Vocab::fim_pad}, SpecialId{"fim_rep_token_id", &Vocab::fim_rep},
    SpecialId{"fim_sep_token_id", &Vocab::fim_sep},
};

struct WellKnown {
    std::string_view text;
    Token Vocab::*field;
};

// Roles that files leave out though the vocabulary has the token; the first name found wins.
constexpr std::array kWellKnown = {
    WellKnown{"<|eot_id|>", &Vocab::eot},           WellKnown{"<|im_end|>", &Vocab::eot},
    WellKnown{"<|end|>", &Vocab::eot},              WellKnown{"<end_of_turn>", &Vocab::eot},
    WellKnown{"<|endoftext|>", &Vocab::eot},        WellKnown{"<|end_of_text|>", &Vocab::eot},
    WellKnown{"<EOT>", &Vocab::eot},                WellKnown{"[EOT]", &Vocab::eot},
    WellKnown{"<｜end▁of▁sentence｜>", &Vocab::eot}, WellKnown{"<end_of_utterance>", &Vocab::eot},
    WellKnown{"<|eom_id|>", &Vocab::eom},           WellKnown{"<|fim_prefix|>", &Vocab::fim_pre},
    WellKnown{"<fim-prefix>", &Vocab::fim_pre},     WellKnown{"<fim_prefix>", &Vocab::fim_pre},
    WellKnown{"<｜fim▁begin｜>", &Vocab::fim_pre},    WellKnown{"<PRE>", &Vocab::fim_pre},
    WellKnown{"▁<PRE>", &Vocab::fim_pre},           WellKnown{"<|fim_suffix|>", &Vocab::fim_suf},
    WellKnown{"<fim-suffix>", &Vocab::fim_suf},     WellKnown{"<fim_suffix>", &Vocab::fim_suf},
    WellKnown{"<｜fim▁hole｜>", &Vocab::fim_suf},     WellKnown{"<SUF>", &Vocab::fim_suf},
    WellKnown{"▁<SUF>", &Vocab::fim_suf},           WellKnown{"<|fim_middle|>", &Vocab::fim_mid},
    WellKnown{"<fim-middle>", &Vocab::fim_mid},     WellKnown{"<fim_middle>", &Vocab::fim_mid},
    WellKnown{"<｜fim▁end｜>", &Vocab::fim_mid},      WellKnown{"<MID>", &Vocab::fim_mid},
    WellKnown{"▁<MID>", &Vocab::fim_mid},           WellKnown{"<|fim_pad|>", &Vocab::fim_pad},
    WellKnown{"<fim-pad>", &Vocab::fim_pad},        WellKnown{"<fim_pad>", &Vocab::fim_pad},
    WellKnown{"<PAD>", &Vocab::fim_pad},            WellKnown{"<|fim_repo|>", &Vocab::fim_rep},
    WellKnown{"<|repo_name|>", &Vocab::fim_rep},    WellKnown{"<fim-repo>", &Vocab::fim_rep},
    WellKnown{"<REPO>", &Vocab::fim_rep},           WellKnown{"<reponame>", &Vocab::fim_rep},
    WellKnown{"<|file_sep|>", &Vocab::fim_sep},
};

constexpr std::array<std::string_view, 22> kEndNames = {
    "<|eot_id|>",   "<|im_end|>",   "<|end|>",    "<|return|>",         "<|call|>",
    "<|flush|>",    "<|calls|>",    "<end_of_turn>", "<|endoftext|>",   "</s>",
    "<|eom_id|>",   "<EOT>",        "_<EOT>",     "[EOT]",              "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>",        "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~["};

Error bad(std::string message) { return Error{Errc::bad_file, std::move(message)}; }

std::string_view element_name(const gguf::Value& v) {
    return gguf::value_type_name(v.type == gguf::ValueType::array ? v.array.element : v.type);
}

/// The value of `<0xHH>`, -1 for any other text.
int byte_token_value(std::string_view text) {
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
    int v = 0;
    for (const char c : text.substr(3, 2)) {
        const char lower = static_cast<char>(c | 0x20);
        if (c >= '0' && c <= '9') {
            v = v * 16 + (c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            v = v * 16 + (lower - 'a' + 10);
        } else {
            return -1;
        }
    }
    return v;
}

}  // namespace

Token Vocab::find(std::string_view text) const {
    const auto it = by_text_.find(text);
    return it == by_text_.end() ? kNoToken : it->second;
}

bool Vocab::is_ordinary(Token t) const {
    const TokenType type = types[static_cast<std::size_t>(t)];
    return type == TokenType::normal || type == TokenType::user_defined || type == TokenType::unused;
}

int Vocab::byte_value(Token t) const {
    const auto i = static_cast<std::size_t>(t);
    return types[i] == TokenType::byte ? byte_token_value(pieces[i]) : -1;
}

/// One load, in the order of its members; each step fails with the key it read.
class VocabLoader {
public:
    explicit VocabLoader(const gguf::File& file) : file_(file) {}

    Result<Vocab> run() {
        for (const auto step : {&VocabLoader::read_model, &VocabLoader::read_strings, &VocabLoader::read_scores,
                                &VocabLoader::read_types, &VocabLoader::index_pieces, &VocabLoader::set_defaults,
                                &VocabLoader::read_special_ids, &VocabLoader::read_flags}) {
            if (Status s = (this->*step)(); !s) return std::move(s).error();
        }
        find_well_known();
        collect_ends();
        return std::move(v_);
    }

private:
    Status read_model() {
        auto model = file_.get_string(kModel);
        if (!model) return std::move(model).error();
        if (*model != "gpt2" && *model != "llama" && *model != "bert") {
            return Error{Errc::unsupported, cat(file_.path(), ": ", kModel, " is ", quoted(*model),
                                                "; Quern has the tokenizers gpt2 (byte-level BPE), llama "
                                                "(SentencePiece) and bert (WordPiece)")};
        }
        auto pre = file_.get_string_or(kPre, "default");
        if (!pre) return std::move(pre).error();
        v_.model = *model;
        v_.pre = pre->empty() ? "default" : *pre;
        return {};
    }

    /// Copies pieces and merges into one block of memory.
    Status read_strings() {
        auto tokens = file_.get_string_array(kTokens);
        if (!tokens) return std::move(tokens).error();
        constexpr std::size_t max_tokens = std::numeric_limits<Token>::max();
        if (tokens->empty() || tokens->size() > max_tokens) {
            return bad(
                cat(file_.path(), ": ", kTokens, " has ", tokens->size(), " entries, must have 1 to ", max_tokens));
        }
        for (std::size_t i = 0; i < tokens->size(); ++i) {
            if ((*tokens)[i].size() > kMaxPieceBytes) {
                return bad(cat(file_.path(), ": ", kTokens, "[", i, "] is ", (*tokens)[i].size(),
                               " bytes long; the limit is ", kMaxPieceBytes));
            }
        }
        std::span<const std::string_view> merges;
        if (v_.model == "gpt2") {
            auto m = file_.get_string_array(kMerges);
            if (!m) return std::move(m).error();
            merges = *m;
        }
        std::size_t total = 0;
        for (const auto s : *tokens) total += s.size();
        for (const auto s : merges) total += s.size();
        auto block = std::make_shared<std::string>();
        block->reserve(total);                 // no reallocation below: the views must stay
        const auto copy = [&block](std::string_view s) {
            const std::size_t at = block->size();
            block->append(s);
            return std::string_view(block->data() + at, s.size());
        };
        v_.pieces.reserve(tokens->size());
        for (const auto s : *tokens) v_.pieces.push_back(copy(s));
        v_.merges.reserve(merges.size());
        for (const auto s : merges) v_.merges.push_back(copy(s));
        v_.storage_ = std::move(block);
        return {};
    }

    /// Checks an optional array's element type and length; nullptr where the key is absent.
    Result<const gguf::Value*> array_of(std::string_view key, std::initializer_list<gguf::ValueType> allowed) {
        const gguf::Value* value = file_.find(key);
        if (!value) return value;
        const bool fits = value->type == gguf::ValueType::array &&
                          std::find(allowed.begin(), allowed.end(), value->array.element) != allowed.end();
        if (!fits) {
            std::string names;
            for (const auto t : allowed) names += cat(names.empty() ? "" : " or ", gguf::value_type_name(t));
            return bad(cat(file_.path(), ": ", key, " at offset ", value->offset, " is ",
                           value->type == gguf::ValueType::array ? "an array of " : "a ", element_name(*value),
                           ", must be an array of ", names, kConvertAgain));
        }
        if (value->array.count != v_.size()) {
            return bad(cat(file_.path(), ": ", key, " at offset ", value->offset, " has ", value->array.count,
                           " entries, ", kTokens, " has ", v_.size(), "; they must agree", kConvertAgain));
        }
        return value;
    }

    Status read_scores() {
        auto value = array_of(kScores, {gguf::ValueType::f32, gguf::ValueType::i32});
        if (!value) return std::move(value).error();
        if (!*value) {
            if (v_.model != "llama") return {};
            return bad(cat(file_.path(), ": ", kScores, " is missing; the llama tokenizer merges by score",
                           kConvertAgain));
        }
        const gguf::Array& a = (*value)->array;
        v_.scores.resize(v_.size());
        for (std::size_t i = 0; i < v_.size(); ++i) {
            const auto bits = static_cast<std::uint32_t>(load_le(a.bytes.data() + 4 * i, 4));
            v_.scores[i] = a.element == gguf::ValueType::f32 ? std::bit_cast<float>(bits)
                                                             : static_cast<float>(static_cast<std::int32_t>(bits));
            if (std::isnan(v_.scores[i])) {
                return bad(cat(file_.path(), ": ", kScores, "[", i, "] is not a number", kConvertAgain));
            }
        }
        return {};
    }

    Status read_types() {
        auto value = array_of(kTypes, {gguf::ValueType::i32, gguf::ValueType::u32});
        if (!value) return std::move(value).error();
        v_.types.assign(v_.size(), TokenType::normal);
        if (!*value) return {};
        has_types_ = true;
        for (std::size_t i = 0; i < v_.size(); ++i) {
            const auto t = static_cast<std::uint32_t>(load_le((*value)->array.bytes.data() + 4 * i, 4));
            if (t > 6) {
                return bad(cat(file_.path(), ": ", kTypes, "[", i, "] is ", static_cast<std::int32_t>(t),
                               ", must be 0 to 6", kConvertAgain));
            }
            // 0, "undefined", is what converters write for ids that no tokenizer file names.
            v_.types[i] = t == 0 ? TokenType::unused : static_cast<TokenType>(t);
            if (v_.types[i] == TokenType::byte && byte_token_value(v_.pieces[i]) < 0) {
                return bad(cat(file_.path(), ": ", kTokens, "[", i, "] is ", quoted(v_.pieces[i]), " but ", kTypes,
                               " says it is a byte token, written <0x00> to <0xFF>", kConvertAgain));
            }
        }
        return {};
    }

    Status index_pieces() {
        v_.by_text_.reserve(v_.size());
        for (std::size_t i = 0; i < v_.size(); ++i) {
            if (v_.pieces[i].empty()) continue;            // a hole in the vocabulary: can be decoded, never matched
            const auto [it, fresh] = v_.by_text_.emplace(v_.pieces[i], static_cast<Token>(i));
            if (!fresh) {
                return bad(cat(file_.path(), ": ", kTokens, "[", i, "] ", quoted(v_.pieces[i]),
                               " is the same as entry ", it->second, "; every token needs its own text",
                               kConvertAgain));
            }
        }
        return {};
    }

    Status set_defaults() {
        if (v_.model == "llama") {
            default_special(v_.unk, 0), default_special(v_.bos, 1), default_special(v_.eos, 2);
            v_.add_space_prefix = v_.add_bos = true;
        } else if (v_.model == "bert") {
            v_.unk = v_.find("[UNK]"), v_.sep = v_.find("[SEP]"), v_.pad = v_.find("[PAD]");
            v_.cls = v_.find("[CLS]"), v_.mask = v_.find("[MASK]");
            v_.add_bos = v_.add_sep = true;
        } else {
            const PreTokenizerSpec* spec = find_pre_tokenizer(v_.pre);
            if (!spec) {
                return Error{Errc::unsupported,
                             cat(file_.path(), ": ", kPre, " is ", quoted(v_.pre),
                                 ", which Quern does not know. Known: ", known_pre_tokenizers())};
            }
            v_.add_bos = spec->add_bos;
        }
        return {};
    }

    /// The ids that sentencepiece itself gives these roles, where the file does not say otherwise.
    void default_special(Token& field, Token id) {
        if (static_cast<std::size_t>(id) >= v_.size()) return;
        const TokenType t = v_.types[static_cast<std::size_t>(id)];
        if (!has_types_ || t == TokenType::control || t == TokenType::unknown) field = id;
    }

    Status read_special_ids() {
        for (const SpecialId& s : kSpecialIds) {
            const std::string key = cat("tokenizer.ggml.", s.key);
            const gguf::Value* value = file_.find(key);
            if (!value) continue;
            auto id = file_.get_int(key);
            if (!id) return std::move(id).error();
            // Some converters write "none" as -1, in either signedness.
            if (*id == -1 || *id == std::numeric_limits<std::uint32_t>::max()) {
                v_.*s.field = kNoToken;
                continue;
            }
            if (*id < 0 || static_cast<std::uint64_t>(*id) >= v_.size()) {
                return bad(cat(file_.path(), ": ", key, " at offset ", value->offset, " is ", *id,
                               ", but the vocabulary has ", v_.size(), " tokens", kConvertAgain));
            }
            v_.*s.field = static_cast<Token>(*id);
        }
        if (v_.model == "bert" && v_.bos == kNoToken) v_.bos = v_.cls;
        return {};
    }

    Status read_flag(std::string_view key, bool& flag) {
        auto b = file_.get_bool_or(key, flag);
        if (!b) return std::move(b).error();
        flag = *b;
        return {};
    }

    /// add_*_token: an id that is to be added must exist, where the file asks for it; a default gives way.
    Status read_add(std::string_view key, bool& flag, Token id, std::string_view id_key) {
        if (Status s = read_flag(key, flag); !s) return s;
        if (!flag || id != kNoToken) return {};
        if (file_.find(key)) {
            return bad(cat(file_.path(), ": ", key, " is true, but ", id_key, " is not set", kConvertAgain));
        }
        flag = false;
        return {};
    }

    Status read_flags() {
        if (Status s = read_add("tokenizer.ggml.add_bos_token", v_.add_bos, v_.bos, "tokenizer.ggml.bos_token_id"); !s)
            return s;
        if (Status s = read_add("tokenizer.ggml.add_eos_token", v_.add_eos, v_.eos, "tokenizer.ggml.eos_token_id"); !s)
            return s;
        constexpr std::string_view sep_key = "tokenizer.ggml.seperator_token_id";
        if (Status s = read_add("tokenizer.ggml.add_sep_token", v_.add_sep, v_.sep, sep_key); !s) return s;
        if (Status s = read_flag("tokenizer.ggml.add_space_prefix", v_.add_space_prefix); !s) return s;
        if (Status s = read_flag("tokenizer.ggml.remove_extra_whitespaces", v_.remove_extra_whitespaces); !s) return s;
        if (Status s = read_flag("tokenizer.ggml.normalizer.lowercase", v_.lowercase); !s) return s;
        v_.strip_accents = v_.lowercase;
        return read_flag("tokenizer.ggml.normalizer.strip_accents", v_.strip_accents);
    }

    void find_well_known() {
        if (v_.model == "bert") return;        // encoders have no such roles, and [PAD] means something else
        for (const WellKnown& w : kWellKnown) {
            if (v_.*w.field != kNoToken) continue;
            const Token t = v_.find(w.text);
            if (t == kNoToken) continue;
            v_.*w.field = t;
            v_.types[static_cast<std::size_t>(t)] = TokenType::control;
        }
    }

    void collect_ends() {
        auto& ends = v_.end_of_generation;
        for (const Token t : {v_.eos, v_.eot, v_.eom, v_.fim_pad, v_.fim_rep, v_.fim_sep}) {
            if (t != kNoToken) ends.push_back(t);
        }
        for (const auto name : v_.model == "bert" ? std::span<const std::string_view>{} : std::span(kEndNames)) {
            const Token t = v_.find(name);
            if (t == kNoToken) continue;
            ends.push_back(t);
            // Some converters mark these as normal; then user text could end an answer.
            v_.types[static_cast<std::size_t>(t)] = TokenType::control;
        }
        const auto has = [this](std::string_view name) { return v_.find(name) != kNoToken; };
        // gpt-oss and Solar end a message, not the answer, with <|end|>.
        if (has("<|end|>") && ((has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>")))) {
            std::erase(ends, v_.find("<|end|>"));
        }
        std::sort(ends.begin(), ends.end());
        ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
    }

    const gguf::File& file_;
    Vocab v_;
    bool has_types_ = false;
};

Result<Vocab> Vocab::load(const gguf::File& file) { return VocabLoader(file).run(); }

}  // namespace quern::text
