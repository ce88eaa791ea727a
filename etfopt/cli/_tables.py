"""What the command line prints: tables, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from etfopt.experiments.studies._numbers import Spread
    from etfopt.experiments.studies._progress import Progress
    from theory.registry import Claim, Evidence, Residual

Options = Mapping[str, Any]
LEFT: Options = {}
RIGHT: Options = {"justify": "right"}
FOLD: Options = {"overflow": "fold"}
WHOLE: Options = {"no_wrap": True}
"""Columns of a table, as rich has them."""

SHOWN = ("epochs_to_99", "epochs_to_100", "test_accuracy_second", "cosine_margin", "nc1", "nc2", "nc3", "step_ms")
"""Quantities of the demonstration's table."""

EIGHT = {
    "test_accuracy": ("test accuracy", "share of right predictions"),
    "train_accuracy": ("training accuracy", "the same on the training split, as below"),
    "test_loss": ("test loss", "mean over samples"),
    "train_loss": ("training loss", "mean over samples"),
    "train_nc1": ("NC1", "spread within classes over spread between"),
    "train_nc2_means": ("NC2", "distance of the class means from a simplex"),
    "train_nc3": ("NC3", "distance of classifier times means from it"),
    "train_cosine_margin": ("cosine margin", "lead of the right class over the next"),
}
"""The measures that are printed unasked, with their names and meanings."""

LAYERS = 5
"""Layers side by side in a table."""


def table(title: str | None, columns: Mapping[str, Options], rows: Iterable[Sequence[str]], **look: Any) -> Table:
    """Return a table with these columns, by their headings, and these rows of cells."""
    made = Table(title=title, title_justify="left", **look)
    for heading, options in columns.items():
        made.add_column(heading, **options)
    for row in rows:
        made.add_row(*row)
    return made


def summary(record: Mapping[str, float], title: str) -> Table:
    """Tabulate the eight measures of the last record of a run that matter most."""
    rows = [(name, f"{record[key]:.4g}", meaning) for key, (name, meaning) in EIGHT.items()]
    caption = "NC1, NC2 and NC3 are zero at collapse"
    return table(title, {"measure": LEFT, "value": RIGHT, "meaning": {"style": "dim"}}, rows, caption=caption)


def measures(record: Mapping[str, float], title: str) -> Table:
    """Tabulate the last record of a run: every measure on both splits."""
    names = [key.removeprefix("train_") for key in record if key.startswith("train_")]
    rows = [(name, *(f"{record[f'{split}_{name}']:.4g}" for split in ("train", "test"))) for name in names]
    return table(title, {"measure": LEFT, "training": RIGHT, "test": RIGHT}, rows)


def layer_measures(layers: Sequence[Mapping[str, Any]], C: int) -> list[Table]:
    """Tabulate measures, a column a layer, some layers at a time."""
    made = []
    for start in range(0, len(layers), LAYERS):
        part = layers[start : start + LAYERS]
        columns = {"measure": LEFT, **{escape(layer["layer"]): RIGHT for layer in part}}
        shapes = ("shape", *(" x ".join(map(str, layer["shape"])) for layer in part))
        names = dict.fromkeys(name for layer in part for name in layer["measures"])
        rows = [(name, *(_number(layer["measures"].get(name)) for layer in part)) for name in names]
        shown = [row for row in rows if set(row[1:]) != {"-"}]
        caption = "measures without a value are left out" if len(shown) < len(rows) else None
        made.append(table(f"{C} classes", columns, [shapes, *shown], caption=caption))
    return made


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def planned(runs: Sequence[Progress], title: str) -> Table:
    """Tabulate the runs of a study and how far they have come."""
    rows = [(escape(p.run.folder), p.state.value, f"{p.epochs} of {p.run.config.epochs}") for p in runs]
    return table(title, {"run": FOLD, "state": LEFT, "epochs": RIGHT}, rows)


def spreads(summary: Mapping[str, Mapping[str, Spread]], title: str, epochs: int) -> Table:
    """Tabulate medians and ranges over seeds, a column a head."""
    from etfopt.experiments.studies._numbers import QUANTITIES

    names = {**QUANTITIES, "test_accuracy_second": "test accuracy"}
    rows = [(names[key], *(_spread(row[key], epochs) for row in summary.values())) for key in SHOWN]
    caption = "epochs until that training accuracy; margin, NC1 and NC3 on the training split"
    return table(title, {"head": LEFT, **dict.fromkeys(summary, RIGHT)}, rows, caption=caption)


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
    return {
        "claim": claim.id,
        "title": claim.title,
        **{name: getattr(evidence, name) for name in ("cases", "worst", "tolerance", "holds")},
        **{name: getattr(evidence.worst_case, name) for name in ("part", "seed", "what")},
    }


def verdicts(found: Sequence[tuple[Claim, Evidence]], conditions: str) -> Table:
    """Tabulate the claims with the worst case of each."""
    cases = sum(evidence.cases for _, evidence in found)
    columns = {"claim": WHOLE, "cases": RIGHT, "worst": RIGHT, "tolerance": RIGHT, "of": {**FOLD, "style": "dim"}}
    rows = [
        (
            claim.id,
            str(evidence.cases),
            f"{evidence.worst:.2e}",
            f"{evidence.tolerance:.2e}",
            evidence.worst_case.what,
            "[green]holds[/]" if evidence.holds else "[bold red]fails[/]",
        )
        for claim, evidence in found
    ]
    title = f"{len(found)} claim{'s' * (len(found) > 1)}, {cases} cases"
    caption = f"{conditions}; worst: the residual nearest to its tolerance"
    return table(title, {**columns, "verdict": LEFT}, rows, caption=caption, caption_justify="left")


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
    made = table(title, {"residual": RIGHT, "tolerance": RIGHT, "of": FOLD}, [])
    for value, tolerance, what in found:
        made.add_row(f"{value:.3e}", f"{tolerance:.3e}", what, style=None if value <= tolerance else "bold red")
    return made
