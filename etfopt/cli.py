"""The command line: it parses, calls and prints; what it calls lives elsewhere and is imported when needed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from etfopt import __version__
from etfopt.errors import EtfoptError, require_extra

try:
    require_extra("cli", "typer", "rich")
except EtfoptError as error:
    sys.exit(f"etfopt: {error}")

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from etfopt import Solution
    from etfopt.experiments.report import Spread

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
    frame = simplex_etf(H.shape[1], reduced=True) if reduced and H.ndim == 2 else None
    problem = NearestETF(H, prox=None if prox is None else load_matrix(prox), delta=delta, frame=frame)
    solution = solve_problem(problem)
    if out is not None:
        save_solution(solution, out)
    if as_json:
        print(strict_json(_facts(solution)), end="")
        return
    console.print(_solution_table(solution))
    if out is not None:
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)


def _facts(solution: Solution) -> dict[str, str | float | bool]:
    problem, certificate = solution.problem, solution.certificate
    return {
        "d": problem.d,
        "C": problem.C,
        "dtype": str(problem.dtype),
        "solver": solution.stats.solver,
        "seconds": solution.stats.seconds,
        "converged": solution.converged,
        "objective": solution.objective,
        "scale": solution.scale,
        "distance": solution.distance,
        "gap": certificate.gap,
        "relative_gap": certificate.relative_gap,
        "feasibility": certificate.feasibility,
        "stationarity": certificate.stationarity,
        "curvature": certificate.curvature,
        "margin": certificate.margin,
        "unique": certificate.unique,
        "etf_unique": certificate.etf_unique,
        "distance_bound": certificate.distance_bound,
        "etf_distance_bound": certificate.etf_distance_bound,
    }


def _solution_table(solution: Solution) -> Table:
    facts, certificate = _facts(solution), solution.certificate
    etf = "unique" if certificate.etf_unique else "not unique"
    rotation = "unique" if certificate.unique else "not unique"
    free = "the frame ignores a direction of it" if certificate.etf_unique else "H leaves a direction of it free"
    table = Table(title=f"Nearest simplex ETF of {facts['C']} classes in {facts['d']} dimensions", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    rows = [
        ("distance", f"{solution.distance:.6g}", "from H to the nearest ETF of any size"),
        ("scale", f"{solution.scale:.6g}", "size of that ETF"),
        ("objective", f"{solution.objective:.6g}", "||H - UF||^2 and the proximal term"),
        ("gap", f"{certificate.gap:.1e}", "excess objective, up to rounding"),
        ("relative gap", f"{certificate.relative_gap:.1e}", "gap over the nuclear norm of A"),
        ("feasibility", f"{certificate.feasibility:.1e}", "||U'U - I||"),
        ("margin", f"{certificate.margin:.3g}", "smallest singular value of A"),
        ("ETF", etf, f"||UF - U*F|| <= {certificate.etf_distance_bound:.1e}"),
        ("U", rotation, free if rotation != "unique" else f"||U - U*|| <= {certificate.distance_bound:.1e}"),
        ("verdict", "optimal" if solution.converged else "NOT optimal", f"{solution.stats.solver}, certified"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


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
    table = Table(title=f"{data}, head {head}, seed {seed}, {epochs} epochs", title_justify="left")
    table.add_column("measure")
    table.add_column("training", justify="right")
    table.add_column("test", justify="right")
    last = result.history[-1]
    for name in (key.removeprefix("train_") for key in last if key.startswith("train_")):
        table.add_row(name, f"{last[f'train_{name}']:.4g}", f"{last[f'test_{name}']:.4g}")
    console.print(table)
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
    from etfopt.experiments.report import QUANTITIES

    start = time.perf_counter()
    configs = plan(epochs)
    with _progress(epochs * len(configs), quiet or as_json) as step:
        result = run_demo(configs, out, on_epoch=step)
    if as_json:
        print(result.files[0].read_text(), end="")
        return
    seeds = len({config.seed for config in configs})
    table = Table(title=f"digits, {epochs} epochs: median and range over {seeds} seeds", title_justify="left")
    table.add_column("head")
    for head in result.summary:
        table.add_column(head, justify="right")
    for key, name in QUANTITIES.items():
        table.add_row(name, *(_spread(row[key], epochs) for row in result.summary.values()))
    table.caption = "epochs until that training accuracy; margin, NC1 and NC3 on the training split"
    console.print(table)
    console.print(_solution_table(result.nearest))
    files = ", ".join(str(file) for file in result.files)
    console.print(
        f"wrote {files} and a folder a run, in {time.perf_counter() - start:.0f} s", markup=False, soft_wrap=True
    )


def _spread(spread: Spread, epochs: int) -> str:
    def text(value: float) -> str:
        if isinstance(value, int):
            return str(value)
        if math.isinf(value):
            return f">{epochs}"
        return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:#.4g}"

    return f"{text(spread.median)}\n[dim]{text(spread.low)} to {text(spread.high)}[/dim]"


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """Draw a progress bar over epochs, unless asked to be quiet or the output is not a terminal; yield its step."""
    stderr = Console(stderr=True)
    columns = (TextColumn("epochs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        task = bar.add_task("epochs", total=total)
        yield lambda: bar.advance(task)
