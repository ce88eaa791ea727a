"""The command that finds the best known frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from etfopt.cli import _frame_tables as tables
from etfopt.cli._app import AsJson, Quiet, hand_over
from etfopt.cli._lists import numbers
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.frames._search import Progress

__all__ = ["frame"]

CHEAP = 200
"""Up to so many classes the one-vs-rest margin is computed unasked."""


def frame(
    dim: Annotated[int, typer.Option(help="Number of features d.")],
    classes: Annotated[int | None, typer.Option(help="Number of classes C. [as many as --counts]")] = None,
    counts: Annotated[
        str | None,
        typer.Option(help="Samples of each class, as 500,100,20 or in a file (.npy, .npz, .csv). [equal]"),
    ] = None,
    margin: Annotated[
        bool | None,
        typer.Option("--margin/--no-margin", help="Compute the one-vs-rest margin rho. [up to 200 classes]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search for a code.")] = 0,
    starts: Annotated[int | None, typer.Option(help="Random starts of the search. [as many as take seconds]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Save the frame in this file: .npy, or .npz with its bounds.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find the best known frame for d features and C classes, and print what is proven about it.

    For C <= d + 1 it is the simplex. Up to C = 2d it is a set of orthogonal simplices, and for d = 2 a polygon. For
    other sizes it is computed once, and saved in the folder ETFOPT_CACHE (~/.cache/etfopt). Ctrl-C ends that search
    with the best frame so far. Unequal counts give a pair: one frame for the class means, one for the classifier.

    ```
    etfopt frame --dim 512 --classes 1000 --out frame.npy
    etfopt frame --dim 3 --classes 7 --margin --json
    etfopt frame --dim 64 --counts 500,100,20 --out seli.npz
    ```
    """
    from etfopt.files import refuse_frame_output, save_frame
    from etfopt.frames import best_frame

    if out is not None:
        refuse_frame_output(out, overwrite=overwrite)
    sizes = None if counts is None else numbers(counts, "counts", "500,100,20")
    if classes is None:
        if sizes is None:
            raise InputError("--classes is missing", "classes", None, "pass --classes, or --counts")
        classes = len(sizes)
    with _shown(quiet or as_json) as show:
        found = best_frame(dim, classes, sizes, seed=seed, starts=starts, progress=show)
    if out is not None:
        save_frame(found, out)
    known = tables.facts(found, dim, margin=classes <= CHEAP if margin is None else margin)
    lines = [known["reason"], *([] if out is None else [f"wrote {out}"])]
    hand_over(known, [tables.frame_table(known)], lines, as_json)


@contextmanager
def _shown(quiet: bool) -> Iterator[Progress]:
    """Show where a search is, in a line that vanishes, unless asked to be quiet or the output is not a terminal."""
    stderr = Console(stderr=True)
    if quiet or not stderr.is_terminal:
        yield lambda _: None
        return
    with stderr.status("searching") as status:
        yield lambda step: status.update(
            f"start {step.start + 1} of {step.starts}, sharpness {step.beta:g}: "
            f"largest cosine {step.cosine:.6f}, best {step.best:.6f}"
        )
