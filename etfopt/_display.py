"""Short descriptions of results, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

Rows: TypeAlias = Sequence[tuple[str, str]]


class Described:
    """Shown by its class's name and a few rows, never by its arrays."""

    def _rows(self) -> Rows:
        raise NotImplementedError

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join([f"{type(self).__name__}:", *(f"  {name:<{width}}  {value}" for name, value in self._rows())])

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._rows())
        return f"<table><caption>{type(self).__name__}</caption>{cells}</table>"
