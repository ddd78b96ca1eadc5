// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/end_to_end/bench.h"
#include "tools/common/process.h"

namespace quern::bench {

using Json = nlohmann::ordered_json;
using tools::fixed;

namespace {

template <class T>
double mean(const std::vector<T>& v) {
    return v.empty() ? 0 : std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
}

template <class T>
double deviation(const std::vector<T>& v) {
    if (v.size() < 2) return 0;
    const double m = mean(v);
    double sum = 0;
    for (const T x : v) sum += (double(x) - m) * (double(x) - m);
    return std::sqrt(sum / double(v.size() - 1));
}

/// As text: JSON's numbers are doubles to many readers.
std::string hex(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

Json row_json(const Setup& s, const Row& r) {
    return {{"build_commit", QUERN_COMMIT},
            {"quern_version", version()},
            {"cpu_info", s.info.cpu},
            {"gpu_info", ""},
            {"backends", "CPU"},
            {"isa", s.info.isa},
            {"model_filename", s.model_path},
            {"model_type", s.info.architecture + " " + s.info.weight_type},
            {"model_size", s.info.file_size},
            {"model_n_params", s.info.n_params},
            {"n_batch", s.n_batch},
            {"n_ubatch", s.n_batch},
            {"n_threads", r.test.n_threads},
            {"type_k", s.kv_type},
            {"type_v", s.kv_type},
            {"n_prompt", r.test.n_prompt},
            {"n_gen", r.test.n_gen},
            {"n_depth", r.test.n_depth},
            {"n_streams", r.test.n_streams},
            {"test_time", r.test_time},
            {"avg_ns", std::llround(r.avg_ns())},
            {"stddev_ns", std::llround(r.stddev_ns())},
            {"avg_ts", r.avg_ts()},
            {"stddev_ts", r.stddev_ts()},
            {"stream_ts", r.test.n_streams ? r.avg_ts() / r.test.n_streams : 0},
            {"stream_checksum", r.test.n_streams ? hex(r.checksum) : ""},
            {"samples_ns", r.samples_ns},
            {"samples_ts", r.samples_ts()}};
}

/// A CSV field: in quotes, with quotes inside doubled.
std::string csv_field(const Json& value) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
}

}  // namespace

std::string Test::name() const {
    std::string out;
    if (n_streams > 0) return std::to_string(n_streams) + " x tg" + std::to_string(n_gen) + " @ d" + std::to_string(n_depth);
    if (n_prompt > 0) out += "pp" + std::to_string(n_prompt);
    if (n_gen > 0) out += (out.empty() ? "tg" : "+tg") + std::to_string(n_gen);
    if (n_depth > 0) out += " @ d" + std::to_string(n_depth);
    return out;
}

double Row::avg_ns() const { return mean(samples_ns); }
double Row::stddev_ns() const { return deviation(samples_ns); }
double Row::avg_ts() const { return mean(samples_ts()); }
double Row::stddev_ts() const { return deviation(samples_ts()); }

std::vector<double> Row::samples_ts() const {
    std::vector<double> out;
    for (const std::uint64_t ns : samples_ns) out.push_back(1e9 * double(test.n_timed()) / double(ns));
    return out;
}

std::string to_json(const Setup& setup, const std::vector<Row>& rows) {
    Json out = Json::array();
    for (const Row& r : rows) out.push_back(row_json(setup, r));
    return out.dump(2) + "\n";
}

std::string to_csv(const Setup& setup, const std::vector<Row>& rows) {
    static constexpr const char* kOnlyJson[] = {"samples_ns", "samples_ts"};
    std::string out;
    for (const Row& r : rows) {
        Json fields = row_json(setup, r);
        for (const char* name : kOnlyJson) fields.erase(name);
        std::string head, line;
        for (const auto& [key, value] : fields.items()) {
            head += (head.empty() ? "" : ",") + key;
            line += (line.empty() ? "" : ",") + csv_field(value);
        }
        if (out.empty()) out = head + "\n";
        out += line + "\n";
    }
    return out;
}

std::string to_markdown(const Setup& setup, const std::vector<Row>& rows) {
    std::string out =
        "| model | size | params | backend | threads | test | t/s |\n"
        "| --- | ---: | ---: | --- | ---: | --- | ---: |\n";
    for (const Row& r : rows) {
        out += "| " + setup.info.architecture + " " + setup.info.weight_type + " | " +
               tools::human_bytes(setup.info.file_size) + " | " + fixed(double(setup.info.n_params) / 1e6, 2) +
               " M | CPU " + setup.info.isa + " | " + std::to_string(r.test.n_threads) + " | " + r.test.name() + " | " +
               fixed(r.avg_ts(), 2) + " ± " + fixed(r.stddev_ts(), 2) + " |\n";
    }
    for (const Row& r : rows) {
        if (!r.test.n_streams) continue;
        out += "\n" + r.test.name() + ": " + fixed(r.avg_ts() / r.test.n_streams, 2) +
               " t/s each; the first stream's tokens are those it has alone (checksum " + hex(r.checksum) + ")";
    }
    if (rows.back().test.n_streams) out += "\n";
    return out;
}

}  // namespace quern::bench
