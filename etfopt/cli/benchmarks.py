"""The commands that measure: the closed form against the paper's pipeline, and all solvers against each other."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from etfopt import _bench_tables as tables
from etfopt.cli._app import console, make_folder, progress

__all__ = ["bench", "bench_head", "bench_node", "compare"]


def bench(
    context: typer.Context,
    largest: Annotated[int, typer.Option(help="Leave out shapes with more classes than this.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the figure.")] = Path("runs/bench"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time the closed form against the paper's pipeline, and its methods in units of matrix products.

    The paper's: a Riemannian trust region with autograd's derivatives, at most 30 iterations from the previous U, and a
    dense implicit gradient, on the same drifting class means. The units: a product A'A, and a linear layer. Takes some
    minutes, one up to C = 47.
    """
    if context.invoked_subcommand:
        return
    from etfopt.bench.pipelines import CASES
    from etfopt.bench.pipelines import bench as run
    from etfopt.bench.timing import as_records, conditions
    from etfopt.bench.units import SHAPES, STEPS_PER_SHAPE, units
    from etfopt.files import strict_json
    from etfopt.plotting import draw_pipelines, save

    cases = [case for case in CASES if largest >= case.C]
    shapes = [shape for shape in SHAPES if largest >= shape[1]]
    make_folder(out)
    with progress(sum(case.steps for case in cases) + STEPS_PER_SHAPE * len(shapes), quiet or as_json, "steps") as step:
        rows = run(cases, on_step=step)
        costs = units(shapes, on_step=step)
    about = {**conditions(), "dtype": "float64"}  # of the pipelines; the units name theirs
    document = {"conditions": about, "rows": as_records(rows), "units": as_records(costs)}
    (out / "bench.json").write_text(strict_json(document))
    save(draw_pipelines(rows), out / "bench.png")
    if as_json:
        print((out / "bench.json").read_text(), end="")
        return
    console.print(tables.pipelines(rows, about))
    console.print(tables.unit_costs(costs))
    console.print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}", markup=False, highlight=False, soft_wrap=True)


def bench_node(
    method: Annotated[
        list[str] | None, typer.Option(help="auto, svd, gram or newton-schulz; may be given again. auto, if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or a GPU such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-node"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time the differentiable node in units of a product A'A and of a linear layer, and count its memory.

    Float32, forward and backward, with the paper's proximal term; growth is the slope of log time from C = 100 to 1000
    at d = 2048, of the first method. Takes half a minute for each.
    """
    from etfopt.bench.node import SHAPES, growth
    from etfopt.bench.node import bench_node as run
    from etfopt.bench.timing import as_records, conditions
    from etfopt.bench.units import SPECTRA

    methods = method or ["auto"]
    make_folder(out)
    with progress(len(SHAPES) * len(SPECTRA) * len(methods), quiet or as_json, "cases") as step:
        rows = run(device=device, methods=methods, on_step=step)
    about = {**conditions(), "torch": version("torch"), "device": device, "growth": growth(rows)}
    _hand_over({"conditions": about, "rows": as_records(rows)}, tables.node_costs(rows, about), out, as_json)


def bench_head(
    classes: Annotated[list[int] | None, typer.Option(help="Classes; may be given again. 10 and 100.")] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    rounds: Annotated[int, typer.Option(help="Timed steps of each head.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, or a GPU such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-head"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time a training step of a ResNet-18 with each head in turn, and what each head costs by itself.

    On 32 x 32 images. Takes some minutes without a GPU.
    """
    from etfopt.bench.timing import as_records, conditions
    from etfopt.experiments.head_cost import HEADS, bench_heads

    classes = classes or [10, 100]
    make_folder(out)
    with progress(len(classes) * len(HEADS) * (rounds + 1), quiet or as_json, "steps") as step:
        rows = bench_heads(classes, batch, rounds, device, on_step=step)
    about = {**conditions(), "torch": version("torch"), "device": device}
    _hand_over({"conditions": about, "rows": as_records(rows)}, tables.head_costs(rows, about), out, as_json)


def _hand_over(document: dict[str, object], table: Table, out: Path, as_json: bool) -> None:
    """Write the numbers, and print them or the table."""
    from etfopt.files import strict_json

    path = out / "bench.json"
    path.write_text(strict_json(document))
    if as_json:
        print(path.read_text(), end="")
        return
    console.print(table)
    console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def compare(
    problem: Annotated[
        list[str] | None, typer.Option(help="A problem or a family of them; may be given again. All, if not given.")
    ] = None,
    solver: Annotated[list[str] | None, typer.Option(help="A solver; may be given again. All, if not given.")] = None,
    means: Annotated[
        list[Path] | None, typer.Option(help="Class means of your own, d x C (.npy, .npz, .csv); may be given again.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Random starts of each local solver; 5, or 1 if quick.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds for each run.")] = 20.0,
    quick: Annotated[bool, typer.Option("--quick", help="Only the small problems, from one start.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the figures.")] = Path("runs/compare"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare all solvers on a grid of problems, each run in its own cell and judged by the certificate.

    Local solvers start from the same random points; direct ones run once. A solver that fails is a row. The whole grid
    takes about two minutes on two cores, --quick some ten seconds.

    Example: etfopt compare --problem tight --seeds 20
    """
    from etfopt.bench.compare import cells
    from etfopt.bench.compare import compare as run
    from etfopt.bench.lineup import line_up
    from etfopt.bench.measure import Row
    from etfopt.bench.problems import choose_problems
    from etfopt.bench.report import write_report
    from etfopt.bench.timing import conditions

    problems = choose_problems(problem or (), means or (), quick)
    entrants, left_out = line_up(solver or (), limit)
    seeds = (1 if quick else 5) if seeds is None else seeds
    grid = cells(problems, entrants, seeds)
    make_folder(out)
    rows: list[Row] = []
    files: list[Path] = []
    try:
        with progress(len(grid), quiet or as_json, unit="cells") as step, closing(run(grid, limit)) as running:
            for row in running:
                rows.append(row)
                step()
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"interrupted after {len(rows)} of {len(grid)} cells: kept in {out}/", soft_wrap=True
        )
        raise
    finally:
        if rows:
            settings = {"seeds": seeds, "limit": limit, "cells": len(grid), "left_out": left_out}
            files = write_report(rows, entrants, settings, out)
    if as_json:
        print(files[0].read_text(), end="")
        return
    for table in tables.comparison(rows, conditions(), width=console.width):
        console.print(table)
    for line in (*left_out, f"wrote {', '.join(map(str, files))}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
