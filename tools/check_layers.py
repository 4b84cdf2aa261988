#!/usr/bin/env python3
"""Holds the source to the layers of docs/structure.md; prints each breach and fails if there is one.

  check_layers.py [ROOT]

- A layer (ttpu/<layer>/) includes only itself and the layers before it, by "ttpu/<layer>/<file>".
- pjrt_c_api.h is included in ttpu/pjrt alone, xla/ffi/ in ttpu/kernels alone, the header of the Rust
  library in ttpu/text alone. Tests and benchmarks may include all of them.
- A header begins with #pragma once (after its comment); no file has more than 600 lines.
"""

import pathlib
import re
import sys

LAYERS = ["base", "pjrt", "ir", "grad", "parallel", "io", "text", "kernels", "nn", "models",
          "frontend", "plan", "engine", "server", "train"]
ONLY_IN = {"pjrt_c_api": "pjrt", "xla/ffi/": "kernels", "ttpu_text.h": "text"}
FOLDERS = ["ttpu", "cli", "python", "rust", "tests", "benchmarks", "examples", "tools", "cmake"]
COUNTED = {".h", ".cc", ".cpp", ".c", ".py", ".rs", ".sh", ".cmake"}
SOURCES = {".h", ".cc", ".cpp"}
SKIPPED = {"target", "fixtures", "corpus", "__pycache__"}
MAX_LINES = 600

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]')


def check_include(place: str, layer: str | None, quote: str, header: str) -> list[str]:
    """The breaches of one #include. `layer` is the folder below ttpu/, None elsewhere."""
    if place.startswith(("tests/", "benchmarks/")):
        return []
    found = []
    for part, owner in ONLY_IN.items():
        if header.startswith(part) and layer != owner:
            found.append(f"{place}: '{header}' may be included in ttpu/{owner} alone; use what "
                         f"ttpu/{owner} offers")
    if layer is None:
        return found
    if header.startswith("ttpu/"):
        other = header.split("/")[1]
        if other not in LAYERS:
            found.append(f"{place}: there is no layer '{other}'")
        elif LAYERS.index(other) > LAYERS.index(layer):
            found.append(f"{place}: '{layer}' comes before '{other}' and may not include "
                         f"'{header}'")
    elif quote == '"' and "/" not in header and not any(map(header.startswith, ONLY_IN)):
        found.append(f"{place}: '{header}' must be written from the root, as "
                     f"\"ttpu/{layer}/{header}\"")
    elif header.startswith(("cli/", "python/", "tests/")):
        found.append(f"{place}: a layer may not include '{header}'")
    return found


def check_file(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    name = path.relative_to(root).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    if len(lines) > MAX_LINES:
        found.append(f"{name}: has {len(lines)} lines; split it, {MAX_LINES} is the most")
    if path.suffix not in SOURCES:
        return found
    parts = name.split("/")
    layer = parts[1] if parts[0] == "ttpu" and len(parts) > 2 else None
    if layer is not None and layer not in LAYERS:
        return found + [f"{name}: there is no layer '{layer}'; layers: {', '.join(LAYERS)}"]
    if path.suffix == ".h" and "#pragma once" not in lines:
        found.append(f"{name}: a header needs '#pragma once'")
    for number, line in enumerate(lines, 1):
        if match := INCLUDE.match(line):
            found += check_include(f"{name}:{number}", layer, match[1], match[2])
    return found


def check(root: pathlib.Path) -> list[str]:
    """Every breach in the tree."""
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            skipped = SKIPPED & set(path.relative_to(root).parts)
            if path.suffix in COUNTED and path.is_file() and not skipped:
                found += check_file(root, path)
    return found


def main(arguments: list[str]) -> int:
    default = pathlib.Path(__file__).resolve().parent.parent
    found = check(pathlib.Path(arguments[0]) if arguments else default)
    for line in found:
        print(line)
    print(f"layers: {len(found)} breaches" if found else "layers: in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
