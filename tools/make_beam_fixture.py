"""Writes tests/fixtures/beam_search.json: transformers' beam search in float32 on tiny models of tests/fixtures/models.

    python tools/make_beam_fixture.py
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

FIXTURES = Path(__file__).resolve().parent.parent / "tests/fixtures"
CASES = [  # model, beams, length penalty, early stopping, end token
    ("llama", 4, 1.0, False, None),
    ("llama", 3, 0.0, False, 37),
    ("llama", 5, 2.0, False, 37),
    ("llama", 4, 1.0, True, 71),
    ("gpt_oss", 4, 1.0, False, 3),
    ("gemma3_text", 2, 0.6, False, None),
]


def main() -> None:
    prompt = [1, 17, 30, 44, 5, 6, 71, 8, 9, 20]
    cases = []
    for name, beams, penalty, early, end in CASES:
        model = AutoModelForCausalLM.from_pretrained(FIXTURES / "models" / name, dtype=torch.float32)
        if end is None:
            model.generation_config.eos_token_id = None
        output = model.generate(
            torch.tensor([prompt]), num_beams=beams, num_return_sequences=beams, do_sample=False, max_new_tokens=12,
            length_penalty=penalty, early_stopping=early, eos_token_id=end, pad_token_id=0,
            return_dict_in_generate=True, output_scores=True)
        answers = []
        for row, score in zip(output.sequences, output.sequences_scores):
            tokens = row[len(prompt):].tolist()
            if end in tokens:
                tokens = tokens[: tokens.index(end) + 1]
            answers.append({"tokens": tokens, "score": round(score.item(), 6)})
        cases.append({"model": name, "beam_width": beams, "length_penalty": penalty, "early_stopping": early,
                      "end_token": end, "prompt": prompt, "max_tokens": 12, "answers": answers})
    (FIXTURES / "beam_search.json").write_text("[" + ",\n ".join(json.dumps(case) for case in cases) + "]\n")


if __name__ == "__main__":
    main()
