"""What the command line prints: tables, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from etfopt.solution import Solution

if TYPE_CHECKING:
    from etfopt.bench.measure import Row as ComparisonRow
    from etfopt.bench.pipelines import Row
    from etfopt.bench.summary import Summary
    from etfopt.bench.units import UnitRow
    from etfopt.experiments.report import Spread

__all__ = ["comparison", "facts", "measures", "pipelines", "solution_table", "spreads", "unit_costs"]


def facts(solution: Solution) -> dict[str, str | float | bool]:
    """Return what is known of a solution, by name."""
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


def solution_table(solution: Solution) -> Table:
    """Tabulate a certified solution."""
    certificate = solution.certificate
    etf = "unique" if certificate.etf_unique else "not unique"
    rotation = "unique" if certificate.unique else "not unique"
    free = "the frame ignores a direction of it" if certificate.etf_unique else "H leaves a direction of it free"
    table = Table(
        title=f"Nearest simplex ETF of {solution.problem.C} classes in {solution.problem.d} dimensions",
        title_justify="left",
    )
    table.add_column("", overflow="fold")
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


def measures(record: Mapping[str, float], title: str) -> Table:
    """Tabulate the last record of a run: every measure on both splits."""
    table = Table("measure", title=title, title_justify="left")
    for split in ("training", "test"):
        table.add_column(split, justify="right")
    for name in (key.removeprefix("train_") for key in record if key.startswith("train_")):
        table.add_row(name, f"{record[f'train_{name}']:.4g}", f"{record[f'test_{name}']:.4g}")
    return table


def spreads(summary: Mapping[str, Mapping[str, Spread]], title: str, epochs: int) -> Table:
    """Tabulate medians and ranges over seeds, a column a head."""
    from etfopt.experiments.report import QUANTITIES

    table = Table("head", title=title, title_justify="left")
    for head in summary:
        table.add_column(head, justify="right")
    for key, name in QUANTITIES.items():
        table.add_row(name, *(_spread(row[key], epochs) for row in summary.values()))
    table.caption = "epochs until that training accuracy; margin, NC1 and NC3 on the training split"
    return table


def _spread(spread: Spread, epochs: int) -> str:
    def text(value: float) -> str:
        if isinstance(value, int):
            return str(value)
        if math.isinf(value):
            return f">{epochs}"
        return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:#.4g}"

    return f"{text(spread.median)}\n[dim]{text(spread.low)} to {text(spread.high)}[/dim]"


def pipelines(rows: Sequence[Row], conditions: Mapping[str, object]) -> Table:
    """Tabulate the closed form against the paper's pipeline, with the conditions as caption."""
    table = Table(title="One step, forward + backward, closed form against the paper's pipeline", title_justify="left")
    for name in ("d", "C", "closed form", "the paper's", "ratio", "memory", "the paper's", "linear layer"):
        table.add_column(name, justify="right")
    for row in rows:
        slow = None if row.paper_forward is None else row.paper_forward + (row.paper_backward or 0.0)
        table.add_row(
            str(row.d),
            str(row.C),
            _seconds(row.forward + row.backward),
            "cannot run" if slow is None else _seconds(slow),
            "-" if row.ratio is None else f"{row.ratio:,.0f} x",
            _bytes(row.memory),
            _bytes(row.paper_memory),
            _seconds(row.linear),
        )
    table.caption = ", ".join(f"{key} {value}" for key, value in conditions.items())
    return table


def unit_costs(rows: Sequence[UnitRow]) -> Table:
    """Tabulate the methods of the closed form in units of products and linear layers."""
    table = Table(title="The methods of the closed form, one solve and its gradient", title_justify="left")
    for name in ("d x C, means", "dtype", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("forward", "backward", "A'A", "A'B", "linear layers"):
        table.add_column(name, justify="right")
    last = ("", "")
    for row in rows:
        problem = (f"{row.d} x {row.C}, {row.spectrum}", row.dtype)
        if problem != last:
            table.add_section()
        table.add_row(
            *(problem if problem != last else ("", "")),
            row.method if row.method == row.route else f"{row.method} ({row.route})",
            _seconds(row.forward),
            _seconds(row.backward),
            *(f"{row.total / unit:.3g}" for unit in (row.square, row.product, row.linear)),
        )
        last = problem
    table.caption = (
        "medians; in brackets the route that kept the promised accuracy. A'A, A'B, linear layers: forward and backward "
        "in units of a product of the matrix with itself (half the operations), with another, and of a linear layer's "
        "forward and backward pass at batch 256"
    )
    return table


def comparison(rows: Sequence[ComparisonRow], conditions: Mapping[str, object], width: int = 120) -> Iterator[Table]:
    """Tabulate a comparison, a table for each problem, with the conditions below the last.

    Below 118 columns the range of times is left out, below 100 the stationarity too.
    """
    from etfopt.bench.summary import summarise

    lines = summarise(rows)
    problems = list(dict.fromkeys(row.problem for row in rows))
    for problem in problems:
        group = [row for row in rows if row.problem == problem]
        first = group[0]
        title = f"{problem}: d = {first.d}, C = {first.C}, r = {first.r}, delta = {first.delta:g}, {first.dtype}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
        table.add_column("solver", width=24, no_wrap=True)
        for name, least in COMPARED.items():
            if width >= least:
                table.add_column(name, justify="right", no_wrap=True)
        table.add_column("certified")
        for line in lines:
            if line.problem == problem:
                name, *cells, certified = _compared(line)
                shown = [cell for cell, least in zip(cells, COMPARED.values(), strict=True) if width >= least]
                table.add_row(name, *shown, certified)
        notes = list(dict.fromkeys(row.message for row in group if row.message))
        if problem == problems[-1]:
            notes += [COMPARISON_NOTE, ", ".join(f"{key} {value}" for key, value in conditions.items())]
        table.caption = Text("\n".join(notes)) if notes else None
        yield table


COMPARED = {"time": 0, "range": 118, "gap": 0, "stat.": 100, "in UF": 0, "iter.": 0}
"""Columns of the comparison, and how wide a page must be for them."""

COMPARISON_NOTE = (
    "time and iterations: medians over the starts; gap, stationarity and distance in U F from the nearest ETF: the "
    "worst, all relative; certified: feasible, and the gap within what the solver promises"
)


def _compared(line: Summary) -> tuple[str, ...]:
    def power(value: float | None) -> str:
        if value is None:
            return "-"
        return "0" if value <= 0 else f"{value:.1e}"

    span = line.runs > 1 and line.fastest is not None and line.slowest is not None
    certified = f"{line.certified} of {line.runs}"
    return (
        line.solver,
        "-" if line.seconds is None else _seconds(line.seconds),
        _span(line.fastest or 0.0, line.slowest or 0.0) if span else "",
        power(line.relative_gap),
        power(line.relative_stationarity),
        power(line.etf_distance),
        "-" if line.iterations is None else f"{line.iterations:.0f}",
        f"{certified}, {line.reason}" if line.reason else certified,
    )


def _seconds(value: float) -> str:
    unit, size = _unit(value)
    return f"{value / size:.3g} {unit}"


def _span(low: float, high: float) -> str:
    unit, size = _unit(high)
    return f"{low / size:.3g} - {high / size:.3g} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    return next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size), ("µs", 1e-6))


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.0f} TiB"
