"""Cells and tables of a report, as Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from etfopt.experiments.studies._numbers import TAILS, Spread
from etfopt.experiments.studies._sessions import SESSION_QUANTITIES

ACCURACIES = {"test_accuracy_first": 0, "test_accuracy_second": 1}
PERCENT = (*ACCURACIES, *(name for name in TAILS if "accuracy" in name), *SESSION_QUANTITIES)
SPEED = ("epochs_to_99", "epochs_to_100", "epochs_to_margin_1")


def plain(text: str) -> str:
    """Return text so that Markdown shows it as it is, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first columns are words, and numbers the others."""
    lines = [list(head), [*["---"] * words, *["---:"] * (len(head) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def kind_of(key: str) -> str:
    return "percent" if key in PERCENT else "epochs" if key in SPEED else "number"


def spread_text(spread: Spread, kind: str, epochs: int = 0) -> str:
    values = [number_text(value, kind, epochs) for value in (spread.median, spread.low, spread.high)]
    return values[0] if len(set(values)) == 1 else f"{values[0]} ({values[1]} to {values[2]})"


def number_text(value: float, kind: str, epochs: int = 0) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"\\>{epochs}"
    if kind == "percent":
        return f"{100 * value:.2f} %"
    if kind == "epochs":
        return f"{value:g}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:#.3g}"
