"""What the commands share: the application, the console and the progress bar."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from etfopt import __version__
from etfopt.cli._logging import App
from etfopt.errors import InputError

HELP = """The nearest simplex equiangular tight frame: solve, certify, train.

```
etfopt solve means.npy                 # the ETF nearest to class means
etfopt frame --dim 512 --classes 1000  # the best frame for these sizes
etfopt train --head nearest            # a network on handwritten digits
etfopt measure features.npz            # collapse of saved features
etfopt demo                            # three heads, a table, two figures
etfopt doctor                          # does the installation work?
```

`etfopt COMMAND --help` shows examples. Results go to standard output, progress and errors to standard error. `--json`
prints one JSON object. Exit status: 2 for a wrong option or a missing extra, 1 for a failure, 130 after Ctrl-C, 143
after SIGTERM.
"""

app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # paragraphs flow with the width of the terminal
    help=HELP,
)
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in the folder.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]

# a file or a pipe has no width: tables are not to be cut there
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"etfopt {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@contextmanager
def progress(total: int, quiet: bool, unit: str = "epochs") -> Iterator[Callable[[], None]]:
    """Draw a progress bar, unless asked to be quiet or the output is not a terminal; yield its step."""
    stderr = Console(stderr=True)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C or SIGTERM ends this block, say in one line what is kept, and end with the status of the signal."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        sent = signal.SIGTERM if isinstance(stop, SystemExit) else signal.SIGINT
        print(f"interrupted. {kept()}", file=sys.stderr)
        raise typer.Exit(128 + sent) from None


def one_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function by which shells complete the beginning of a name; the names are looked up when it is asked."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def require_file(path: Path) -> None:
    """Refuse a file that is not there or cannot be opened."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error


def require_folder(path: Path) -> None:
    """Refuse a path that should be a folder and is a file."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: cannot be used as a folder: it is a file; choose another with --out")


def say(line: str) -> None:
    """Print a line as it is, without markup, highlighting or line breaks: it may hold names of files."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def hand_over(document: Path | object, shown: Iterable[RenderableType], lines: Iterable[str], as_json: bool) -> None:
    """Print a document (or the JSON file that holds it), or else tables, texts and lines."""
    if as_json:
        from etfopt.files import strict_json

        # flushed here, where a pipe that is closed ends the command quietly, and not when the interpreter exits
        print(document.read_text() if isinstance(document, Path) else strict_json(document), end="", flush=True)
        return
    for one in shown:
        console.print(one)
    for line in lines:
        say(line)
