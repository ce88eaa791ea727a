"""Results of a comparison: one JSON file and two figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from etfopt.bench._measure import REPEAT_SECONDS, REPEATS, Row
from etfopt.bench.compare import GRACE
from etfopt.bench.lineup import Entrant
from etfopt.bench.summary import performance_profile, ratios, summarise
from etfopt.bench.timing import conditions
from etfopt.files import strict_json, whole

__all__ = ["conditions", "document", "write_report"]

ACCURACIES = (1e-4, 1e-8)
"""Relative gaps at which the profiles count a problem as solved."""

RULES = {
    "start": "uniform on St(d, r), from numpy.random.default_rng(seed); the same for all local solvers",
    "repeat_until_seconds": REPEAT_SECONDS,
    "repeat_at_most": REPEATS,
    "killed_after": f"{GRACE:g} times the limit and 1 s",
}
"""Rules that hold for every comparison; see `etfopt.bench.compare`."""


def document(rows: Sequence[Row], entrants: Sequence[Entrant], settings: Mapping[str, object]) -> dict[str, object]:
    """Return a comparison as one JSON document: conditions, settings, solvers, summaries, rows."""
    return {
        "conditions": conditions(),
        "settings": dict(settings) | RULES,
        "solvers": [_described(entrant) for entrant in entrants],
        "summary": [dataclasses.asdict(line) for line in summarise(rows)],
        "rows": [{**dataclasses.asdict(row), "status": row.status.value} for row in rows],
    }


def _described(entrant: Entrant) -> dict[str, object]:
    solver = entrant.solver
    return {
        "name": entrant.name,
        "class": type(solver).__name__,
        "local": entrant.local,
        "parameters": dataclasses.asdict(solver) if dataclasses.is_dataclass(solver) else {},
    }


def write_report(
    rows: Sequence[Row], entrants: Sequence[Entrant], settings: Mapping[str, object], folder: Path, figures: bool = True
) -> list[Path]:
    """Write ``compare.json`` and, with figures, ``convergence.png`` and ``profiles.png`` into an existing folder.

    Each file is put in place whole. Figures need the extra `plots`. Returns the paths.
    """
    numbers = folder / "compare.json"
    with whole(numbers) as part:
        part.write_text(strict_json(document(rows, entrants, settings)))
    return [numbers, *(_figures(rows, folder) if figures else [])]


def _figures(rows: Sequence[Row], folder: Path) -> list[Path]:
    from etfopt.plotting import draw_convergence_page, draw_profile_page, save

    convergence, profiles = folder / "convergence.png", folder / "profiles.png"
    save(draw_convergence_page(rows), convergence, dpi=120)
    steps = {
        accuracy: {solver: performance_profile(values) for solver, values in ratios(rows, accuracy).items()}
        for accuracy in ACCURACIES
    }
    save(draw_profile_page(steps), profiles, dpi=120)
    return [convergence, profiles]
