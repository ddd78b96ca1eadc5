// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_lexer.h"

#include <algorithm>

#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

bool ascii_digit(char c) { return c >= '0' && c <= '9'; }
bool name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool name_char(char c) { return name_start(c) || ascii_digit(c); }
int hex_digit(char c) {
    if (ascii_digit(c)) return c - '0';
    const char l = static_cast<char>(c | 0x20);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

class Lexer {
public:
    Lexer(std::string_view source, Context& ctx) : s_(source), ctx_(ctx) {}

    std::vector<Token> run() {
        while (at_ < s_.size() && !ctx_.failed()) root();
        ctx_.line = line_;
        add(Token::Type::end, {});
        return std::move(tokens_);
    }

private:
    bool looking_at(std::string_view what, std::size_t at) const { return s_.substr(at).starts_with(what); }
    bool looking_at(std::string_view what) const { return looking_at(what, at_); }

    void add(Token::Type type, std::string_view text) { tokens_.push_back({type, line_, text}); }

    void advance(std::size_t to) {
        line_ += static_cast<std::uint32_t>(std::count(s_.begin() + static_cast<std::ptrdiff_t>(at_),
                                                       s_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
        at_ = to;
    }

    std::size_t skip_space(std::size_t at) const {
        while (at < s_.size()) {
            std::size_t next = at;
            if (!is_space(next_char(s_, next))) break;
            at = next;
        }
        return at;
    }

    /// Text up to `tag`, cut as the tag's sign and lstrip_blocks ask.
    std::string_view before_tag(std::size_t tag, char sign, bool is_print) {
        std::string_view text = s_.substr(at_, tag - at_);
        if (sign == '-') return strip(text, false, true, true, "");
        if (sign == '+' || is_print) return text;
        const std::size_t newline = text.rfind('\n');
        const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
        // Only white space between the start of the line and the tag goes.
        if ((start > 0 || line_starting_) && strip(text.substr(start), true, false, true, "").empty())
            text = text.substr(0, start);
        return text;
    }

    void emit_data(std::string_view text) {
        if (!text.empty()) add(Token::Type::data, text);
    }

    /// End of "{% raw %}" that begins at `tag`; npos if it is another tag.
    std::size_t raw_begin(std::size_t tag, std::string_view word, bool trim) const {
        std::size_t at = tag + 2;
        if (at < s_.size() && (s_[at] == '-' || s_[at] == '+')) ++at;
        at = skip_space(at);
        if (!looking_at(word, at)) return std::string_view::npos;
        return tag_end(skip_space(at + word.size()), trim);
    }

    /// Position after "%}" at `at` with what its sign and trim_blocks take; npos if there is none.
    std::size_t tag_end(std::size_t at, bool trim) const {
        if (looking_at("-%}", at)) return skip_space(at + 3);
        if (trim && looking_at("+%}", at)) return at + 3;
        if (!looking_at("%}", at)) return std::string_view::npos;
        at += 2;
        return trim && at < s_.size() && s_[at] == '\n' ? at + 1 : at;
    }

    void root() {
        std::size_t tag = at_;
        while (true) {
            tag = s_.find('{', tag);
            if (tag == std::string_view::npos || tag + 1 >= s_.size()) {
                emit_data(s_.substr(at_));
                advance(s_.size());
                return;
            }
            if (s_[tag + 1] == '{' || s_[tag + 1] == '%' || s_[tag + 1] == '#') break;
            ++tag;
        }
        const char kind = s_[tag + 1];
        const char next = tag + 2 < s_.size() ? s_[tag + 2] : '\0';
        const char sign = next == '-' || next == '+' ? next : '\0';
        emit_data(before_tag(tag, sign, kind == '{'));
        const std::size_t raw = kind == '%' ? raw_begin(tag, "raw", false) : std::string_view::npos;
        if (raw != std::string_view::npos) {
            advance(raw);
            raw_block();
            return;
        }
        advance(tag);
        if (kind == '#') {
            // "{#-" has its sign; Jinja2 then looks for the end after it.
            comment(tag + 2 + (sign != '\0' ? 1 : 0));
            return;
        }
        add(kind == '{' ? Token::Type::print_begin : Token::Type::block_begin, s_.substr(tag, 2));
        advance(tag + 2 + (sign != '\0' ? 1 : 0));
        inside(kind == '{');
        if (at_ > 0) line_starting_ = s_[at_ - 1] == '\n';
    }

    void raw_block() {
        line_starting_ = at_ > 0 && s_[at_ - 1] == '\n';
        for (std::size_t tag = s_.find("{%", at_); tag != std::string_view::npos; tag = s_.find("{%", tag + 1)) {
            const std::size_t end = raw_begin(tag, "endraw", true);
            if (end == std::string_view::npos) continue;
            const char sign = s_[tag + 2];
            emit_data(before_tag(tag, sign == '-' || sign == '+' ? sign : '\0', false));
            advance(end);
            line_starting_ = s_[at_ - 1] == '\n';
            return;
        }
        ctx_.line = line_;
        ctx_.fail("{% raw %} has no {% endraw %}");
    }

    void comment(std::size_t from) {
        const std::size_t end = s_.find("#}", from);
        if (end == std::string_view::npos) {
            ctx_.line = line_;
            ctx_.fail("a comment has no #}");
            return;
        }
        const char sign = end > from ? s_[end - 1] : '\0';
        std::size_t after = end + 2;
        if (sign == '-')
            after = skip_space(after);
        else if (sign != '+' && after < s_.size() && s_[after] == '\n')
            ++after;
        advance(after);
        line_starting_ = s_[at_ - 1] == '\n';
    }

    /// Tokens up to the end of the tag. Inside brackets "}}" is two closing braces.
    void inside(bool print) {
        std::vector<char> open;
        while (!ctx_.failed()) {
            if (open.empty()) {
                const std::size_t end = print ? print_end() : tag_end(at_, true);
                if (end != std::string_view::npos) {
                    add(print ? Token::Type::print_end : Token::Type::block_end, s_.substr(at_, 2));
                    advance(end);
                    return;
                }
            }
            const std::size_t next = skip_space(at_);
            if (next != at_) {
                advance(next);
                continue;
            }
            ctx_.line = line_;
            if (at_ >= s_.size()) {
                ctx_.fail("the template ends inside a tag");
                return;
            }
            token(open);
        }
    }

    std::size_t print_end() const {
        if (looking_at("-}}")) return skip_space(at_ + 3);
        return looking_at("}}") ? at_ + 2 : std::string_view::npos;
    }

    void take(Token::Type type, std::size_t end) {
        add(type, s_.substr(at_, end - at_));
        advance(end);
    }

    void token(std::vector<char>& open) {
        const char c = s_[at_];
        if (name_start(c)) {
            std::size_t end = at_ + 1;
            while (end < s_.size() && name_char(s_[end])) ++end;
            return take(Token::Type::name, end);
        }
        if (ascii_digit(c)) return number();
        if (c == '\'' || c == '"') return quoted(c);
        static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
        for (std::string_view two : kTwo)
            if (looking_at(two)) return take(Token::Type::op, at_ + 2);
        if (std::string_view("+-*/%~[](){}<>=.:|,;").find(c) == std::string_view::npos) {
            ctx_.fail(std::string("unexpected character '") + c + "' in a tag");
            return;
        }
        if (c == '(' || c == '[' || c == '{') open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
        if (c == ')' || c == ']' || c == '}') {
            if (open.empty() || open.back() != c) {
                ctx_.fail(std::string("'") + c + "' closes nothing");
                return;
            }
            open.pop_back();
        }
        take(Token::Type::op, at_ + 1);
    }

    std::size_t digits(std::size_t at) const {
        while (at < s_.size() &&
               (ascii_digit(s_[at]) || (s_[at] == '_' && at + 1 < s_.size() && ascii_digit(s_[at + 1]))))
            ++at;
        return at;
    }

    void number() {
        const char prefix = at_ + 1 < s_.size() && s_[at_] == '0' ? static_cast<char>(s_[at_ + 1] | 0x20) : '\0';
        if (prefix == 'x' || prefix == 'o' || prefix == 'b') {
            std::size_t end = at_ + 2;
            while (end < s_.size() && (hex_digit(s_[end]) >= 0 || s_[end] == '_')) ++end;
            return take(Token::Type::integer, end);
        }
        const std::size_t whole = digits(at_);
        std::size_t end = whole;
        // "x.0.1" is two items of nested lists, not a float.
        const bool after_dot = at_ > 0 && s_[at_ - 1] == '.';
        if (!after_dot) {
            if (end + 1 < s_.size() && s_[end] == '.' && ascii_digit(s_[end + 1])) end = digits(end + 1);
            if (end + 1 < s_.size() && (s_[end] | 0x20) == 'e') {
                const std::size_t e = end + 1 + (s_[end + 1] == '+' || s_[end + 1] == '-' ? 1 : 0);
                if (e < s_.size() && ascii_digit(s_[e])) end = digits(e);
            }
        }
        take(end == whole ? Token::Type::integer : Token::Type::floating, end);
    }

    void quoted(char quote) {
        std::size_t end = at_ + 1;
        while (end < s_.size() && s_[end] != quote) end += s_[end] == '\\' ? 2 : 1;
        if (end >= s_.size()) {
            ctx_.fail("a string has no closing quote");
            return;
        }
        take(Token::Type::string, end + 1);
    }

    std::string_view s_;
    Context& ctx_;
    std::size_t at_ = 0;
    std::uint32_t line_ = 1;
    bool line_starting_ = true;  ///< nothing of the current line has become a token or data
    std::vector<Token> tokens_;
};

/// "\xHH", "\uHHHH", "\UHHHHHHHH" at s[i] (the letter); moves i to the last digit.
bool hex_escape(std::string_view s, std::size_t& i, char32_t& out) {
    const std::size_t n = s[i] == 'x' ? 2 : s[i] == 'u' ? 4 : 8;
    if (i + n >= s.size()) return false;
    out = 0;
    for (std::size_t k = 1; k <= n; ++k) {
        const int d = hex_digit(s[i + k]);
        if (d < 0 || out > 0x10FFFF) return false;
        out = out * 16 + static_cast<char32_t>(d);
    }
    i += n;
    return out <= 0x10FFFF && (out < 0xD800 || out > 0xDFFF);
}

}  // namespace

std::string normalize_source(std::string_view source) {
    std::string out;
    out.reserve(source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {
        if (source[i] != '\r') {
            out += source[i];
        } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
            out += '\n';
        }
    }
    if (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
}

std::vector<Token> tokenize(std::string_view source, Context& ctx) { return Lexer(source, ctx).run(); }

std::string unescape(const Token& token, Context& ctx) {
    const std::string_view s = token.text.substr(1, token.text.size() - 2);
    if (s.find('\\') == std::string_view::npos) return std::string(s);
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] != '\\') {
            out += s[i];
            continue;
        }
        const char c = s[++i];
        static constexpr std::string_view kFrom = "abfnrtv", kTo = "\a\b\f\n\r\t\v";
        char32_t code = 0;
        if (const std::size_t k = kFrom.find(c); k != std::string_view::npos) {
            out += kTo[k];
        } else if (c == '\\' || c == '\'' || c == '"') {
            out += c;
        } else if (c == '\n') {
        } else if (c >= '0' && c <= '7') {
            for (int n = 0; n < 3 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n, ++i)
                code = code * 8 + static_cast<char32_t>(s[i] - '0');
            --i;
            append_char(out, code);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            if (!hex_escape(s, i, code)) {
                ctx.line = token.line;
                ctx.fail(std::string("bad \\") + c + " escape in a string");
                return out;
            }
            append_char(out, code);
        } else if (c == 'N') {
            ctx.line = token.line;
            ctx.fail("\\N{...} in a string is not supported; write the character itself", Errc::unsupported);
            return out;
        } else {
            out += '\\';
            out += c;
        }
    }
    return out;
}

}  // namespace quern::text::jinja
