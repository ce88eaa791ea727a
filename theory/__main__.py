"""``python -m theory`` writes the table of claims into README.md, which is made from the docstrings."""

from __future__ import annotations

import re
from pathlib import Path

from theory.registry import Claim, claims

README = Path(__file__).with_name("README.md")
MARKS = ("<!-- claims: written by `python -m theory` -->", "<!-- end of claims -->")


def table() -> str:
    """Return the claims as a Markdown table: what each says, and what it is used for in the code."""
    rows = ["| claim | what it says | used in |", "| --- | --- | --- |"]
    rows += [f"| [{claim.id}]({claim.id}.py) | {claim.title} | {_uses(claim)} |" for claim in claims()]
    return "\n".join(rows)


def _uses(claim: Claim) -> str:
    bullets = re.findall(r"^- (.+(?:\n  .+)*)", claim.used_in, flags=re.MULTILINE)
    return "<br>".join(" ".join(bullet.split()) for bullet in bullets)


def readme() -> str:
    """Return README.md with the table as it must be."""
    before, _, rest = README.read_text().partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{table()}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


if __name__ == "__main__":
    README.write_text(readme())
