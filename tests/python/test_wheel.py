"""The wheel, made from the build folder of the tests and installed into an environment of its own."""

import os
import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", name="wheel")
def fixture_wheel(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Nothing is downloaded: what builds the wheel is in the environment of the tests.
    subprocess.run([sys.executable, "-m", "pip", "wheel", ROOT, "--wheel-dir", folder, "--no-deps", "--no-index",
                    "--no-build-isolation", f"--config-settings=build-dir={build}"], check=True)
    (wheel,) = folder.glob("ttpu-*.whl")
    return wheel


def test_the_wheel_holds_the_package_its_types_and_the_command(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"ttpu/__init__.py", "ttpu/_ttpu.pyi", "ttpu/llm.py", "ttpu/py.typed"} <= names
    assert any(name.startswith("ttpu/_ttpu.") and name.endswith(".so") for name in names)
    assert any(name.endswith(".data/scripts/ttpu") for name in names)
    assert any(name.endswith("LICENSE") for name in names)


def test_the_installed_package_answers_and_brings_the_command(wheel, smollm2, tmp_path):
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / "bin/python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--no-index", wheel], check=True)
    program = f"""
import ttpu
model = ttpu.AutoModelForTPU.from_pretrained({str(smollm2)!r}, max_model_len=64)
print(ttpu.__version__, model.generate("The capital of France is", max_tokens=1).text)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run([python, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True,
                           check=False)
    assert shown.returncode == 0, shown.stderr
    version, answer = shown.stdout.split()
    assert answer == "Paris"
    command = subprocess.run([tmp_path / "bin/ttpu", "--version"], capture_output=True, text=True, check=True)
    assert command.stdout.strip() == f"ttpu {version}"
