"""Short descriptions of results, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

Rows: TypeAlias = Sequence[tuple[str, str]]


def html_table(caption: str, rows: Iterable[Sequence[str]], headings: Sequence[str] = ()) -> str:
    """Return a table without styles, which has the look of the notebook: each row begins with its name."""
    head = "".join(f"<th>{escape(word)}</th>" for word in headings)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table><caption>{escape(caption)}</caption>{head}<tbody>{body}</tbody></table>"


class Tabulated:
    """Shown in a notebook as a table of a few rows, never by its arrays."""

    def _rows(self) -> Rows:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._rows())


class Described(Tabulated):
    """Shown in a terminal by its class's name and the same rows."""

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join([f"{type(self).__name__}:", *(f"  {name:<{width}}  {value}" for name, value in self._rows())])
