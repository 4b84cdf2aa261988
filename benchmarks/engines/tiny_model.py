"""A model that takes no time: a Llama of two layers with random weights, and a byte-level tokenizer."""

import json
import random
import shutil
import struct
from pathlib import Path

TOKENIZER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tokenizers" / "byte_level_llama3.tokenizer.json"
HIDDEN, HEADS, KV_HEADS, HEAD, MLP, LAYERS, VOCABULARY = 64, 4, 2, 16, 128, 2, 512


def write_tiny_model(folder: Path) -> Path:
    """The folder, in Hugging Face layout. Always the same weights, in float32."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + "input_layernorm.weight": (HIDDEN,), prefix + "post_attention_layernorm.weight": (HIDDEN,),
                   prefix + "self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN), prefix + "self_attn.k_proj.weight": (KV_HEADS * HEAD, HIDDEN),
                   prefix + "self_attn.v_proj.weight": (KV_HEADS * HEAD, HIDDEN), prefix + "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
                   prefix + "mlp.gate_proj.weight": (MLP, HIDDEN), prefix + "mlp.up_proj.weight": (MLP, HIDDEN),
                   prefix + "mlp.down_proj.weight": (HIDDEN, MLP)}
    chance, header, data = random.Random(1), {}, bytearray()
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers = [1 + chance.gauss(0, 0.1) if len(shape) == 1 else chance.gauss(0, 0.2) for _ in range(count)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *numbers)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": MLP,
         "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
         "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
         "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}))
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    return folder
