"""The documentation is held to the tree: links lead somewhere, named files exist, quoted code stands in its file."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FOLDERS = ("ttpu/", "cli/", "python/", "rust/", "tests/", "tools/", "docs/", "examples/", "benchmarks/", "cmake/")
NAMED = re.compile(r"`([\w./-]+)`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def ids(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", BLOCK.sub("", page.read_text())):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_are_named_exist(page):
    prose = BLOCK.sub("", page.read_text())
    for name in NAMED.findall(prose):
        if name.startswith(FOLDERS):
            found = any(ROOT.glob(name.replace("NAME", "*").rstrip("/")))
            assert found, f"{page.name} names {name}"


def test_code_in_add_an_op_stands_in_the_file_named_above_it():
    text = (ROOT / "docs/add-an-op.md").read_text()
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) > 8
    for block in blocks:
        above = [name for name in NAMED.findall(text[:block.start()])
                 if name.startswith(FOLDERS) and (ROOT / name).is_file()]
        assert block[2].rstrip() in (ROOT / above[-1]).read_text(), f"{above[-1]} lacks:\n{block[2]}"
