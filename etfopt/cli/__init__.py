"""The command line: it parses, calls and prints; what it calls lives elsewhere and is imported when needed."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

from etfopt.errors import EtfoptError, InputError, MissingExtraError, require_extra

require_extra("cli", "typer", "rich")

from rich.console import Console
from rich.text import Text

from etfopt.cli._app import app
from etfopt.cli._logging import App
from etfopt.cli.bench_heads import bench_head, bench_loops
from etfopt.cli.bench_measures import bench_measures
from etfopt.cli.bench_peers import bench_peers
from etfopt.cli.benchmarks import bench, bench_node, compare
from etfopt.cli.doctor import doctor
from etfopt.cli.framing import frame
from etfopt.cli.measuring import measure
from etfopt.cli.solving import solve
from etfopt.cli.studies import demo, report
from etfopt.cli.verifying import verify

__all__ = ["main"]

PACKAGE = Path(__file__).parents[1]

app.command()(solve)
app.command()(frame)
try:
    from etfopt.cli._training import train

    app.command()(train)
except MissingExtraError as error:
    reason = str(error)

    @app.command("train", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def missing() -> None:
        """Train a network. Needs the extra `experiments`."""
        raise MissingExtraError(reason)


for command in (report, measure, demo, compare, verify, doctor):  # in the order of --help
    app.command()(command)

# "bench" is a command and the name of five more
benches = App(invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
benches.callback()(bench)
benches.command("node")(bench_node)
benches.command("head")(bench_head)
benches.command("loops")(bench_loops)
benches.command("measures")(bench_measures)
benches.command("peers")(bench_peers)
app.add_typer(benches, name="bench")


def _one_line(message: Warning | str, category: type[Warning], filename: str, *where: Any, **line: Any) -> str:
    """Format a warning of etfopt's own that is meant for users as one line; others say where they come from."""
    if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
        return f"warning: {message}\n"
    return _FORMAT(message, category, filename, *where, **line)


_FORMAT = warnings.formatwarning


def main() -> None:
    """Run the command line; an error of etfopt's own is one message, not a traceback.

    The exit status is 2 where the command line asks for what cannot be done, and 1 where something failed on the way.
    """
    warnings.formatwarning = _one_line
    sys.path.append(str(Path.cwd()))  # for import paths of the user's own; last, so that it hides no package
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know a character of a table
    try:
        app()
    except EtfoptError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2 if isinstance(error, InputError | MissingExtraError) else 1)
