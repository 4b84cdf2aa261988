"""What the commands of the comparisons have in common: records that are printed as tables, also into a page."""

import argparse
from collections.abc import Callable
from pathlib import Path

from engines.measure import BenchmarkError
from engines.table import read, replace_table


def run_command(name: str, parser: argparse.ArgumentParser, commands, run: argparse.ArgumentParser,
                markdown: Callable[[dict], str]) -> None:
    """Adds `table`, parses the command line and calls what it says; `run` returns its record."""
    table = commands.add_parser("table", help="print the table of a record")
    table.add_argument("file", type=Path)
    table.set_defaults(call=lambda arguments: read(arguments.file))
    for command in (run, table):
        command.add_argument("--update", type=Path, metavar="PAGE", help="also put the table into docs/performance.md")
    arguments = parser.parse_args()
    try:
        record = arguments.call(arguments)
        if record is not None:
            print(markdown(record))
            if arguments.update:
                replace_table(arguments.update, name, markdown(record))
    except BenchmarkError as error:
        raise SystemExit(f"[{name}] {error}") from error
