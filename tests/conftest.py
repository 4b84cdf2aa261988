"""What the Python tests share: where the build is, and the model that the set-up fetches."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", name="build")
def fixture_build() -> pathlib.Path:
    """The build folder: $TTPU_BUILD, else build/."""
    return ROOT / os.environ.get("TTPU_BUILD", "build")


@pytest.fixture(scope="session", name="command")
def fixture_command(build) -> str:
    """The command ttpu of the build folder."""
    path = build / "ttpu"
    assert path.is_file(), f"there is no {path}; run the tests with `make pytest`"
    return str(path)


@pytest.fixture(scope="session", name="smollm2")
def fixture_smollm2() -> pathlib.Path:
    """SmolLM2 135M, the GGUF file."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ttpu"
    folder = os.environ.get("TTPU_TEST_DATA") or pathlib.Path(os.environ.get("TTPU_CACHE") or cache) / "models"
    path = pathlib.Path(folder) / "smollm2-135m-instruct-q4_1.gguf"
    assert path.is_file(), f"there is no {path}; `tools/setup.sh models` fetches it"
    return path
