"""The changes that the guides show as diffs, for tests that run them."""

import re
import sys
from types import ModuleType
from typing import Any

from tests import ROOT


def diffs(page: str) -> list[list[str]]:
    """Return the lines of each diff of a guide."""
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    return [block.splitlines() for block in re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def added(page: str) -> list[int]:
    """Return how many lines that are not blank each diff of a guide adds."""
    return [sum(line.startswith("+") and len(line) > 1 for line in block) for block in diffs(page)]


def changed(page: str) -> dict[str, Any]:
    """Run what the diffs of a guide lead to, one after the other; return the names that they define."""
    module = ModuleType(f"guide_{page}")
    sys.modules[module.__name__] = module  # where pickles look for the classes
    for block in diffs(page):
        code = "\n".join(line[1:] for line in block if not line.startswith("-"))
        exec(compile(code, f"{page}.md", "exec"), vars(module))
    return vars(module)
