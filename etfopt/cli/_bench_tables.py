"""Tables of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from etfopt.cli._tables import LEFT, RIGHT, WHOLE, table

if TYPE_CHECKING:
    from etfopt.bench._measure import Row as ComparisonRow
    from etfopt.bench.head import HeadRow, StatisticsRow
    from etfopt.bench.loops import LoopRow
    from etfopt.bench.node import NodeRow
    from etfopt.bench.pipelines import Row
    from etfopt.bench.standings import Standings
    from etfopt.bench.summary import Summary
    from etfopt.bench.units import UnitRow

FRAMELESS: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "caption_justify": "left"}
"""The look of a wide table: without a frame, eighty columns are enough for numbers in seven."""
NUMBER = {**RIGHT, **WHOLE}


def pipelines(rows: Sequence[Row], conditions: Mapping[str, object]) -> Table:
    """Tabulate the closed form against the paper's pipeline, with the conditions as caption."""
    names = ("d", "C", "closed form", "the paper's", "ratio", "memory", "paper's memory", "linear layer")
    columns = {**dict.fromkeys(names, RIGHT), "ratio": NUMBER}
    cells = [
        (
            str(row.d),
            str(row.C),
            *("cannot run" if time is None else duration(time) for time in [*row.seconds.values()][:2]),
            "-" if row.ratio is None else f"{row.ratio:,.0f} x",
            _bytes(row.memory),
            _bytes(row.paper_memory),
            duration(row.linear),
        )
        for row in rows
    ]
    title = "One step, forward + backward, closed form against the paper's pipeline"
    return table(title, columns, cells, caption=conditions_line(conditions))


def unit_costs(rows: Sequence[UnitRow]) -> Iterator[Table]:
    """Tabulate the methods of the closed form in units of products and linear layers, a table for each problem."""
    groups: dict[str, list[UnitRow]] = {}
    for row in rows:
        groups.setdefault(f"{row.d} x {row.C}, {row.spectrum}", []).append(row)
    columns = {"dtype": WHOLE, "method": WHOLE}
    columns |= dict.fromkeys(("forward", "backward", "A'A", "A'B", "layers"), NUMBER)
    for problem, group in groups.items():
        cells = [
            (
                row.dtype if i == 0 or row.dtype != group[i - 1].dtype else "",
                row.method if row.method == row.route else f"{row.method} ({row.route})",
                duration(row.forward),
                duration(row.backward),
                *(f"{row.total / unit:.3g}" for unit in (row.square, row.product, row.linear)),
            )
            for i, row in enumerate(group)
        ]
        caption = UNITS_NOTE if problem == list(groups)[-1] else None
        yield table(f"The methods of the closed form, {problem}", columns, cells, caption=caption, **FRAMELESS)


UNITS_NOTE = (
    "medians of a solve and its gradient; in brackets the route that kept the promised accuracy. A'A, A'B, layers: "
    "forward and backward in units of a product of the matrix with itself (half the operations), with another, and of "
    "a linear layer's forward and backward pass at batch 256"
)


def node_costs(rows: Sequence[NodeRow], conditions: Mapping[str, object]) -> Table:
    """Tabulate what the differentiable node costs."""
    numbers = ("forward", "and\nbackward", "A'A", "linear\nlayers", "memory /\n(dC + C^2)")
    columns = {"d x C, means": LEFT, "method": WHOLE, **dict.fromkeys(numbers, NUMBER)}
    cells = [
        (
            f"{row.d} x {row.C}, {row.spectrum}",
            row.method,
            duration(row.forward),
            duration(row.total),
            f"{row.total / row.product:.3g}",
            f"{row.total / row.linear:.3g}",
            f"{row.memory:.2g}",
        )
        for row in rows
    ]
    return table("The node, float32", columns, cells, caption=conditions_line(conditions), **FRAMELESS)


def head_costs(rows: Sequence[HeadRow], conditions: Mapping[str, object]) -> Table:
    """Tabulate what the heads cost in training."""
    numbers = ("C", "batch", "step", "over\nlearned", "head\nalone", "adds to\na step")
    cells = [
        (
            row.head,
            str(row.C),
            str(row.batch),
            duration(row.step),
            f"{row.ratio:.3f} x",
            duration(row.alone),
            f"{row.share:+.3%}",
        )
        for row in rows
    ]
    title = "A training step of ResNet-18, 32 x 32 images"
    return table(title, {"head": WHOLE, **dict.fromkeys(numbers, NUMBER)}, cells, caption=conditions_line(conditions))


def statistics_costs(rows: Sequence[StatisticsRow]) -> Table:
    """Tabulate what running statistics cost beside the paper's."""
    cells = [
        (f"{row.batch} x {row.d}", str(row.C), duration(row.running), duration(row.paper), f"{row.ratio:.3f} x")
        for row in rows
    ]
    columns = {"features": WHOLE, **dict.fromkeys(("C", "running", "paper", "ratio"), NUMBER)}
    return table("A step of the nearest head by itself, by its statistics", columns, cells)


def loop_accuracies(rows: Sequence[LoopRow], conditions: Mapping[str, object]) -> Table:
    """Tabulate accuracies after training, a row for each loop: the median, and the range below it."""
    heads = list(dict.fromkeys(row.head for row in rows))
    found = {(row.loop, row.head): row for row in rows}
    titles = {row.loop: row.title for row in rows}
    cells = [
        (f"{loop}\n[dim]{title}[/dim]", *(_accuracies(found[loop, head]) for head in heads))
        for loop, title in titles.items()
    ]
    columns = {"loop": LEFT, **dict.fromkeys((head.replace(", ", ",\n") for head in heads), NUMBER)}
    caption = f"test accuracy in per cent: median over the seeds, and range; {conditions_line(conditions)}"
    # six heads in eighty columns: the box parts them by a space
    return table("Accuracy after training", columns, cells, caption=caption, **FRAMELESS | {"padding": 0})


def _accuracies(row: LoopRow) -> str:
    median, low, high = (f"{100 * x:.1f}".replace("100.0", "100") for x in (row.median, row.lowest, row.highest))
    return f"{median}\n[dim]{low}-{high}[/dim]"


def conditions_line(conditions: Mapping[str, object]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in conditions.items()
    )


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
        shown = [name for name, least in COMPARED.items() if width >= least]
        columns = {"solver": {"width": 24, **WHOLE}, **dict.fromkeys(shown, NUMBER), "certified": LEFT}
        found = [_compared(line) for line in lines if line.problem == problem]
        cells = [[row[name] for name in columns] for row in found]
        notes = list(dict.fromkeys(row.message for row in group if row.message))
        if problem == problems[-1]:
            notes += [COMPARISON_NOTE, conditions_line(conditions)]
        caption = Text("\n".join(notes)) if notes else None
        look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "caption_justify": "left"}
        yield table(title, columns, cells, caption=caption, **look)


BAR, DECADE = 9, 2
"""Longest bar of the overall table, and how much of it a factor of ten takes."""


def overall(standings: Standings) -> Table:
    """Tabulate how all solvers did on all problems, with a bar for the logarithm of the slowdown."""
    columns = {"solver": WHOLE, "certified": NUMBER, "slowdown": NUMBER, "time": NUMBER, "worst gap": NUMBER}
    cells = [
        (*row, "#" * min(BAR, 1 + round(DECADE * math.log10(one.slowdown))) if math.isfinite(one.slowdown) else "")
        for one, row in zip(standings, standings.cells(), strict=True)
    ]
    note = "slowdown: median over the problems of the time over that of the fastest solver, and its logarithm as a bar"
    look = FRAMELESS | {"pad_edge": False}
    return table("All problems", {**columns, "bar": WHOLE}, cells, caption=note, **look)


COMPARED = {"time": 0, "range": 118, "gap": 0, "stat.": 100, "in UF": 0, "iter.": 0}
"""Columns of the comparison, and how wide a page must be for them."""

COMPARISON_NOTE = (
    "time and iterations: medians over the starts; gap, stationarity and distance in U F from the nearest ETF: the "
    "worst, all relative; certified: feasible, and the gap within what the solver promises"
)


def _compared(line: Summary) -> dict[str, str]:
    """Return the cells of a row by the headings of their columns."""

    def power(value: float | None) -> str:
        if value is None:
            return "-"
        return "0" if value <= 0 else f"{value:.1e}"

    span = line.runs > 1 and line.fastest is not None and line.slowest is not None
    certified = f"{line.certified} of {line.runs}"
    return {
        "solver": line.solver,
        "time": "-" if line.seconds is None else duration(line.seconds),
        "range": _span(line.fastest or 0.0, line.slowest or 0.0) if span else "",
        "gap": power(line.relative_gap),
        "stat.": power(line.relative_stationarity),
        "in UF": power(line.etf_distance),
        "iter.": "-" if line.iterations is None else f"{line.iterations:.0f}",
        "certified": f"{certified}, {line.reason}" if line.reason else certified,
    }


def duration(value: float) -> str:
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
