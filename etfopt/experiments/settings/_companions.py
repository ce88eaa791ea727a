"""Defaults that depend on another setting: what goes with a loss or with data where the user says nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["COMPANIONS", "completed", "left_open", "named"]

COMPANIONS = (
    # the minimiser of dot-regression is collapse to the ETF for features of norm 1 alone
    ("loss.name", "dot-regression", "head.temperature", 1.0),
    ("data.name", "ufm", "backbone.name", "free"),
)
"""A setting, one of its values, and the setting that then has another default."""


def completed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return nested settings with the defaults that others ask for, where they are not given."""
    for name, value, other, default in COMPANIONS if isinstance(values, Mapping) else ():
        (topic, key), (other_topic, other_key) = name.split("."), other.split(".")
        table, companion = values.get(topic), values.get(other_topic, {})
        if not isinstance(table, Mapping) or not isinstance(companion, Mapping):
            continue  # refused where the record is made
        if table.get(key) == value and other_key not in companion:
            values = {**values, other_topic: {**companion, other_key: default}}
    return values


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have such defaults and are named in nested values: they stay, whatever they are."""
    others = [other.split(".") for *_, other, _ in COMPANIONS]
    return {f"{topic}.{key}": values[topic][key] for topic, key in others if key in values.get(topic, {})}


def left_open(values: dict[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values without those that new settings give another default, if they still have the old one."""
    values = copy.deepcopy(values)
    for name, value, other, _ in COMPANIONS:
        topic, key = other.split(".")
        if settings.get(name) == value and other not in settings and values[topic][key] == defaults[topic][key]:
            del values[topic][key]
    return values
