"""What the benchmarks share: a folder for the numbers, a progress bar, and files that are written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from etfopt.cli._app import interruptible, one_of, progress

Device: TypeAlias = Annotated[
    str, typer.Option(help="cpu, or a GPU such as cuda.", autocompletion=one_of(lambda: ("cpu", "cuda", "mps")))
]


def make_folder(out: Path, names: Sequence[str], keys: Sequence[str], what: str, overwrite: bool) -> None:
    """Make a folder for results, or say why it cannot be one; see `etfopt.files.refuse_occupied`."""
    from etfopt import files

    files.refuse_occupied([out / name for name in names], keys, what, overwrite=overwrite)
    files.make_folder(out)


@contextmanager
def measuring(
    out: Path, names: Sequence[str], steps: int, unit: str, overwrite: bool, quiet: bool
) -> Iterator[Callable[[], None]]:
    """Make the folder and draw the bar; after Ctrl-C nothing is kept: a benchmark cut short measures something else."""
    make_folder(out, names, ("conditions", "rows"), "an earlier benchmark", overwrite)
    kept = f"Nothing was written to {out}/: a benchmark is kept whole. To start again: the same command"
    with interruptible(lambda: kept), progress(steps, quiet, unit) as step:
        yield step


def write(out: Path, document: object) -> Path:
    """Write ``bench.json`` into a folder, and return its path."""
    from etfopt.files import strict_json, write_atomically

    write_atomically(out / "bench.json", strict_json(document).encode())
    return out / "bench.json"


def wrote(paths: Sequence[Path], notes: Sequence[str] = ()) -> list[str]:
    """Return what a command says at its end: notes, and the files that it wrote."""
    return [*notes, f"wrote {', '.join(map(str, paths))}"]
