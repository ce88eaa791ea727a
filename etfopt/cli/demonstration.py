"""The command that demonstrates all of it on handwritten digits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from etfopt._arrays import as_integer
from etfopt.cli import _tables as tables
from etfopt.cli._app import OVERWRITE, console, interruptible, progress, require_folder

__all__ = ["demo"]


def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    overwrite: Annotated[bool, OVERWRITE] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
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
    from etfopt.experiments.studies.demo import plan, run_demo

    start = time.perf_counter()
    configs = plan(epochs)
    done = 0

    def kept() -> str:
        finished = f"{done // epochs} of {len(configs)} runs finished, a folder each; no table and no figure yet"
        return f"Kept: {out}/, {finished}. To go on: the same command"

    with interruptible(kept), progress(epochs * len(configs), quiet or as_json) as step:

        def count() -> None:
            nonlocal done
            done += 1
            step()

        result = run_demo(configs, out, on_epoch=count, overwrite=overwrite)
    if as_json:
        print(result.files[0].read_text(), end="")
        return
    seeds = len({config.seed for config in configs})
    title = f"digits, {epochs} epochs: median and range over {seeds} seeds"
    console.print(tables.spreads(result.summary, title, epochs))
    console.print(tables.solution_table(result.nearest))
    files = ", ".join(str(file) for file in result.files)
    console.print(
        f"wrote {files} and a folder a run, in {time.perf_counter() - start:.0f} s", markup=False, soft_wrap=True
    )
