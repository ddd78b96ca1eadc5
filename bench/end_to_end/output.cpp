// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/stats.h"
#include "tools/common/process.h"

namespace quern::bench {

using Json = nlohmann::ordered_json;
using tools::fixed;

namespace {

/// As text: JSON's numbers are doubles to many readers.
std::string hex(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

/// A CSV field: in quotes, with quotes inside doubled; nothing for null.
std::string csv_field(const Json& value) {
    if (value.is_null()) return "";
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
}

std::string to_csv(const std::vector<Line>& lines) {
    std::string out;
    for (const Line& line : lines) {
        std::string head, values;
        for (const auto& [key, value] : line.fields.items()) {
            if (value.is_array()) continue;  // samples are for JSON
            head += (head.empty() ? "" : ",") + key;
            values += (values.empty() ? "" : ",") + csv_field(value);
        }
        if (out.empty()) out = head + "\n";
        out += values + "\n";
    }
    return out;
}

/// Left for words, right for figures, as the first line's cell begins.
std::string to_markdown(const std::vector<Line>& lines) {
    if (lines.empty()) return "";
    std::string head = "|", rule = "|", body, notes;
    for (const auto& [name, text] : lines.front().cells) {
        head += " " + name + " |";
        rule += text.find_first_of("0123456789") == 0 && name != "test" ? " ---: |" : " --- |";
    }
    for (const Line& line : lines) {
        body += "|";
        for (const auto& [name, text] : line.cells) body += " " + text + " |";
        body += "\n";
        if (!line.note.empty()) notes += "\n" + line.note + "\n";
    }
    return head + "\n" + rule + "\n" + body + notes;
}

}  // namespace

std::vector<double> Row::samples_ts() const {
    std::vector<double> out;
    for (const std::uint64_t ns : samples_ns) out.push_back(1e9 * double(test.n_timed()) / double(ns));
    return out;
}

double Row::avg_ts() const { return mean(samples_ts()); }
double Row::gb_s() const { return cost.bytes / mean(samples_ns); }
double Row::gop_s() const { return cost.ops() / mean(samples_ns); }
double Row::share() const { return cost.least_seconds * 1e9 / mean(samples_ns); }

std::string model_type(const Setup& s) { return s.info.architecture + " " + s.info.weight_type; }

Json model_fields(const Setup& s, Threads threads) {
    return {{"build_commit", QUERN_COMMIT},
            {"quern_version", version()},
            {"cpu_info", s.info.cpu},
            {"gpu_info", s.gpu.device},
            {"backends", s.gpu.device.empty() ? "CPU" : "Vulkan"},
            {"n_gpu_layers", s.gpu.n_layer - s.gpu.first_gpu_layer},
            {"isa", s.info.isa},
            {"model_filename", s.model_path},
            {"model_type", model_type(s)},
            {"model_size", s.tensor_bytes},
            {"model_n_params", s.info.n_params},
            {"n_batch", s.n_batch},
            {"n_ubatch", s.n_batch},
            {"n_threads", threads.decode},
            {"n_threads_batch", threads.prefill},
            {"type_k", s.kv_type},
            {"type_v", s.kv_type}};
}

Line to_line(const Row& r, Columns columns) {
    const Test& t = r.test;
    const double spread = deviation(r.samples_ts()), each = t.n_streams ? r.avg_ts() / t.n_streams : 0;
    const bool limits = r.roofline.threads > 0;
    Line out;
    out.fields = model_fields(r.setup, t.threads);
    out.fields.update(Json{{"n_prompt", t.n_prompt},
                           {"n_gen", t.n_gen},
                           {"n_depth", t.n_depth},
                           {"n_streams", t.n_streams},
                           {"test_time", r.test_time},
                           {"avg_ns", std::llround(mean(r.samples_ns))},
                           {"stddev_ns", std::llround(deviation(r.samples_ns))},
                           {"avg_ts", r.avg_ts()},
                           {"stddev_ts", spread},
                           {"stream_ts", each},
                           {"stream_checksum", t.n_streams ? hex(r.checksum) : ""},
                           {"bytes_read", std::llround(r.cost.bytes)},
                           {"operations", std::llround(r.cost.ops())},
                           {"gb_s", r.gb_s()},
                           {"gop_s", r.gop_s()},
                           {"roofline_read_gb_s", limits ? Json(r.roofline.read_gb_s) : Json()},
                           {"roofline_int8_gop_s", limits ? Json(r.roofline.int8_gop_s) : Json()},
                           {"roofline_f32_gop_s", limits ? Json(r.roofline.f32_gop_s) : Json()},
                           {"roofline_share", limits ? Json(r.share()) : Json()},
                           {"device_share", r.device_share},
                           {"samples_ns", r.samples_ns},
                           {"samples_ts", r.samples_ts()}});
    out.cells = {{"model", model_type(r.setup)},
                 {"size", tools::human_bytes(r.setup.tensor_bytes)},
                 {"params", fixed(double(r.setup.info.n_params) / 1e6, 2) + " M"},
                 {"backend", r.setup.backend()},
                 {"threads", t.threads.text()}};
    const auto cell = [&](const char* heading, std::string text) { out.cells.emplace_back(heading, std::move(text)); };
    if (columns.n_batch) cell("n_batch", std::to_string(r.setup.n_batch));
    if (columns.kv_type) cell("KV", r.setup.kv_type);
    cell("test", t.name());
    cell("t/s", fixed(r.avg_ts(), 2) + " ± " + fixed(spread, 2));
    cell("GB/s", fixed(r.gb_s(), 1));
    cell("GOP/s", fixed(r.gop_s(), 0));
    if (limits) cell("% of limit", fixed(100 * r.share(), 0));
    if (!r.setup.gpu.device.empty()) cell("% on GPU", fixed(100 * r.device_share, 0));
    if (t.n_streams) {
        out.note = t.name() + ": " + fixed(each, 2) + " t/s each";
        if (r.setup.gpu.device.empty()) out.note += "; the first stream's tokens are those it has alone (checksum " + hex(r.checksum) + ")";
    }
    return out;
}

std::string render(const std::string& format, const std::vector<Line>& lines) {
    if (format == "md") return to_markdown(lines);
    if (format == "csv") return to_csv(lines);
    Json all = Json::array();
    std::string out;
    for (const Line& line : lines) {
        all.push_back(line.fields);
        out += line.fields.dump() + "\n";
    }
    return format == "jsonl" ? out : all.dump(2) + "\n";
}

}  // namespace quern::bench
