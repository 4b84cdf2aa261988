"""The part that the workers share: one process that loads a model in a Python library and answers a task.

    worker.py MODEL PRECISION < task.json

Prints one line of JSON: for each prompt when it was given, when its first and its last token came (time.monotonic(),
which all processes of a machine share), and how many came.
"""

import json
import os
import sys
import time

# The task comes on standard input, before the libraries are imported: they may print to standard output.
TASK = json.load(sys.stdin)
MODEL, PRECISION = sys.argv[1:3]
THREADS = os.cpu_count()
_stdout = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(generate, version: str) -> None:
    """`generate(ids, count, on_token)` calls on_token() for each of `count` tokens as it comes."""
    requests = []
    for prompt in TASK["prompts"]:
        times = []
        start = time.monotonic()
        generate(prompt, TASK["new_tokens"], lambda: times.append(time.monotonic()))
        requests.append({"start": start, "first": times[0], "last": times[-1], "tokens": len(times)})
    print(json.dumps({"version": version, "requests": requests}), file=_stdout, flush=True)


def answer_all(generate, version: str) -> None:
    """`generate(prompts, count)` answers all at once and tells how many tokens came; the first prompt warms it up."""
    generate(TASK["prompts"][:1], 2)
    start = time.monotonic()
    tokens = generate(TASK["prompts"], TASK["new_tokens"])
    print(json.dumps({"version": version, "seconds": time.monotonic() - start, "tokens": tokens}), file=_stdout, flush=True)
