"""Cells and rows of a report's tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from etfopt.experiments.studies._numbers import Spread


def plain(text: str) -> str:
    """Return text so that Markdown shows it as it is, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def table(head: Sequence[str], body: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first columns are words, and numbers the others."""
    lines = [list(head), [*["---"] * words, *["---:"] * (len(head) - words)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(found: Spread, kind: str, epochs: int = 0) -> str:
    """Return the median, and the range where it is more than that."""
    values = [number(value, kind, epochs) for value in (found.median, found.low, found.high)]
    return values[0] if len(set(values)) == 1 else f"{values[0]} ({values[1]} to {values[2]})"


def number(value: float, kind: str, epochs: int = 0) -> str:
    """Return a number as a cell shows it: as "percent", "epochs" or "number"."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"\\>{epochs}"
    if kind == "percent":
        return f"{100 * value:.2f} %"
    if kind == "epochs":
        return f"{value:g}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:#.3g}"
