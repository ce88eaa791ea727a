"""What the commands share: the application, the console and the progress bar."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from etfopt import __version__
from etfopt.errors import InputError

__all__ = [
    "HELP",
    "OVERWRITE",
    "app",
    "console",
    "interruptible",
    "make_folder",
    "one_of",
    "progress",
    "require_file",
    "require_folder",
]

HELP = """The nearest simplex equiangular tight frame: solve, certify, train.

```
etfopt solve means.npy                 # the ETF nearest to class means
etfopt train --head nearest            # a network on handwritten digits
etfopt demo                            # three heads, a table, two figures
```

`etfopt COMMAND --help` has examples of each. Tables go to standard output, progress and errors to standard error; exit
status 2 is a mistake in what was typed or an extra that is not installed, 1 something that failed, 130 Ctrl-C, 143
SIGTERM.
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # paragraphs flow with the width of the terminal
    help=HELP,
)
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
    """Refuse a file where a folder is to be."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: cannot be used as a folder: it is a file; choose another with --out")


OVERWRITE = typer.Option("--overwrite", help="Replace earlier results in the folder.")


def make_folder(path: Path, names: Sequence[str], keys: Sequence[str], what: str, *, overwrite: bool) -> None:
    """Make a folder for results, or say why it cannot be one; see `etfopt.files.refuse_occupied`."""
    from etfopt import files

    files.refuse_occupied([path / name for name in names], keys, what, overwrite=overwrite)
    files.make_folder(path)
