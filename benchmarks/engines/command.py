"""What the commands of the comparisons have in common: records that are printed as tables, also into a page."""

import argparse
from collections.abc import Callable
from pathlib import Path

from engines.measure import BenchmarkError
from engines.table import read, replace_table

ROOT = Path(__file__).resolve().parent.parent.parent


def command_line(doc: str | None):
    """The parser, and its commands; each file adds its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ttpu", type=Path, default=ROOT / "build" / "ttpu", help="the command (default: build/ttpu)")
    return parser, parser.add_subparsers(dest="command", required=True)


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
