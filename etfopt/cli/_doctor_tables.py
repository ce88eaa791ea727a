"""What `etfopt doctor` prints: one screen, or with --all every package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape

from etfopt.cli._tables import FOLD, LEFT, RIGHT, WHOLE, table

if TYPE_CHECKING:
    from rich.table import Table

    from etfopt.cli._diagnosis import Check, Extra

NAMED = 3
"""Missing packages of an extra that are named on the one screen."""


def verdict(checks: Sequence[Check]) -> str:
    """Return whether the installation works."""
    failed = sum(not check.passed for check in checks)
    if failed:
        return f"[bold red]{failed} of {len(checks)} checks failed[/]: please report the output of etfopt doctor --all"
    return f"[green]All {len(checks)} checks passed.[/]"


def screen(facts: Mapping[str, str], devices: str, found: Iterable[Extra], checks: Iterable[Check]) -> Table:
    """Tabulate the state of an installation on one screen."""
    extras = {name: [*group] for name, group in groupby(found, key=lambda extra: extra.extra)}
    whole = [name for name, group in extras.items() if all(one.installed for one in group)]
    rows = [
        *((name, escape(value)) for name, value in facts.items()),
        ("torch", escape(devices)),
        *([("extras", ", ".join(whole))] if whole else []),
        *(("[yellow]missing[/]", _missing(name, group)) for name, group in extras.items() if name not in whole),
        *(_checked(check) for check in checks),
    ]
    return table(None, {"": WHOLE, "found": LEFT}, rows, show_header=False, box=None)


def _missing(name: str, group: Sequence[Extra]) -> str:
    absent = [one.requirement.split(">")[0].split("<")[0] for one in group if not one.installed]
    more = ", ..." if len(absent) > NAMED else ""
    return escape(f"{', '.join(absent[:NAMED])}{more}: pip install 'etfopt[{name}]'")


def _checked(check: Check) -> tuple[str, str]:
    if check.passed:
        return "[green]passed[/]", escape(f"{check.name}: {check.figure:.1e}")
    why = check.broken or f"{check.figure:.1e}, at most {check.tolerance:.0e} is allowed"
    return "[bold red]failed[/]", escape(f"{check.name}: {why}")


def extras(found: Iterable[Extra]) -> Table:
    """Tabulate what each extra asks for and what is installed."""
    rows = [(e.extra, escape(e.requirement), e.installed or "[yellow]missing[/]") for e in found]
    return table("Extras", dict.fromkeys(("extra", "asks for", "installed"), LEFT), rows)


def checks(found: Iterable[Check]) -> Table:
    """Tabulate the self-checks."""
    rows = [
        (
            check.name,
            f"{check.figure:.1e}",
            f"{check.tolerance:.0e}",
            "[green]passed[/]" if check.passed else f"[bold red]failed[/] {escape(check.broken)}",
        )
        for check in found
    ]
    return table("Self-check", {"check": FOLD, "figure": RIGHT, "at most": RIGHT, "": FOLD}, rows)
