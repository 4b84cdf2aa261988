"""What a user may get wrong: each time one paragraph that says what to do, no crash, nothing half written."""

import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import textwrap

import pytest

import model_files

HUB = pathlib.Path(__file__).resolve().parents[1] / "io" / "hub_server.py"
NAN = float("nan")


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def listing(path: pathlib.Path):
    return {p: p.stat().st_size for p in path.rglob("*") if p.is_file()}


@pytest.fixture(name="refused")
def fixture_refused(command, tmp_path):
    """Runs the command, which must refuse, and gives the paragraph that it printed. It must contain `phrases`."""

    def run(arguments, *phrases, env=None, before=None, input=None):
        files = listing(tmp_path)
        done = subprocess.run([command, *arguments], capture_output=True, timeout=300, input=input,
                              env={**os.environ, "TTPU_CACHE": cache_folder(), **(env or {})}, preexec_fn=before)
        message = done.stderr.decode()  # fails when it is not UTF-8
        assert done.returncode > 0, f"ended with {done.returncode}: {message}"
        assert done.returncode < 128, f"ended with {done.returncode}: {message}"
        assert done.stdout == b""
        assert message.startswith("ttpu: ") and message.endswith("\n"), message
        assert "\n\n" not in message and len(message) < 1600, message
        for phrase in phrases:
            assert phrase in message, f"{phrase!r} is not in: {message}"
        assert listing(tmp_path) == files, "something was left behind"
        return message

    return run


def cache_folder() -> str:
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ttpu"
    return os.environ.get("TTPU_CACHE") or str(default)


@pytest.fixture(name="model")
def fixture_model(tmp_path):
    return model_files.folder(tmp_path / "model")


def generate(model, *more, prompt="a"):
    return ["generate", model, "--prompt", prompt, "--dtype", "f32", *more]


def test_the_whole_files_are_good(command, model, tmp_path):
    """Else every refusal below could have another reason."""
    (tmp_path / "tiny.gguf").write_bytes(model_files.gguf())
    # The tokenizer of the folder has more tokens than the model: ids below 96 are those of single characters.
    for path, prompt in ((model, "!#"), (tmp_path / "tiny.gguf", "ab")):
        done = subprocess.run([command, *generate(path, "--max-tokens", "2", "--json", prompt=prompt)],
                              capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        assert len(json.loads(done.stdout)["token_ids"]) <= 2


# safetensors


def first(header):
    return next(name for name in header if name != "__metadata__")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def truncated_in_header(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


def header_of_petabytes(path):
    path.write_bytes(struct.pack("<Q", 1 << 50) + path.read_bytes()[8:])


def header_is_not_json(path):
    model_files.write_safetensors(path, b"{'no': json}", b"")


def header_is_not_utf8(path):
    model_files.write_safetensors(path, b'{"\xff": {}}', b"")


def edited(path, change):
    header, data = model_files.read_safetensors(path)
    data = change(header, data) or data
    model_files.write_safetensors(path, header, data)


def overlapping(path):
    def change(header, _):
        names = [n for n in header if n != "__metadata__"]
        begin, end = header[names[0]]["data_offsets"]
        other = header[names[1]]
        size = other["data_offsets"][1] - other["data_offsets"][0]
        other["data_offsets"] = [begin, begin + size]

    edited(path, change)


def ends_before_it_begins(path):
    edited(path, lambda h, _: h[first(h)].update(data_offsets=[8, 0]))


def beyond_the_end(path):
    edited(path, lambda h, d: h[first(h)].update(data_offsets=[len(d), len(d) + 64]))


def shape_lies(path):
    edited(path, lambda h, _: h[first(h)].update(shape=[1 << 40, 1 << 40]))


def negative_shape(path):
    edited(path, lambda h, _: h[first(h)].update(shape=[-1, 32]))


def unknown_dtype(path):
    edited(path, lambda h, _: h[first(h)].update(dtype="F128"))


@pytest.mark.parametrize("damage, phrase", [
    (truncated, "fetch it again"), (truncated_in_header, "header"), (empty, "0 bytes"), (header_of_petabytes, "header"),
    (header_is_not_json, "header"), (header_is_not_utf8, "header"), (overlapping, ""), (ends_before_it_begins, ""),
    (beyond_the_end, ""), (shape_lies, ""), (negative_shape, ""), (unknown_dtype, "F128"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_damaged_safetensors(refused, model, damage, phrase):
    damage(model / "model.safetensors")
    refused(generate(model), "[safetensors]", "model.safetensors", phrase)


def test_a_missing_tensor_is_named(refused, model):
    edited(model / "model.safetensors", lambda h, _: h.update({"model.layers.1.mlp.up_prj.weight": h.pop("model.layers.1.mlp.up_proj.weight")}))
    refused(generate(model), "missing tensor 'model.layers.1.mlp.up_proj.weight'", "nearest", "model.layers.1.mlp.up_prj.weight")


def test_an_extra_layer_is_an_extra_tensor(refused, model):
    model_files.edit_config(model, num_hidden_layers=1)
    refused(generate(model), "model.layers.1.", "num_hidden_layers")


def test_a_misshapen_tensor_is_named_with_both_shapes(refused, model):
    model_files.edit_config(model, vocab_size=97)
    refused(generate(model), "'model.embed_tokens.weight'", "[96, 32]", "[97, 32]")


def test_pickles_are_refused(refused, model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(generate(model), "pickle", "safetensors")
    refused(generate(model / "pytorch_model.bin"), "pickle", "safetensors")


def test_shards_that_are_not_there(refused, model):
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    header, _ = model_files.read_safetensors(model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {name: "model-00002-of-00002.safetensors" for name in header}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(generate(model), "model-00002-of-00002.safetensors", "missing", "fetch")
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    refused(generate(model), "../../etc/passwd", "expected")


# GGUF

GGUF = {
    "empty": (dict(keep=0), "truncated"),
    "truncated_in_the_metadata": (dict(keep=0.01), "truncated"),
    "truncated_in_the_tensors": (dict(keep=0.9), "truncated"),
    "another_format": (dict(magic=b"PK\3\4"), "does not begin with 'GGUF'"),
    "version_1": (dict(version=1), "version 1"),
    "version_from_the_future": (dict(version=77), "version 77"),
    "big_endian": (dict(version=3 << 24), "big-endian"),
    "lying_tensor_count": (dict(counts=(1 << 60, 14)), "tensors"),
    "lying_entry_count": (dict(counts=(11, 1 << 60)), "entries"),
    "overlapping": (dict(offset=512), "overlap"),
    "outside_the_file": (dict(offset=1 << 40), "truncated"),
    "unaligned": (dict(offset=4), "multiple"),
    "foreign_encoding": (dict(kind=19), "IQ1_S"),
    "unknown_encoding": (dict(kind=999), "999"),
    "huge_shape": (dict(tensors={"token_embd.weight": [1 << 40, 1 << 40]}), "impossible shape"),
    "lying_array": (dict(metadata={"x": struct.pack("<IIQ", 9, 8, 1 << 50)}), "claims"),
    "lying_string": (dict(metadata={"x": struct.pack("<IQ", 8, 1 << 62)}), "needs"),
    "nested_arrays": (dict(metadata={"x": struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100}), "nested"),
    "unknown_value_type": (dict(metadata={"x": struct.pack("<I", 99)}), "type 99"),
    "no_architecture": (dict(metadata={"general.architecture": None}), "general.architecture"),
    "unknown_architecture": (dict(metadata={"general.architecture": "qwen9"}), "qwen9"),
    "no_layers": (dict(metadata={"llama.block_count": None}), "block_count"),
    "wrong_type": (dict(metadata={"llama.block_count": "one"}), "llama.block_count"),
    "zero_heads": (dict(metadata={"llama.attention.head_count": 0}), "head"),
    "nan_epsilon": (dict(metadata={"llama.attention.layer_norm_rms_epsilon": NAN}), "epsilon"),
    "more_types_than_tokens": (dict(metadata={"tokenizer.ggml.token_type": [1, 1]}), "token types"),
    "merge_of_nothing": (dict(metadata={"tokenizer.ggml.merges": ["a z"]}), "a z"),
    "unknown_pre_tokenizer": (dict(metadata={"tokenizer.ggml.pre": "klingon"}), "klingon"),
    "unknown_tokenizer": (dict(metadata={"tokenizer.ggml.model": "oracle"}), "oracle"),
    "no_tokenizer": (dict(metadata={k: None for k in model_files.METADATA if k.startswith("tokenizer.")}), "tokenizer"),
    "end_token_outside": (dict(metadata={"tokenizer.ggml.eos_token_id": 99}), "99"),
    "missing_tensor": (dict(tensors={"blk.0.ffn_up.weight": None}), "up_proj"),
    "misshapen_tensor": (dict(tensors={"blk.0.ffn_up.weight": [32, 49]}), "[49, 32]"),
}


@pytest.mark.parametrize("case", GGUF)
def test_damaged_gguf(refused, tmp_path, case):
    change, phrase = GGUF[case]
    (tmp_path / "bad.gguf").write_bytes(model_files.gguf(**change))
    refused(generate(tmp_path / "bad.gguf"), phrase)


def test_a_part_of_a_split_gguf_is_missing(refused, tmp_path):
    (tmp_path / "x-00001-of-00002.gguf").write_bytes(model_files.gguf())
    refused(generate(tmp_path / "x-00001-of-00002.gguf"), "x-00002-of-00002.gguf", "missing")


# config.json

CONFIG = {
    "zero_layers": (dict(num_hidden_layers=0), ["num_hidden_layers", "0", "positive"]),
    "negative_heads": (dict(num_attention_heads=-4), ["num_attention_heads", "-4", "positive"]),
    "huge_vocabulary": (dict(vocab_size=10**30), ["vocab_size", "expected"]),
    "large_vocabulary": (dict(vocab_size=2**31 - 1), ["embed_tokens", "2147483647"]),
    "layers_beyond_reason": (dict(num_hidden_layers=10**6), ["1000000 layers", "4096"]),
    "text_for_a_number": (dict(hidden_size="32"), ["hidden_size", "integer"]),
    "fraction_for_a_count": (dict(hidden_size=32.5), ["hidden_size", "32.5", "integer"]),
    "list_for_a_number": (dict(hidden_size=[32]), ["hidden_size", "integer"]),
    "text_for_a_flag": (dict(tie_word_embeddings="no"), ["tie_word_embeddings", "true or false"]),
    "negative_epsilon": (dict(rms_norm_eps=-1.0), ["rms_norm_eps", "-1"]),
    "heads_that_do_not_divide": (dict(num_key_value_heads=3), ["4", "3", "multiple"]),
    "zero_theta": (dict(rope_parameters={"rope_type": "default", "rope_theta": 0}), ["theta 0", "positive"]),
    "negative_theta": (dict(rope_parameters={"rope_type": "default", "rope_theta": -1.0}), ["theta -1", "positive"]),
    "unknown_rope": (dict(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), ["spiral"]),
    "rope_is_a_list": (dict(rope_parameters=[1]), ["rope_parameters", "object"]),
    "unknown_activation": (dict(hidden_act="tanhish"), ["tanhish"]),
    "no_positions": (dict(max_position_embeddings=0), ["max_position_embeddings", "positive"]),
    "no_model_type": (dict(model_type=None), ["model_type"]),
    "misspelled_model_type": (dict(model_type="lama"), ["'lama'", "nearest", "llama"]),
    "encoder_decoder": (dict(is_encoder_decoder=True), ["is_encoder_decoder"]),
}


@pytest.mark.parametrize("case", CONFIG)
def test_config_with_wrong_values(refused, model, case):
    fields, phrases = CONFIG[case]
    model_files.edit_config(model, **fields)
    refused(generate(model), *phrases)


@pytest.mark.parametrize("text, phrase", [
    ('{"model_type": "llama", "rms_norm_eps": NaN}', "NaN"), ("{", "JSON"), ("", "JSON"), ("[1]", "object"),
    ("[" * 100_000, "nested"), ('{"model_type": "\xff"}', "JSON"), ('{"vocab_size": 1e999}', "JSON"),
], ids=["nan", "half", "empty", "list", "deep", "latin1", "infinite"])
def test_config_that_is_not_json(refused, model, text, phrase):
    (model / "config.json").write_bytes(text.encode("latin-1"))
    refused(generate(model), "config.json", phrase)


def test_models_that_are_not_there(refused, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    refused(generate("no/such-model"), "no/such-model", "HF_HUB_OFFLINE", env=offline)
    refused(generate("./nothing.gguf"), "./nothing.gguf")
    refused(generate(tmp_path), "config.json")
    (tmp_path / "notes.txt").write_text("hello")
    refused(generate(tmp_path / "notes.txt"), "notes.txt", "folder")


def test_tokenizers_that_are_not_there_or_broken(refused, model):
    (model / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(generate(model), "tokenizer.json")
    (model / "tokenizer.json").write_bytes(b"\xff\xfe")
    refused(generate(model), "tokenizer.json", "UTF-8")
    (model / "tokenizer.json").unlink()
    refused(generate(model), "no tokenizer", "tokenizer.json")


def test_servers_are_refused_before_programs_are_prepared(command, refused, model):
    def serve(*flags):
        done = subprocess.run([command, "serve", model, "--port", "0", *flags], capture_output=True, text=True, timeout=300)
        assert 0 < done.returncode < 128, done
        assert "preparing programs" not in done.stderr
        return done.stderr

    assert "--num-blocks is 1000000000000, but at most" in serve("--num-blocks", "1000000000000")
    refused(["serve", model, "--reasoning-parser", "oracle"], "--reasoning-parser is 'oracle'", "qwen3")
    refused(["serve", model, "--tool-call-parser", "oracle"], "--tool-call-parser is 'oracle'", "hermes")
    (model / "tokenizer.json").unlink()
    assert "no tokenizer" in serve()
    assert "no tokenizer" in serve("--task", "embed")


def test_chat_templates_that_are_broken(refused, model):
    (model / "chat_template.jinja").write_text("{% for m in messages %}")
    refused(generate(model, "--chat"), "template", "line 1")
    (model / "chat_template.jinja").write_text("{{ raise_exception('No system role') }}")
    refused(generate(model, "--chat"), "No system role")
    (model / "chat_template.jinja").write_text("{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}")
    refused(generate(model, "--chat"), "template")
    (model / "chat_template.jinja").unlink()
    refused(generate(model, "--chat"), "no chat template", "ttpu generate")


# Prompts


def test_prompts_that_are_too_long(refused, model):
    refused(generate(model, "--max-model-len", "100000"), "100000", "64")
    refused(generate(model, prompt="!" * 100), "101", "64", "shorten")  # and a begin token


def test_token_ids_outside_of_the_model(refused, model):
    refused(generate(model, prompt=" the quick"), "vocabulary", "96", "tokenizer")


def test_prompts_that_are_not_utf8(refused, model, tmp_path):
    refused(generate(model, prompt=b"abc\xff"), "UTF-8", "offset 3")
    (tmp_path / "input.jsonl").write_bytes(b'{"prompt": "!"}\n{"prompt": "\xff"}\n')
    refused(["generate", model, "--input", tmp_path / "input.jsonl"], "line 2", "UTF-8")


@pytest.mark.parametrize("line, phrases", [
    ("{", ["line 2", "JSON"]), ("3", ["prompt 2", "object"]), ("{}", ["prompt 2", "prompt", "messages"]),
    ('{"prompt": 3}', ["prompt 2", "string"]), ('{"messages": "hi"}', ["messages", "array"]),
    ('{"messages": [{"role": "user"}]}', ["content"]), ("[" * 10_000, ["line 2", "nested"]),
], ids=["half", "number", "neither", "number_as_prompt", "text_as_messages", "no_content", "deep"])
def test_lines_that_are_not_prompts(refused, model, tmp_path, line, phrases):
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role + m.content }}{% endfor %}")
    (tmp_path / "input.jsonl").write_text(f'{{"prompt": "!"}}\n{line}\n')
    refused(["generate", model, "--input", tmp_path / "input.jsonl", "--dtype", "f32", "--max-tokens", "1"], *phrases)


def test_input_that_is_not_there(refused, model, tmp_path):
    refused(["generate", model, "--input", tmp_path / "absent.jsonl"], "absent.jsonl")
    refused(["generate", model, "--input", tmp_path], str(tmp_path))
    refused(["generate", model], "--prompt", "--input")


@pytest.mark.parametrize("flags, phrase", [
    (["--temperature", "-1"], "temperature"), (["--temperature", "nan"], "temperature"), (["--top-p", "0"], "top-p"),
    (["--top-p", "2"], "top-p"), (["--min-p", "-0.5"], "min-p"), (["--top-k", "-3"], "top-k"),
    (["--max-tokens", "0"], "max-tokens"), (["--repetition-penalty", "0"], "repetition-penalty"),
    (["--stop", ""], "stop"),
], ids=lambda value: "=".join(value) if isinstance(value, list) else "")
def test_sampling_parameters_outside_of_their_range(refused, model, flags, phrase):
    message = refused(generate(model, *flags))
    assert phrase.replace("-", "_") in message.replace("-", "_"), message


# Plugins


def compile_plugin(path, source):
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=textwrap.dedent(source).encode(), check=True)
    return path


def test_plugins_that_are_no_plugins(refused, model, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("not a library")
    other = compile_plugin(tmp_path / "other.so", "int answer(void) { return 42; }")
    nothing = compile_plugin(tmp_path / "nothing.so", "void *GetPjrtApi(void) { return 0; }")
    for path, phrase in ((text, "shared library"), (other, "GetPjrtApi"), (nothing, "gave nothing"), (tmp_path / "absent.so", "no file")):
        refused(generate(model), str(path), phrase, "ttpu plugin install", env={"TTPU_PLUGIN_PATH": str(path)})
    refused(generate(model, "--device", other), str(other), "GetPjrtApi", "ttpu plugin install")
    refused(generate(model, "--device", "abacus"), "abacus", "cpu")


def test_a_plugin_that_is_too_old(refused, model, tmp_path):
    old = compile_plugin(tmp_path / "old.so", """
        struct { long size, extensions, version_size, version_extensions; int major, minor; void *functions[200]; }
        table = {sizeof table, 0, 24, 0, 0, 10};
        void *GetPjrtApi(void) { return &table; }
    """)
    refused(generate(model), "0.10", "0.81", "ttpu plugin install", env={"TTPU_PLUGIN_PATH": str(old)})


def test_no_plugin_at_all(refused, model, tmp_path):
    empty = {"TTPU_CACHE": str(tmp_path / "cache"), "PATH": "", "VIRTUAL_ENV": "", "TTPU_PLUGIN_PATH": ""}
    refused(generate(model), "no plugin for 'cpu'", "ttpu plugin install cpu", env=empty)


def test_plugins_that_nobody_has(refused):
    refused(["plugin", "install", "abacus"], "abacus", "cpu")


# Compiling ahead of time


@pytest.mark.parametrize("topology", ["v5e", "v5e:", "v5e:0x2", "v5e:-1x2", "v5e:999999x999999", "v9z:2x2", "v5e:2x3", "v5e:2x", "", "\xff"])
def test_impossible_topologies(refused, model, topology):
    message = refused(["compile", model / "config.json", "--topology", topology])
    assert "topology" in message


@pytest.mark.parametrize("topology", ["v5e", "v5e:2x2x2", "v5e:3x3", "v5e:16x32"])
def test_slices_that_do_not_exist_are_refused_with_those_that_do(refused, model, tmp_path, topology):
    known = f'"{topology}" is no slice of v5e', "known are v5e:1x1", "v5e:8x16"
    refused(["compile", model / "config.json", "--topology", topology], *known)
    refused(["compile", model, "--topology", topology, "-o", tmp_path / "bundle"], *known)
    refused(["plan", model / "config.json", "--topology", topology, "--analytic-only", "--input-len", "8", "--output-len", "8"], *known)


@pytest.mark.parametrize("flags, phrases", [
    (["--seq-len", "64"], ["--seq-len is for --task train", "--max-num-seqs"]),
    (["--task", "train", "--max-num-seqs", "4"], ["--max-num-seqs is for --task serve", "--seq-len"]),
    (["--device", "cpu"], ["--topology v5e:2x4", "--device cpu", "leave one of them out"]),
    (["--strategy", "expert"], ["--strategy expert", "no experts"]),
    (["--tp", "3"], ["--tensor-parallel-size 3 does not divide", "1, 2, 4, 8"]),
    (["--tp", "2", "--dp", "2"], ["--tensor-parallel-size 2 times --data-parallel-size 2 is 4", "number of devices, 8"]),
])
def test_flags_of_compile_that_do_not_go_together(refused, model, flags, phrases):
    refused(["compile", model / "config.json", "--topology", "v5e:2x4", *flags], *phrases)


@pytest.mark.parametrize("arguments, expected", [
    (["plan", "--tp", "-1"], "of 0 or more"), (["plan", "--prefill-tokens", "-4"], "of 0 or more"), (["plan", "--max-tpot", "nan"], "above 0"),
    (["plan", "--timeout", "0"], "above 0"), (["compile", "--num-blocks", "-7"], "of 0 or more"), (["compile", "--seq-len", "many"], "above 0"),
], ids=lambda value: "_".join(value) if isinstance(value, list) else "")
def test_numbers_outside_of_their_range(command, model, arguments, expected):
    subcommand, *flag = arguments
    done = subprocess.run([command, subcommand, model / "config.json", "--topology", "v5e:2x2", *flag], capture_output=True, text=True, timeout=300)
    assert done.returncode > 0 and done.stdout == ""
    assert f"'{flag[1]}' was given, expected a number {expected}" in done.stderr and len(done.stderr) < 200, done.stderr


def test_files_that_are_no_compiled_programs(refused, tmp_path):
    (tmp_path / "notes").write_text("root:x:0:0")
    refused(["plan", "--hlo", tmp_path / "notes", "--topology", "v5e:2x2"], str(tmp_path / "notes"), "HloModuleProto", "--save-hlo")
    (tmp_path / "half").write_text("ENTRY main {\n  what is this\n}\n")
    refused(["plan", "--hlo", tmp_path / "half", "--topology", "v5e:2x2"], str(tmp_path / "half"), "line")


@pytest.mark.parametrize("fields", [
    dict(vocab_size=2**31 - 1, hidden_size=2**31 - 2, head_dim=2**30), dict(head_dim=2**31 - 1), dict(intermediate_size=2**31 - 1, hidden_size=2**30),
], ids=["vocabulary", "heads", "intermediate"])
def test_models_that_fit_nowhere(refused, model, fields):
    model_files.edit_config(model, **fields)
    refused(["compile", model / "config.json", "--topology", "v5e:2x2"])


@pytest.mark.parametrize("flags", [["--batch", "0"], ["--batch", "-1"], ["--prefill-tokens", "0"], ["--max-model-len", "-5"], ["--max-model-len", "65"]], ids="=".join)
def test_sizes_outside_of_their_range(refused, model, flags):
    message = refused(["compile", model / "config.json", "--topology", "v5e:2x2", *flags])
    assert flags[0].strip("-").split("-")[0] in message


# Downloads


@pytest.fixture(name="hub")
def fixture_hub(model):
    """A model hub on this machine; gives the environment that reaches it with a fault."""
    server = subprocess.Popen([sys.executable, HUB, model], stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline())
    yield lambda fault, cache: {"HF_ENDPOINT": f"http://127.0.0.1:{port}/{fault}", "HF_HUB_CACHE": str(cache),
                                "HF_HUB_OFFLINE": "", "TTPU_OFFLINE": "", "HF_TOKEN": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    server.kill()
    server.wait()


def whole_files(cache):
    """What another program would take for a model."""
    return [p for p in cache.rglob("*") if "snapshots" in p.parts and p.suffix == ".safetensors"]


def refused_download(command, env, *phrases, before=None):
    done = subprocess.run([command, *generate("org/model")], capture_output=True, text=True, timeout=300,
                          env={**os.environ, **env}, preexec_fn=before)
    assert 0 < done.returncode < 128, done
    last = done.stderr.strip().splitlines()[-1]  # a progress line may come before
    assert "ttpu: " in last and all(phrase in last for phrase in phrases), done.stderr
    return last


@pytest.mark.parametrize("arguments, phrases", [
    (["--seq-len", "1000000"], ["--seq-len is 1000000", "the model allows"]),
    (["--train-batch-size", "-1"], ["--train-batch-size is -1"]),
    (["--train-batch-size", "6", "--fsdp-size", "8"], ["a batch of 6", "that 8 divides"]),
    (["--micro-batch-size", "3"], ["micro-batches of 3", "--train-batch-size"]),
    (["--zero-stage", "3", "--fsdp-size", "1"], ["--zero-stage 3", "--zero-stage 0"]),
    (["--zero-stage", "0", "--fsdp-size", "8"], ["--zero-stage 0", "1, 2 or 3"]),
    (["--fsdp-size", "3"], ["3 devices", "v6e:2x4 has 8"]),
    (["--tensor-parallel-size", "8"], ["--tensor-parallel-size is 8", "share a layer"]),
    (["--topology", "v9:2x4"], ["v9:2x4", "v6e"]),
    (["--topology", "h100:8"], ["h100:8", "GPU"]),
    (["--batch", "8"], ["--batch is for --task serve", "--train-batch-size"]),
    (["--max-ttft", "8"], ["--max-ttft is for --task serve"]),
    (["--strategy", "context"], ["sequence and tensor"]),
    (["--price-per-chip-hour", "free"], ["'free' is no price"]),
    (["--task", "serve", "--remat", "full"], ["--remat is for --task train", "--input-len"]),
])
def test_plans_for_training_that_are_impossible(refused, model, arguments, phrases):
    defaults = {"--topology": "v6e:2x4", "--task": "train", "--seq-len": "32"}
    given = {**defaults, **dict(zip(arguments[::2], arguments[1::2]))}
    if given["--task"] == "serve":
        del given["--seq-len"]
    refused(["plan", str(model), "--analytic-only", *[word for pair in given.items() for word in pair]], *phrases)


@pytest.mark.parametrize("fault, phrases", [
    ("corrupt", ["model.safetensors"]), ("401", ["HF_TOKEN"]), ("404", ["org/model"]), ("500", ["500"]),
])
def test_downloads_that_fail(command, hub, tmp_path, fault, phrases):
    cache = tmp_path / "hub"
    refused_download(command, hub(fault, cache), *phrases)
    assert not whole_files(cache)


def test_a_connection_that_is_cut_goes_on_where_it_was(command, hub, tmp_path):
    done = subprocess.run([command, *generate("org/model", prompt="!#")], env={**os.environ, **hub("cut", tmp_path / "hub")},
                          capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert whole_files(tmp_path / "hub")


def test_a_disk_that_is_full(command, hub, tmp_path):
    """As root on a small disk of its own; else with a limit on the size of files."""
    cache = tmp_path / "hub"
    cache.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", cache], check=False).returncode == 0
    try:
        message = refused_download(command, hub("ok", cache), "model.safetensors", before=None if mounted else limit_file_size)
        assert "free" in message or "large" in message, message
        assert not whole_files(cache)
    finally:
        if mounted:
            subprocess.run(["umount", cache], check=True)


def test_a_limit_on_file_sizes_is_an_error_and_no_signal(command, hub, tmp_path):
    refused_download(command, hub("ok", tmp_path / "hub"), ".incomplete", "large", "free", before=limit_file_size)
    assert not whole_files(tmp_path / "hub")


def test_output_that_cannot_be_written(command, model):
    with open("/dev/full", "w") as full:
        done = subprocess.run([command, *generate(model, "--json", "--max-tokens", "1", prompt="!")], stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1
    assert b"ttpu: " in done.stderr and b"space" in done.stderr
