# SPDX-License-Identifier: Apache-2.0
import csv
import io
import json
import os
import re
import statistics
import tempfile
import unittest

from support import MODEL, MODEL_ERROR, OK, TINY, USAGE, need_lavapipe, run, run_json

# Scripts written for llama-bench read these.
KEYS = {"build_commit", "cpu_info", "model_filename", "model_type", "model_size", "model_n_params", "n_batch",
        "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts",
        "stddev_ts", "samples_ns", "samples_ts"}
OTHER = os.path.join(TINY, "llama-q5_k.gguf")
QUICK = ("--no-roofline", "-r", "2")
SMALL = ("-m", MODEL, *QUICK)


def table(text):
    """The cells of a Markdown table's rows, and its headings."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:], rows[0]


class Bench(unittest.TestCase):
    def test_json(self):
        rows = run_json("bench", *SMALL, "-p", "8,16", "-n", "4", "-d", "0,8", "-t", "1,2", "-o", "json")
        self.assertEqual([(r["n_threads"], r["n_depth"], r["n_prompt"], r["n_gen"]) for r in rows],
                         [(t, d, p, n) for t in (1, 2) for d in (0, 8) for p, n in ((8, 0), (16, 0), (0, 4))])
        for row in rows:
            self.assertLessEqual(KEYS, set(row))
            self.assertEqual(len(row["samples_ns"]), 2)
            n = row["n_prompt"] + row["n_gen"]
            for ns, speed in zip(row["samples_ns"], row["samples_ts"]):
                self.assertAlmostEqual(speed, n * 1e9 / ns, delta=1e-6 * speed)
            self.assertAlmostEqual(row["avg_ts"], statistics.mean(row["samples_ts"]), delta=1e-6 * row["avg_ts"])
            self.assertAlmostEqual(row["stddev_ts"], statistics.stdev(row["samples_ts"]), delta=1e-6 * row["avg_ts"])
            self.assertRegex(row["test_time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
            self.assertEqual((row["type_k"], row["type_v"]), ("f16", "f16"))
            self.assertIsNone(row["roofline_share"])

    def test_bytes_and_operations(self):
        tensors = run_json("inspect", "info", MODEL, "--json")["tensors"]
        matrices = [t for t in tensors if len(t["shape"]) == 2 and t["name"] != "token_embd.weight"]
        # The last layer's attention output and all behind it is only for tokens whose logits are wanted.
        late = ("output.weight", "blk.1.attn_output.weight", "blk.1.ffn_gate.weight", "blk.1.ffn_up.weight",
                "blk.1.ffn_down.weight")
        elements = {late_one: sum(t["shape"][0] * t["shape"][1] for t in matrices if (t["name"] in late) == late_one)
                    for late_one in (False, True)}
        n_bytes = sum(t["n_bytes"] for t in matrices)
        kv = 2 * 2 * 2 * 64 * 2   # K and V, layers, KV heads, head size, bytes a value
        prompt, gen, streams = run_json("bench", *SMALL, "-p", "12", "-n", "4", "-d", "8", "-b", "8", "-o", "json") + \
            run_json("bench", *SMALL, "--streams", "3", "-p", "8", "-n", "4", "-o", "json")
        self.assertEqual(gen["model_size"], sum(t["n_bytes"] for t in tensors))
        self.assertEqual(prompt["operations"], 2 * (12 * elements[False] + elements[True]))
        self.assertEqual(gen["operations"], 2 * 4 * sum(elements.values()))
        self.assertEqual(gen["bytes_read"], 4 * n_bytes + kv * (9 + 10 + 11 + 12))
        self.assertEqual(streams["operations"], 3 * gen["operations"])
        self.assertEqual(streams["bytes_read"], 4 * n_bytes + 3 * kv * (9 + 10 + 11 + 12))
        late_bytes = sum(t["n_bytes"] for t in matrices if t["name"] in late)   # not needed in the first of two steps
        self.assertEqual(prompt["bytes_read"], 2 * n_bytes - late_bytes + kv * (16 + 20))
        self.assertAlmostEqual(gen["gb_s"], gen["bytes_read"] / statistics.mean(gen["samples_ns"]), delta=1e-6 * gen["gb_s"])

    def test_roofline(self):
        row, = run_json("bench", "-m", MODEL, "-r", "2", "-p", "0", "-n", "4", "-o", "json")
        reading = row["bytes_read"] / row["roofline_read_gb_s"]
        computing = row["operations"] / row["roofline_int8_gop_s"]   # nanoseconds, as samples_ns
        least = max(reading, computing)   # for all steps alike
        self.assertAlmostEqual(row["roofline_share"], least / statistics.mean(row["samples_ns"]), delta=1e-6)

    def test_lists(self):
        rows = run_json("bench", *SMALL, "-m", OTHER, "-p", "8", "-n", "0", "-b", "4,8", "-ctk", "f32,f16", "-ctv", "f32,f16",
                        "-o", "json")
        self.assertEqual([(r["model_filename"], r["type_k"], r["n_batch"]) for r in rows],
                         [(m, kv, b) for m in (MODEL, OTHER) for kv in ("f32", "f16") for b in (4, 8)])

    def test_prompt_and_generation_together(self):
        rows = run_json("bench", *SMALL, "-p", "0", "-n", "0", "-pg", "8,4", "-ctv", "f32", "-o", "json")
        self.assertEqual([(r["n_prompt"], r["n_gen"], r["type_k"]) for r in rows], [(8, 4, "f32")])

    def test_markdown(self):
        p = run("bench", *SMALL, "-p", "8", "-n", "4", "-d", "2")
        rows, heads = table(p.stdout)
        self.assertEqual(heads, ["model", "size", "params", "backend", "threads", "test", "t/s", "GB/s", "GOP/s"])
        self.assertEqual([row[5] for row in rows], ["pp8 @ d2", "tg4 @ d2"])
        self.assertRegex(rows[0][6], r"^[\d.]+ ± [\d.]+$")
        self.assertEqual(p.stderr, "")
        _, heads = table(run("bench", *SMALL, "-p", "8", "-n", "0", "-b", "4,8", "-ctk", "f32").stdout)
        self.assertEqual(heads[5:8], ["n_batch", "KV", "test"])

    def test_csv_and_lines(self):
        rows = list(csv.DictReader(io.StringIO(run("bench", *SMALL, "-p", "8", "-n", "4", "-o", "csv").stdout)))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in rows], [("8", "0"), ("0", "4")])
        self.assertGreater(float(rows[0]["avg_ts"]), 0)
        lines = run("bench", *SMALL, "-p", "8", "-n", "4", "-o", "jsonl").stdout.splitlines()
        self.assertEqual([json.loads(line)["n_gen"] for line in lines], [0, 4])

    def test_streams(self):
        rows = run_json("bench", *SMALL, "--streams", "1,3", "-npl", "9", "-p", "17,5", "-n", "6", "-o", "json")
        self.assertEqual([(r["n_streams"], r["n_depth"], r["n_prompt"], r["n_gen"]) for r in rows],
                         [(s, p, 0, 6) for s in (1, 3, 9) for p in (17, 5)])
        for row in rows:
            for ns, speed in zip(row["samples_ns"], row["samples_ts"]):
                self.assertAlmostEqual(speed, 6 * row["n_streams"] * 1e9 / ns, delta=1e-6 * speed)
            self.assertAlmostEqual(row["stream_ts"] * row["n_streams"], row["avg_ts"], delta=1e-6 * row["avg_ts"])
        for prompt in (17, 5):   # the first stream's tokens depend on its prompt only
            sums = {r["stream_checksum"] for r in rows if r["n_depth"] == prompt}
            self.assertEqual(len(sums), 1)
            self.assertRegex(sums.pop(), "^[0-9a-f]{16}$")
        text = run("bench", *SMALL, "-npl", "3", "-p", "5", "-n", "6").stdout
        self.assertEqual([row[5] for row in table(text)[0]], ["3 x tg6 @ d5"])
        self.assertRegex(text, r"(?m)^3 x tg6 @ d5: [\d.]+ t/s each; .* \(checksum [0-9a-f]{16}\)$")

    def test_threads_of_prefill_and_decode(self):
        def counts(*flags):
            rows = run_json("bench", *SMALL, "--no-tune", "-p", "8", "-n", "2", "-o", "json", *flags)
            return [(r["n_threads"], r["n_threads_batch"]) for r in rows]
        self.assertEqual(counts("-t", "1,2"), [(1, 1)] * 2 + [(2, 2)] * 2)
        self.assertEqual(counts("-t", "1,2", "-tb", "3"), [(1, 3)] * 2 + [(2, 3)] * 2)
        self.assertEqual(counts("-t", "2", "-tb", "1"), [(2, 1)] * 2)
        self.assertEqual(counts("-tb", "3"), [(counts()[0][0], 3)] * 2)
        for flags in (("-p", "8", "-n", "2"), ("--streams", "3", "-p", "8", "-n", "2"), ("--preset", "latency", "-n", "2")):
            text = run("bench", *SMALL, "-t", "1", "-tb", "2", *flags).stdout
            rows, heads = table(text)
            self.assertEqual({r[heads.index("threads")] for r in rows}, {"1/2"}, text)

    def test_measured_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = os.path.join(folder, "quern")

            def bench(*flags):
                return run_json("bench", *SMALL, "-p", "256", "-n", "2", "-o", "json", *flags, env={"XDG_CACHE_HOME": folder})
            for flags in (("--no-tune",), ("-t", "1"), ("-t", "1,2"), ("-tb", "1"), ("-b", "512")):
                bench(*flags)
                self.assertFalse(os.path.exists(kept), flags)
            bench("--tune")
            name, = os.listdir(kept)
            path = os.path.join(kept, name)
            with open(path) as f:
                text = re.sub(r"threads \d+\nthreads-batch \d+\nbatch \d+\ncheck .*\n$", "", f.read())
            text += "threads 1\nthreads-batch 1\nbatch 128\n"   # what any machine may choose
            check = 0xcbf29ce484222325
            for byte in text.encode():
                check = (check ^ byte) * 0x100000001b3 % 2**64
            with open(path, "w") as f:
                f.write(text + f"check {check:x}\n")
            prompt, gen = bench()
            self.assertEqual([(r["n_threads"], r["n_threads_batch"], r["n_batch"]) for r in (prompt, gen)], [(1, 1, 128)] * 2)
            # Two steps, each of which reads what every token needs.
            self.assertEqual(prompt["bytes_read"], bench("-b", "128")[0]["bytes_read"])
            self.assertGreater(prompt["bytes_read"], bench("-b", "512")[0]["bytes_read"])
            for preset, n_batch in (("latency", 128), ("memory", 512), ("quants", 512)):
                row = bench("--preset", preset, "-p", "8", "-d", "32")[0]
                self.assertEqual(row["n_batch"], n_batch, preset)
            many, = run_json("bench", *SMALL, "--streams", "200", "-p", "1", "-n", "1", "-o", "json",
                             env={"XDG_CACHE_HOME": folder})   # a step of decode may be larger than one of prefill
            self.assertEqual((many["n_batch"], many["n_streams"]), (128, 200))

    def test_errors(self):
        def expect(text, *flags):
            p = run("bench", *SMALL, *flags)
            self.assertEqual((p.returncode, p.stdout), (USAGE, ""))
            self.assertIn(text, p.stderr)
        expect("nothing to measure", "-p", "0", "-n", "0")
        expect("512;128", "-pg", "512;128")
        expect("-1", "-p", "-1")
        expect("--streams", "--streams", "2", "-p", "0")
        expect("--streams", "--streams", "2", "-d", "4")
        expect("raise -b", "--streams", "9", "-b", "8")
        expect("too many", "--streams", "4096", "-p", "16777216")
        expect("same format", "-ctk", "f16", "-ctv", "f32")
        expect("yaml", "-o", "yaml")
        expect("--no-tune", "--tune", "--no-tune")
        self.assertEqual(run("bench", "-p", "8").returncode, USAGE)

    def test_what_was_measured_before_an_error_is_shown(self):
        p = run("bench", *SMALL, "-m", "nowhere.gguf", "-p", "8", "-n", "0", "-o", "json")
        self.assertEqual(p.returncode, MODEL_ERROR)
        self.assertIn("nowhere.gguf", p.stderr)
        self.assertEqual([r["n_prompt"] for r in json.loads(p.stdout)], [8])


class Device(unittest.TestCase):
    def test_share_of_the_device(self):
        need_lavapipe()
        rows = run_json("bench", "-m", MODEL, "--device", "llvmpipe", "-p", "4", "-n", "2", "-r", "1", "-o", "json")
        self.assertEqual({r["backends"] for r in rows}, {"Vulkan"})
        self.assertIn("llvmpipe", rows[0]["gpu_info"])
        for r in rows:
            self.assertTrue(0 < r["device_share"] <= 1, r["device_share"])


class Presets(unittest.TestCase):
    def preset(self, name, *flags):
        return run_json("bench", "-m", MODEL, "--no-roofline", "-r", "1", "--preset", name, "-o", "json", *flags)

    def test_latency(self):
        rows = run_json("bench", *SMALL, "--preset", "latency", "-n", "3", "-o", "json")
        self.assertEqual([r["prompt"] for r in rows],
                         ["short question", "code", "translation", "long text", "JSON extraction"])
        for r in rows:
            first, each = sorted(r["samples_first_token_ms"]), sorted(r["samples_token_ms"])
            self.assertEqual((len(first), len(each)), (2, 4))   # two runs; the first token of three counts apart
            self.assertEqual((r["first_token_ms_p50"], r["first_token_ms_p95"]), (first[0], first[1]))
            self.assertEqual((r["token_ms_p50"], r["token_ms_p95"]), (each[1], each[3]))
            self.assertGreater(r["n_prompt"], 8)
        rows, _ = table(run("bench", *SMALL, "--preset", "latency", "-n", "2").stdout)
        self.assertEqual(len(rows), 5)

    def test_memory(self):
        rows = self.preset("memory", "-d", "64,32,128")
        self.assertEqual([r["n_ctx"] for r in rows], [32, 64, 128])
        for r in rows:
            self.assertEqual(r["kv_bytes"], r["n_ctx"] * r["kv_bytes_per_token"])   # whole pages of 16 tokens
            self.assertGreater(r["resident_bytes"], r["kv_bytes"])
        self.assertEqual([r["n_ctx"] for r in self.preset("memory")], [512, 1024, 2048, 4096, 8192])

    def test_prefix(self):
        rows = run_json("bench", "-m", MODEL, "--preset", "prefix", "-r", "1", "-o", "json")
        self.assertEqual([r["n_prompt"] for r in rows], [32, 64, 128])
        for r in rows:
            self.assertAlmostEqual(r["ratio"], r["known_ms"] / r["own_ms"])
            self.assertGreaterEqual(r["n_reused"], 992)   # 62 pages of the 1,000 tokens, at least

    def test_lookup(self):
        rows = run_json("bench", "-m", MODEL, "--preset", "lookup", "-r", "3", "--no-warmup", "-o", "json")
        self.assertEqual([r["text"] for r in rows], ["edit", "story, seed 1", "story, seed 2", "story, seed 3"])
        for r in rows:
            ratios = sorted(b / a for a, b in zip(r["samples_plain_ts"], r["samples_lookup_ts"]))
            self.assertAlmostEqual(r["ratio"], ratios[1])
            self.assertLessEqual(r["n_accepted"], r["n_guessed"])
        self.assertTrue(0 <= rows[0]["copied"] < 1, rows[0])   # random weights copy nothing but by chance
        self.assertGreater(rows[0]["n_gen"], 100)

    def test_server(self):
        row, = run_json("bench", "-m", MODEL, "--preset", "server", "--requests", "3", "-o", "json")
        self.assertEqual((row["preset"], row["n_requests"]), ("server", 3))
        self.assertEqual((row["batcher"]["n_finished"], row["batcher"]["n_failed"]), (3, 0))
        self.assertEqual(row["batcher"]["n_generated"], row["n_gen"])
        self.assertTrue(3 * 64 <= row["n_prompt"] <= 3 * 1024 and 3 * 32 <= row["n_gen"] <= 3 * 256)
        self.assertAlmostEqual(row["ratio"], row["alone_seconds"] / row["batched_seconds"], places=6)

    def test_server_with_goals(self):
        p = run("bench", "-m", MODEL, "--preset", "server", "--requests", "6", "--goal-token-ms", "1e-6", "-v", "-o", "json")
        self.assertEqual(p.returncode, OK, p.stderr)
        row, = json.loads(p.stdout)   # no time is short enough: it went down as far as it may
        self.assertAlmostEqual(row["goal_token_ms"], 1e-6)
        self.assertEqual(row["max_running"], row["batcher"]["max_running"])
        self.assertTrue(row["max_running"] < 32 or row["n_prefill"] < 128, row)
        self.assertGreater(row["token_ms_p90"], 0)
        self.assertIn("adapt: n_", p.stderr)
        self.assertEqual(run("bench", "-m", MODEL, "--goal-tokens", "5").returncode, USAGE)

    def test_throughput(self):
        rows = self.preset("throughput")
        self.assertEqual([(r["n_prompt"], r["n_gen"], r["n_batch"]) for r in rows],
                         [(n, 0, 1024) for n in (32, 64, 128, 256, 512, 1024)])

    def test_threads(self):
        rows = self.preset("threads", "-p", "8", "-n", "4", "-t", "1,2")
        for two, one in ((rows[2], rows[0]), (rows[3], rows[1])):
            self.assertEqual((one["n_threads"], two["n_threads"], one["efficiency"]), (1, 2, 1))
            self.assertAlmostEqual(two["efficiency"], two["avg_ts"] / one["avg_ts"] / 2, delta=1e-6)
        self.assertEqual(self.preset("threads", "-p", "8", "-n", "0")[0]["n_threads"], 1)
        self.assertIsNone(self.preset("threads", "-p", "8", "-n", "0", "-t", "2")[0]["efficiency"])

    def test_quants(self):
        rows = self.preset("quants", "-m", OTHER, "-p", "8", "-n", "4")
        for key in ("n_prompt", "n_gen"):
            pair = [r for r in rows if r[key]]
            self.assertEqual({r["model_type"] for r in pair}, {"llama Q4_0", "llama Q5_K"})
            self.assertEqual(max(r["relative"] for r in pair), 1)
            best = max(r["avg_ts"] for r in pair)
            for r in pair:
                self.assertAlmostEqual(r["relative"], r["avg_ts"] / best, delta=1e-6)

    def test_errors(self):
        for flags in (("latency", "-n", "0"), ("memory", "-d", "0"), ("threads", "--streams", "2"), ("speed",)):
            p = run("bench", *SMALL, "--preset", *flags)
            self.assertEqual((p.returncode, p.stdout), (USAGE, ""), flags)
            self.assertIn("--preset", p.stderr)


class Compare(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def file(self, name, content):
        path = os.path.join(self.dir.name, name)
        with open(path, "w") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        return path

    @staticmethod
    def row(samples, **fields):
        return {"model_filename": "models/some.gguf", "type_k": "f16", "type_v": "f16", "n_prompt": 512, "n_gen": 0,
                "n_depth": 0, "n_threads": 2, "n_batch": 512, "samples_ts": samples, **fields}

    def compare(self, a, b):
        return run_json("bench", "--compare", self.file("a.json", a), self.file("b.json", b), "-o", "json")

    def test_verdicts(self):
        for a, b, verdict in (([100, 101, 102], [110, 111, 112], "faster"),
                              ([110, 111, 112], [100, 101, 102], "slower"),
                              ([100, 101, 102], [101, 102, 103], "within noise"),
                              ([100, 101, 102, 100, 101, 102] * 9, [101, 102, 103, 101, 102, 103] * 9, "within noise"),
                              ([100, 110, 120], [121, 130, 140], "within noise"),   # apart, but under three errors
                              ([100, 100, 100], [100, 100, 100], "within noise"),
                              ([100, 100], [200, 200], "too few runs")):
            row, = self.compare([self.row(a)], [self.row(b)])
            self.assertEqual(row["verdict"], verdict, (a, b))
            self.assertAlmostEqual(row["ratio"], sum(b) / len(b) / (sum(a) / len(a)), delta=1e-9)

    def test_pairs(self):
        a = [self.row([1.0], n_batch=64), self.row([2.0]), self.row([3.0], n_prompt=0, n_gen=8), self.row([4.0], n_threads=1),
             self.row([5.0], n_prompt=9, n_threads_batch=2), self.row([6.0], n_prompt=10, n_threads_batch=1)]
        b = [self.row([20.0], model_filename="elsewhere/some.gguf"), self.row([10.0], n_batch=128),
             self.row([50.0], n_streams=8, n_prompt=0, n_gen=8), self.row([30.0], n_prompt=0, n_gen=8, n_streams=0),
             self.row([50.0], n_prompt=9), self.row([60.0], n_prompt=10)]
        rows = self.compare(a, b)
        self.assertEqual([(r["a_ts"], r["b_ts"]) for r in rows], [(1, 10), (2, 20), (3, 30), (5, 50), (4, None), (6, None), (None, 50), (None, 60)])
        self.assertEqual([r["verdict"] for r in rows[4:]], ["only in A"] * 2 + ["only in B"] * 2)
        p = run("bench", "--compare", self.file("a.json", a), self.file("b.json", b))
        self.assertEqual((p.returncode, p.stderr), (OK, ""))
        rows, _ = table(p.stdout)
        self.assertEqual([r[-2] for r in rows], ["10.000"] * 4 + ["-"] * 4)

    def test_its_own_results(self):
        for form in ("json", "jsonl"):
            p = run("bench", *SMALL, "-p", "8", "-n", "4", "-o", form)
            rows = self.compare(p.stdout, p.stdout)
            self.assertEqual([(r["ratio"], r["verdict"]) for r in rows], [(1, "too few runs")] * 2)

    def test_errors(self):
        good = self.file("good.json", [self.row([1.0])])
        lacking = self.row([1.0])
        del lacking["n_depth"]
        for content, texts in (("[{]", ("parse error", "column 3")), ("", ("parse error",)), ("5", ("result 1",)),
                               ([self.row([1.0]), lacking], ("result 2", "n_depth")),
                               ([self.row([1.0], n_prompt=-4)], ("result 1", "n_prompt")),
                               ([self.row([])], ("result 1", "samples_ts")),
                               ([self.row(["fast"])], ("result 1", "number"))):
            bad = self.file("bad.json", content)
            for pair in ((good, bad), (bad, good)):
                p = run("bench", "--compare", *pair)
                self.assertEqual((p.returncode, p.stdout), (USAGE, ""), p.stderr)
                for text in ("bad.json", *texts):
                    self.assertIn(text, p.stderr)
        p = run("bench", "--compare", good, os.path.join(self.dir.name, "none.json"))
        self.assertEqual(p.returncode, USAGE)
        self.assertIn("none.json", p.stderr)
        self.assertEqual(run("bench", "--compare", good).returncode, USAGE)


if __name__ == "__main__":
    unittest.main()
