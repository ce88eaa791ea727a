"""The command line: it parses, calls and prints; what it calls lives elsewhere and is imported when needed."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from etfopt import __version__
from etfopt.errors import EtfoptError, InputError, require_extra

try:
    require_extra("cli", "typer", "rich")
except EtfoptError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from etfopt import _tables as tables

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The nearest simplex equiangular tight frame: solve, certify, train.",
)
console = Console()


def main() -> None:
    """Run the command line; an error of etfopt's own is one message and exit status 2, not a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        sys.exit(130)
    except EtfoptError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2)


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


@app.command()
def solve(
    means: Annotated[Path, typer.Argument(help="Class means H, d x C, one column a class: .npy, .npz or .csv.")],
    key: Annotated[str | None, typer.Option(help="Which array of an .npz holds H.")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="Rows of the file are classes.")] = False,
    reduced: Annotated[bool, typer.Option("--reduced", help="Use the (C-1) x C frame: d = C-1 is enough.")] = False,
    prox: Annotated[Path | None, typer.Option(help="Proximal point, d x r, in a file of its own.")] = None,
    prox_key: Annotated[str | None, typer.Option(help="Which array of an .npz holds the proximal point.")] = None,
    delta: Annotated[float, typer.Option(help="Proximal weight; needs --prox if above 0.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Save U, the ETF and the weights here (.npz).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the simplex ETF nearest to class means, and certify it.

    Example: etfopt solve means.npy --out nearest.npz
    """
    from etfopt import NearestETF, simplex_etf
    from etfopt import solve as solve_problem
    from etfopt.files import load_matrix, save_solution, strict_json

    H = load_matrix(means, key)
    H = H.T if transpose else H
    start = None if prox is None else load_matrix(prox, prox_key)
    frame = simplex_etf(H.shape[1], reduced=True) if reduced and H.ndim == 2 and H.shape[1] >= 2 else None
    try:
        problem = NearestETF(H, prox=start, delta=delta, frame=frame)
    except InputError as error:
        raise InputError(_for_the_shell(str(error), means, prox)) from error
    solution = solve_problem(problem)
    if out is not None:
        save_solution(solution, out)
    if as_json:
        print(strict_json(tables.facts(solution)), end="")
        return
    console.print(tables.solution_table(solution))
    if out is not None:
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)


def _for_the_shell(message: str, means: Path, prox: Path | None) -> str:
    """Name the file, and the options in place of the code that has their effect."""
    message = re.sub(r"frame=etfopt\.simplex_etf\(\d+, reduced=True\)", "--reduced", message)
    message = message.replace("pass H.T", "use --transpose").replace(
        "pass prox of shape", "give --prox, a matrix of shape"
    )
    return f"{prox if message.startswith('prox') else means}: {message}"


@app.command()
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


@app.command()
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
    with _progress(epochs * len(configs), quiet or as_json) as step:
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


@app.command()
def bench(
    largest: Annotated[int, typer.Option(help="Leave out shapes with more classes than this.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the figure.")] = Path("runs/bench"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time the closed form against the paper's pipeline on the same drifting class means.

    The paper's: a Riemannian trust region, at most 30 iterations from the previous U, and a dense implicit gradient.
    Up to C = 100 takes a few minutes.
    """
    from etfopt.bench.figures import plot_pipelines
    from etfopt.bench.pipelines import CASES, as_records
    from etfopt.bench.pipelines import bench as run
    from etfopt.bench.timing import conditions
    from etfopt.files import strict_json

    cases = [case for case in CASES if largest >= case.C]
    with _progress(sum(case.steps for case in cases), quiet or as_json, unit="steps") as step:
        rows = run(cases, on_step=step)
    out.mkdir(parents=True, exist_ok=True)
    numbers = strict_json({"conditions": conditions(), "rows": as_records(rows)})
    (out / "bench.json").write_text(numbers)
    plot_pipelines(rows, out / "bench.png")
    if as_json:
        print(numbers, end="")
        return
    console.print(tables.pipelines(rows, conditions()))
    console.print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(total: int, quiet: bool, unit: str = "epochs") -> Iterator[Callable[[], None]]:
    """Draw a progress bar, unless asked to be quiet or the output is not a terminal; yield its step."""
    stderr = Console(stderr=True)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda: bar.advance(task)
