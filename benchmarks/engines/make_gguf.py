#!/usr/bin/env python3
"""Writes the weights of a GGUF file, rounded to bf16, as another type; vectors stay as they are.

    make_gguf.py IN OUT --type BF16|F16|Q8_0

Needs the packages of tools/requirements.txt.
"""

import argparse
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

FILE_TYPES = {"BF16": LlamaFileType.MOSTLY_BF16, "F16": LlamaFileType.MOSTLY_F16, "Q8_0": LlamaFileType.MOSTLY_Q8_0}
OWN_FIELDS = {"general.architecture", "general.file_type", "general.quantization_version"}  # written by the writer


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    return dequantize(quantize(values, GGMLQuantizationType.BF16), GGMLQuantizationType.BF16)


def copy_fields(reader: GGUFReader, writer: GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in OWN_FIELDS:
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, element)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, required=True)
    arguments = parser.parse_args()
    kind = GGMLQuantizationType[arguments.type]
    reader = GGUFReader(arguments.source)
    beside = arguments.target.with_name(f".{arguments.target.name}")
    writer = GGUFWriter(beside, reader.fields["general.architecture"].contents())
    copy_fields(reader, writer)
    writer.add_file_type(FILE_TYPES[arguments.type])
    writer.add_quantization_version(2)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(round_to_bf16(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    beside.replace(arguments.target)


if __name__ == "__main__":
    main()
