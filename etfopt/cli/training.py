"""The commands that train networks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from etfopt import _tables as tables
from etfopt.cli._app import console, progress

__all__ = ["demo", "train"]


def train(
    data: Annotated[str, typer.Option(help="Data set: digits.")] = "digits",
    head: Annotated[str, typer.Option(help="learned, fixed or nearest.")] = "nearest",
    seed: Annotated[int, typer.Option(help="Seeds network and batches.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    batch_size: Annotated[int, typer.Option(help="Samples a batch.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Of SGD; falls to zero as a half cosine.")] = 0.05,
    temperature: Annotated[float, typer.Option(help="Norm tau of the features.")] = 5.0,
    delta: Annotated[float, typer.Option(help="Proximal weight (nearest head).")] = 1e-3,
    averaging: Annotated[
        str, typer.Option(help="Running means: paper, cumulative or a rate (nearest head).")
    ] = "paper",
    implicit_gradient: Annotated[bool, typer.Option(help="Gradient through U*(H) (nearest head).")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/DATA-HEAD-seedN if not given.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; one is fastest for so small a network.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a small network with one of the heads and print its neural-collapse measures.

    Example: etfopt train --data digits --head nearest --epochs 30
    """
    from etfopt.experiments.config import TrainConfig
    from etfopt.experiments.train import train as run

    config = TrainConfig(
        data=data,
        head=head,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        delta=delta,
        averaging=_rate(averaging),
        implicit_gradient=implicit_gradient,
    )
    path = out or Path("runs") / f"{data}-{head}-seed{seed}"
    result = run(config, path, threads=threads, progress_bar=console.is_terminal and not quiet)
    title = f"{data}, head {head}, seed {seed}, {epochs} epochs"
    console.print(tables.measures(result.history[-1], title))
    console.print(
        f"{result.step_ms:.2f} ms a step (median). Written to {path}/", markup=False, highlight=False, soft_wrap=True
    )


def _rate(averaging: str) -> str | float:
    try:
        return float(averaging)
    except ValueError:
        return averaging


def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Train three heads with three seeds on handwritten digits, and certify the nearest ETF of what they learned.

    Takes about a minute on two cores.
    """
    from etfopt.experiments.demo import plan, run_demo

    start = time.perf_counter()
    configs = plan(epochs)
    with progress(epochs * len(configs), quiet or as_json) as step:
        result = run_demo(configs, out, on_epoch=step)
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
