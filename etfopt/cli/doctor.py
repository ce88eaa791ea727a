"""The command that says what is installed and whether it works."""

from __future__ import annotations

import dataclasses

import typer

from etfopt.cli import _tables as tables
from etfopt.cli._app import AsJson, hand_over

__all__ = ["doctor"]


def doctor(as_json: AsJson = False) -> None:
    """Print versions, devices and extras, and solve, certify and differentiate one small problem on each device.

    Paste the output into a bug report. The exit status is 1 if a check fails.

    ```
    etfopt doctor
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
    shown = {**facts, "PyTorch's devices": ", ".join(devices) or "PyTorch is not installed"}
    hand_over(document, [tables.platform(shown), tables.extras(extras), tables.checks(checks)], [], as_json)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
