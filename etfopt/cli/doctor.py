"""The command that says what is installed and whether it works."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from etfopt.cli._app import console

if TYPE_CHECKING:
    from etfopt.cli import _diagnosis as diagnosis

__all__ = ["doctor"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False) -> None:
    """Print versions, devices and extras, and solve, certify and differentiate one small problem on each device.

    Paste what it prints into a report of a fault. Exit status 1 if a check fails.

    ```
    etfopt doctor
    etfopt doctor --json > doctor.json
    ```
    """
    from etfopt.cli import _diagnosis as diagnosis
    from etfopt.files import strict_json

    facts, devices = diagnosis.platform_facts(), diagnosis.devices()
    extras, checks = diagnosis.extras(), diagnosis.checks()
    if as_json:
        document = {
            "platform": facts,
            "devices": devices,
            "extras": [extra._asdict() for extra in extras],
            "checks": [{**dataclasses.asdict(check), "passed": check.passed} for check in checks],
        }
        print(strict_json(document), end="")
    else:
        console.print(_facts({**facts, "PyTorch's devices": ", ".join(devices) or "PyTorch is not installed"}))
        console.print(_extras(extras))
        console.print(_checks(checks))
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _facts(facts: dict[str, str]) -> Table:
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _extras(extras: list[diagnosis.Extra]) -> Table:
    table = Table(title="Extras", title_justify="left")
    for heading in ("extra", "asks for", "installed"):
        table.add_column(heading)
    for extra in extras:
        table.add_row(extra.extra, escape(extra.requirement), extra.installed or "[yellow]missing[/]")
    return table


def _checks(checks: list[diagnosis.Check]) -> Table:
    table = Table(title="Self-check", title_justify="left")
    table.add_column("check", overflow="fold")
    table.add_column("figure", justify="right")
    table.add_column("at most", justify="right")
    table.add_column("", overflow="fold")
    for check in checks:
        verdict = "[green]passed[/]" if check.passed else f"[bold red]failed[/] {escape(check.broken)}"
        table.add_row(check.name, f"{check.figure:.1e}", f"{check.tolerance:.0e}", verdict)
    return table
