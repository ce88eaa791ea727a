"""What the command line prints: tables, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from etfopt.experiments.studies._numbers import Spread
    from etfopt.experiments.studies._progress import Progress
    from etfopt.solution import Solution
    from theory.registry import Claim, Evidence, Residual

__all__ = [
    "counterexamples",
    "facts",
    "measures",
    "planned",
    "residuals",
    "solution_table",
    "spreads",
    "verdict",
    "verdicts",
]


SHOWN = ("epochs_to_99", "epochs_to_100", "test_accuracy_second", "cosine_margin", "nc1", "nc2", "nc3", "step_ms")
"""Quantities of the demonstration's table."""


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


def planned(runs: Sequence[Progress], title: str) -> Table:
    """Tabulate the runs of a study and how far they have come."""
    table = Table("run", "state", title=title, title_justify="left")
    table.add_column("epochs", justify="right")
    table.columns[0].overflow = "fold"
    for p in runs:
        table.add_row(escape(p.run.folder), p.state.value, f"{p.epochs} of {p.run.config.training.epochs}")
    return table


def spreads(summary: Mapping[str, Mapping[str, Spread]], title: str, epochs: int) -> Table:
    """Tabulate medians and ranges over seeds, a column a head."""
    from etfopt.experiments.studies._numbers import QUANTITIES

    table = Table("head", title=title, title_justify="left")
    for head in summary:
        table.add_column(head, justify="right")
    names = {**QUANTITIES, "test_accuracy_second": "test accuracy"}
    for key in SHOWN:
        table.add_row(names[key], *(_spread(row[key], epochs) for row in summary.values()))
    table.caption = "epochs until that training accuracy; margin, NC1 and NC3 on the training split"
    return table


def _spread(spread: Spread, epochs: int) -> str:
    def text(value: float) -> str:
        if isinstance(value, int):
            return str(value)
        if math.isinf(value):
            return f">{epochs}"
        return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:#.4g}"

    return f"{text(spread.median)}\n[dim]{text(spread.low)} - {text(spread.high)}[/dim]"


def verdict(claim: Claim, evidence: Evidence) -> dict[str, str | int | float | bool]:
    """Return what the cases of a claim showed, by name."""
    worst = evidence.worst_case
    return {
        "claim": claim.id,
        "title": claim.title,
        "cases": evidence.cases,
        "worst": evidence.worst,
        "tolerance": evidence.tolerance,
        "holds": evidence.holds,
        "part": worst.part,
        "seed": worst.seed,
        "what": worst.what,
    }


def verdicts(found: Sequence[tuple[Claim, Evidence]], conditions: str) -> Table:
    """Tabulate the claims with the worst case of each."""
    cases = sum(evidence.cases for _, evidence in found)
    table = Table(
        title=f"{len(found)} claim{'s' * (len(found) > 1)}, {cases} cases", title_justify="left", caption_justify="left"
    )
    table.caption = f"{conditions}; worst: the residual nearest to its tolerance"
    table.add_column("claim", no_wrap=True)
    table.add_column("cases", justify="right")
    table.add_column("worst", justify="right")
    table.add_column("tolerance", justify="right")
    table.add_column("of", style="dim", overflow="fold")
    table.add_column("verdict")
    for claim, evidence in found:
        table.add_row(
            claim.id,
            str(evidence.cases),
            f"{evidence.worst:.2e}",
            f"{evidence.tolerance:.2e}",
            evidence.worst_case.what,
            "[green]holds[/]" if evidence.holds else "[bold red]fails[/]",
        )
    return table


def counterexamples(found: Iterable[tuple[Claim, Evidence]]) -> list[str]:
    """Return a line for each claim that failed: what was found, and how to see it again."""
    return [
        f"{claim.id}: {case.what}: {case.residual:.3e} against {case.tolerance:.3e}; "
        f"again with: etfopt verify --claim {claim.id} --case {case.part}:{case.seed}"
        for claim, evidence in found
        if (case := evidence.counterexample) is not None
    ]


def residuals(found: Iterable[Residual], title: str) -> Table:
    """Tabulate all that one case found."""
    table = Table(title=title, title_justify="left")
    for heading in ("residual", "tolerance"):
        table.add_column(heading, justify="right")
    table.add_column("of", overflow="fold")
    for value, tolerance, what in found:
        table.add_row(f"{value:.3e}", f"{tolerance:.3e}", what, style=None if value <= tolerance else "bold red")
    return table
