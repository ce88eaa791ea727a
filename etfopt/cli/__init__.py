"""The command line: it parses, calls and prints; what it calls lives elsewhere and is imported when needed."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TextIO

from etfopt.errors import EtfoptError, require_extra

require_extra("cli", "typer", "rich")

import typer
from rich.console import Console
from rich.text import Text

from etfopt.cli._app import app
from etfopt.cli.benchmarks import bench, bench_head, bench_node, compare
from etfopt.cli.demonstration import demo
from etfopt.cli.doctor import doctor
from etfopt.cli.solving import solve
from etfopt.cli.studies import report
from etfopt.cli.training import train
from etfopt.cli.verifying import verify

__all__ = ["main"]

PACKAGE = Path(__file__).parents[1]

for command in (solve, train, report, demo, compare, verify, doctor):  # in the order of --help
    app.command()(command)

# "bench" is a command and the name of two more
benches = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
benches.callback()(bench)
benches.command("node")(bench_node)
benches.command("head")(bench_head)
app.add_typer(benches, name="bench")


def main() -> None:
    """Run the command line; an error of etfopt's own is one message and exit status 2, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know a character of a table
    warnings.showwarning = _show_warning
    try:
        app()
    except EtfoptError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of etfopt's own as one line, without the line of code; those of others as Python does."""
    if Path(filename).is_relative_to(PACKAGE) and issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
        return
    text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)
