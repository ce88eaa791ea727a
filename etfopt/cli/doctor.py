"""The command that says what is installed and whether it works."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import RenderableType

from etfopt.cli import _doctor_tables as tables
from etfopt.cli._app import AsJson, hand_over

__all__ = ["doctor"]


def doctor(
    everything: Annotated[bool, typer.Option("--all", help="List every package of every extra too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation: solve, certify and differentiate a small problem on each device; list what is installed.

    Paste the output of --all into a bug report. The exit status is 1 if a check fails.

    ```
    etfopt doctor
    etfopt doctor --all
    etfopt doctor --json > doctor.json
    ```
    """
    from etfopt.cli import _diagnosis as diagnosis

    facts, devices = diagnosis.platform_facts(), diagnosis.devices()
    extras, checks = diagnosis.extras(), diagnosis.checks()
    document = {
        "platform": facts,
        "devices": devices,
        "extras": [extra._asdict() for extra in extras],
        "checks": [{**dataclasses.asdict(check), "passed": check.passed} for check in checks],
    }
    named = f"{diagnosis.version_of('torch')} on {', '.join(devices)}" if devices else "not installed"
    shown: list[RenderableType] = [tables.verdict(checks), tables.screen(facts, named, extras, checks)]
    if everything:
        shown += [tables.extras(extras), tables.checks(checks)]
    hand_over(document, shown, [], as_json)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
