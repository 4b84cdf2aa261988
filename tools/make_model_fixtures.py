#!/usr/bin/env python3
"""Makes a tiny random model of each family with transformers, and what it must answer.

    make_model_fixtures.py [CASE ...] [--out tests/fixtures/models]

Each case becomes a folder with config.json, model.safetensors (float32, in the layout of published checkpoints) and
expected.safetensors:

    input_ids      [n]         int64    a random prompt
    logits         [n, vocab]  float32  of the whole prompt, in one pass
    greedy_ids     [8]         int64    [0] = argmax(logits[n - 1]); [i + 1] = argmax(decode_logits[i])
    decode_logits  [8, vocab]  float32  [i]: after greedy_ids[i] was fed alone at position n + i, with the cache

Every weight and every option named in a case must change the logits; the tool fails otherwise.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from model_fixture_cases import CASES, Case

PROMPT_LENGTH = 24
DECODE_STEPS = 8
EMBEDDING_STD = 0.7
MATRIX_STD = 0.25
SMALLEST_EFFECT = 1e-3  # of the logits' standard deviation
SMALLEST_MARGIN = 2e-2  # between the best and the second best logit, so that rounding cannot change greedy_ids
SEEDS = range(1, 200)


def build_model(case: Case, overrides: dict | None = None):
    options = copy.deepcopy(case.config) | copy.deepcopy(overrides or {})
    config = AutoConfig.for_model(case.model_type, **options)
    config._attn_implementation = "eager"
    model_class = getattr(transformers, case.model_class) if case.model_class else None
    if model_class:
        model = model_class._from_config(config, attn_implementation="eager", experts_implementation="eager")
    else:
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager")
    return model.float().eval()


def randomize(model, seed: int) -> None:
    """Random values for every tensor: norms around their neutral value, biases and sinks far from zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, std, mean=0.0):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if "embed" in name or "wte" in name or "wpe" in name:
                normal(tensor, EMBEDDING_STD)
            elif name.endswith("bias") or "e_score_correction" in name:
                normal(tensor, 0.3)
            elif "sinks" in name:
                normal(tensor, 1.0)
            elif tensor.dim() == 1:
                # A norm's weight is created neutral: 1, or 0 where the model adds 1 to it.
                normal(tensor, 0.3, mean=float(tensor.flatten()[0].round()))
            else:
                normal(tensor, MATRIX_STD)
    model.tie_weights()


def forget_lengths(model) -> None:
    """Rotary tables that grew with an earlier, longer call would stay grown."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.inv_freq.copy_(module.original_inv_freq)
            module.max_seq_len_cached = module.original_max_seq_len


@torch.no_grad()
def whole_pass(model, input_ids: torch.Tensor) -> torch.Tensor:
    forget_lengths(model)
    return model(input_ids=input_ids[None], use_cache=False).logits[0].float()


@torch.no_grad()
def greedy_steps(model, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    forget_lengths(model)
    out = model(input_ids=input_ids[None], use_cache=True)
    ids, rows, next_id = [], [], out.logits[0, -1].argmax()
    for _ in range(DECODE_STEPS):
        ids.append(int(next_id))
        out = model(input_ids=next_id.reshape(1, 1), past_key_values=out.past_key_values, use_cache=True)
        rows.append(out.logits[0, -1].float())
        next_id = rows[-1].argmax()
    return torch.tensor(ids), torch.stack(rows)


def relative_change(logits: torch.Tensor, other: torch.Tensor) -> float:
    return float((logits - other).abs().max() / logits.std())


def margin(logits: torch.Tensor) -> float:
    best = logits.topk(2, dim=-1).values
    return float((best[..., 0] - best[..., 1]).min())


def fail_if_small(case: Case, what: str, change: float) -> None:
    if change < SMALLEST_EFFECT:
        raise SystemExit(f"[{case.name}] {what} does not matter: the logits change by {change:.1e}")


def check_weights_matter(case: Case, model, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    """Negating any one tensor changes the logits."""
    for name, tensor in model.state_dict().items():
        if name.startswith(case.ignored_weights) or not tensor.is_floating_point():
            continue
        kept = tensor.clone()
        tensor.copy_(-kept)
        fail_if_small(case, name, relative_change(logits, whole_pass(model, input_ids)))
        tensor.copy_(kept)


def check_options_matter(case: Case, model, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    """Changing any one option of the case's list, with the same weights, changes the logits."""
    for overrides in case.options:
        other = build_model(case, overrides)
        other.load_state_dict(model.state_dict(), strict=False)
        change = relative_change(logits, whole_pass(other, input_ids))
        fail_if_small(case, str(overrides), change)


def published_layout(model, case: Case) -> dict[str, torch.Tensor]:
    """The checkpoint as published: save_pretrained splits what the memory holds fused and restores the names."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(case.ignored_in_file)}
    if not case.bare_names:
        return tensors
    context = model.config.n_positions
    mask = torch.tril(torch.ones(context, context)).reshape(1, 1, context, context)
    masks = {f"h.{layer}.attn.bias": mask.clone() for layer in range(model.config.n_layer)}
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | masks


def published_config(config: dict, case: Case) -> dict:
    """Where the case asks for it, the rotary settings as configurations before transformers 5 have them."""
    if not case.old_config:
        return config
    if "text_config" in config:
        return config | {"text_config": published_config(config["text_config"], case)}
    config = dict(config)
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config.pop("layer_types").index("full_attention") + 1
        config.pop("_sliding_window_pattern", None)
        rope = rope["full_attention"]
    rope = dict(rope)
    theta, factor = rope.pop("rope_theta"), rope.pop("partial_rotary_factor", None)
    if config["model_type"] == "gpt_neox":
        config |= {"rotary_emb_base": theta, "rotary_pct": factor}
    else:
        config["rope_theta"] = theta
        if factor is not None:
            config["partial_rotary_factor"] = factor
    kind = rope.pop("rope_type")
    if "original_max_position_embeddings" in config:
        rope.pop("original_max_position_embeddings", None)
    config["rope_scaling"] = None if kind == "default" else rope | {case.old_config: kind}
    return config


def check_reload(case: Case, folder: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    change = relative_change(logits, whole_pass(loaded.eval(), input_ids))
    if change > 1e-5:
        raise SystemExit(f"[{case.name}] the saved checkpoint gives other logits: they differ by {change:.1e}")


def find_seed(case: Case):
    """The first seed whose greedy choices are all clear."""
    model = build_model(case)
    vocab = model.config.get_text_config().vocab_size
    for seed in SEEDS:
        randomize(model, seed)
        input_ids = torch.randint(3, vocab, (PROMPT_LENGTH,), generator=torch.Generator().manual_seed(seed))
        logits = whole_pass(model, input_ids)
        greedy_ids, decode_logits = greedy_steps(model, input_ids)
        if min(margin(logits[-1]), margin(decode_logits)) > SMALLEST_MARGIN and len(set(greedy_ids.tolist())) > 3:
            return seed, model, input_ids, logits, greedy_ids, decode_logits
    raise SystemExit(f"[{case.name}] no seed gives clear greedy choices")


def make(case: Case, out: Path) -> None:
    seed, model, input_ids, logits, greedy_ids, decode_logits = find_seed(case)
    check_weights_matter(case, model, input_ids, logits)
    check_options_matter(case, model, input_ids, logits)

    whole = whole_pass(model, torch.cat([input_ids, greedy_ids]))
    drift = relative_change(decode_logits, whole[PROMPT_LENGTH:])
    if not case.rope_depends_on_length and drift > 1e-3:
        raise SystemExit(f"[{case.name}] decoding with the cache differs from the whole pass by {drift:.1e}")

    folder = out / case.name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(published_layout(model, case), folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [type(model).__name__]
    config["dtype"] = "float32"
    config = {key: value for key, value in published_config(config, case).items() if key not in case.left_out}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    expected = {"input_ids": input_ids, "logits": logits, "greedy_ids": greedy_ids, "decode_logits": decode_logits}
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")
    check_reload(case, folder, input_ids, logits)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{case.name}: seed {seed}, {len(load_file(folder / 'model.safetensors'))} tensors, {size / 1024:.0f} KiB, "
          f"logits std {logits.std():.2f}, whole pass against cache {drift:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="all, when none is named")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests/fixtures/models")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CASES)}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for case in CASES:
        if not arguments.cases or case.name in arguments.cases:
            make(case, arguments.out)


if __name__ == "__main__":
    main()
