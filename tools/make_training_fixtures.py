"""Writes tests/fixtures/training.json: for the tiny models of tests/fixtures/models the loss, the gradients and some steps of
torch's AdamW, in float32.

    python tools/make_training_fixtures.py

Of each tensor: the length of its gradient, and its product with the tensor itself.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

FIXTURES = Path(__file__).resolve().parent.parent / "tests/fixtures"
SEQUENCES, LENGTH, STEPS = 4, 12, 3
RATE, DECAY, MAX_NORM = 0.01, 0.1, 1.0


def batch(vocab: int, padding: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and what should follow each of them; some are not counted. Without the padding token, whose row of the
    embedding torch gives no gradient."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, vocab, (SEQUENCES, LENGTH + 1), generator=generator)
    if padding is not None:
        ids[ids == padding] = (padding + 1) % vocab
    targets = ids[:, 1:].clone()
    targets[1, :5] = -100
    targets[3, -1] = -100
    return ids[:, :-1], targets


def loss_of(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def case(folder: Path) -> dict:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    config = model.config.get_text_config()
    ids, targets = batch(config.vocab_size, getattr(config, "pad_token_id", None))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
                                  lr=RATE)
    result = {"model": folder.name, "input_ids": ids.tolist(), "labels": targets.tolist(), "steps": [], "gradients": {}}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, ids, targets)
        loss.backward()
        if step == 0:
            result["gradients"] = {
                name: [parameter.grad.norm().item(), (parameter.grad * parameter.detach()).sum().item()]
                for name, parameter in model.named_parameters() if parameter.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        result["steps"].append([loss.item(), norm.item()])
        optimizer.step()
    return result


def main() -> None:
    cases = []
    for folder in sorted((FIXTURES / "models").iterdir()):
        if not (folder / "config.json").exists() or folder.name == "gemma3":  # gemma3_text with images
            continue
        cases.append(case(folder))
        print(folder.name, cases[-1]["steps"])
    settings = {"learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": MAX_NORM}
    text = ",\n".join(json.dumps(one) for one in cases)
    (FIXTURES / "training.json").write_text(f'{{"settings": {json.dumps(settings)}, "cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
