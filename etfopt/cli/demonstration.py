"""The command that demonstrates all of it on handwritten digits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from etfopt._scalars import as_integer
from etfopt.cli import _tables as tables
from etfopt.cli._app import AsJson, Overwrite, Quiet, hand_over, interruptible, progress, require_folder

__all__ = ["demo"]


def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train three heads with three seeds on handwritten digits, and certify the nearest ETF of what they learned.

    Takes about a minute on two cores. Given again, it continues where it was stopped.

    ```
    etfopt demo
    etfopt demo --epochs 5 --out runs/short
    ```
    """
    as_integer(epochs, "epochs", at_least=1)
    require_folder(out)
    from etfopt.experiments.studies.demo import demo_study, run_demo

    start, study = time.perf_counter(), demo_study(epochs)
    kept = f"Kept: {out}/, every finished epoch. To go on: the same command"
    with interruptible(lambda: kept), progress(epochs * len(study.runs()), quiet or as_json) as step:
        result = run_demo(study, out, on_epoch=step, overwrite=overwrite)
    title = f"digits, {epochs} epochs: median and range over {len(study.seeds)} seeds"
    shown = (tables.spreads(result.report.spreads, title, epochs), tables.solution_table(result.nearest))
    wrote = f"wrote {out}/report/ and a folder for each run, in {time.perf_counter() - start:.0f} s"
    hand_over(out / "report" / "report.json", shown, [wrote], as_json)
