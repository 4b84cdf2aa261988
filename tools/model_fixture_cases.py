"""The cases of make_model_fixtures.py: for each, a tiny configuration and the options that must matter."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    name: str
    model_type: str
    config: dict
    options: list[dict] = field(default_factory=list)  # each, put over `config`, must change the logits
    model_class: str | None = None  # the transformers class, where AutoModelForCausalLM would take another
    ignored_weights: tuple[str, ...] = ("none",)  # prefixes of tensors that the logits do not need
    ignored_in_file: tuple[str, ...] = ("none",)  # and of their names in the file: those are not saved
    old_config: str | None = None  # config.json as before transformers 5, with this key for the kind of rotary scaling
    bare_names: bool = False  # GPT-2's names without `transformer.`, with the mask buffers that old checkpoints hold
    left_out: tuple[str, ...] = ()  # fields that config.json does not name, so that the family's rule gives them
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
        old_config="rope_type",
    ),
    Case("llama_rope_linear", "llama", TINY | rope(100.0, "linear", factor=4.0), [rope(100.0)], old_config="type"),
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

WIDE = NO_HEAD_DIM | {
    "hidden_size": 48, "intermediate_size": 32, "num_attention_heads": 3, "num_key_value_heads": 1,
}
WINDOW = {"sliding_window": 8}
NO_WINDOW = {"sliding_window": 32}

GEMMA = [
    Case("gemma", "gemma", TINY | rope(100.0) | {"tie_word_embeddings": True}, [rope(1000.0)]),
    Case(
        "gemma2", "gemma2",
        TINY | rope(100.0) | WINDOW | {"tie_word_embeddings": True, "query_pre_attn_scalar": 24,
                                       "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        [NO_WINDOW, {"query_pre_attn_scalar": 16}, {"attn_logit_softcapping": 50.0}, {"final_logit_softcapping": 30.0},
         {"layer_types": ["full_attention", "sliding_attention"]}],
    ),
    Case("gemma3_text", "gemma3_text", GEMMA3_TEXT, GEMMA3_OPTIONS),
    Case(
        "gemma3", "gemma3",
        {"text_config": GEMMA3_TEXT, "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "image_size": 8, "patch_size": 4},
         "mm_tokens_per_image": 4, "image_token_index": 95, "boi_token_index": 93, "eoi_token_index": 94,
         "tie_word_embeddings": True},
        model_class="Gemma3ForConditionalGeneration",
        old_config="rope_type",
        ignored_weights=("model.vision_tower", "model.multi_modal_projector"),
        ignored_in_file=("vision_tower", "multi_modal_projector"),
    ),
]

DENSE = [
    Case("mistral", "mistral", TINY | rope(100.0) | WINDOW, [NO_WINDOW]),
    Case(
        "qwen2", "qwen2",
        NO_HEAD_DIM | rope(100.0) | WINDOW
        | {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
           "use_sliding_window": True, "max_window_layers": 1},
        [NO_WINDOW, {"use_sliding_window": False}, {"max_window_layers": 2}, {"max_window_layers": 0}],
    ),
    Case("qwen3", "qwen3", TINY | rope(1000.0), [rope(100.0)]),
    Case("phi3", "phi3", WIDE | rope(100.0) | WINDOW, [NO_WINDOW]),
    *(
        Case(
            f"phi3_longrope{suffix}", "phi3",
            WIDE | rope(100.0, "longrope", partial_rotary_factor=0.75, short_factor=LONGROPE["short_factor"][:6],
                        long_factor=LONGROPE["long_factor"][:6])
            | {"original_max_position_embeddings": original, "max_position_embeddings": 4 * original},
            [rope(100.0, "longrope", partial_rotary_factor=0.75, short_factor=LONGROPE["short_factor"][1:7],
                  long_factor=LONGROPE["long_factor"][:6])] if suffix else
            [rope(100.0, "longrope", partial_rotary_factor=0.75, short_factor=LONGROPE["short_factor"][:6],
                  long_factor=LONGROPE["long_factor"][1:7]),
             {"max_position_embeddings": 2 * original}],
            old_config="type",
        )
        for suffix, original in (("", 16), ("_short", 64))
    ),
    *(
        Case(
            name, "gpt2",
            {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 1,
             "eos_token_id": 2},
            [{"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}], bare_names=name == "gpt2",
        )
        for name in ("gpt2", "gpt2_prefixed")
    ),
    *(
        Case(
            name, "gpt_neox",
            {key: NO_HEAD_DIM[key] for key in NO_HEAD_DIM if key != "num_key_value_heads"}
            | rope(100.0, partial_rotary_factor=0.25) | {"num_attention_heads": 2, "use_parallel_residual": parallel},
            [{"use_parallel_residual": not parallel}, rope(1000.0, partial_rotary_factor=0.25),
             rope(100.0, partial_rotary_factor=0.5)],
            old_config="type",
        )
        for name, parallel in (("gpt_neox", True), ("gpt_neox_sequential", False))
    ),
    Case("olmo2", "olmo2", NO_HEAD_DIM | rope(100.0), [rope(1000.0)]),
    Case(
        "granite", "granite",
        NO_HEAD_DIM | rope(100.0) | {"num_attention_heads": 2, "num_key_value_heads": 1, "embedding_multiplier": 3.0,
                                     "logits_scaling": 0.5, "residual_multiplier": 0.6, "attention_multiplier": 0.15},
        [{key: 1.0}
         for key in ("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier")],
    ),
    Case(
        "seed_oss", "seed_oss", TINY | rope(100.0) | {"attention_out_bias": True},
        [{"attention_bias": False}, {"attention_out_bias": False}],
    ),
    Case(
        "smollm3", "smollm3",
        NO_HEAD_DIM | rope(100.0) | {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
                                     "no_rope_layer_interval": 2, "tie_word_embeddings": True},
        [{"no_rope_layer_interval": 4}, {"no_rope_layers": [0, 1, 1]}],
    ),
    Case(
        "smollm3_window", "smollm3",
        NO_HEAD_DIM | rope(100.0) | WINDOW | {
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "use_sliding_window": True,
            "no_rope_layer_interval": 2, "tie_word_embeddings": True},
        [NO_WINDOW, {"layer_types": ["sliding_attention"] * 3}, {"use_sliding_window": False}],
        left_out=("layer_types", "no_rope_layers"),
    ),
    Case(
        "gpt2_untied", "gpt2",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 1,
         "eos_token_id": 2, "scale_attn_weights": False, "tie_word_embeddings": False},
        [{"scale_attn_weights": True}], left_out=("n_inner", "activation_function"),
    ),
    Case(
        "starcoder2", "starcoder2",
        NO_HEAD_DIM | rope(100.0) | WINDOW | {"num_attention_heads": 2, "num_key_value_heads": 1, "use_bias": True},
        [NO_WINDOW, {"norm_epsilon": 0.1}],
    ),
]

GPT_OSS_ROPE = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 4.0,
    "beta_slow": 0.5, "truncate": False,
}

MOE = [
    Case(
        "mixtral", "mixtral",
        TINY | rope(100.0) | {"intermediate_size": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
        [{"num_experts_per_tok": 1}], old_config="rope_type",
    ),
    Case(
        "qwen2_moe", "qwen2_moe",
        NO_HEAD_DIM | rope(100.0) | {
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24,
            "norm_topk_prob": False, "mlp_only_layers": [1], "decoder_sparse_step": 1},
        [{"norm_topk_prob": True}, {"num_experts_per_tok": 3}],
    ),
    Case(
        "qwen3_moe", "qwen3_moe",
        TINY | rope(100.0) | {
            "num_hidden_layers": 3, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "intermediate_size": 24, "norm_topk_prob": True, "mlp_only_layers": [0], "decoder_sparse_step": 1},
        [{"norm_topk_prob": False}, {"num_experts_per_tok": 3}],
    ),
    Case(
        "qwen2_moe_window", "qwen2_moe",
        NO_HEAD_DIM | rope(100.0) | WINDOW | {
            "num_hidden_layers": 5, "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [0, 1, 2, 3], "use_sliding_window": True, "max_window_layers": 3, "qkv_bias": False},
        [NO_WINDOW, {"max_window_layers": 5}, {"layer_types": ["sliding_attention"] * 3 + ["full_attention"] * 2}],
        left_out=("layer_types",),
    ),
    Case(
        "qwen3_moe_window", "qwen3_moe",
        TINY | rope(100.0) | WINDOW | {
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0],
            "use_sliding_window": True},
        [NO_WINDOW, {"use_sliding_window": False}],
    ),
    Case(
        "gpt_oss", "gpt_oss",
        TINY | WINDOW | {
            "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "swiglu_limit": 0.8,
            "rope_parameters": GPT_OSS_ROPE},
        [NO_WINDOW, {"swiglu_limit": 7.0}, {"num_experts_per_tok": 1},
         {"rope_parameters": GPT_OSS_ROPE | {"truncate": True}},
         {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
         {"layer_types": ["full_attention", "sliding_attention"]}],
        old_config="rope_type",
    ),
]

MLA = {key: NO_HEAD_DIM[key] for key in NO_HEAD_DIM if key != "num_key_value_heads"} | {
    "num_key_value_heads": 2, "num_attention_heads": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8, "v_head_dim": 10, "moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
}
DEEPSEEK_YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 4.0,
    "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5,
}
YARN_OPTIONS = [
    {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    {"rope_parameters": DEEPSEEK_YARN | {"mscale": 0.5}},
    {"rope_parameters": DEEPSEEK_YARN | {"mscale_all_dim": 1.0}},
]

DEEPSEEK = [
    Case(
        "deepseek_v2", "deepseek_v2",
        MLA | {"q_lora_rank": 24, "topk_method": "group_limited_greedy", "scoring_func": "softmax", "n_group": 4,
               "topk_group": 2, "n_shared_experts": 2, "routed_scaling_factor": 1.5, "norm_topk_prob": False,
               "rope_parameters": DEEPSEEK_YARN},
        [*YARN_OPTIONS, {"topk_method": "greedy"}, {"topk_group": 3}, {"routed_scaling_factor": 1.0},
         {"num_experts_per_tok": 2}],
    ),
    Case(
        "deepseek_v2_lite", "deepseek_v2",
        MLA | {"q_lora_rank": None, "topk_method": "greedy", "scoring_func": "softmax", "n_group": 1, "topk_group": 1,
               "n_shared_experts": 2, "routed_scaling_factor": 1.0, "norm_topk_prob": False,
               "rope_parameters": DEEPSEEK_YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}},
        [YARN_OPTIONS[0], {"num_experts_per_tok": 2}],
    ),
    Case(
        "deepseek_v3", "deepseek_v3",
        MLA | {"q_lora_rank": 24, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "n_group": 4, "topk_group": 2,
               "n_shared_experts": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": True,
               "num_nextn_predict_layers": 0, "rope_parameters": DEEPSEEK_YARN},
        [*YARN_OPTIONS, {"topk_group": 3}, {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False},
         {"rope_interleave": False}],
        old_config="type",
    ),
]

CASES = [*LLAMA, *GEMMA, *DENSE, *MOE, *DEEPSEEK]
