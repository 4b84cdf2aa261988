"""What another device says is what the CPU says, in float32: every family, quantized weights, caches, several devices, a server.

$TTPU_TEST_DEVICE is that device (`make device-test DEVICE=tpu`): a plugin's name or path, cuda where nothing is said. Nothing of
it has run on a GPU or a TPU yet; with DEVICE=cpu-0.81, the other CPU plugin, the tests themselves are tried.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.request

import pytest

from launched import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICE = os.environ.get("TTPU_TEST_DEVICE", "cuda")
MODELS = sorted(path.parent.name for path in (ROOT / "tests/fixtures/models").glob("*/config.json"))
QUANTIZED = sorted(path.parent.name for path in (ROOT / "tests/fixtures/quantized").glob("*/config.json"))
PROMPTS = [[5, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8], [40, 3, 17, 17, 17, 2, 60]]
TOKENS = 8
# Sums in another order may swap tokens that are as good as equal.
EQUAL = 2e-3
# A number at the edge between two of eight bits falls to either side; two CPU plugins are up to 0.08 apart.
ROUNDED = 0.2
# As `ttpu compile` names what CUDA calls so.
TOPOLOGIES = {"NVIDIA A100-SXM4-80GB": "a100", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA B200": "b200"}


def gpus() -> list[str]:
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split("\n")[:-1]


@pytest.fixture(scope="module", name="ttpu", autouse=True)
def fixture_ttpu(command):
    """The command; skips where there is no plugin or no device."""
    if "/" not in DEVICE:
        listed = json.loads(subprocess.run([command, "plugin", "list", "--json"], capture_output=True, text=True, check=True).stdout)
        if DEVICE not in [plugin["name"] for plugin in listed]:
            pytest.skip(f"needs `ttpu plugin install {DEVICE}`")
    if DEVICE == "cuda" and not gpus():
        pytest.skip("needs a GPU: nvidia-smi lists none")
    if DEVICE == "tpu" and not list(pathlib.Path("/dev").glob("accel*")) + list(pathlib.Path("/dev/vfio").glob("[0-9]*")):
        pytest.skip("needs a TPU: /dev has none")
    return command


def run(*arguments) -> str:
    done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def generate(ttpu, tmp_path, model, *flags) -> list[dict]:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt_token_ids": prompt}) + "\n" for prompt in PROMPTS))
    lines = run(ttpu, "generate", model, "--input", prompts, "--dtype", "f32", "--max-tokens", TOKENS, "--ignore-eos", "--json",
                "--logprobs", "2", "--max-model-len", "16", "--stats", *flags).splitlines()
    assert len(lines) == len(PROMPTS)
    return [json.loads(line) for line in lines]


def require_same(answers: list[dict], expected: list[dict], tolerance: float = EQUAL) -> None:
    for one, other in zip(answers, expected, strict=True):
        assert len(one["token_ids"]) == TOKENS
        for place, (token, wanted) in enumerate(zip(one["token_ids"], other["token_ids"], strict=True)):
            first, second = other["logprobs"][place]["top"]
            assert one["logprobs"][place]["top"][0]["logprob"] == pytest.approx(first["logprob"], abs=tolerance)
            if token != wanted:
                assert first["logprob"] - second["logprob"] < tolerance, f"token {place} is {token}, and {wanted} on the CPU"
                break  # from here on they are answers to different questions


@pytest.mark.parametrize("model", MODELS)
def test_a_family_says_what_the_cpu_says(ttpu, tmp_path, model):
    folder = ROOT / "tests/fixtures/models" / model
    require_same(generate(ttpu, tmp_path, folder, "--device", DEVICE), generate(ttpu, tmp_path, folder, "--no-kernels"))


@pytest.mark.parametrize("model", QUANTIZED)
def test_a_quantized_checkpoint_says_what_the_cpu_says(ttpu, tmp_path, model):
    folder = ROOT / "tests/fixtures/quantized" / model
    require_same(generate(ttpu, tmp_path, folder, "--device", DEVICE), generate(ttpu, tmp_path, folder, "--no-kernels"))


@pytest.mark.parametrize("flags", [("--quantization", "int8"), ("--quantization", "fp8"), ("--quantization", "int4"),
                                   ("--kv-cache-dtype", "int8"), ("--kv-cache-dtype", "fp8"), ("--num-speculative-tokens", "3")],
                         ids=" ".join)  # fmt: skip
def test_a_flag_means_what_it_means_on_the_cpu(ttpu, tmp_path, flags):
    folder = ROOT / "tests/fixtures/models/llama"
    require_same(generate(ttpu, tmp_path, folder, "--device", DEVICE, *flags), generate(ttpu, tmp_path, folder, "--no-kernels", *flags), ROUNDED)


def test_real_weights_in_blocks_say_what_the_cpu_says(ttpu, tmp_path, smollm2):
    require_same(generate(ttpu, tmp_path, smollm2, "--device", DEVICE), generate(ttpu, tmp_path, smollm2, "--no-kernels"), ROUNDED)


@pytest.mark.parametrize("flags", [("--tp", "2"), ("--pp", "2"), ("--tp", "2", "--strategy", "sequence"), ("--tp", "2", "--strategy", "context")],
                         ids=" ".join)  # fmt: skip
def test_two_devices_say_what_one_says(ttpu, tmp_path, flags):
    if DEVICE == "cuda" and len(gpus()) < 2:
        pytest.skip("needs two GPUs")
    folder = ROOT / "tests/fixtures/models/llama"
    require_same(generate(ttpu, tmp_path, folder, "--device", DEVICE, *flags), generate(ttpu, tmp_path, folder, "--no-kernels"))


def test_a_bundle_that_was_compiled_ahead_is_loaded(ttpu, tmp_path):
    topology = TOPOLOGIES.get(gpus()[0]) if DEVICE == "cuda" else None
    if topology is None:
        pytest.skip("needs a GPU that `ttpu compile` knows by name")
    folder = ROOT / "tests/fixtures/models/llama"
    bundle = tmp_path / "bundle"
    run(ttpu, "compile", folder, "--topology", topology, "--dtype", "f32", "--max-model-len", "16", "--max-num-seqs", "1", "-o", bundle)
    answers = generate(ttpu, tmp_path, folder, "--device", DEVICE, "--bundle", bundle)
    assert answers[0]["stats"]["compiled"] == 0
    require_same(answers, generate(ttpu, tmp_path, folder, "--no-kernels"))


def test_a_server_answers(ttpu, tmp_path, smollm2):
    expected = generate(ttpu, tmp_path, smollm2, "--no-kernels")[0]
    port = free_port()
    flags = ["--device", DEVICE, "--dtype", "f32", "--port", str(port), "--memory-fraction", "0.5", "--max-model-len", "64",
             "--max-num-seqs", "2", "--max-num-batched-tokens", "64", "--served-model-name", "served"]  # fmt: skip
    with subprocess.Popen([ttpu, "serve", str(smollm2), *flags]) as server:
        body = {"model": "served", "prompt": PROMPTS[0], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            for _ in range(600):
                assert server.poll() is None, "the server ended"
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            with urllib.request.urlopen(request, timeout=300) as answer:
                choice = json.load(answer)["choices"][0]
        finally:
            server.terminate()
    assert choice["token_ids"] == expected["token_ids"]
