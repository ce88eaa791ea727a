"""Write the summary of all published studies, "When does an ETF head help?"; `make summary` runs it.

It reads notebooks/results/*/report.json and writes notebooks/results/summary/README.md and differences.png. Only
advice.md in that folder is written by hand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from etfopt.plotting import save

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
FOLDER, PAGE, PICTURE, ADVICE = "summary", "README.md", "differences.png", "advice.md"

ACCURACIES = ("test_accuracy_second", "average_accuracy")
"""The quantity of a study's comparisons that is shown: the first of these that it has; the second is over sessions."""

LEFT_OUT = {
    "cost": "it times steps, and trains for five epochs",
    "gradients": "it compares options of the nearest head, and has no learned head",
    "ufm": "the unconstrained-features model has no test split",
    "ufm-1000": "the unconstrained-features model has no test split",
}
"""Studies that say nothing about test accuracy against a learned head, and why."""

LOOKS = {"fixed": ("#0072B2", "s"), "nearest": ("#009E73", "o"), "other": ("#CC79A7", "D")}
"""Colour and marker of each kind of head."""
HEADING: dict[str, Any] = {"fontsize": 8, "weight": "bold", "va": "center", "zorder": 3}
HEADING["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}

TEXT = """# When does an ETF head help?

Every published study with a learned head is here, whichever way it went. A row is the difference in final test accuracy
between a head and the learned head of the same study: same data, same seeds, same batches. Where classes arrive in
sessions it is the average accuracy over the sessions. The interval is a 95 % bootstrap over the seeds, and p is exact:
with n pairs it cannot be below 2/2^n, so three seeds give at least 0.25 and five at least 0.06. Those with p < 0.05
are bold. There are {count} rows, and no correction for their number."""


@dataclass(frozen=True)
class Difference:
    """A head against the learned head of its study, in percentage points of final test accuracy.

    Attributes
    ----------
    study, title : str
        Name and title of the study.
    head, place : str
        Name of the variant, and its place in the grid.
    kind : str
        The head's name in the settings: fixed or nearest; other where it is another.
    pairs : int
        Seeds that both have.
    mean : float
    interval : tuple of two floats, or None
    p : float, or None
    """

    study: str
    title: str
    head: str
    place: str
    kind: str
    pairs: int
    mean: float
    interval: tuple[float, float] | None
    p: float | None


def differences(results: Path) -> list[Difference]:
    """Return all differences of the published studies, in the order of their names.

    Where a study names one learned variant as the baseline of all, as it does where a setting is tried for every head,
    the others are compared with that one; otherwise with the learned head in the same place of the grid.
    """
    found: list[Difference] = []
    for file in sorted(results.glob("*/report.json")):
        if file.parent.name not in LEFT_OUT:
            found += _of_study(file.parent.name, json.loads(file.read_text()))
    return found


def _of_study(name: str, report: dict[str, Any]) -> list[Difference]:
    variants = {variant["name"]: variant for variant in report["study"]["variants"]}
    kinds = {key: variant["config"]["head"]["name"] for key, variant in variants.items()}
    rows = [c for c in report["comparisons"] if kinds[c["variant"]] != "learned" == kinds[c["baseline"]]]
    quantity = next((q for q in ACCURACIES if any(c["quantity"] == q for c in rows)), None)
    rows = [c for c in rows if c["quantity"] == quantity and c["seeds"]]
    one = {b for b in report["study"].get("baselines", ()) if b in variants and variants[b]["cell"]}
    rows = [
        c
        for c in rows
        if (c["baseline"] in one if one else variants[c["variant"]]["cell"] == variants[c["baseline"]]["cell"])
    ]
    order = list(variants)
    rows.sort(key=lambda c: order.index(c["variant"]))
    return [_difference(name, report["study"]["title"], variants[c["variant"]], c) for c in rows]


def _difference(name: str, title: str, variant: dict[str, Any], row: dict[str, Any]) -> Difference:
    interval = row["interval"] and tuple(100 * x for x in row["interval"])
    head = variant["config"]["head"]["name"]
    own = variant["head"] or variant["name"], variant["cell"], head if head in LOOKS else "other"
    return Difference(name, title, *own, len(row["seeds"]), 100 * row["mean"], interval, row["p_value"])


def page(rows: Sequence[Difference], advice: str) -> str:
    """Return the summary in Markdown."""
    lines = [
        "| study | head | where | points | interval | p | pairs |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        points = f"{row.mean:+.2f}"
        interval = "-" if row.interval is None else " to ".join(f"{x:+.2f}" for x in row.interval)
        p = "-" if row.p is None else f"{row.p:.3g}"
        sure = row.p is not None and row.p < 0.05
        cells = [
            f"[{_plain(row.title)}](../{row.study}/report.md)",
            _plain(row.head),
            _plain(row.place) or "-",
            f"**{points}**" if sure else points,
            interval,
            p,
            str(row.pairs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    missing = "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items())
    parts = [
        TEXT.format(count=len(rows)),
        f"## Conclusion\n\n{advice.strip()}",
        "## Every difference",
        f"![Differences in final test accuracy to the learned head, with intervals, study by study]({PICTURE})",
        "\n".join(lines),
        f"Left out: {missing}. `make summary` writes this page anew from the reports beside it.",
    ]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return text so that Markdown shows it as it is, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def draw(rows: Sequence[Difference], path: Path) -> None:
    """Draw the differences with their intervals, a line each, grouped by study; linear within a point of zero."""
    figure = Figure(figsize=(8.5, 0.9 + 0.2 * (len(rows) + len({row.study for row in rows}))), layout="constrained")
    axes = figure.subplots()
    y, labels, study = 0.0, {}, ""
    for row in rows:
        if row.study != study:
            study, y = row.study, y + 1
            axes.text(0.005, -y, row.title, transform=axes.get_yaxis_transform(), **HEADING)
        y += 1
        labels[-y] = ", ".join(filter(None, (row.head, row.place)))
        low, high = row.interval or (math.nan, math.nan)
        color, marker = LOOKS[row.kind]
        axes.plot([low, high], [-y, -y], color=color, linewidth=1.6)
        axes.plot([row.mean], [-y], marker, color=color, markersize=5)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=1, linscale=1)
    ticks = (-50, -20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_yticks(list(labels), list(labels.values()), fontsize=7.5)
    axes.set_ylim(-y - 1, -0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("test accuracy minus the learned head's, points; 95 % interval", fontsize=8)
    kinds = [kind for kind in LOOKS if any(row.kind == kind for row in rows)]
    shapes = [Line2D([], [], color=LOOKS[kind][0], marker=LOOKS[kind][1]) for kind in kinds]
    names = [f"{kind} head" for kind in kinds]
    figure.legend(shapes, names, loc="outside upper right", ncols=len(kinds), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    save(axes, path, dpi=90)


def main() -> None:
    rows, folder = differences(RESULTS), RESULTS / FOLDER
    (folder / PAGE).write_text(page(rows, (folder / ADVICE).read_text()))
    draw(rows, folder / PICTURE)


if __name__ == "__main__":
    main()
