"""The Markdown table of a record: medians, and the ratio of TTPU's median to each peer's."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

from engines.measure import BenchmarkError

OURS = "ttpu"
PRECISIONS = {"bf16": "16 bits (bf16; OpenVINO's file is f16)", "q8_0": "8 bits (GGUF Q8_0)", "q4_1": "4 bits (GGUF Q4_1, embedding Q8_0)"}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def replace_table(page: Path, name: str, table: str) -> None:
    """Puts the table between the two marks of that name of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise BenchmarkError(f"{page} has not one `{begin}` and one `{end}` for the table to stand between")
    page.write_text(text[:text.index(begin) + len(begin)] + f"\n{table}\n" + text[text.index(end):])


# The figures: title, task, value of one run, whether more is better, how it is written.
Figure = tuple[str, str, Callable[[dict], float], bool, str]
FIGURES: list[Figure] = [
    ("decode, tokens/s", "answer", lambda run: run["decode_tokens_per_second"][-1], True, ".1f"),
    ("prefill, tokens/s", "prefill", lambda run: run["prompt_tokens"] / run["prefill_seconds"][-1], True, ".0f"),
    ("start to first token, s", "answer", lambda run: run["first_token_seconds"], False, ".2f"),
    ("peak memory / weights", "answer", lambda run: run["peak_rss_bytes"] / run["weight_bytes"], False, ".2f"),
]


def values(record: dict, engine: str, precision: str, figure: Figure) -> tuple[list[float], bool]:
    """The figure's values in the quiet runs, or in all if none was quiet; and whether they were quiet."""
    runs = [run for run in record["runs"]
            if run["engine"] == engine and run["precision"] == precision and run["task"] == figure[1]]
    quiet = [run for run in runs if run["quiet"]]
    return [figure[2](run) for run in quiet or runs], bool(quiet)


def cell(record: dict, engine: str, precision: str, figure: Figure) -> str:
    found, quiet = values(record, engine, precision, figure)
    if not found:
        return "-"
    text = f"{median(found):{figure[4]}}"
    ours, _ = values(record, OURS, precision, figure)
    if engine != OURS and ours:
        ratio = median(ours) / median(found)
        text += f" ({ratio if figure[3] else 1 / ratio:.2f})"
    return text + ("" if quiet else " *")


def ceiling(record: dict, precision: str) -> str:
    """What reading the weights once for each token allows."""
    ours = [run for run in record["runs"] if run["precision"] == precision and run["engine"] == OURS]
    if not ours or not record["memory_bytes_per_second"]:
        return ""
    weights, speed = ours[0]["weight_bytes"], median(record["memory_bytes_per_second"])
    limit = speed / weights
    text = (f"{weights / 1e6:.0f} MB of weights, read once a token at the {speed / 1e9:.1f} GB/s that this machine read "
            f"meanwhile: {limit:.0f} tokens/s at most.")
    found, _ = values(record, OURS, precision, FIGURES[0])
    return text + (f" TTPU reaches {median(found) / limit:.0%} of it." if found else "")


def markdown(record: dict) -> str:
    machine = record["machine"]
    lines = [f"{record['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GB."]
    versions = [text for name, text in record["versions"].items() if name in record["titles"]]
    lines += ["", f"Versions: {'; '.join(versions)}."]
    for precision, title in PRECISIONS.items():
        engines = [name for name in record["titles"]
                   if any(run["engine"] == name and run["precision"] == precision for run in record["runs"])]
        if not engines:
            continue
        lines += ["", f"**{title}**", "", f"| | {' | '.join(figure[0] for figure in FIGURES)} | runs |",
                  "| --- |" + " --: |" * (len(FIGURES) + 1)]
        for name in engines:
            runs = max(len(values(record, name, precision, figure)[0]) for figure in FIGURES)
            cells = " | ".join(cell(record, name, precision, figure) for figure in FIGURES)
            lines.append(f"| {record['titles'][name]} | {cells} | {runs} |")
        if text := ceiling(record, precision):
            lines += ["", text]
    lines += ["", "In brackets: how many times better TTPU is (under 1: worse)."]
    busy = [run for run in record["runs"] if not run["quiet"]]
    if busy:
        most = max(run["others_cores"] + run["stolen_cores"] for run in busy)
        lines += ["", f"\\* **Taken on a busy machine** ({len(busy)} of {len(record['runs'])} runs, others using up to "
                      f"{most:.1f} cores): not a result."]
    for name, reason in record["left_out"].items():
        lines += ["", f"Not measured: {record['titles'][name]}: {reason.splitlines()[0]}"]
    return "\n".join(lines)
