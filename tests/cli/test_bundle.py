"""Bundles, as `ttpu compile -o` makes them and `ttpu generate --bundle` takes them."""

import json
import subprocess

import pytest

import model_files


def run(command, *arguments, cwd=None):
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd)


def compile_into(command, model, folder, cwd=None):
    return run(command, "compile", model, "--device", "cpu", "--dtype", "f32", "--max-model-len", 16, "--max-num-seqs", 2,
               "--max-num-batched-tokens", 16, "-o", folder, cwd=cwd)  # fmt: skip


@pytest.fixture(name="model")
def fixture_model(tmp_path):
    return model_files.folder(tmp_path / "model")


@pytest.fixture(name="bundle")
def fixture_bundle(command, model, tmp_path):
    done = compile_into(command, model, tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    return tmp_path / "bundle"


@pytest.fixture(name="generate")
def fixture_generate(command, bundle):
    def generate(*arguments):
        return run(command, "generate", *arguments, "--bundle", bundle, "--prompt", "!#", "--max-tokens", 2)

    return generate


def refusal(done, *phrases):
    """One line with all of them."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for phrase in phrases:
        assert phrase in done.stderr, f"{phrase!r} is not in: {done.stderr}"


def test_flags_are_compared_as_they_were_given(generate):
    for same in ((), ("--max-num-seqs", 2), ("--max-num-seqs", 2, "--beam-width", 2)):
        done = generate(*same)
        assert done.returncode == 0, done.stderr
    refusal(generate("--max-num-seqs", 3), "--max-num-seqs 2, and 3 is asked for")
    refusal(generate("--kv-cache-dtype", "int8"), "--kv-cache-dtype auto, and int8 is asked for")


def test_files_that_are_missing_or_cut_short_are_found_at_the_start(generate, bundle):
    text, executable = bundle / "programs" / "copy_blocks.mlir", bundle / "programs" / "copy_blocks.executable"
    whole = executable.read_bytes()
    executable.write_bytes(whole[:-1])  # of a program that these prompts do not need
    refusal(generate(), "copy_blocks.executable' is damaged", "build the bundle again")
    executable.write_bytes(whole)
    text.unlink()
    refusal(generate(), "copy_blocks.mlir' is missing; build the bundle again")


def test_a_model_that_has_moved_is_looked_for_where_it_was_and_can_be_given(generate, bundle, model):
    moved = model.rename(model.with_name("moved"))
    refusal(generate(), f"'{model}' is neither", f"from the bundle '{bundle}'", f"MODEL --bundle {bundle}")
    assert generate(moved).returncode == 0


def test_one_for_another_device_names_the_device(generate, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["topology"] = "v5e:2x2"
    manifest["identity"]["plugin"] = "TFRT TPU\nBuilt some day"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    refusal(generate(), "is for v5e:2x2", "--device tpu")


def test_what_is_no_bundle_is_not_replaced(command, model, tmp_path):
    other = tmp_path / "app"
    other.mkdir()
    (other / "manifest.json").write_text('{"name": "an app"}')
    refusal(compile_into(command, model, other), "is no bundle", "give another folder")
    assert [path.name for path in other.iterdir()] == ["manifest.json"]
    here = tmp_path / "here"
    here.mkdir()
    refusal(compile_into(command, model, ".", cwd=here), "give a folder inside it")
    assert not list(here.iterdir())
    assert compile_into(command, model, "inside", cwd=here).returncode == 0
