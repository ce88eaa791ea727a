"""Short descriptions of results, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

__all__ = ["Rows", "html", "text"]

Rows: TypeAlias = Sequence[tuple[str, str]]


def text(title: str, rows: Rows) -> str:
    """Return a title and one line for each row."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {value}" for name, value in rows)])


def html(title: str, rows: Rows) -> str:
    """Return a table."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"
