#!/usr/bin/env python3
"""A chat with a model; the answer is printed as it comes.

  python examples/chat.py [MODEL]

MODEL is a folder in Hugging Face layout, a .gguf file, or a hub id. Control-C ends an answer,
control-D the chat.
"""

import pathlib
import sys

from ttpu import AutoModelForTPU, Error

DEFAULT = pathlib.Path.home() / ".cache/ttpu/models/smollm2-135m-instruct-q4_1.gguf"


def main() -> None:
    model = AutoModelForTPU.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return
        messages.append({"role": "user", "content": question})
        answer = ""
        with model.generate(messages, max_tokens=512, stream=True) as stream:
            try:
                for piece in stream:
                    print(piece, end="", flush=True)
                    answer += piece
            except KeyboardInterrupt:
                pass
        print()
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        sys.exit(f"{error.code}: {error}")
