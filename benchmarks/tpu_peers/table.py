"""Who won, and the Markdown table of a record of tpu_programs.py."""

TENTH = 0.9  # less of a difference is none
LIMITS = ("compute_ms", "hbm_ms", "ici_ms")
FIGURES = ("estimate_ms", *LIMITS, "hbm_gb", "exposed_ms", "peak_gib")


def line(few: float, many: float, layers: tuple[int, int], whole: int) -> float:
    """A figure of `whole` layers, on the line through those of two numbers of layers."""
    return few + (many - few) * (whole - layers[0]) / (layers[1] - layers[0])


def with_limit(figures: dict) -> dict:
    """And the largest limit: of few layers it may be another one than of all."""
    binding = max(LIMITS, key=lambda name: figures[name])
    layer = figures["layer"]
    return figures | {"limit_ms": figures[binding], "layer": layer | {"limit_ms": layer[binding]} if layer else {}}


def whole_model(runs: dict[str, dict], whole: int) -> dict:
    """The figures of the whole model, and of one more layer: `runs` has two numbers of layers, or the whole model's alone."""
    few, many = min(runs, key=int), max(runs, key=int)
    if few == many:
        return with_limit({name: runs[many][name] for name in FIGURES} | {"layer": {}, "compile_seconds": runs[many]["compile_seconds"]})
    layers = int(few), int(many)
    figures = {name: line(runs[few][name], runs[many][name], layers, whole) for name in FIGURES}
    slopes = {name: (runs[many][name] - runs[few][name]) / (layers[1] - layers[0]) for name in FIGURES}
    return with_limit(figures | {"layer": slopes, "compile_seconds": runs[many]["compile_seconds"]})


def clearly_lower(one: dict, other: dict, figure: str) -> bool:
    """By a tenth, and by no less than a hundredth of the whole step where it is the time of a part."""
    least = other["estimate_ms"] / 100 if figure == "exposed_ms" else 0
    return one[figure] <= TENTH * other[figure] and other[figure] - one[figure] > least


def better(one: dict, other: dict) -> bool:
    """Both numbers of the pair are no higher and one is clearly lower; or bytes or exposed collectives are clearly lower."""
    pair = "estimate_ms", "limit_ms"
    if all(one[name] <= other[name] for name in pair) and any(clearly_lower(one, other, name) for name in pair):
        return True
    return any(clearly_lower(one, other, name) for name in ("hbm_gb", "exposed_ms"))


def verdict(ours: dict, theirs: dict) -> str:
    """won | lost | level, for ours; split where one figure says this and another that."""
    wins, losses = better(ours, theirs), better(theirs, ours)
    if wins != losses:
        return "won" if wins else "lost"
    apart = any(clearly_lower(a, b, name) for a, b in ((ours, theirs), (theirs, ours)) for name in ("estimate_ms", "limit_ms"))
    return "split" if wins or apart else "level"


def cell(figures: dict, name: str) -> str:
    """A time, and in brackets what a layer adds to it."""
    layer = figures["layer"].get(name)
    return f"{figures[name]:.2f}" + (f" ({layer:.3f})" if layer is not None else "")


def row(result: dict, record: dict, ours: dict | None) -> str:
    figures = whole_model(result["runs"], record["whole"])
    said = "" if ours is None or result["who"].startswith("ttpu") else verdict(ours, figures)
    cells = [result["topology"], result["program"], record["titles"][result["who"]], cell(figures, "estimate_ms"),
             cell(figures, "limit_ms"), f"{figures['estimate_ms'] / figures['limit_ms']:.2f}", f"{figures['hbm_gb']:.2f}",
             f"{figures['exposed_ms']:.2f}", f"{figures['peak_gib']:.2f}", f"{figures['compile_seconds']:.0f}", said]
    return f"| {' | '.join(cells)} |"


def compiled(program: str, layers: list[int], whole: int) -> str:
    """How the figures of a program were come by."""
    if len(layers) == 1:
        return f"{program}: all {whole} layers compiled" if layers[0] == whole else f"{program}: {layers[0]} layers"
    return (f"{program}: {layers[0]} and {layers[1]} layers compiled (seconds: of {layers[1]}), and every figure goes on to {whole} as a straight "
            "line, for all alike; in brackets a layer")


def markdown(record: dict) -> str:
    layers = record["layers"]
    how = "; ".join(compiled(program, numbers, record["whole"]) for program, numbers in layers.items())
    head = ["topology", "program", "who", "estimate, ms", "limit, ms", "ratio", "HBM, GB", "exposed collectives, ms", "peak, GiB",
            "compiled in, s", "TTPU"]
    lines = [f"{record['date']}, libtpu {record['libtpu']}, jax {record['jax']}: {record['model']}; {how}.", "",
             f"| {' | '.join(head)} |", "| --- | --- | --- |" + " --: |" * (len(head) - 4) + " --- |"]
    complete = [one for one in record["results"] if len(one["runs"]) == len(layers[one["program"]])]
    for place in sorted({(one["topology"], one["program"]) for one in complete}):
        rows = [one for one in complete if (one["topology"], one["program"]) == place]
        ours = next((whole_model(one["runs"], record["whole"]) for one in rows if one["who"] == "ttpu"), None)
        lines += [row(one, record, ours) for who in record["titles"] for one in rows if one["who"] == who]
    lines += [f"\n{record['titles'][one['who']]}, {one['program']} on {one['topology']}, without its kernel: {why}"
              for one in complete for why in one["runs"][str(layers[one["program"]][-1])].get("without_kernel", [])]
    lines += [f"\nNot measured: {record['titles'].get(one['who'], one['who'])}, {one['program']} on {one['topology']}: {one['why']}"
              for one in record["left_out"]]
    return "\n".join(lines)
