"""The commands that measure heads: the cost of a training step, and accuracy under awkward training loops."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from etfopt._scalars import as_integer, as_positive
from etfopt.cli import _bench_tables as tables
from etfopt.cli._app import AsJson, Overwrite, Quiet, hand_over, one_of
from etfopt.cli._measuring import Device, measuring, write, wrote

__all__ = ["bench_head", "bench_loops"]


def _loops() -> list[str]:
    from etfopt.bench.loops import LOOPS

    return [*LOOPS]


def bench_head(
    classes: Annotated[
        list[int] | None, typer.Option(help="Number of classes; may be given again. [10 and 100]")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    rounds: Annotated[int, typer.Option(help="Timed steps of each head.")] = 5,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-head"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time a training step of a ResNet-18 with each head in turn, and what each head costs by itself.

    The images have 32 x 32 pixels. A second table compares the nearest head with running statistics and with the
    paper's. The command takes some minutes without a GPU.

    ```
    etfopt bench head --classes 10 --batch 32
    ```
    """
    classes = classes or [10, 100]
    for C in classes:
        as_integer(C, "classes", at_least=2)
    as_integer(batch, "batch", at_least=2)  # batch normalisation cannot take one
    as_integer(rounds, "rounds", at_least=1)
    from etfopt.bench.head import HEADS, bench_heads, bench_statistics
    from etfopt.bench.node import usable_device
    from etfopt.bench.timing import as_records, conditions

    usable_device(device)
    steps = len(classes) * len(HEADS) * (rounds + 1)
    with measuring(out, ["bench.json"], steps, "steps", overwrite, quiet or as_json) as step:
        rows = bench_heads(classes, batch, rounds, device, on_step=step)
        costs = bench_statistics(rounds=40 * rounds, device=device)
        about = {**conditions(), "torch": version("torch"), "device": device}
        path = write(out, {"conditions": about, "rows": as_records(rows), "statistics": as_records(costs)})
    hand_over(path, [tables.head_costs(rows, about), tables.statistics_costs(costs)], wrote([path]), as_json)


def bench_loops(
    rows: Annotated[
        list[str] | None,
        typer.Option(help="A loop, by its name; may be given again. [all]", autocompletion=one_of(_loops)),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each head by each loop.")] = 8,
    epochs_scale: Annotated[float, typer.Option(help="Factor on the epochs of each loop, to save time.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-loops"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train each head in loops that are hard for running statistics, and print test accuracies in per cent.

    The loops: 1408, 1409 or 1410 samples in batches of 128; accumulation of 4x32, 64x2 or 128x1 samples; classes in
    turn, on clusters (in-turn) or digits (in-turn-digits); relu features; a class that comes late, or in the last of
    161 steps (first-at-161); trainer-512 and trainer-513 samples by Hugging Face's Trainer, where it is installed.
    All loops take 23 minutes on one core: 13 for 128x1 and 7 for 64x2. --epochs-scale 0.5 halves that.

    ```
    etfopt bench loops --rows 1409 --rows relu --seeds 2
    etfopt bench loops --json > loops.json
    ```
    """
    as_integer(seeds, "seeds", at_least=1)
    scale = as_positive(epochs_scale, "epochs_scale")
    from etfopt.bench.loops import HEADS, choose_loops
    from etfopt.bench.loops import bench_loops as run
    from etfopt.bench.timing import as_records, conditions

    chosen, left_out = choose_loops(rows or ())
    loops = {name: loop.scaled(scale) for name, loop in chosen.items()}
    steps = len(loops) * len(HEADS) * seeds
    with measuring(out, ["bench.json"], steps, "runs", overwrite, quiet or as_json) as step:
        found = run(loops, seeds, on_step=step)
        about = {
            **conditions(),
            "threads": 1,
            "torch": version("torch"),
            "scikit-learn": version("scikit-learn"),
            "seeds": seeds,
            "epochs scale": scale,
        }
        path = write(out, {"conditions": about, "rows": as_records(found), "left_out": left_out})
    hand_over(path, [tables.loop_accuracies(found, about)], wrote([path], left_out), as_json)
