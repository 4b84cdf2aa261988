"""What tools/tpu_kernels/lower.py makes of a lowered module; jax, which makes it, is not needed here."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest

LOWER = Path(__file__).resolve().parents[2] / "tools/tpu_kernels/lower.py"

MODULE = """module @jit_f {
  func.func public @main(%arg0: tensor<8xbf16> {tf.aliasing_output = 0 : i32}) -> (tensor<8xbf16>) {
    %0 = call @pad(%arg0) : (tensor<8xbf16>) -> tensor<8xbf16>
    %1 = stablehlo.custom_call @tpu_custom_call(%0) {kernel_name = "RPAd-p_64"} : (tensor<8xbf16>) -> tensor<8xbf16>
    return %1 : tensor<8xbf16>
  }
  func.func private @pad(%arg0: tensor<8xbf16>) -> tensor<8xbf16> {
    return %arg0 : tensor<8xbf16>
  }
}
"""


@pytest.fixture
def lower(monkeypatch):
    for name in ("jax", "kernels"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    spec = importlib.util.spec_from_file_location("lower", LOWER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_functions_are_private_and_named_after_the_operator(lower):
    text = lower.as_functions(MODULE, "attention.1")
    assert 'func.func private @"attention.1"(%arg0: tensor<8xbf16>) ->' in text
    assert 'call @"attention.1.pad"(%arg0)' in text
    assert "public" not in text


def test_a_kernel_has_its_name_as_location(lower):
    lines = lower.as_functions(MODULE, "attention").splitlines()
    located = [line for line in lines if "loc(" in line]
    assert len(located) == 1
    assert located[0].endswith('{kernel_name = "RPAd-p_64"} : (tensor<8xbf16>) -> tensor<8xbf16> loc("RPAd-p_64")')
