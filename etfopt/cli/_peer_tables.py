"""Tables of `etfopt bench peers`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from etfopt.cli._bench_tables import FRAMELESS, NUMBER, duration
from etfopt.cli._tables import LEFT, WHOLE, table

if TYPE_CHECKING:
    from etfopt.bench.peers import PartRow, PeerRow

LOOK = {**FRAMELESS, "show_edge": False}

ANSWERS = (
    "times: medians, U alone, then U and dL/dH; x: over etfopt's time, above 1 etfopt is faster; errors: ||U'U - I||, "
    "then relative ones of U, dL/dH and, up to C = 10, the second derivative. 'wrong' stands where fewer than 3 digits "
    "are right in float32, or 6 in float64"
)


def answers(rows: Sequence[PeerRow]) -> Iterator[Table]:
    """Tabulate times and errors of every peer that was asked, a table for each problem and number of threads."""
    numbers = ("U", "x", "U and\ndL/dH", "x ", "error:\nU'U-I", "\nU", "\ndL/dH", "\n2nd")
    columns = {"peer": WHOLE, **dict.fromkeys(numbers, NUMBER)}
    groups = [list(group) for _, group in groupby(rows, lambda row: (row.problem, row.threads))]
    for group in groups:
        asked = [row for row in group if row.right is not None or row.failed or row.note.startswith("refuses")]
        title = f"{group[0].problem}; {_threads(group[0].threads)}"
        notes = [f"{row.peer} {row.note}" for row in asked if row.note]
        if group is groups[-1]:
            notes.append(ANSWERS)
        caption = "\n".join(notes) or None
        yield table(title, columns, [_answer(row) for row in asked], caption=caption, **LOOK)


def _answer(row: PeerRow) -> tuple[str, ...]:
    return (
        row.peer,
        _time(row.forward),
        _ratio(row.forward, row.forward_ratio),
        _time(row.total),
        _ratio(row.total, row.ratio),
        *map(_error, (row.orthonormality, row.distance, row.derivative)),
        "wrong" if row.second_right is False else _error(row.second),
    )


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.0e}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _ratio(seconds: float | None, ratio: float | None) -> str:
    if seconds is None:
        return "-"
    return "wrong" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def overview(rows: Sequence[PeerRow]) -> Iterator[Table]:
    """Tabulate the ratios of forward and backward of all that differentiate, a row for each problem."""
    names = list(dict.fromkeys(row.peer for row in rows if row.total is not None and row.peer != "etfopt"))
    if not names:
        return
    columns = {"problem": LEFT, "threads": NUMBER, **dict.fromkeys((_broken(name) for name in names), NUMBER)}
    cells = []
    for _, group in groupby(rows, lambda row: (row.problem, row.threads)):
        found = {row.peer: row for row in group}
        first = next(iter(found.values()))
        ratios = (_ratio(found[name].total, found[name].ratio) if name in found else "-" for name in names)
        cells.append((first.problem, str(first.threads), *ratios))
    caption = "time of the peer over that of etfopt: above 1, etfopt is faster"
    yield table("Forward and backward, over etfopt", columns, cells, caption=caption, **LOOK)


def surroundings(rows: Sequence[PartRow]) -> Iterator[Table]:
    """Tabulate the parts of the library beside their yardsticks."""
    columns = {"part": WHOLE, "threads": NUMBER, "time": NUMBER, "yardstick": LEFT, "its time": NUMBER, "ratio": NUMBER}
    cells = [
        (
            f"{row.part}, {row.size}",
            str(row.threads),
            duration(row.seconds),
            row.yardstick,
            duration(row.yardstick_seconds),
            f"{row.ratio:.2f}",
        )
        for row in rows
    ]
    if rows:
        yield table("Around the node: a part over its yardstick", columns, cells, **LOOK)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _broken(name: str) -> str:
    """Return a name over several lines, for a narrow column."""
    return name.replace(".", ".\n")
