#!/usr/bin/env python3
"""Makes tests/fixtures/reference/all-minilm-l6-v2.json: texts, their tokens and their sentence embeddings.

    make_embedding_fixtures.py FOLDER        FOLDER: what tools/fetch_models.py minilm prints

The vectors are those of sentence-transformers for this model: transformers' BertModel in float32, the mean of the token
vectors of each text, scaled to length one; texts are cut to 256 tokens.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "The capital of France is Paris.",
    "What is a TPU?",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
    "x",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "A long text. " * 120,
]
MOST_TOKENS = 256


def main(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    items = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=MOST_TOKENS)["input_ids"]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
        items.append({"text": text, "token_ids": ids, "embedding": [round(float(x), 6) for x in vector]})
    target = Path(__file__).resolve().parent.parent / "tests/fixtures/reference/all-minilm-l6-v2.json"
    target.write_text(json.dumps({"items": items}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
