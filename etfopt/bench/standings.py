"""One line a solver: how much of a comparison it solved, and how fast."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from etfopt._display import html_table
from etfopt.bench.summary import Summary

__all__ = ["Standing", "Standings"]


@dataclass(frozen=True)
class Standing:
    """A solver over all problems.

    Attributes
    ----------
    solver : str
    certified, runs : int
        Runs that reached the optimum by the certificate, of all runs.
    slowdown : float
        Median over the problems of its time over that of the fastest solver, among those of which every run was
        certified there; inf where its own were not.
    seconds : float or None
        Median over the problems of its median time.
    relative_gap : float or None
        The worst of all answers.
    """

    solver: str
    certified: int
    runs: int
    slowdown: float
    seconds: float | None
    relative_gap: float | None


class Standings(tuple[Standing, ...]):
    """The solvers of a comparison, the best first: by certified runs, then by slowdown. Notebooks show it as a table.

    Parameters
    ----------
    lines : sequence of Summary
        From `etfopt.bench.summary.summarise`.

    Examples
    --------
    >>> from etfopt.bench.standings import Standings
    >>> Standings([])
    Standings of 0 solvers
    """

    __slots__ = ()

    def __new__(cls, lines: Sequence[Summary]) -> Standings:
        """Gather the lines of each solver."""
        fastest: dict[str, float] = {}
        for line in lines:
            if line.certified == line.runs and line.seconds is not None:
                fastest[line.problem] = min(line.seconds, fastest.get(line.problem, math.inf))
        names = dict.fromkeys(line.solver for line in lines)
        made = [_standing(name, [line for line in lines if line.solver == name], fastest) for name in names]
        return super().__new__(cls, sorted(made, key=lambda one: (-one.certified / one.runs, one.slowdown)))

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows of the table as text: solver, certified, slowdown, time, worst gap.

        Returns
        -------
        list of tuple of str
        """
        return [
            (
                one.solver,
                f"{one.certified} of {one.runs}",
                "-" if math.isinf(one.slowdown) else f"{_short(one.slowdown)} x",
                "-" if one.seconds is None else _time(one.seconds),
                "-" if one.relative_gap is None else f"{max(one.relative_gap, 0):.0e}",
            )
            for one in self
        ]

    def __repr__(self) -> str:
        rows = [f"  {solver:<26}{certified:>10}{slow:>12}" for solver, certified, slow, *_ in self.cells()]
        return "\n".join([f"Standings of {len(self)} solvers", *rows])

    def _repr_html_(self) -> str:
        return html_table("Solvers, the best first", self.cells(), HEADINGS)


HEADINGS = ("solver", "certified", "slowdown", "time", "worst gap")
"""Headings of `Standings.cells`."""


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _standing(name: str, lines: Sequence[Summary], fastest: dict[str, float]) -> Standing:
    times = [line.seconds for line in lines if line.seconds is not None]
    ratios = [
        line.seconds / fastest[line.problem] if line.seconds is not None and line.certified == line.runs else math.inf
        for line in lines
    ]
    return Standing(
        solver=name,
        certified=sum(line.certified for line in lines),
        runs=sum(line.runs for line in lines),
        slowdown=statistics.median_low(ratios),
        seconds=statistics.median(times) if times else None,
        relative_gap=max((line.relative_gap for line in lines if line.relative_gap is not None), default=None),
    )
