# SPDX-License-Identifier: Apache-2.0
import csv
import io
import os
import statistics
import unittest

from support import MODEL, USAGE, run, run_json

# Scripts written for llama-bench read these.
KEYS = {"build_commit", "cpu_info", "model_filename", "model_type", "model_size", "model_n_params", "n_batch",
        "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts",
        "stddev_ts", "samples_ns", "samples_ts"}
SMALL = ("-m", MODEL, "-r", "2")


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
        self.assertEqual(rows[0]["model_size"], os.path.getsize(MODEL))

    def test_prompt_and_generation_together(self):
        rows = run_json("bench", *SMALL, "-p", "0", "-n", "0", "-pg", "8,4", "-ctk", "f32", "-ctv", "f32", "-o", "json")
        self.assertEqual([(r["n_prompt"], r["n_gen"], r["type_k"]) for r in rows], [(8, 4, "f32")])

    def test_markdown(self):
        p = run("bench", *SMALL, "-p", "8", "-n", "4", "-d", "2")
        lines = p.stdout.splitlines()
        self.assertEqual(len(lines), 4, p.stderr)
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
        self.assertEqual(cells[0], ["model", "size", "params", "backend", "threads", "test", "t/s"])
        self.assertEqual([row[5] for row in cells[2:]], ["pp8 @ d2", "tg4 @ d2"])
        self.assertRegex(cells[2][6], r"^[\d.]+ ± [\d.]+$")
        self.assertEqual(p.stderr, "")

    def test_csv(self):
        rows = list(csv.DictReader(io.StringIO(run("bench", *SMALL, "-p", "8", "-n", "4", "-o", "csv").stdout)))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in rows], [("8", "0"), ("0", "4")])
        self.assertGreater(float(rows[0]["avg_ts"]), 0)

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
        self.assertRegex(text, r"(?m)\| 3 x tg6 @ d5 \| [\d.]+ ± [\d.]+ \|$")
        self.assertRegex(text, r"(?m)^3 x tg6 @ d5: [\d.]+ t/s each; .* \(checksum [0-9a-f]{16}\)$")

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


if __name__ == "__main__":
    unittest.main()
