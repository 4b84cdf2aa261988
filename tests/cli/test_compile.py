"""`ttpu compile` for a TPU, of real weights."""

import json
import subprocess

import pytest


def decode_of(command, model, *flags):
    sizes = ["--max-model-len", "128", "--max-num-seqs", "2", "--max-num-batched-tokens", "32"]
    done = subprocess.run([command, "compile", model, "--topology", "v5e:1x1", "--layers", "scanned", "--json", *sizes, *flags],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    if "ttpu plugin install tpu" in done.stderr:
        pytest.skip("needs `ttpu plugin install tpu`")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["decode"]


def test_blocks_of_gguf_keep_their_bits(command, smollm2):
    """Four bits a number, and in each 32 of them two factors of f32; embeddings are bf16, their rows filled up to lanes."""
    embedding, layers = 49152 * 640, 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576)
    norms = 61 * 576 * 4
    assert decode_of(command, str(smollm2))["weight_bytes"] == 2 * embedding + layers // 2 + layers // 32 * 8 + norms
    assert decode_of(command, str(smollm2), "--weights", "bf16")["weight_bytes"] == pytest.approx(2 * embedding + 2 * layers, rel=1e-3)
