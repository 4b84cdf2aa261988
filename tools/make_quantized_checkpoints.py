#!/usr/bin/env python3
"""Makes tests/fixtures/quantized: one tiny Llama in each form in which transformers stores quantized weights, and a GPT-OSS
with experts in MXFP4.

    pip install torch transformers safetensors compressed-tensors==0.20.0
    make_quantized_checkpoints.py [--out tests/fixtures/quantized]

Each folder has config.json, model.safetensors and expected.safetensors:

    input_ids  [n]         int64    a random prompt
    logits     [n, vocab]  float32  of transformers, in float32, with the weights that the quantized ones stand for
    q_proj     [out, in]   float32  what the first of them stands for; not of MXFP4

compressed-tensors' forms are made and read by that package, DeepSeek's fp8 and MXFP4 are read by transformers; AWQ and GPTQ are packed
and read here, from their definitions (AutoAWQ's WQLinear_GEMM, AutoGPTQ's QuantLinear).
"""

import argparse
import json
from pathlib import Path

import torch
from compressed_tensors.compressors import IntQuantizationCompressor, NaiveQuantizationCompressor, PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
FP8_MOST = 448.0


def grouped(weight: torch.Tensor, symmetric: bool, bits: int, group: int, dtype: torch.dtype):
    """Integers from 0 on [out, in], scales and zero points [out, groups]."""
    out, columns = weight.shape
    parts = weight.reshape(out, columns // group, group)
    most = 2**bits - 1
    if symmetric:
        scale = (parts.abs().amax(-1) / (2 ** (bits - 1) - 1)).to(dtype).float()
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
        scale = ((high - low) / most).to(dtype).float()
        zero = (-low / scale).round().clamp(0, most)
    codes = (parts / scale.unsqueeze(-1) + zero.unsqueeze(-1)).round().clamp(0, most)
    return codes.reshape(out, columns).int(), scale, zero.int()


def numbers(codes, scale, zero):
    out, columns = codes.shape
    parts = codes.reshape(out, scale.shape[1], -1)
    return ((parts - zero.unsqueeze(-1)) * scale.unsqueeze(-1)).reshape(out, columns)


def words(codes: torch.Tensor, bits: int, order=None) -> torch.Tensor:
    """Neighbours of the last dimension, 32 / bits in a word."""
    count = 32 // bits
    parts = codes.reshape(*codes.shape[:-1], -1, count).to(torch.int64)
    if order:
        parts = parts[..., order]
    word = sum(parts[..., i] << (bits * i) for i in range(count))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32).contiguous()


def awq(weight):
    codes, scale, zero = grouped(weight, False, 4, GROUP, torch.float16)
    tensors = {"qweight": words(codes.T, 4, AWQ_ORDER), "qzeros": words(zero.T, 4, AWQ_ORDER),
               "scales": scale.T.to(torch.float16).contiguous()}
    return tensors, numbers(codes, scale, zero)


def gptq(bits: int, symmetric: bool):
    def make(weight):
        codes, scale, zero = grouped(weight, symmetric, bits, GROUP, torch.float16)
        zero = zero.clamp(min=1)  # held less one
        codes = (weight.reshape(*scale.shape, -1) / scale.unsqueeze(-1) + zero.unsqueeze(-1)).round()
        codes = codes.clamp(0, 2**bits - 1).reshape(weight.shape).int()
        tensors = {"qweight": words(codes, bits).T.contiguous(), "qzeros": words(zero.T - 1, bits),
                   "scales": scale.T.to(torch.float16).contiguous(),
                   "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
                   "bias": torch.zeros(weight.shape[0], dtype=torch.float16)}  # as AutoGPTQ writes it, without need
        return tensors, numbers(codes, scale, zero)

    return make


def compressed(compressor, weights: dict, activations: dict | None):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights),
                                input_activations=QuantizationArgs(**activations) if activations else None)

    def make(weight):
        group = weights.get("group_size") or weight.shape[1]
        state = {"weight": weight}
        if weights["type"] == "float":
            state["weight_scale"] = (weight.abs().amax(1, keepdim=True) / FP8_MOST).to(torch.bfloat16)
        else:
            symmetric = weights["symmetric"]
            _, scale, zero = grouped(weight, symmetric, weights["num_bits"], group, torch.bfloat16)
            state["weight_scale"] = scale.to(torch.bfloat16)
            if not symmetric:
                state["weight_zero_point"] = (zero - 2 ** (weights["num_bits"] - 1)).to(torch.int8)
        tensors = compressor.compress(state, scheme)
        back = dict(tensors)
        back["weight_scale"] = back["weight_scale"].float()  # so that numbers are not rounded to bf16
        return tensors, compressor.decompress(back, scheme)["weight"]

    return make


def fp8_blocks(weight):
    rows, columns = weight.shape
    blocks = weight.reshape(rows // GROUP, GROUP, columns // GROUP, GROUP)
    scale = blocks.abs().amax((1, 3)) / FP8_MOST
    values = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    tensors = {"weight": values, "weight_scale_inv": scale}
    return tensors, Fp8Dequantize(None)._dequantize_one(values, scale, torch.float32)


def groups_config(form: str, weights: dict, activations: dict | None) -> dict:
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"], "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations}}}


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": True}
INT4_ZERO = INT4 | {"symmetric": False}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
TOKENS = {"strategy": "token", "dynamic": True, "symmetric": True, "num_bits": 8}
INT8_TOKENS, FP8_TOKENS = TOKENS | {"type": "int"}, TOKENS | {"type": "float"}

FORMS = {
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm",
                  "modules_to_not_convert": None}),
    "gptq": (gptq(4, False), {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False, "desc_act": False}),
    "gptq_8bit": (gptq(8, True), {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "sym": True, "desc_act": False}),
    "int4": (compressed(PackedQuantizationCompressor, INT4, None), groups_config("pack-quantized", INT4, None)),
    "int4_zero_points": (compressed(PackedQuantizationCompressor, INT4_ZERO, None),
                         groups_config("pack-quantized", INT4_ZERO, None)),
    "int8": (compressed(IntQuantizationCompressor, INT8, INT8_TOKENS), groups_config("int-quantized", INT8, INT8_TOKENS)),
    "float8": (compressed(NaiveQuantizationCompressor, FP8, FP8_TOKENS), groups_config("float-quantized", FP8, FP8_TOKENS)),
    "fp8_blocks": (fp8_blocks, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                "weight_block_size": [GROUP, GROUP]}),
}


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return model


@torch.no_grad()
def make_folder(folder: Path, make, quantization: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model()
    stored = {}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        tensors, dense = make(module.weight.data.clone())
        stored |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}
        module.weight.copy_(dense)
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in {key.rpartition(".")[0] for key in stored}:
            stored[name] = tensor.to(torch.bfloat16)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=False))
    kept = ["architectures", "dtype", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings",
            "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
            "rope_parameters", "tie_word_embeddings", "vocab_size"]
    config = {key: config[key] for key in kept} | {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}, indent=2) + "\n")
    ids = torch.randint(0, 96, (12,), generator=torch.Generator().manual_seed(5))
    expected = {"input_ids": ids, "logits": model(ids.unsqueeze(0)).logits[0].contiguous(),
                "q_proj": model.model.layers[0].self_attn.q_proj.weight.data.contiguous()}
    save_file(expected, folder / "expected.safetensors")
    print(folder.name, sorted(part for part in stored if "q_proj" in part))


def mxfp4(weight: torch.Tensor):
    """Of [experts, in, out]: blocks [experts, out, in / 32, 16] and scales [experts, out, in / 32], and what they stand for."""
    experts, columns, rows = weight.shape
    parts = weight.transpose(1, 2).reshape(experts, rows, columns // GROUP, GROUP)
    exponent = torch.floor(torch.log2(parts.abs().amax(-1))) - 2  # the largest value is 6
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    scaled = parts / torch.exp2(exponent).unsqueeze(-1)
    codes = (scaled.abs().unsqueeze(-1) - magnitudes).abs().argmin(-1) + 8 * (scaled < 0)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    scales = (exponent + 127).to(torch.uint8)
    return blocks, scales, convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)


@torch.no_grad()
def make_mxfp4(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(13)
    config = GptOssConfig(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                          num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
                          max_position_embeddings=64, initializer_range=0.2, pad_token_id=0, eos_token_id=2,
                          rope_parameters={"rope_type": "default", "rope_theta": 100.0}, attn_implementation="eager")
    model = GptOssForCausalLM(config).eval()
    stored = {}
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = parameter.data.to(torch.bfloat16)
            continue
        stored[f"{name}_blocks"], stored[f"{name}_scales"], dense = mxfp4(parameter.data)
        parameter.copy_(dense)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    text = json.loads(model.config.to_json_string(use_diff=False))
    kept = ["attention_bias", "eos_token_id", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "layer_types",
            "max_position_embeddings", "model_type", "num_attention_heads", "num_experts_per_tok", "num_hidden_layers",
            "num_key_value_heads", "num_local_experts", "rms_norm_eps", "rope_parameters", "sliding_window",
            "tie_word_embeddings", "vocab_size"]
    text = {key: text[key] for key in kept} | {"architectures": ["GptOssForCausalLM"], "dtype": "bfloat16"}
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                                       "model.embed_tokens", "lm_head"]}
    (folder / "config.json").write_text(json.dumps(text | {"quantization_config": quantization}, indent=2) + "\n")
    ids = torch.randint(0, 96, (12,), generator=torch.Generator().manual_seed(5))
    save_file({"input_ids": ids, "logits": model(ids.unsqueeze(0)).logits[0].contiguous()}, folder / "expected.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests/fixtures/quantized")
    arguments = parser.parse_args()
    for name, (make, quantization) in FORMS.items():
        make_folder(arguments.out / name, make, quantization)
    make_mxfp4(arguments.out / "mxfp4")


if __name__ == "__main__":
    main()
