# SPDX-License-Identifier: Apache-2.0
import json
import os
import tempfile
import unittest

from support import MODEL, MODEL_ERROR, OK, TEMPLATE, USAGE, run, run_json


class Info(unittest.TestCase):
    def test_json(self):
        info = run_json("inspect", "info", MODEL, "--json")
        self.assertEqual(info["gguf_version"], 3)
        self.assertEqual(info["file_size"], os.path.getsize(MODEL))
        self.assertEqual(info["metadata"]["general.architecture"], "llama")
        self.assertEqual(info["metadata"]["llama.attention.head_count_kv"], 2)
        self.assertAlmostEqual(info["metadata"]["llama.attention.layer_norm_rms_epsilon"], 1e-5, places=9)
        self.assertIs(info["metadata"]["tokenizer.ggml.add_bos_token"], False)
        self.assertEqual(info["metadata"]["tokenizer.ggml.tokens"], {"type": "string", "count": 512})
        embedding = next(t for t in info["tensors"] if t["name"] == "token_embd.weight")
        self.assertEqual(embedding["shape"], [256, 512])
        self.assertEqual(len(info["tensors"]), 21)
        self.assertEqual(sum(t["n_bytes"] for t in info["tensors"]), sum(t["n_bytes"] for t in info["types"]))
        self.assertEqual(info["n_params"], sum(t["n_elements"] for t in info["types"]))

    def test_arrays(self):
        tokens = run_json("inspect", "info", MODEL, "--json", "--arrays")["metadata"]["tokenizer.ggml.tokens"]
        self.assertEqual((len(tokens), tokens[2]), (512, "<|im_end|>"))

    def test_text(self):
        text = run("inspect", "info", MODEL).stdout
        self.assertRegex(text, r"(?m)^  general\.architecture +llama$")
        self.assertRegex(text, r"(?m)^  token_embd\.weight +Q\d_\w+ +256 x 512 ")
        self.assertIn("[string x 512]", text)

    def test_errors(self):
        p = run("inspect", "info", "no-such.gguf")
        self.assertEqual(p.returncode, MODEL_ERROR)
        self.assertIn("no-such.gguf", p.stderr)
        self.assertEqual(run("inspect").returncode, USAGE)


class Tokenize(unittest.TestCase):
    def test_special_tokens(self):
        self.assertEqual(run_json("inspect", "tokenize", MODEL, stdin="<|im_start|><|im_end|>"), [1, 2])
        plain = run_json("inspect", "tokenize", MODEL, "--no-parse-special", stdin="<|im_start|><|im_end|>")
        self.assertGreater(len(plain), 2)
        self.assertNotIn(1, plain)

    def test_nothing_added(self):
        self.assertEqual(run_json("inspect", "tokenize", MODEL, stdin=""), [])


class Render(unittest.TestCase):
    def render(self, template, messages, *flags):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "messages.json")
            with open(path, "w") as f:
                json.dump(messages, f)
            return run("inspect", "render", "--template", template, "--messages", path, *flags)

    def test_conversation(self):
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "caf\u00e9 <|im_end|>"}]
        text = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\ncaf\u00e9 <|im_end|><|im_end|>\n"
        p = self.render(TEMPLATE, messages)
        self.assertEqual((p.returncode, p.stdout), (OK, text))
        p = self.render(TEMPLATE, messages, "--add-generation-prompt")
        self.assertEqual(p.stdout, text + "<|im_start|>assistant\n")

    def test_bos_eos_tools_and_errors(self):
        with tempfile.TemporaryDirectory() as folder:
            def write(name, text):
                path = os.path.join(folder, name)
                with open(path, "w") as f:
                    f.write(text)
                return path
            template = write("t.jinja", "{{ bos_token }}|{{ eos_token }}|{{ tools[0].name if tools else 'none' }}")
            tools = write("tools.json", '[{"name": "clock"}]')
            self.assertEqual(self.render(template, [], "--bos", "<s>", "--eos", "</s>").stdout, "<s>|</s>|none")
            self.assertEqual(self.render(template, [], "--tools", tools).stdout, "||clock")
            refused = self.render(write("r.jinja", "{{ raise_exception('roles must alternate') }}"), [])
            self.assertNotEqual(refused.returncode, OK)
            self.assertIn("roles must alternate", refused.stderr)
            self.assertIn("r.jinja", refused.stderr)
            self.assertEqual(refused.stdout, "")


if __name__ == "__main__":
    unittest.main()
