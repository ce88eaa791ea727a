"""Which pages of the built documentation load something from another host."""

from __future__ import annotations

import re
from pathlib import Path

LOADS = re.compile(
    r"<(?:script|img|iframe|source|link\b(?![^>]*rel=\"(?:canonical|next|prev)\"))"  # a tag that loads ...
    r"[^>]*?(?:src|srcset|href)=[\"'](?:https?:)?//"  # ... from another host
)


def outside(folder: Path) -> list[str]:
    """Return what pages load from other hosts, as "page: tag". Links that a reader follows do not count."""
    return [
        f"{page.relative_to(folder)}: {found}"
        for page in sorted(folder.rglob("*.html"))
        for found in LOADS.findall(page.read_text(encoding="utf-8"))
    ]
