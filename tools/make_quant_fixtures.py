"""Writes tests/fixtures/ggml_quants.safetensors: random blocks of every ggml encoding and the float32
values that the `gguf` package reads from them, and random values with the blocks it makes of them.

    pip install gguf==0.19.0 numpy safetensors && python tools/make_quant_fixtures.py
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

READ = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
WRITTEN = ["Q4_0", "Q4_1", "Q8_0"]
# Where the float16 scales of a block lie; random bits there would mostly be huge or NaN.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
BLOCKS = 4


def save(path, arrays):
    """safetensors by hand, so that the tool needs no more than numpy and gguf."""
    names = {"uint8": "U8", "float32": "F32"}
    header, data = {}, b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    rng = np.random.default_rng(20240607)
    arrays = {}
    for name in READ:
        _, size = gguf.GGML_QUANT_SIZES[Type[name]]
        blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        for at in SCALES[name]:
            scales = rng.normal(0, 0.05, BLOCKS).astype(np.float16)
            scales[0] = np.float16(3e-7)  # a subnormal
            blocks[:, at:at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
        arrays[f"{name}.blocks"] = blocks
        arrays[f"{name}.values"] = gguf.quants.dequantize(blocks.reshape(-1), Type[name]).astype(np.float32)
    for name in WRITTEN:
        values = rng.normal(0, 1, (1, 32 * 8)).astype(np.float32)
        values[0, 32:64] = 0
        arrays[f"{name}.input"] = values
        arrays[f"{name}.output"] = gguf.quants.quantize(values, Type[name])
    blocks = rng.integers(0, 256, (BLOCKS, 17), dtype=np.uint8)
    blocks[:, 0] = [110, 127, 140, 1]  # exponents; the last makes values that are tiny
    arrays["MXFP4.blocks"] = blocks
    arrays["MXFP4.values"] = gguf.quants.dequantize(blocks.reshape(-1), Type.MXFP4).astype(np.float32)
    save(Path(__file__).parent.parent / "tests" / "fixtures" / "ggml_quants.safetensors", arrays)


if __name__ == "__main__":
    main()
