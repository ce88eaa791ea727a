"""The commands that measure: the closed form against the paper's pipeline, and all solvers against each other."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from etfopt._options import METHODS, as_method
from etfopt._scalars import as_integer
from etfopt.cli import _bench_tables as tables
from etfopt.cli._app import AsJson, Overwrite, Quiet, console, hand_over, interruptible, one_of, progress
from etfopt.cli._measuring import Device, make_folder, measuring, write, wrote

__all__ = ["bench", "bench_node", "compare"]

NO_FIGURES = "figures are left out: matplotlib is not installed; run: pip install 'etfopt[experiments]'"


def _problems() -> list[str]:
    from etfopt.bench.problems import FAMILIES

    return [*FAMILIES, "digits"]


def _solvers() -> list[str]:
    from etfopt.bench.lineup import ENTRANTS

    return [*ENTRANTS]


def bench(
    context: typer.Context,
    largest: Annotated[int, typer.Option(help="Leave out shapes with more classes than this; at least 10.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the figure.")] = Path("runs/bench"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time the closed form against the paper's pipeline, and its methods in units of matrix products.

    The paper's pipeline is a Riemannian trust region with autograd's derivatives, at most 30 iterations from the
    previous U, and a dense implicit gradient. Both run on the same drifting class means. The units are a product A'A
    and a linear layer. The command takes some minutes, or one minute up to C = 47.

    ```
    etfopt bench --largest 47
    etfopt bench node --method svd --method gram
    etfopt bench head --classes 10
    ```
    """
    if context.invoked_subcommand:
        return
    as_integer(largest, "largest", at_least=10)
    from etfopt.bench.pipelines import CASES
    from etfopt.bench.pipelines import bench as run
    from etfopt.bench.timing import as_records, conditions
    from etfopt.bench.units import SHAPES, STEPS_PER_SHAPE, units

    cases = [case for case in CASES if largest >= case.C]
    shapes = [shape for shape in SHAPES if largest >= shape[1]]
    steps = sum(case.steps for case in cases) + STEPS_PER_SHAPE * len(shapes)
    with measuring(out, ["bench.json", "bench.png"], steps, "steps", overwrite, quiet or as_json) as step:
        rows = run(cases, on_step=step)
        costs = units(shapes, on_step=step)
        about = {**conditions(), "dtype": "float64"}  # of the pipelines; the units name theirs
        document = {"conditions": about, "rows": as_records(rows), "units": as_records(costs)}
        written = [write(out, document)]  # first: the figure is known by it
        if find_spec("matplotlib"):
            from etfopt.plotting import draw_pipelines, save

            written.append(out / "bench.png")
            times = {name: [row.seconds[name] for row in rows] for name in rows[0].seconds}
            save(draw_pipelines([(row.d, row.C) for row in rows], times), written[1])
    shown = [tables.pipelines(rows, about), *tables.unit_costs(costs)]
    hand_over(written[0], shown, wrote(written, [] if len(written) > 1 else [NO_FIGURES]), as_json)


def bench_node(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, svd, gram or newton-schulz; may be given again. [auto]", autocompletion=one_of(lambda: METHODS)
        ),
    ] = None,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-node"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time the differentiable node in units of a product A'A and of a linear layer, and count its memory.

    It times forward and backward passes in float32, with the paper's proximal term. Growth is the slope of log time
    from C = 100 to 1000 at d = 2048, for the first method. Each method takes half a minute.

    ```
    etfopt bench node --method svd --method newton-schulz
    etfopt bench node --device cuda --out runs/bench-node-gpu
    ```
    """
    from etfopt.bench.node import SHAPES, growth, usable_device
    from etfopt.bench.node import bench_node as run
    from etfopt.bench.timing import as_records, conditions
    from etfopt.bench.units import SPECTRA

    methods = method or ["auto"]
    for name in methods:
        as_method(name)
    usable_device(device)
    steps = len(SHAPES) * len(SPECTRA) * len(methods)
    with measuring(out, ["bench.json"], steps, "cases", overwrite, quiet or as_json) as step:
        rows = run(SHAPES, device, methods, on_step=step)
        about = {**conditions(), "torch": version("torch"), "device": device, "growth": growth(rows)}
        path = write(out, {"conditions": about, "rows": as_records(rows)})
    hand_over(path, [tables.node_costs(rows, about)], wrote([path]), as_json)


def compare(
    problem: Annotated[
        list[str] | None,
        typer.Option(
            help="A family of problems (random, collapsed, tight, ...) or one problem, as tight-3x4; may be given "
            "again. [all]",
            autocompletion=one_of(_problems),
        ),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            help="A solver (procrustes, trust-region, scs, ...); may be given again. [all installed ones]",
            autocompletion=one_of(_solvers),
        ),
    ] = None,
    means: Annotated[
        list[Path] | None, typer.Option(help="Your own class means, d x C (.npy, .npz, .csv); may be given again.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Random starts of each iterative solver. [5; 1 with --quick]")
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds for each run.")] = 20.0,
    quick: Annotated[bool, typer.Option("--quick", help="Solve only the small problems, from one start.")] = False,
    everything: Annotated[
        bool | None,
        typer.Option(
            "--all/--overall",
            help="Print a table for each problem too, or the last one alone. [--all; with --quick --overall]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the figures.")] = Path("runs/compare"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare all solvers on a grid of problems; the certificate decides what counts as solved.

    The last table ranks the solvers over all problems, and profiles.png in the folder shows it. Iterative solvers start
    from the same random points; direct solvers run once. Failures are rows. The whole grid takes about two minutes on
    two cores, --quick ten seconds.

    ```
    etfopt compare --quick
    etfopt compare --problem tight --seeds 20
    etfopt compare --means means.npy --solver procrustes --solver scs
    ```
    """
    from etfopt.bench.lineup import line_up
    from etfopt.bench.problems import choose_problems

    problems = choose_problems(problem or (), means or (), quick)  # what is typed wrongly is refused soon
    entrants, left_out = line_up(solver or (), limit)
    from etfopt.bench._measure import Row
    from etfopt.bench.compare import cells
    from etfopt.bench.compare import compare as run
    from etfopt.bench.report import write_report
    from etfopt.bench.standings import Standings
    from etfopt.bench.summary import summarise
    from etfopt.bench.timing import conditions

    seeds = (1 if quick else 5) if seeds is None else seeds
    grid = cells(problems, entrants, seeds)
    written = ["compare.json", "convergence.png", "profiles.png"]
    make_folder(out, written, ("rows", "solvers"), "an earlier comparison", overwrite)
    rows: list[Row] = []
    files: list[Path] = []

    def kept() -> str:
        where = f"kept in {files[0]}" if files else "nothing was written"
        again = " with --overwrite" if files and not overwrite else ""
        return f"{len(rows)} of {len(grid)} cells: {where}. To start again: the same command{again}"

    with interruptible(kept):
        try:
            with progress(len(grid), quiet or as_json, unit="cells") as step, closing(run(grid, limit)) as running:
                for row in running:
                    rows.append(row)
                    step()
        finally:
            if rows:
                settings = {"seeds": seeds, "limit": limit, "cells": len(grid), "left_out": left_out}
                files += write_report(rows, entrants, settings, out, figures=find_spec("matplotlib") is not None)
    everything = not quick if everything is None else everything
    shown = [*tables.comparison(rows, conditions(), width=console.width)] if everything else []
    shown.append(tables.overall(Standings(summarise(rows))))
    hand_over(files[0], shown, wrote(files, left_out if len(files) > 1 else [*left_out, NO_FIGURES]), as_json)
