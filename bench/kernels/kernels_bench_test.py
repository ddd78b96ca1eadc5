# SPDX-License-Identifier: Apache-2.0
import unittest

from support import OK, USAGE, run, run_json

QUICK = ("--quick", "--threads=2", "--benchmark_min_time=0.001", "--benchmark_format=json")


class KernelsBench(unittest.TestCase):
    def test_matmul(self):
        result = run_json("kernels_bench", *QUICK, "--benchmark_filter=matmul/.*/Q4_0/576x1536/(1|16)/")
        for threads in (1, 2):
            self.assertRegex(result["context"][f"roofline_threads_{threads}"], r"read [\d.]+ GB/s, int8 \d+ GOP/s")
        rows = result["benchmarks"]
        for row in rows:
            for column in ("GB/s", "GOP/s", "share"):
                self.assertGreater(row[column], 0, row)
            self.assertRegex(row["label"], "^of (int8 peak|read bandwidth)$")
        # Every table and thread count gives the same bits.
        for columns in (1, 16):
            sums = {row["checksum"] for row in rows if f"/{columns}/threads" in row["name"]}
            self.assertEqual(len(sums), 1, rows)
        self.assertEqual({row["name"].split("/")[5] for row in rows}, {"threads:1", "threads:2"})

    def test_every_kind(self):
        kinds = "rms_norm|rope_norm|rope_neox|swiglu|geglu|quantize_act|quantize_act_fine|argmax"
        wanted = f"^(({kinds})/scalar/|attention/.*/depth:256/|sample/.*/49152)"
        rows = run_json("kernels_bench", *QUICK, f"--benchmark_filter={wanted}")["benchmarks"]
        found = {row["name"].split("/")[0] for row in rows}
        self.assertLessEqual(set(kinds.split("|")) | {"attention", "sample"}, found)
        for row in rows:
            self.assertNotIn("error_occurred", row)
            self.assertGreater(row["GB/s"], 0, row)
            self.assertGreater(row["checksum"], 0, row)

    def test_list(self):
        p = run("kernels_bench", "--benchmark_list_tests")
        self.assertEqual(p.returncode, OK, p.stderr)
        names = p.stdout.split()
        self.assertEqual(len(names), len(set(names)))
        for n_cols in (1, 2, 4, 8, 16, 32, 128, 512):
            self.assertIn(f"matmul/scalar/Q5_K/3584x18944/{n_cols}/threads:1/real_time", names)

    def test_errors(self):
        for flag in ("--threads=0", "--threads=two", "--speed"):
            p = run("kernels_bench", flag)
            self.assertEqual((p.returncode, p.stdout), (USAGE, ""))
            self.assertIn(flag, p.stderr)


if __name__ == "__main__":
    unittest.main()
