"""Lowers a kernel for a TPU that need not be here: `lower.py KEY NAME OUT`.

KEY is JSON (see kernels.py); OUT gets functions of StableHLO, the first of which is called NAME, with the operands and
results of the operator. A kernel that does not do what is asked leaves a line on standard error and exit code 3.
"""

import json
import os
import re
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

import kernels  # noqa: E402


def as_functions(text, name):
    """The functions of a module's text, private and with names that begin with `name`."""
    body = text[text.index("{\n", text.index("module @")) + 2 : text.rindex("}")]
    names = re.findall(r"func\.func (?:public |private )?@([\w.]+)\(", body)
    for known in names:
        new = name if known == "main" else f"{name}.{known}"
        body = re.sub(rf"@{re.escape(known)}\(", f'@"{new}"(', body)
    body = body.replace("func.func public ", "func.func private ")
    # The compiler calls an operator by its location; those of the whole program are left out.
    body = re.sub(r'(?m)^(.*\bkernel_name = "([^"]*)".*)$', r'\1 loc("\2")', body)
    # The caller's own arguments say what is given away.
    body = re.sub(r" \{(?:tf\.aliasing_output|jax\.buffer_donor|jax\.result_info) = [^{}]*\}", "", body)
    return body


def lower(key, name):
    function, arguments = kernels.build(key)
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",))
    return as_functions(lowered.as_text(), name)


def main():
    key, name, out = sys.argv[1:]
    try:
        text = lower(json.loads(key), name)
    except kernels.Refused as error:
        print(error, file=sys.stderr)
        return 3
    part = f"{out}.{os.getpid()}"
    with open(part, "w") as file:
        file.write(text)
    os.replace(part, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
