# SPDX-License-Identifier: Apache-2.0
import array
import json
import math
import os
import tempfile
import unittest

from support import MODEL, TINY, USAGE, manifest, run, run_json

ORACLE = manifest("llama-q4_0.gguf")
TEXT = "the quick answer is all that there is, and more of it. " * 40


def floats(path):
    out = array.array("f")
    with open(path, "rb") as f:
        out.frombytes(f.read())
    return out


class Perplexity(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w") as f:
                f.write(text)
        return path

    def test_dump_is_what_was_scored(self):
        dump = self.path("logits")
        result = run_json("perplexity", "-m", MODEL, "-f", self.path("text", TEXT), "-c", "32", "--chunks", "3",
                          "--json", "--dump-logits", dump)
        with open(dump + ".json") as f:
            index = json.load(f)
        tokens, (rows, n_vocab) = index["token_ids"], index["shape"]
        self.assertEqual((rows, n_vocab, len(tokens)), (96, 512, 96))
        self.assertEqual(os.path.getsize(dump), rows * n_vocab * 4)
        self.assertEqual((result["n_chunks"], result["n_tokens"], result["n_scored"]), (3, 96, 3 * 15))
        logits = floats(dump)
        losses = []
        for chunk in range(0, rows, 32):
            for at in range(chunk + 16, chunk + 31):  # the second half of a chunk, its last token aside
                row = logits[at * n_vocab:(at + 1) * n_vocab]
                top = max(row)
                losses.append(math.log(math.fsum(math.exp(x - top) for x in row)) + top - row[tokens[at + 1]])
        mean = math.fsum(losses) / len(losses)
        # Both sides are double precision; only the order of some thousand additions differs.
        self.assertAlmostEqual(result["mean_nll"], mean, delta=1e-9)
        self.assertAlmostEqual(result["perplexity"], math.exp(mean), delta=1e-6)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in losses) / len(losses) / (len(losses) - 1))
        self.assertAlmostEqual(result["mean_nll_error"], deviation, delta=1e-7)

    def test_scores_do_not_depend_on_dumping(self):
        flags = ("-m", MODEL, "-f", self.path("text", TEXT), "-c", "64", "--json")
        with_dump = run_json("perplexity", *flags, "--dump-logits", self.path("logits"))
        self.assertEqual(run_json("perplexity", *flags)["mean_nll"], with_dump["mean_nll"])

    def test_divergence_from_a_dump(self):
        flags = ("-m", MODEL, "-f", self.path("text", TEXT), "-c", "48", "--chunks", "2", "--json")
        dumps = [self.path("f16"), self.path("q4")]
        for dump, kv in zip(dumps, ("f16", "q4")):
            run_json("perplexity", *flags, "--kv", kv, "--dump-logits", dump)
        p, q = map(floats, dumps)
        n_vocab, rows = 512, 96
        total = []
        for at in range(0, rows * n_vocab, n_vocab):
            a, b = p[at:at + n_vocab], q[at:at + n_vocab]
            sums = [math.log(math.fsum(math.exp(x) for x in row)) for row in (a, b)]
            total.append(math.fsum(math.exp(x - sums[0]) * (x - sums[0] - y + sums[1]) for x, y in zip(a, b)))
        self.assertGreater(math.fsum(total), 0)
        got = run_json("perplexity", *flags, "--kv", "q4", "--kl-base", dumps[0])["mean_kl"]
        self.assertAlmostEqual(got, math.fsum(total) / rows, delta=1e-9)
        self.assertEqual(run_json("perplexity", *flags, "--kl-base", dumps[0])["mean_kl"], 0)
        for other in (("-c", "32"), ("--chunks", "1")):
            p = run("perplexity", *flags, *other, "--kl-base", dumps[0])
            self.assertEqual(p.returncode, USAGE)
            self.assertIn("no file of --dump-logits", p.stderr)

    def test_tokens_against_the_oracle(self):
        tokens = self.path("tokens.json", json.dumps(ORACLE["token_ids"]))
        dump = self.path("logits")
        run_json("perplexity", "-m", MODEL, "--tokens", tokens, "-c", "48", "--json", "--dump-logits", dump)
        ours, reference = floats(dump), floats(os.path.join(TINY, ORACLE["logits"]))
        self.assertEqual(len(ours), len(reference))
        error = math.fsum((a - b) ** 2 for a, b in zip(ours, reference))
        # Activations are rounded to 8 bits; llama.cpp's own error on such models is up to 6e-4.
        self.assertLess(error / math.fsum(b * b for b in reference), 7e-4)

    def test_text_output(self):
        p = run("perplexity", "-m", MODEL, "-f", "-", "-c", "32", "--chunks", "1", stdin=TEXT)
        self.assertRegex(p.stdout, r"^Final estimate: PPL = [\d.]+ \+/- [\d.]+ \(1 chunks of 32, 15 tokens scored\)\n$")
        self.assertEqual(p.stderr, "")

    def test_errors(self):
        def expect(text, *flags):
            p = run("perplexity", "-m", MODEL, *flags)
            self.assertEqual(p.returncode, USAGE, p.stderr)
            self.assertIn(text, p.stderr)
        expect("one chunk needs 512", "-f", self.path("short", "too short"))
        expect("element 1 is not a token id below 512", "--tokens", self.path("a.json", "[1, 512, 3]"))
        expect("not a JSON array", "--tokens", self.path("b.json", "{}"))
        expect("--file,--tokens", "-c", "32")
        expect("cannot write", "-f", self.path("text", TEXT), "-c", "32", "--dump-logits", self.path("no/such"))


if __name__ == "__main__":
    unittest.main()
