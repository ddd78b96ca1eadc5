// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/compare.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "bench/end_to_end/stats.h"
#include "tools/common/process.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using tools::fixed;

struct Sampled {
    std::string model, type_k, type_v;  // model: its file name without folders
    Test test;
    std::uint32_t n_batch = 0;
    std::vector<double> ts;  // tokens per second, one a repetition
    bool paired = false;

    auto key() const {
        return std::tie(model, type_k, type_v, test.n_prompt, test.n_gen, test.n_depth, test.n_streams, test.threads);
    }
};

/// Throws Json::exception where a field is missing or of another kind.
Sampled read_row(const Json& row) {
    Sampled out;
    const auto path = row.at("model_filename").get<std::string>();
    out.model = path.substr(path.find_last_of('/') + 1);
    out.type_k = row.at("type_k").get<std::string>();
    out.type_v = row.at("type_v").get<std::string>();
    const auto count = [&](const char* name) {
        const Json& value = row.at(name);
        if (!value.is_number_unsigned()) throw Json::other_error::create(501, std::string(name) + " is no count", &row);
        return value.get<std::uint32_t>();
    };
    const auto or_else = [&](const char* name, std::uint32_t n) { return row.contains(name) ? count(name) : n; };
    const std::uint32_t n_threads = count("n_threads"), n_threads_batch = or_else("n_threads_batch", n_threads);
    out.test = {count("n_prompt"), count("n_gen"), count("n_depth"), or_else("n_streams", 0),
                {static_cast<int>(n_threads), static_cast<int>(n_threads_batch)}};
    out.n_batch = count("n_batch");
    out.ts = row.at("samples_ts").get<std::vector<double>>();
    if (out.ts.empty()) throw Json::other_error::create(501, "samples_ts is empty", &row);
    return out;
}

/// An array, or a value a line.
Json parse(const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos || text[first] == '[') return Json::parse(text);
    Json out = Json::array();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        if (text.find_first_not_of(" \t\r", at) < end) out.push_back(Json::parse(text.substr(at, end - at)));
        at = end + 1;
    }
    return out;
}

Result<std::vector<Sampled>> read_results(const std::string& path) {
    const Result<std::string> text = tools::read_file(path);
    if (!text) return text.error();
    std::vector<Sampled> out;
    std::string where;
    try {
        for (const Json& row : parse(*text)) {
            where = ", result " + std::to_string(out.size() + 1);
            out.push_back(read_row(row));
        }
    } catch (const Json::exception& e) {
        return Error{Errc::invalid_argument,
                     path + where + ": not a result of bench's speed tests, as -o json writes them: " + e.what()};
    }
    return out;
}

/// For each of a, its partner in b or null: those of equal n_batch first.
std::vector<const Sampled*> pair(const std::vector<Sampled>& a, std::vector<Sampled>& b) {
    std::vector<const Sampled*> out(a.size());
    for (const bool same_batch : {true, false}) {
        for (std::size_t i = 0; i < a.size(); ++i) {
            for (Sampled& y : b) {
                if (out[i] || y.paired || y.key() != a[i].key() || (same_batch && y.n_batch != a[i].n_batch)) continue;
                out[i] = &y;
                y.paired = true;
            }
        }
    }
    return out;
}

Line to_line(const Sampled& any, const Sampled* a, const Sampled* b) {
    const auto side = [](const Sampled* s) {
        return s ? fixed(mean(s->ts), 2) + " ± " + fixed(deviation(s->ts), 2) : "-";
    };
    const auto figure = [](const Sampled* s) { return s ? Json(mean(s->ts)) : Json(); };
    const bool both = a && b;
    const double ratio = both ? mean(b->ts) / mean(a->ts) : 0;
    const std::string says = both ? verdict(a->ts, b->ts) : a ? "only in A" : "only in B";
    Line out;
    out.fields = {{"model", any.model},
                  {"n_prompt", any.test.n_prompt},
                  {"n_gen", any.test.n_gen},
                  {"n_depth", any.test.n_depth},
                  {"n_streams", any.test.n_streams},
                  {"n_threads", any.test.threads.decode},
                  {"n_threads_batch", any.test.threads.prefill},
                  {"type_k", any.type_k},
                  {"type_v", any.type_v},
                  {"a_ts", figure(a)},
                  {"b_ts", figure(b)},
                  {"ratio", both ? Json(ratio) : Json()},
                  {"verdict", says}};
    out.cells = {{"model", any.model},
                 {"threads", any.test.threads.text()},
                 {"test", any.test.name()},
                 {"KV", any.type_k == any.type_v ? any.type_k : any.type_k + "/" + any.type_v},
                 {"A t/s", side(a)},
                 {"B t/s", side(b)},
                 {"B/A", both ? fixed(ratio, 3) : "-"},
                 {"verdict", says}};
    return out;
}

}  // namespace

std::string verdict(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() < 3 || b.size() < 3) return "too few runs";
    const auto [least_a, most_a] = std::minmax_element(a.begin(), a.end());
    const auto [least_b, most_b] = std::minmax_element(b.begin(), b.end());
    const double error =
        std::hypot(deviation(a) / std::sqrt(double(a.size())), deviation(b) / std::sqrt(double(b.size())));
    if (std::abs(mean(b) - mean(a)) <= 3 * error) return "within noise";
    return *least_b > *most_a ? "faster" : *least_a > *most_b ? "slower" : "within noise";
}

Result<std::vector<Line>> compare(const std::string& path_a, const std::string& path_b) {
    Result<std::vector<Sampled>> a = read_results(path_a);
    if (!a) return std::move(a).error();
    Result<std::vector<Sampled>> b = read_results(path_b);
    if (!b) return std::move(b).error();
    std::vector<Line> out, alone;
    const std::vector<const Sampled*> partners = pair(*a, *b);
    for (std::size_t i = 0; i < a->size(); ++i) {
        const Sampled& x = (*a)[i];
        (partners[i] ? out : alone).push_back(to_line(x, &x, partners[i]));
    }
    for (const Sampled& y : *b)
        if (!y.paired) alone.push_back(to_line(y, nullptr, &y));
    out.insert(out.end(), alone.begin(), alone.end());
    return out;
}

}  // namespace quern::bench
