#!/usr/bin/env python3
"""Runs clang-tidy over the sources of a build folder, and only over what has changed.

  tidy.py BUILD_FOLDER [--jobs N] [PATH_PREFIX ...]

A file that came out clean is remembered by the hash of all that decides the outcome: the file, the
headers of this repository that it includes (directly or not), its compile command without the paths of the
repository and the build, .clang-tidy, and the version of clang-tidy. The memory stands in TTPU's cache, in tidy/,
and serves every build folder.
"""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import wheels

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
# The commands are those of gcc, some of whose options clang does not know.
EXTRA = ["-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument", "-Wno-error",
         "-Wno-everything"]


def closure(path: pathlib.Path, seen: dict) -> dict:
    """The file and the repository's headers that it includes, with their contents."""
    if path in seen:
        return seen
    seen[path] = path.read_bytes()
    for header in INCLUDE.findall(seen[path].decode("utf-8", "replace")):
        for candidate in (ROOT / header, path.parent / header):
            if candidate.is_file():
                closure(candidate.resolve(), seen)
                break
    return seen


def key(entry: dict, fixed: bytes) -> str:
    sha = hashlib.sha256(fixed)
    command = entry["command"].replace(entry["directory"], "BUILD").replace(str(ROOT), "ROOT")
    sha.update(command.encode())
    for path, content in sorted(closure(pathlib.Path(entry["file"]), {}).items()):
        sha.update(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).encode())
        sha.update(hashlib.sha256(content).digest())
    return sha.hexdigest()


def tidy(build: pathlib.Path, file: str) -> subprocess.CompletedProcess:
    command = ["clang-tidy", "--quiet", "-p", str(build)]
    command += [f"--extra-arg={flag}" for flag in EXTRA] + [file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Error parsing" in result.stderr:  # it goes on with its own defaults
        result.returncode = 1
    return result


def wanted(entry: dict, build: pathlib.Path, prefixes: list[str]) -> bool:
    path = pathlib.Path(entry["file"]).resolve()
    if not path.is_relative_to(ROOT) or path.is_relative_to(build.resolve()):
        return False
    name = path.relative_to(ROOT).as_posix()
    return not prefixes or any(name.startswith(prefix) for prefix in prefixes)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("prefixes", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    database = options.build / "compile_commands.json"
    if not database.is_file():
        print(f"[tidy] there is no {database}; configure the build first", file=sys.stderr)
        return 1
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    fixed = version + (ROOT / ".clang-tidy").read_bytes() + " ".join(EXTRA).encode()
    memory = wheels.cache_dir() / "tidy"
    memory.mkdir(parents=True, exist_ok=True)

    entries = {entry["file"]: entry for entry in json.loads(database.read_text())
               if wanted(entry, options.build, options.prefixes)}
    keys = {file: key(entry, fixed) for file, entry in entries.items()}
    todo = sorted(file for file in entries if not (memory / keys[file]).exists())
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = {pool.submit(tidy, options.build, file): file for file in todo}
        for done, future in enumerate(concurrent.futures.as_completed(results), 1):
            file, result = results[future], future.result()
            name = pathlib.Path(file).relative_to(ROOT)
            if result.returncode == 0:
                (memory / keys[file]).touch()
                print(f"[tidy {done}/{len(todo)}] {name}", flush=True)
            else:
                failed += 1
                print(f"[tidy {done}/{len(todo)}] {name}: FAILED\n{result.stdout}{result.stderr}",
                      flush=True)
    print(f"tidy: {len(entries)} files, {len(todo)} looked at, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
