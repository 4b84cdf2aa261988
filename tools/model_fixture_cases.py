"""The cases of make_model_fixtures.py: for each, a tiny configuration and the options that must matter."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    name: str
    model_type: str
    config: dict
    options: list[dict] = field(default_factory=list)  # each, put over `config`, must change the logits
    model_class: str | None = None  # the transformers class, where AutoModelForCausalLM would take another
    architecture: str | None = None
    ignored_weights: tuple[str, ...] = ("lm_head.never",)  # prefixes of tensors that are neither saved nor used
    nested: bool = False  # text weights below `language_model.`
    block_sparse: bool = False  # Mixtral's names of experts
    fused_experts: bool = False  # published with one tensor for all experts
    rope_depends_on_length: bool = False  # cached keys keep the rotation of the length that they were made at


TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
NO_HEAD_DIM = {key: value for key, value in TINY.items() if key != "head_dim"}


def rope(theta: float = 10000.0, kind: str = "default", **options) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **options}}


LONGROPE = {
    "short_factor": [1.0, 1.1, 1.2, 1.4, 1.7, 2.0, 2.4, 3.0],
    "long_factor": [1.2, 1.5, 2.0, 2.6, 3.3, 4.1, 5.0, 6.0],
}

LLAMA = [
    Case("llama", "llama", TINY | rope(500.0), [rope(100.0), {"rms_norm_eps": 0.1}]),
    Case(
        "llama_rope_llama3", "llama",
        TINY | rope(100.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=32),
        [rope(100.0)]
        + [rope(100.0, "llama3", **({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                     "original_max_position_embeddings": 32} | {key: value}))
           for key, value in (("factor", 4.0), ("low_freq_factor", 0.5), ("high_freq_factor", 6.0),
                              ("original_max_position_embeddings", 16))],
    ),
    Case("llama_rope_linear", "llama", TINY | rope(100.0, "linear", factor=4.0), [rope(100.0)]),
    Case(
        "llama_rope_dynamic", "llama", TINY | rope(100.0, "dynamic", factor=4.0) | {"max_position_embeddings": 16},
        [rope(100.0), rope(100.0, "dynamic", factor=2.0)], rope_depends_on_length=True,
    ),
    Case(
        "llama_rope_yarn", "llama",
        TINY | rope(100.0, "yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=0.5),
        [rope(100.0),
         rope(100.0, "yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=8.0, beta_slow=0.5),
         rope(100.0, "yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=0.1),
         rope(100.0, "yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=0.5,
              attention_factor=1.0)],
    ),
    Case(
        "llama_rope_longrope", "llama",
        TINY | rope(100.0, "longrope", factor=4.0, original_max_position_embeddings=16, **LONGROPE),
        [rope(100.0),
         rope(100.0, "longrope", factor=4.0, original_max_position_embeddings=64, **LONGROPE),
         rope(100.0, "longrope", factor=4.0, original_max_position_embeddings=16, attention_factor=1.0, **LONGROPE)],
    ),
    Case("llama_bias", "llama", TINY | rope(100.0) | {"attention_bias": True, "mlp_bias": True},
         [{"attention_bias": False}, {"mlp_bias": False}]),
    Case("llama_tied", "llama", TINY | rope(100.0) | {"tie_word_embeddings": True}),
]

GEMMA3_TEXT = TINY | {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 8,
    "query_pre_attn_scalar": 24,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
    },
}
GEMMA3_OPTIONS = [
    {"sliding_window": 32},
    {"query_pre_attn_scalar": 16},
    {"layer_types": ["sliding_attention"] * 3},
    {"rope_parameters": GEMMA3_TEXT["rope_parameters"] | {"sliding_attention": {"rope_type": "default",
                                                                                "rope_theta": 1000.0}}},
    {"rope_parameters": GEMMA3_TEXT["rope_parameters"] | {"full_attention": {"rope_type": "default",
                                                                             "rope_theta": 1000.0}}},
]

QWEN3 = [
    Case("qwen3", "qwen3", TINY | rope(1000.0), [rope(100.0)]),
]

CASES = [
    *LLAMA,
    Case("gemma3_text", "gemma3_text", GEMMA3_TEXT, GEMMA3_OPTIONS),
    *QWEN3,
]
