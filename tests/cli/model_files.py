"""Writes the files of a tiny model, whole or broken."""

import json
import pathlib
import shutil
import struct

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"


def folder(path: pathlib.Path) -> pathlib.Path:
    """A whole model: the tiny Llama of the fixtures with a tokenizer of 500 tokens (the model has 96)."""
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURES / "models" / "llama" / name, path)
    shutil.copy(FIXTURES / "tokenizers" / "byte_level_gpt2.tokenizer.json", path / "tokenizer.json")
    return path


def edit_config(model: pathlib.Path, **fields) -> None:
    """Sets fields of config.json; a field that is None is removed."""
    config = json.loads((model / "config.json").read_text())
    for name, value in fields.items():
        if value is None:
            del config[name]
        else:
            config[name] = value
    (model / "config.json").write_text(json.dumps(config))


def read_safetensors(path: pathlib.Path):
    """The header as a dict, and the bytes after it."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_safetensors(path: pathlib.Path, header, data: bytes) -> None:
    """`header` is a dict, or the bytes to write in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value) -> bytes:
    """A value with its type, as the metadata has it."""
    if isinstance(value, bytes):
        return value  # written out by hand
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    item = 8 if isinstance(value[0], str) else 5
    items = b"".join(gguf_string(v) if item == 8 else struct.pack("<i", v) for v in value)
    return struct.pack("<IIQ", 9, item, len(value)) + items


TOKENS = ["a", "b", "ab", "<e>", *(f"t{number}" for number in range(28))]
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": len(TOKENS),
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1, 1, 1, 3] + [1] * 28,
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 3,
}

# Name: dims (innermost first). All of F32.
TENSORS = {
    "token_embd.weight": [32, len(TOKENS)],
    "output_norm.weight": [32],
    "blk.0.attn_norm.weight": [32],
    "blk.0.attn_q.weight": [32, 32],
    "blk.0.attn_k.weight": [32, 32],
    "blk.0.attn_v.weight": [32, 32],
    "blk.0.attn_output.weight": [32, 32],
    "blk.0.ffn_norm.weight": [32],
    "blk.0.ffn_gate.weight": [32, 48],
    "blk.0.ffn_up.weight": [32, 48],
    "blk.0.ffn_down.weight": [48, 32],
}


def gguf(metadata=None, tensors=None, *, magic=b"GGUF", version=3, counts=None, kind=0, offset=None, keep=1.0) -> bytes:
    """A GGUF file. `metadata` and `tensors` change the whole ones (None removes an entry); `counts` lie about
    how many there are; `kind` and `offset` lie about the first tensor; `keep` is the part that is written."""
    metadata = {k: v for k, v in {**METADATA, **(metadata or {})}.items() if v is not None}
    tensors = {k: v for k, v in {**TENSORS, **(tensors or {})}.items() if v is not None}
    entries = b"".join(gguf_string(key) + gguf_value(value) for key, value in metadata.items())
    infos, data = b"", b""
    for index, (name, dims) in enumerate(tensors.items()):
        size = 4
        for dim in dims:
            size *= dim
        at = offset if offset is not None and index == 0 else len(data)
        infos += gguf_string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        infos += struct.pack("<IQ", kind if index == 0 else 0, at)
        data += struct.pack("<f", 0.125) * (min(size, 1 << 20) // 4)
        data += b"\0" * (-len(data) % 32)
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(metadata)))) + entries + infos
    whole = head + b"\0" * (-len(head) % 32) + data
    return whole[: int(len(whole) * keep)]
