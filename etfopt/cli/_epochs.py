"""How the epochs of a run are shown: a live line at a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from etfopt.experiments.training.progress import RunProgress

Tell: TypeAlias = "Callable[[RunProgress], None]"


@contextmanager
def epochs_shown(quiet: bool) -> Iterator[Tell | None]:
    """Yield a function that shows the progress of a run on standard error, or None if asked to be quiet."""
    stderr = Console(stderr=True)
    if quiet:
        yield None
    elif not stderr.is_terminal:
        yield lambda seen: print(line(seen), file=sys.stderr, flush=True) if seen.epoch_ended else None
    else:
        columns = (TextColumn("{task.description}"), BarColumn(14), TextColumn("{task.fields[found]}"))
        with Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True) as bar:
            task = bar.add_task("starting", total=1.0, found="")

            def show(seen: RunProgress) -> None:
                where = f"epoch {seen.epoch} of {seen.epochs}"
                bar.update(task, completed=seen.share, description=where, found=found(seen))

            yield show


def line(seen: RunProgress) -> str:
    """Return the line of a finished epoch."""
    return f"epoch {seen.epoch} of {seen.epochs}: {found(seen)}"


def found(seen: RunProgress) -> str:
    """Return loss and accuracies after the last finished epoch."""
    loss, training, test = (seen.record[name] for name in ("train_loss", "train_accuracy", "test_accuracy"))
    return f"loss {loss:.3g}, accuracy {100 * training:.1f} %, test {100 * test:.1f} %"
