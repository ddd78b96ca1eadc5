// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/pretokenize.h"

#include <algorithm>
#include <array>

#include "engine/text/unicode.h"
#include "formats/text.h"

namespace quern::text {

namespace {

using namespace std::string_view_literals;

// The expressions are those of the models' own tokenizer.json files, in the shape and under the names that GGUF
// converters use (llama.cpp's tokenizer.ggml.pre). \s and \S are rewritten in compile(), see there.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
    R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing =
    R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The cased letters that DeepSeek LLM's tokenizer lists one by one.
constexpr std::string_view kDeepseekLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D})"
    R"(\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE})"
    R"(\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC})"
    R"(\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E})"
    R"(\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF})"
    R"(\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943})"
    R"(]+)";
constexpr std::string_view kDeepseekMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr std::string_view kDeepseekCjk = R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
// \s+$ with the start pinned to the start of the run, or every space of a long run would be tried as a start.
constexpr std::string_view kTrailingSpace = R"((?<!\s)\s+$)";
constexpr std::string_view kBloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{0964}\x{06D4}\x{060C})]+)";
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kThreeAscii = "[0-9][0-9][0-9]";

constexpr std::array kDefaultPatterns = {R"([\p{P}$+<=>^~|]+)"sv, kGpt2, kDigits, kThreeAscii};
constexpr std::array kGpt2Patterns = {kGpt2};
constexpr std::array kDigitPatterns = {kDigit, kGpt2};
constexpr std::array kLlama3Patterns = {kLlama3};
constexpr std::array kQwen2Patterns = {kQwen2};
constexpr std::array kQwen35Patterns = {kQwen35};
constexpr std::array kDeepseekLlmPatterns = {R"([\r\n])"sv, kDeepseekLetters, kDeepseekMarks,
                                             kTrailingSpace, kDeepseekCjk,     kDigits};
constexpr std::array kDeepseekCoderPatterns = {R"([\r\n])"sv, R"(\s?\p{L}+)"sv, R"(\s?\p{P}+)"sv, kDeepseekCjk, kDigit};
constexpr std::array kDeepseek3Patterns = {
    R"(\p{N}{1,3})"sv, R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)"sv, kDeepseek3};
constexpr std::array kFalconPatterns = {R"([\p{P}$+<=>^~|`]+)"sv, kGpt2, kThreeAscii};
constexpr std::array kTekkenPatterns = {kTekken};
constexpr std::array kGpt4oPatterns = {kGpt4o};
constexpr std::array kBloomPatterns = {kBloom};
constexpr std::array kVikingPatterns = {kBloom, kDigit};
constexpr std::array kBailingPatterns = {kBailing};
constexpr std::array kSeedCoderPatterns = {kSeedCoder};

constexpr std::array kDefaultNames = {"default"sv};
constexpr std::array kGpt2Names = {"gpt-2"sv,      "phi-2"sv,      "phi"sv,      "mpt"sv,         "olmo"sv,
                                   "jais"sv,       "trillion"sv,   "exaone4"sv,  "granite-docling"sv, "gigachat"sv,
                                   "jina-es"sv,    "jina-de"sv,    "jina-v2-es"sv, "jina-v2-de"sv, "a.x-4.0"sv,
                                   "mellum"sv,     "modern-bert"sv};
constexpr std::array kDigitNames = {"smollm"sv,    "starcoder"sv, "refact"sv,     "command-r"sv,
                                    "codeshell"sv, "exaone"sv,    "minerva-7b"sv, "mellum2"sv};
constexpr std::array kLlama3Names = {"llama-bpe"sv, "llama3"sv,  "llama-v3"sv, "falcon3"sv,
                                     "falcon-h1"sv, "pixtral"sv, "midm-2.0"sv, "lfm2"sv};
constexpr std::array kLlama3MergingNames = {"dbrx"sv, "smaug-bpe"sv, "chatglm-bpe"sv, "glm4"sv};
constexpr std::array kQwen2Names = {"qwen2"sv,   "deepseek-r1-qwen"sv, "megrez"sv, "stablelm2"sv,
                                    "hunyuan"sv, "solar-open"sv,       "grok-2"sv, "kormo"sv};
constexpr std::array kQwen35Names = {"qwen35"sv};
constexpr std::array kDeepseekLlmNames = {"deepseek-llm"sv};
constexpr std::array kDeepseekCoderNames = {"deepseek-coder"sv};
constexpr std::array kDeepseek3Names = {"deepseek-v3"sv, "hunyuan-dense"sv, "joyai-llm"sv};
constexpr std::array kFalconNames = {"falcon"sv};
constexpr std::array kTekkenNames = {"tekken"sv};
constexpr std::array kGpt4oNames = {"gpt-4o"sv, "llama4"sv, "kanana2"sv, "minimax-m2"sv};
constexpr std::array kBloomNames = {"bloom"sv, "poro-chat"sv, "gpt3-finnish"sv};
constexpr std::array kVikingNames = {"viking"sv};
constexpr std::array kBailingNames = {"bailingmoe"sv, "bailingmoe2"sv, "llada-moe"sv};
constexpr std::array kSeedCoderNames = {"seed-coder"sv};

constexpr std::array kSpecs = {
    PreTokenizerSpec{kDefaultNames, kDefaultPatterns},
    PreTokenizerSpec{kGpt2Names, kGpt2Patterns},
    PreTokenizerSpec{kDigitNames, kDigitPatterns},
    PreTokenizerSpec{kLlama3Names, kLlama3Patterns, true, true},
    PreTokenizerSpec{kLlama3MergingNames, kLlama3Patterns},
    PreTokenizerSpec{kQwen2Names, kQwen2Patterns},
    PreTokenizerSpec{kQwen35Names, kQwen35Patterns},
    PreTokenizerSpec{kDeepseekLlmNames, kDeepseekLlmPatterns},
    PreTokenizerSpec{kDeepseekCoderNames, kDeepseekCoderPatterns},
    PreTokenizerSpec{kDeepseek3Names, kDeepseek3Patterns},
    PreTokenizerSpec{kFalconNames, kFalconPatterns},
    PreTokenizerSpec{kTekkenNames, kTekkenPatterns, true, true},
    PreTokenizerSpec{kGpt4oNames, kGpt4oPatterns},
    PreTokenizerSpec{kBloomNames, kBloomPatterns},
    PreTokenizerSpec{kVikingNames, kVikingPatterns},
    PreTokenizerSpec{kBailingNames, kBailingPatterns},
    PreTokenizerSpec{kSeedCoderNames, kSeedCoderPatterns},
};

template <auto Free>
struct Deleter {
    template <class T>
    void operator()(T* p) const { Free(p); }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

/// \s and \S as Unicode's White_Space property. PCRE2's own \s also takes U+180E, which the tokenizers do not.
std::string expand_space_classes(std::string_view pattern) {
    constexpr std::string_view space = R"(\t-\r\x{85}\p{Z})";
    std::string out;
    bool in_class = false;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        const char c = pattern[i];
        if (c == '\\' && i + 1 < pattern.size()) {
            const char next = pattern[++i];
            if (next == 's' || next == 'S') {
                out += in_class ? std::string(space) : cat(next == 's' ? "[" : "[^", space, "]");
            } else {
                out += c;
                out += next;
            }
            continue;
        }
        if (c == '[') in_class = true;
        if (c == ']') in_class = false;
        out += c;
    }
    return out;
}

std::string pcre2_message(int code) {
    std::array<PCRE2_UCHAR, 160> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
}

Result<Code> compile(std::string_view pattern) {
    const std::string expanded = expand_space_classes(pattern);
    int error = 0;
    PCRE2_SIZE at = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &at, nullptr));
    if (!code) {
        return Error{Errc::internal, cat("pre-tokenizer expression fails at ", at, ": ", pcre2_message(error))};
    }
    // Where the system allows no executable memory this fails, and matching interprets: slower, same words.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    return code;
}

/// What one split() needs of PCRE2 besides the expressions; not shared between threads.
struct Scratch {
    MatchContext context{pcre2_match_context_create(nullptr)};
    JitStack stack{pcre2_jit_stack_create(32 * 1024, 1024 * 1024, nullptr)};
    MatchData data{pcre2_match_data_create(1, nullptr)};

    bool ok() const { return context && stack && data; }
};

/// Cuts text[range] at the matches of one expression. Appends to `out`.
Status cut(const pcre2_code* code, Scratch& scratch, std::string_view text, Range range, std::vector<Range>& out) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() + range.begin);
    const std::uint32_t size = range.end - range.begin;
    std::uint32_t done = 0;
    for (std::uint32_t at = 0; at < size;) {
        const int rc =
            pcre2_match(code, subject, size, at, PCRE2_NO_UTF_CHECK, scratch.data.get(), scratch.context.get());
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            return Error{Errc::unsupported, cat("cutting the text into words failed near byte ", range.begin + at, ": ",
                                                pcre2_message(rc), "; split the text")};
        }
        const PCRE2_SIZE* match = pcre2_get_ovector_pointer(scratch.data.get());
        const auto begin = static_cast<std::uint32_t>(match[0]), end = static_cast<std::uint32_t>(match[1]);
        if (begin == end) break;               // none of the expressions matches nothing
        if (begin > done) out.push_back({range.begin + done, range.begin + begin});
        out.push_back({range.begin + begin, range.begin + end});
        done = at = end;
    }
    if (done < size) out.push_back({range.begin + done, range.end});
    return {};
}

}  // namespace

const PreTokenizerSpec* find_pre_tokenizer(std::string_view name) {
    for (const PreTokenizerSpec& s : kSpecs) {
        if (std::find(s.names.begin(), s.names.end(), name) != s.names.end()) return &s;
    }
    return nullptr;
}

std::string known_pre_tokenizers() {
    std::string out;
    for (const PreTokenizerSpec& s : kSpecs) {
        for (const auto name : s.names) out += cat(out.empty() ? "" : ", ", name);
    }
    return out;
}

struct PreTokenizer::Impl {
    std::vector<Code> codes;
};

PreTokenizer::PreTokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(const PreTokenizerSpec& spec) {
    auto impl = std::make_unique<Impl>();
    for (const auto pattern : spec.patterns) {
        auto code = compile(pattern);
        if (!code) return std::move(code).error();
        impl->codes.push_back(*std::move(code));
    }
    return PreTokenizer(std::move(impl));
}

Result<std::vector<Range>> PreTokenizer::split(std::string_view text) const {
    Scratch scratch;
    if (!scratch.ok()) return Error{Errc::out_of_memory, "no memory for cutting a text into words"};
    pcre2_jit_stack_assign(scratch.context.get(), nullptr, scratch.stack.get());
    // The interpreter counts backtracking steps, a few a byte; the library's own bound is for patterns from outside.
    const std::size_t steps = std::max<std::size_t>(10'000'000, 64 * text.size());
    pcre2_set_match_limit(scratch.context.get(), static_cast<std::uint32_t>(std::min<std::size_t>(steps, 0xFFFFFFFF)));

    std::vector<Range> words, pieces, next;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t valid = valid_utf8_prefix(text.substr(at));
        if (valid == 0) {
            words.push_back({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + 1)});
            ++at;
            continue;
        }
        pieces.assign(1, {static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + valid)});
        for (const Code& code : impl_->codes) {
            next.clear();
            for (const Range piece : pieces) {
                if (Status s = cut(code.get(), scratch, text, piece, next); !s) return std::move(s).error();
            }
            pieces.swap(next);
        }
        words.insert(words.end(), pieces.begin(), pieces.end());
        at += valid;
    }
    return words;
}

}  // namespace quern::text
