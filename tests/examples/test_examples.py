"""Each program of examples/, run as its first lines say."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300, **options)


def test_every_example_has_a_test():
    programs = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".cc", ".py", ".sh")}
    assert programs == {"generate.cc", "chat.py", "compile.sh"}


def test_generate_answers_a_question(build, smollm2):
    result = run([build / "examples/generate", smollm2, "What is the capital of France?"])
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout


def test_generate_says_what_is_wrong(build, tmp_path):
    result = run([build / "examples/generate", tmp_path / "no.gguf", "Hello"])
    assert result.returncode == 1
    assert "NOT_FOUND" in result.stderr and "no.gguf" in result.stderr


def test_chat_remembers_the_conversation_and_leaves_at_the_end_of_input(smollm2):
    result = run([sys.executable, EXAMPLES / "chat.py", smollm2],
                 input="What is the capital of France?\nAnd of Italy?\n")
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.split("> ")[1:3]
    assert "Paris" in first
    assert "Rome" in second


@pytest.mark.parametrize("topologies", [["v5e:2x2"], []])
def test_compile_prints_a_line_for_each_slice(command, topologies):
    model = ROOT / "tests/fixtures/models/llama"
    result = run([EXAMPLES / "compile.sh", model, *topologies], env={**os.environ, "TTPU": command})
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == (["v5e"] if topologies else ["v5e", "v6e"])
    for line in lines:
        assert re.search(r": \d+\.\d+ of \d+\.\d GB a device, \d+\.\d+ ms a decode step, limited by \w+", line)


def test_compile_fails_when_a_slice_is_impossible(command):
    model = ROOT / "tests/fixtures/models/llama"
    result = run([EXAMPLES / "compile.sh", model, "v5e:3x5x7"], env={**os.environ, "TTPU": command})
    assert result.returncode != 0
    assert "v5e:3x5x7" in result.stderr
    assert not result.stdout
