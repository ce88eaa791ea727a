"""What the command line prints: tables, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from etfopt.solution import Solution

if TYPE_CHECKING:
    from etfopt.experiments.report import Spread

__all__ = ["facts", "measures", "solution_table", "spreads"]


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
