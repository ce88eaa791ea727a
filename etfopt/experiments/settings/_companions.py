"""Defaults that depend on another setting: what goes with a loss or with data where the user says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPANIONS = (
    # the minimiser of dot-regression is collapse to the ETF for features of norm 1 alone
    ("loss", "dot-regression", "head", "temperature", 1.0),
    ("data", "ufm", "backbone", "name", "free"),
)
"""A topic, a name there, and the setting of another topic that then has another default."""


def completed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return nested settings with the defaults that others ask for, where they are not given."""
    for topic, name, other, key, default in COMPANIONS if isinstance(values, Mapping) else ():
        table, companion = values.get(topic), values.get(other, {})
        if not isinstance(table, Mapping) or not isinstance(companion, Mapping):
            continue  # refused where the record is made
        if table.get("name") == name and key not in companion:
            values = {**values, other: {**companion, key: default}}
    return values


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have such defaults and are named in nested values: they stay, whatever they are."""
    return {f"{topic}.{key}": values[topic][key] for *_, topic, key, _ in COMPANIONS if key in values.get(topic, {})}


def left_open(values: dict[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Remove from nested values those that new settings give another default, if they still have the old one."""
    for topic, name, other, key, _ in COMPANIONS:
        wanted = settings.get(f"{topic}.name") == name and f"{other}.{key}" not in settings
        if wanted and values[other][key] == defaults[other][key]:
            del values[other][key]
