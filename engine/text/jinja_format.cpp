// SPDX-License-Identifier: Apache-2.0
// Python's % formatting, str.format() and strftime().
#include <algorithm>
#include <cmath>

#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_strings.h"

namespace quern::text::jinja {
namespace {

constexpr std::size_t kMaxWidth = 4096;  // of one field; a template that pads further is up to no good

struct Spec {
    std::string fill = " ";
    char align = '\0';  ///< < > ^ = or none
    char sign = '\0';   ///< + or space
    bool alternate = false, zero = false, comma = false;
    std::size_t width = 0;
    int precision = -1;
    char type = '\0';
};

bool ascii_digit(char c) { return c >= '0' && c <= '9'; }

/// Digits at `at`; false if they pass the limit.
bool read_number(Interp& in, std::string_view s, std::size_t& at, std::size_t& out) {
    out = 0;
    while (at < s.size() && ascii_digit(s[at]) && out <= kMaxWidth)
        out = out * 10 + static_cast<std::size_t>(s[at++] - '0');
    if (out > kMaxWidth) in.limit("a format asks for a field wider than " + std::to_string(kMaxWidth));
    return !in.failed();
}

std::string grouped(const std::string& digits) {
    std::string out;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
        out += digits[i];
    }
    return out;
}

std::string radix(std::uint64_t v, unsigned base) {
    std::string out;
    do out.insert(out.begin(), "0123456789abcdef"[v % base]);
    while ((v /= base) != 0);
    return out;
}

/// Pads `body`, which follows `prefix` (sign, 0x).
std::string pad(const std::string& prefix, const std::string& body, const Spec& spec, char default_align) {
    const std::size_t have = char_count(prefix) + char_count(body);
    if (have >= spec.width) return prefix + body;
    const std::size_t missing = spec.width - have;
    const char align = spec.align != '\0' ? spec.align : default_align;
    const auto fill = [&](std::size_t n) {
        std::string s;
        while (n-- > 0) s += spec.fill;
        return s;
    };
    switch (align) {
        case '<':
            return prefix + body + fill(missing);
        case '^':
            return fill(missing / 2) + prefix + body + fill(missing - missing / 2);
        case '=':
            return prefix + fill(missing) + body;
        default:
            return fill(missing) + prefix + body;
    }
}

std::string sign_of(bool negative, const Spec& spec) {
    if (negative) return "-";
    return spec.sign != '\0' ? std::string(1, spec.sign) : "";
}

std::string integer_field(std::int64_t i, const Spec& spec) {
    const auto magnitude = i < 0 ? 0 - static_cast<std::uint64_t>(i) : static_cast<std::uint64_t>(i);
    std::string prefix = sign_of(i < 0, spec), body;
    switch (spec.type) {
        case 'x':
            body = radix(magnitude, 16);
            break;
        case 'X':
            body = upper(radix(magnitude, 16));
            break;
        case 'o':
            body = radix(magnitude, 8);
            break;
        case 'b':
            body = radix(magnitude, 2);
            break;
        default:
            body = radix(magnitude, 10);
    }
    if (spec.alternate && (spec.type == 'x' || spec.type == 'X' || spec.type == 'o' || spec.type == 'b'))
        prefix += std::string("0") + spec.type;
    return pad(prefix, spec.comma ? grouped(body) : body, spec, '>');
}

std::string float_field(double d, const Spec& spec) {
    const bool negative = std::signbit(d) && !std::isnan(d);
    const bool percent = spec.type == '%';
    const char type = percent ? 'f' : spec.type == '\0' ? 'g' : spec.type;
    std::string body;
    if (spec.type == '\0' && spec.precision < 0)
        body = repr_double(std::fabs(d));
    else
        body = format_double(std::fabs(percent ? d * 100 : d), type, spec.precision < 0 ? 6 : spec.precision);
    if (spec.comma) {
        const std::size_t point = std::min(body.find_first_not_of("0123456789"), body.size());
        body = grouped(body.substr(0, point)) + body.substr(point);
    }
    return pad(sign_of(negative, spec), percent ? body + "%" : body, spec, '>');
}

std::string text_field(std::string s, const Spec& spec) {
    if (spec.precision >= 0) s.resize(byte_offset(s, static_cast<std::size_t>(spec.precision)));
    return pad("", s, spec, '<');
}

bool float_type(char c) { return std::string_view("eEfFgG%").find(c) != std::string_view::npos; }

/// format(value, "...")
std::string format_value(Interp& in, const Value& v, std::string_view s) {
    Spec spec;
    std::size_t at = 0, after = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (!s.empty()) next_char(s, after);
    if (after > 0 && after < s.size() && is_align(s[after])) {
        spec.fill = s.substr(0, after);
        spec.align = s[after];
        at = after + 1;
    } else if (!s.empty() && is_align(s[0])) {
        spec.align = s[at++];
    }
    const auto next_is = [&](std::string_view set) {
        return at < s.size() && set.find(s[at]) != std::string_view::npos;
    };
    if (next_is("+- ")) spec.sign = s[at++] == '-' ? '\0' : s[at - 1];
    if (next_is("#")) spec.alternate = true, ++at;
    if (next_is("0")) {
        if (spec.align == '\0') spec.fill = "0", spec.align = v.is_string() ? '<' : '=';
        ++at;
    }
    if (!read_number(in, s, at, spec.width)) return "";
    if (next_is(",")) spec.comma = true, ++at;
    if (next_is(".")) {
        std::size_t precision = 0;
        ++at;
        if (!next_is("0123456789")) return in.fail("a format has '.' without a precision"), "";
        if (!read_number(in, s, at, precision)) return "";
        spec.precision = static_cast<int>(precision);
    }
    if (at < s.size()) spec.type = s[at++];
    const bool number = v.is_number() && !(v.is(Value::Kind::boolean) && s.empty());
    const bool ok =
        at == s.size() &&
        (v.is_string() ? spec.type == '\0' || spec.type == 's'
         : number      ? spec.type == '\0' || float_type(spec.type) ||
                        (v.is_int_like() && std::string_view("bdoxX").find(spec.type) != std::string_view::npos)
                  : s.empty());
    if (!ok) return in.fail("the format '" + std::string(s) + "' does not suit a " + v.type_name()), "";
    if (v.is_string()) return text_field(v.text(), spec);
    if (!number) return in.str(v);
    return v.is_int_like() && !float_type(spec.type) ? integer_field(v.integer(), spec) : float_field(v.number(), spec);
}

/// "name.field[0]" of a replacement field.
Value field_value(Interp& in, std::string_view path, Args& args, std::size_t& automatic) {
    const std::size_t end = std::min(path.find_first_of(".["), path.size());
    const std::string name(path.substr(0, end));
    Value v;
    std::int64_t index = 0;
    if (name.empty() || parse_integer(name, 10, index)) {
        if (name.empty()) index = static_cast<std::int64_t>(automatic++);
        if (index < 0 || index >= static_cast<std::int64_t>(args.pos.size()))
            return in.fail("format() has no argument " + std::to_string(index));
        v = args.pos[static_cast<std::size_t>(index)];
    } else {
        const auto hit = std::find_if(args.kw.begin(), args.kw.end(), [&](const auto& kw) { return kw.first == name; });
        if (hit == args.kw.end()) return in.fail("format() has no argument '" + name + "'");
        v = hit->second;
    }
    for (std::string_view rest = path.substr(end); !rest.empty() && !in.failed();) {
        const bool item = rest[0] == '[';
        const std::size_t stop = std::min(item ? rest.find(']') : rest.find_first_of(".[", 1), rest.size());
        const std::string key(rest.substr(1, stop - 1));
        v = item && parse_integer(key, 10, index) ? in.item(v, index)
            : item                                ? in.item(v, in.string(key))
                                                  : in.attribute(v, key);
        rest.remove_prefix(std::min(rest.size(), stop + (item ? 1 : 0)));
    }
    return v;
}

/// One conversion of "%": reads it from format[at..], and its value.
struct Percent {
    Interp& in;
    const Value& values;
    std::size_t next = 0;

    Value take() {
        const bool many = values.is_list() && values.list().shape == Shape::tuple;
        const std::size_t n = many ? values.list().items.size() : 1;
        if (next >= n) return in.fail("a format has more conversions than values");
        return many ? values.list().items[next++] : (++next, values);
    }

    std::string convert(std::string_view s, std::size_t& at) {
        Spec spec;
        Value v;
        bool keyed = false, left = false;
        if (at < s.size() && s[at] == '(') {
            const std::size_t close = s.find(')', at);
            if (close == std::string_view::npos || !values.is_dict()) return in.fail("a format needs a mapping"), "";
            v = in.item(values, in.string(std::string(s.substr(at + 1, close - at - 1))));
            if (!in.defined(v)) return "";
            keyed = true;
            at = close + 1;
        }
        for (; at < s.size() && std::string_view("-+ #0").find(s[at]) != std::string_view::npos; ++at) {
            if (s[at] == '-') left = true;
            if (s[at] == '+' || (s[at] == ' ' && spec.sign == '\0')) spec.sign = s[at];
            if (s[at] == '#') spec.alternate = true;
            if (s[at] == '0') spec.zero = true;
        }
        if (!read_number(in, s, at, spec.width)) return "";
        if (at < s.size() && s[at] == '.') {
            std::size_t precision = 0;
            if (!read_number(in, s, ++at, precision)) return "";
            spec.precision = static_cast<int>(precision);
        }
        if (at >= s.size()) return in.fail("a format ends inside a conversion"), "";
        const char type = s[at++];
        if (type == '%') return "%";
        if (!keyed) v = take();
        if (in.failed()) return "";
        spec.align = left ? '<' : '>';
        if (type == 's' || type == 'r') {
            std::string shown;
            if (type == 'r')
                in.repr(v, shown);
            else
                shown = in.str(v);
            return text_field(std::move(shown), spec);
        }
        if (spec.zero && !left) spec.fill = "0", spec.align = '=';
        const bool integer = std::string_view("diuxXo").find(type) != std::string_view::npos;
        if (!v.is_number() || (!integer && !(float_type(type) && type != '%')))
            return in.fail(std::string("the conversion '%") + type + "' does not suit a " + v.type_name()), "";
        spec.type = integer && (type == 'i' || type == 'u') ? 'd' : type;
        if (!integer) return float_field(v.number(), spec);
        if (v.is(Value::Kind::floating) && !(std::fabs(v.number()) < 9.2e18))
            return in.fail("%d of a float too large"), "";
        const std::int64_t i = v.is_int_like() ? v.integer() : static_cast<std::int64_t>(v.number());
        if (spec.precision < 0) return integer_field(i, spec);
        return in.fail("a precision of an integer conversion is not supported", Errc::unsupported), "";
    }
};

}  // namespace

std::string percent_format(Interp& in, std::string_view s, const Value& values) {
    Percent percent{in, values};
    std::string out;
    for (std::size_t at = 0; at < s.size() && in.step();) {
        const std::size_t mark = std::min(s.find('%', at), s.size());
        out += s.substr(at, mark - at);
        at = mark + 1;
        if (mark < s.size()) out += percent.convert(s, at);
        if (out.size() > in.limits.max_output_bytes) in.text_step(out.size());
    }
    const bool tuple = values.is_list() && values.list().shape == Shape::tuple;
    const std::size_t given = tuple ? values.list().items.size() : values.is_dict() ? 0 : 1;
    if (!in.failed() && percent.next < given) in.fail("not all values are used by the format");
    return out;
}

std::string brace_format(Interp& in, std::string_view s, Args& args) {
    std::string out;
    std::size_t automatic = 0;
    for (std::size_t at = 0; at < s.size() && in.step();) {
        const std::size_t mark = std::min(s.find_first_of("{}", at), s.size());
        out += s.substr(at, mark - at);
        if (out.size() > in.limits.max_output_bytes) in.text_step(out.size());
        if (mark == s.size()) break;
        if (mark + 1 < s.size() && s[mark + 1] == s[mark]) {
            out += s[mark];
            at = mark + 2;
            continue;
        }
        const std::size_t close = s.find('}', mark);
        if (s[mark] == '}' || close == std::string_view::npos) return in.fail("a single brace in a format"), "";
        std::string_view field = s.substr(mark + 1, close - mark - 1), spec;
        if (field.find('{') != std::string_view::npos)
            return in.fail("nested fields in a format are not supported", Errc::unsupported), "";
        const std::size_t colon = field.find(':');
        if (colon != std::string_view::npos) {
            spec = field.substr(colon + 1);
            field = field.substr(0, colon);
        }
        char conversion = '\0';
        if (field.size() >= 2 && field[field.size() - 2] == '!') {
            conversion = field.back();
            field.remove_suffix(2);
        }
        Value v = field_value(in, field, args, automatic);
        if (!in.defined(v)) return "";
        if (conversion == 'r') {
            std::string shown;
            in.repr(v, shown);
            v = in.string(std::move(shown));
        } else if (conversion == 's') {
            v = in.string(in.str(v));
        } else if (conversion != '\0') {
            return in.fail("a conversion of a format is not supported", Errc::unsupported), "";
        }
        if (!in.failed()) out += format_value(in, v, spec);
        at = close + 1;
    }
    return out;
}

std::string strftime_utc(Context& ctx, std::int64_t seconds, std::string_view s) {
    static constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                 "Thursday", "Friday", "Saturday"};
    static constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                                   "May",       "June",     "July",     "August",
                                                   "September", "October",  "November", "December"};
    // Year 1 to 9999, as Python's datetime.
    if (seconds < -62135596800 || seconds > 253402300799) return ctx.fail("strftime_now: the time is out of range"), "";
    std::int64_t days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) rest += 86400, --days;
    // Days since 0000-03-01: years that start in March have their leap day at the end.
    const std::int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
    const std::int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const std::int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    const std::int64_t day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9;
    const std::int64_t year = yoe + era * 400 + (month <= 2 ? 1 : 0);
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    const std::int64_t year_day = month <= 2 ? doy - 305 : doy + (leap ? 61 : 60);
    const std::int64_t week_day = ((days % 7) + 11) % 7;  // 1970-01-01 was a Thursday
    const std::int64_t hour = rest / 3600, hour12 = hour % 12 == 0 ? 12 : hour % 12;
    std::string out;
    const auto number = [&](std::int64_t v, std::size_t width, bool bare, char fill = '0') {
        std::string t = std::to_string(v);
        while (!bare && t.size() < width) t.insert(t.begin(), fill);
        out += t;
    };
    for (std::size_t at = 0; at < s.size(); ++at) {
        if (s[at] != '%' || at + 1 >= s.size()) {
            out += s[at];
            continue;
        }
        bool bare = false;
        if (s[++at] == '-' && at + 1 < s.size()) bare = true, ++at;
        switch (s[at]) {
            case 'Y':
                number(year, 1, bare);
                break;
            case 'y':
                number(year % 100, 2, bare);
                break;
            case 'm':
                number(month, 2, bare);
                break;
            case 'd':
                number(day, 2, bare);
                break;
            case 'e':
                number(day, 2, bare, ' ');
                break;
            case 'j':
                number(year_day, 3, bare);
                break;
            case 'H':
                number(hour, 2, bare);
                break;
            case 'I':
                number(hour12, 2, bare);
                break;
            case 'M':
                number(rest / 60 % 60, 2, bare);
                break;
            case 'S':
                number(rest % 60, 2, bare);
                break;
            case 'p':
                out += hour < 12 ? "AM" : "PM";
                break;
            case 'A':
                out += kDays[week_day];
                break;
            case 'a':
                out += kDays[week_day].substr(0, 3);
                break;
            case 'B':
                out += kMonths[month - 1];
                break;
            case 'b':
            case 'h':
                out += kMonths[month - 1].substr(0, 3);
                break;
            case 'F':
                out += strftime_utc(ctx, seconds, "%Y-%m-%d");
                break;
            case 'T':
                out += strftime_utc(ctx, seconds, "%H:%M:%S");
                break;
            case 'D':
                out += strftime_utc(ctx, seconds, "%m/%d/%y");
                break;
            case 'Z':
            case 'z':
                break;  // empty in Python too: datetime.now() has no zone
            case '%':
                out += '%';
                break;
            default:
                ctx.fail(std::string("strftime_now: the code '%") + s[at] + "' is not supported", Errc::unsupported);
                return "";
        }
    }
    return out;
}

}  // namespace quern::text::jinja
