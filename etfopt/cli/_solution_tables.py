"""What the command line prints of a solution: the verdict first, then the numbers behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from etfopt.cli._tables import FOLD, RIGHT, table

if TYPE_CHECKING:
    from rich.table import Table

    from etfopt.solution import Solution

CERTIFIED = (
    *("gap", "relative_gap", "feasibility", "stationarity", "curvature", "margin", "unique", "etf_unique"),
    *("distance_bound", "etf_distance_bound"),
)
"""What is printed of a certificate."""

ROUNDOFF = 2.0**-53
"""A smaller gap is rounding, and may be below zero."""


def facts(solution: Solution) -> dict[str, str | float | bool]:
    """Return what is known of a solution, by name."""
    problem, certificate = solution.problem, solution.certificate
    return {
        "d": problem.d,
        "C": problem.C,
        "dtype": str(problem.dtype),
        "solver": solution.stats.solver,
        "termination": solution.termination.name.lower(),
        "seconds": solution.stats.seconds,
        **{name: getattr(solution, name) for name in ("converged", "objective", "scale", "distance")},
        **{name: getattr(certificate, name) for name in CERTIFIED},
        **({"held": certificate.held} if problem.held else {}),
    }


def verdict(solution: Solution, allowed: float = 0.0) -> Text:
    """Return one sentence: whether the answer is the optimum, and if not, what to do. `allowed` bounds the gap."""
    certificate = solution.certificate
    if solution.converged:
        gap = max(certificate.relative_gap, ROUNDOFF)
        return Text.assemble(("certified", "bold green"), f": within {gap:.0e} of the optimum (relative gap)")
    why = f"the relative gap is {certificate.relative_gap:.1e}, and {allowed:.1e} is allowed"
    if not certificate.feasible:
        off, most = max(certificate.feasibility, certificate.held), certificate.feasibility_tolerance
        why = f"U is off the manifold by {off:.1e}, and {most:.1e} is allowed"
    stopped = solution.termination.name.lower().replace("_", " ")
    advice = f"{solution.stats.solver} stopped by its {stopped}; use --solver procrustes, which needs no start"
    if solution.stats.solver == "Procrustes":
        advice = "save H in float64" if solution.problem.dtype == "float32" else "report this as a bug"
    return Text.assemble(("not certified", "bold red"), f": {why}. {advice}")


def solution_table(solution: Solution) -> Table:
    """Tabulate a solution and its certificate; what is free by the frame's own symmetry is left out."""
    from etfopt.assignment import is_simplex

    certificate = solution.certificate
    weighted, least = ("", "from H") if solution.problem.weights is None else ("weighted ", "weighted,")
    rows = [
        ("distance", f"{solution.distance:.6g}", f"{least} to the nearest ETF of any size"),
        ("scale", f"{solution.scale:.6g}", "size of that ETF"),
        ("objective", f"{solution.objective:.6g}", f"{weighted}||H - UF||^2 and the proximal term"),
        ("gap", f"{certificate.gap:.1e}", "excess objective, up to rounding"),
        ("relative gap", f"{certificate.relative_gap:.1e}", "gap over the nuclear norm of A"),
        ("feasibility", f"{certificate.feasibility:.1e}", "||U'U - I||"),
        *_uniqueness(solution),
        *([("held", f"{certificate.held:.1e}", "by how much held vertices moved")] if solution.problem.held else []),
    ]
    what = "simplex ETF" if is_simplex(solution.problem) else "rotation of the frame"
    title = f"Nearest {what} of {solution.problem.C} classes in {solution.problem.d} dimensions"
    caption = f"{solution.stats.solver}, {solution.stats.seconds:.2g} s"
    return table(title, {"": FOLD, "value": RIGHT, "meaning": {"style": "dim"}}, rows, caption=caption)


def _uniqueness(solution: Solution) -> list[tuple[str, str, str]]:
    """Return the rows on uniqueness. U of the paper's frame is never unique, and its ETF is: then U is no row."""
    certificate = solution.certificate
    margin = ("margin", f"{certificate.margin:.3g}", "smallest singular value of A")
    if not certificate.etf_unique:
        free = "H leaves a direction of it free"
        return [margin, ("ETF", "not unique", free), ("U", "not unique", free)]
    etf = ("ETF", "unique", f"||UF - U*F|| <= {certificate.etf_distance_bound:.1e}")
    if not certificate.unique:
        return [etf]
    return [margin, etf, ("U", "unique", f"||U - U*|| <= {certificate.distance_bound:.1e}")]
