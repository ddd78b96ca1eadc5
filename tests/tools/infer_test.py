# SPDX-License-Identifier: Apache-2.0
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from support import (CONTEXT, ERROR, MEMORY, MODEL, MODEL_ERROR, OK, PATIENCE, TEMPLATE, TINY, USAGE, manifest,
                     need_lavapipe, program, run, run_json)

GREEDY = ("-m", MODEL, "-p", "the answer", "--temp", "0", "-n", "24")


class Errors(unittest.TestCase):
    def expect(self, process, code, *texts):
        self.assertEqual(process.returncode, code, process.stderr)
        for text in texts:
            self.assertIn(text, process.stderr)
        self.assertEqual(process.stdout, "")

    def test_usage(self):
        self.expect(run("infer"), USAGE, "--model")
        self.expect(run("infer", "-m", MODEL), USAGE, "no prompt", "-p", "-f", "--chat")
        self.expect(run("infer", *GREEDY, "--no-such-flag"), USAGE, "--no-such-flag")
        self.expect(run("infer", *GREEDY, "-n", "many"), USAGE, "many")
        self.expect(run("infer", *GREEDY, "--memory-limit", "4X"), USAGE, "--memory-limit")
        self.expect(run("infer", *GREEDY, "--system", "be brief"), USAGE, "--chat")
        self.expect(run("infer", *GREEDY, "-l", "7"), USAGE, "--logit-bias", "'7'")
        self.expect(run("infer", *GREEDY, "-ctk", "f16", "-ctv", "f32"), USAGE, "same format")
        self.expect(run("infer", *GREEDY, "--kv", "q5"), USAGE, "two-tier")
        self.expect(run("infer", *GREEDY, "--preset", "poem"), USAGE, "chat-long")
        self.expect(run("infer", *GREEDY, "--kv-tail", "64"), USAGE, "kv_tail")
        self.expect(run("infer", *GREEDY, "--no-pack", "--pack-cache", "x"), USAGE, "--no-pack")
        self.expect(run("infer", "-m", MODEL, "-f", "no-such-prompt"), USAGE, "no-such-prompt")

    def test_values_that_the_library_refuses(self):
        self.expect(run("infer", *GREEDY, "--top-p", "-1"), USAGE, "top_p")
        self.expect(run("infer", *GREEDY, "--temp", "-1"), USAGE, "temperature")
        self.expect(run("infer", *GREEDY, "-l", "99999999+1"), USAGE, "99999999")

    def test_model_file(self):
        self.expect(run("infer", "-m", "no-such.gguf", "-p", "x"), MODEL_ERROR, "no-such.gguf")
        with tempfile.TemporaryDirectory() as folder:
            cut = os.path.join(folder, "cut.gguf")
            with open(MODEL, "rb") as source, open(cut, "wb") as out:
                out.write(source.read()[:-1000])
            self.expect(run("infer", "-m", cut, "-p", "x"), MODEL_ERROR, "cut.gguf")

    def test_kernels_by_name(self):
        for process in (run("infer", *GREEDY, "--isa", "avx3"), run("infer", *GREEDY, env={"QUERN_ISA": "avx3"})):
            self.assertIn(process.returncode, (USAGE, MODEL_ERROR))
            self.assertIn("avx3", process.stderr)
        self.assertEqual(run_json("infer", *GREEDY, "--json", "--isa", "scalar")["isa"], "scalar")
        self.assertEqual(run_json("infer", *GREEDY, "--json", env={"QUERN_ISA": "scalar"})["isa"], "scalar")

    def test_memory_and_context(self):
        self.expect(run("infer", *GREEDY, "--memory-limit", "100K"), MEMORY)
        self.expect(run("infer", *GREEDY, "-p", "word " * 64, "-c", "16"), CONTEXT, "16")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            p = subprocess.run([program("infer"), *GREEDY], stdin=subprocess.DEVNULL, stdout=full,
                               stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        self.assertEqual(p.returncode, ERROR)
        self.assertIn("cannot write to standard output", p.stderr)


class Text(unittest.TestCase):
    def test_help_and_version(self):
        p = run("infer", "--help")
        self.assertEqual(p.returncode, OK)
        self.assertIn("Exit codes: 0 success", p.stdout)
        p = run("infer", "--version")
        self.assertEqual(p.returncode, OK)
        self.assertRegex(p.stdout, r"^quern \d+\.\d+\.\d+\n$")

    def test_json_and_stream_are_the_same_text(self):
        stream = run("infer", *GREEDY)
        self.assertEqual(stream.returncode, OK, stream.stderr)
        answer = run_json("infer", *GREEDY, "--json")
        # Python and JSON put different numbers of U+FFFD for bytes that are no character.
        stream, text = (re.sub("\ufffd+", "?", s.rstrip("\n")) for s in (stream.stdout, answer["text"]))
        self.assertEqual(stream, text)
        self.assertEqual(answer["stop_reason"], "max_tokens")
        self.assertEqual((answer["n_generated"], len(answer["tokens"])), (24, 24))
        self.assertGreater(answer["n_prompt"], 0)
        self.assertGreater(answer["peak_memory_bytes"], os.path.getsize(MODEL) // 2)
        for key in ("prompt_tokens_per_second", "generate_tokens_per_second", "first_token_seconds",
                    "start_to_first_token_seconds"):
            self.assertGreater(answer[key], 0, key)

    def test_where_packed_weights_come_from_changes_no_token(self):
        want = run_json("infer", *GREEDY, "--json")["tokens"]
        self.assertEqual(run_json("infer", *GREEDY, "--json", "--no-pack")["tokens"], want)
        with tempfile.TemporaryDirectory() as folder:
            for said in ("packed weights are made anew", "packed weights come from"):
                p = run("infer", *GREEDY, "--json", "-v", "--pack-cache", folder)
                self.assertIn(said, p.stderr)
                self.assertEqual(json.loads(p.stdout)["tokens"], want)

    def test_lookup_changes_no_token(self):
        prompt = ("-m", MODEL, "-p", "one two three one two three one two three one two", "-n", "200", "--ignore-eos", "--json")
        for sampling in (("--temp", "0"), ("--temp", "0.3", "-s", "3")):
            plain, lookup = run_json("infer", *prompt, *sampling), run_json("infer", *prompt, *sampling, "--lookup")
            self.assertEqual(lookup["tokens"], plain["tokens"])
            self.assertEqual(plain["n_guessed"], 0)
            self.assertLessEqual(lookup["n_accepted"], lookup["n_guessed"])

    def test_a_draft_changes_no_token_of_greedy_text(self):
        plain = run_json("infer", *GREEDY, "--json")
        for more in ((), ("--draft-tokens", "3"), ("--lookup",)):
            drafted = run_json("infer", *GREEDY, "--json", "--draft", MODEL, *more)
            self.assertEqual(drafted["tokens"], plain["tokens"])
        self.assertGreater(run_json("infer", *GREEDY, "--json", "--draft", MODEL, "--draft-tokens", "3")["n_accepted"], 0)
        self.assertEqual(run("infer", *GREEDY, "--draft", "no-such.gguf").returncode, 3)
        self.assertEqual(run("infer", *GREEDY, "--draft-tokens", "3").returncode, 2)
        report = run("infer", *GREEDY, "-v").stderr
        total = float(re.search(r"^total +([\d.]+) MiB", report, re.M)[1])
        p = run("infer", *GREEDY, "--draft", MODEL, "--memory-limit", f"{int((total + 0.1) * 1024)}K")
        self.assertEqual(p.returncode, 4, report + p.stderr)

    def test_metrics_go_to_standard_error(self):
        plain = run("infer", *GREEDY, "--no-perf")
        p = run("infer", *GREEDY, "--no-perf", "--metrics", "json")
        self.assertEqual(p.stdout, plain.stdout)
        metrics = json.loads(p.stderr)
        self.assertEqual(metrics["n_generated"], 24)
        self.assertEqual(metrics["tokenize"]["count"], 1)
        self.assertEqual(metrics["decode"]["count"], 23)
        self.assertIn(metrics["bottleneck"]["kind"], ("memory_bandwidth", "arithmetic", "sampling", "tokenization"))
        self.assertIn("bottleneck   ", run("infer", *GREEDY, "--no-perf", "--metrics", "text").stderr)
        self.assertEqual(run("infer", *GREEDY, "--metrics", "xml").returncode, 2)

    def test_last_line(self):
        lines = run("infer", *GREEDY).stderr.splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"^prompt \d+ tokens, [\d.]+ tokens/s \| generated 24 tokens, [\d.]+ tokens/s \| "
                                   r"first token [\d.]+ s \([\d.]+ s after start\) \| peak memory [\d.]+ MiB$")
        self.assertEqual(run("infer", *GREEDY, "--no-perf").stderr, "")

    def test_seed(self):
        def text(seed):
            return run_json("infer", "-m", MODEL, "-p", "a", "-n", "24", "--temp", "1", "-s", seed, "--json")["text"]
        self.assertEqual(text(7), text(7))
        self.assertNotEqual(text(7), text(8))

    def test_logit_bias_forces_a_token(self):
        answer = run_json("infer", *GREEDY, "--json", "-l", "300+1000", "-n", "3")
        self.assertEqual(answer["tokens"], [300, 300, 300])

    def test_stop_string(self):
        whole = run_json("infer", *GREEDY, "--json")["text"]
        stop = re.search("[a-z]{2}", whole[len(whole) // 2:])[0]
        answer = run_json("infer", *GREEDY, "--json", "--stop", "never-in-it", "--stop", stop)
        self.assertEqual((answer["stop_reason"], answer["stop_string"]), ("stop_string", stop))
        self.assertEqual(answer["text"], whole[:whole.index(stop)])

    def test_prompt_from_standard_input_and_echo(self):
        from_flag = run("infer", *GREEDY, "--echo")
        from_stdin = run("infer", "-m", MODEL, "-f", "-", "--temp", "0", "-n", "24", "--echo", stdin="the answer")
        self.assertEqual(from_flag.stdout, from_stdin.stdout)
        self.assertTrue(from_flag.stdout.startswith("the answer"))

    def test_special_tokens_only_where_asked_for(self):
        def count(*flags):
            return run_json("infer", "-m", MODEL, "-p", "<|im_start|>", "-n", "1", "--json", *flags)["n_prompt"]
        self.assertGreater(count(), 1)
        self.assertEqual(count("--parse-special"), 1)

    def test_context_full_is_said(self):
        p = run("infer", *GREEDY, "-n", "-1", "-c", "32", "--ignore-eos")
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertIn("the context of 32 tokens is full", p.stderr)

    def test_context_slides_and_says_so(self):
        p = run("infer", *GREEDY, "-n", "60", "-c", "32", "--ignore-eos", "--json", "--ctx-policy", "slide", "--keep", "4")
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertIn("the context of 32 tokens was full: dropped 14, read the other 18 again", p.stderr)
        answer = json.loads(p.stdout)["n_dropped"], json.loads(p.stdout)["n_generated"]
        self.assertEqual(answer, (14 * p.stderr.count("was full"), 60))
        self.assertEqual(run("infer", *GREEDY, "--ctx-policy", "hope").returncode, USAGE)

    def test_context_is_compressed_and_it_is_said(self):
        p = run("infer", *GREEDY, "-n", "300", "-c", "128", "--ignore-eos", "--json", "--ctx-policy", "compress", "--keep", "4")
        self.assertEqual(p.returncode, OK, p.stderr)
        said = re.findall(r"the context of 128 tokens was full: dropped (\d+) that got least attention, read the other (\d+) again", p.stderr)
        self.assertGreater(len(said), 1)
        for dropped, left in said:
            self.assertEqual(int(dropped) + int(left), 128)
        self.assertEqual(json.loads(p.stdout)["n_dropped"], sum(int(dropped) for dropped, _ in said))

    def test_chat_drops_the_oldest_messages(self):
        p = run("infer", "-m", MODEL, "--chat", "--chat-template-file", TEMPLATE, "--system", "Be kind.", "-n", "8",
                "--json", "-c", "192", "--ctx-policy", "slide", stdin="hello you\n" * 12)
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertIn("oldest messages", p.stderr)
        messages = json.loads(p.stdout)["messages"]
        self.assertEqual(messages[0], {"role": "system", "content": "Be kind."})
        self.assertEqual([m["role"] for m in messages[1:]], ["user", "assistant"] * (len(messages) // 2))
        self.assertLess(len(messages), 25)

    def test_every_tiny_model_runs(self):
        for file in ("llama-q4_0.gguf", "llama-q5_k.gguf", "qwen2-q4_0.gguf"):
            answer = run_json("infer", "-m", os.path.join(TINY, file), "-p", "a", "-n", "4", "--json", "--ignore-eos")
            self.assertEqual(answer["n_generated"], 4, manifest(file)["architecture"])

    def test_chat_reads_lines(self):
        answer = run_json("infer", "-m", MODEL, "--chat", "--chat-template-file", TEMPLATE, "--system", "Be kind.",
                          "-n", "4", "--json", stdin="hello\n\nand again\n/exit\nnever read\n")
        self.assertEqual([m["role"] for m in answer["messages"]], ["system"] + ["user", "assistant"] * 2)
        self.assertEqual(answer["messages"][3]["content"], "and again")
        self.assertEqual(len(answer["answers"]), 2)
        # The second turn reads its own message only, not the first again.
        self.assertLess(answer["answers"][1]["n_prompt"], answer["answers"][0]["n_prompt"] + 8)

    def test_chat_with_a_prompt_is_one_turn(self):
        answer = run_json("infer", "-m", MODEL, "--chat", "--chat-template-file", TEMPLATE, "-p", "hello", "-n", "4",
                          "--json", stdin="never read\n")
        self.assertEqual([m["role"] for m in answer["messages"]], ["user", "assistant"])

    def test_a_session_file_goes_on_where_it_ended(self):
        chat = ("-m", MODEL, "--chat", "--chat-template-file", TEMPLATE, "-n", "4", "--temp", "0", "--json")
        whole = run_json("infer", *chat, stdin="hello\nand again\n")
        with tempfile.TemporaryDirectory() as folder:
            session = os.path.join(folder, "a.session")
            first = run_json("infer", *chat, "--session", session, stdin="hello\n")
            second = run_json("infer", *chat, "--session", session, stdin="and again\n")
            self.assertEqual(first["answers"] + second["answers"], whole["answers"])
            self.assertEqual(second["messages"], whole["messages"])

            plain = os.path.join(folder, "b.session")
            a = run_json("infer", *GREEDY, "--json", "--session", plain)
            b = run("infer", "-m", MODEL, "-p", " so", "-n", "1", "--session", plain, "-v")
            self.assertRegex(b.stderr, f"{a['n_prompt'] + 24} tokens from {plain}")
            p = run("infer", *chat, "--session", plain, stdin="hello\n")
            self.assertEqual(p.returncode, OK, p.stderr)

            with open(session, "r+b") as f:
                f.truncate(1000)
            before = pathlib.Path(session).read_bytes()
            p = run("infer", *chat, "--session", session, stdin="x\n")
            self.assertEqual(p.returncode, MODEL_ERROR)
            self.assertIn("cannot be restored", p.stderr)
            self.assertEqual(pathlib.Path(session).read_bytes(), before)

    def test_chat_without_a_template(self):
        p = run("infer", "-m", MODEL, "--chat", "-p", "hello")
        self.assertEqual(p.returncode, MODEL_ERROR)
        self.assertIn("no chat template", p.stderr)


class Devices(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_lavapipe()

    def test_all_layers(self):
        p = run("infer", *GREEDY, "--device", "llvmpipe", "-v")
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertIn("layers and the output on llvmpipe", p.stderr)
        self.assertIn("on the device", p.stderr)
        again = run_json("infer", *GREEDY, "--device", "0", "-ngl", "all", "--json")
        self.assertEqual(again["text"], p.stdout.removesuffix("\n"))

    def test_some_layers(self):
        p = run("infer", *GREEDY, "--device", "llvmpipe", "-ngl", "1", "-v")
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertIn("on the CPU, layer", p.stderr)

    def test_a_cpu_device_must_be_named(self):
        p = run("infer", *GREEDY, "-ngl", "auto", "-v")
        if "everything runs on the CPU" not in p.stderr:
            self.skipTest("this machine has a GPU")
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertNotEqual(run("infer", *GREEDY, "-ngl", "all").returncode, OK)

    def test_wrong_values(self):
        for flags, text in ((("--device", "no such device"), "llvmpipe"), (("-ngl", "some"), "auto"),
                            (("--device", "llvmpipe", "--device-disable", "magic"), "coopmat")):
            p = run("infer", *GREEDY, *flags)
            self.assertNotEqual(p.returncode, OK)
            self.assertIn(text, p.stderr)


class Threads(unittest.TestCase):
    """Thread counts kept from run to run. Whether anything is measured depends on what else the machine does."""

    def run_in(self, folder, *flags):
        p = run("infer", *GREEDY, "-v", *flags, env={"XDG_CACHE_HOME": folder})
        self.assertEqual(p.returncode, OK, p.stderr)
        kept = os.path.join(folder, "quern")
        return p, os.listdir(kept) if os.path.isdir(kept) else []

    def test_asked_for_and_used_again(self):
        with tempfile.TemporaryDirectory() as folder:
            first, files = self.run_in(folder, "--tune")
            self.assertEqual(len(files), 1)
            self.assertIn("as measured", first.stderr)
            again, files = self.run_in(folder)
            self.assertEqual(len(files), 1)
            self.assertIn("as measured", again.stderr)
            self.assertEqual(again.stdout, first.stdout)
            for flags in (("--no-tune",), ("-t", "1"), ("-tb", "1"), ("-b", "64")):
                self.assertNotIn("measured", self.run_in(folder, *flags)[0].stderr, flags)

    def test_switched_off(self):
        with tempfile.TemporaryDirectory() as folder:
            for flags in (("--no-tune",), ("-t", "1"), ("-tb", "2"), ("-b", "64")):
                p, files = self.run_in(folder, *flags)
                self.assertEqual(files, [], flags)
            self.assertEqual(run("infer", *GREEDY, "--tune", "--no-tune").returncode, USAGE)

    def test_no_folder_is_no_error(self):
        p = run("infer", *GREEDY, "-v", env={"XDG_CACHE_HOME": "/dev/null"})
        self.assertEqual(p.returncode, OK, p.stderr)
        self.assertNotIn("measured", p.stderr)

    def test_numa_is_a_matter_of_place_only(self):
        texts = {run("infer", *GREEDY, "--no-tune", "--numa", n).stdout for n in ("off", "interleave", "local")}
        self.assertEqual(len(texts), 1)


if __name__ == "__main__":
    unittest.main()
