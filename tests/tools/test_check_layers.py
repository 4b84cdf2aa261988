"""tools/check_layers.py finds each kind of breach, and none in this repository."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_layers.py"


def run(root):
    return subprocess.run([sys.executable, TOOL, str(root)], capture_output=True, text=True,
                          check=False)


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_repository_is_in_order():
    result = run(ROOT)
    assert result.returncode == 0, result.stdout


def test_lower_layers_and_the_own_layer_may_be_included(tmp_path):
    tree(tmp_path, {"ttpu/ir/a.cc": '#include "ttpu/ir/a.h"\n#include "ttpu/base/error.h"\n',
                    "ttpu/pjrt/api.cc": '#include "pjrt_c_api.h"\n',
                    "ttpu/kernels/linear/cpu/k.cc": '#include "xla/ffi/api/c_api.h"\n',
                    "tests/pjrt/ffi_test.cc": '#include "xla/ffi/api/ffi.h"\n',
                    "cli/run.cc": '#include "ttpu/engine/engine.h"\n'})
    assert run(tmp_path).returncode == 0


@pytest.mark.parametrize(("name", "text", "message"), [
    ("ttpu/base/a.cc", '#include "ttpu/ir/program.h"\n', "'base' comes before 'ir'"),
    ("ttpu/ir/deep/a.h", '#pragma once\n#include "ttpu/nn/norm.h"\n', "'ir' comes before 'nn'"),
    ("ttpu/ir/a.cc", '  #  include <ttpu/engine/engine.h>\n', "'ir' comes before 'engine'"),
    ("ttpu/ir/a.cc", '#include "pjrt_c_api.h"\n', "in ttpu/pjrt alone"),
    ("cli/a.cc", '#include "pjrt_c_api.h"\n', "in ttpu/pjrt alone"),
    ("ttpu/pjrt/a.cc", '#include "xla/ffi/api/ffi.h"\n', "in ttpu/kernels alone"),
    ("ttpu/io/a.cc", '#include "ttpu_text.h"\n', "in ttpu/text alone"),
    ("ttpu/io/a.cc", '#include "gguf.h"\n', "from the root"),
    ("ttpu/io/a.cc", '#include "ttpu/wings/a.h"\n', "no layer 'wings'"),
    ("ttpu/wings/a.cc", "int x;\n", "no layer 'wings'"),
    ("ttpu/io/a.cc", '#include "cli/a.h"\n', "may not include 'cli/a.h'"),
    ("ttpu/io/a.h", "int x();\n", "#pragma once"),
    ("ttpu/io/a.cc", "// line\n" * 601, "has 601 lines"),
    ("tests/io/a_test.cc", "// line\n" * 601, "has 601 lines"),
])
def test_a_breach_is_named(tmp_path, name, text, message):
    tree(tmp_path, {name: text})
    result = run(tmp_path)
    assert result.returncode == 1
    assert result.stdout.startswith(name)
    assert message in result.stdout
