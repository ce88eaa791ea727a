"""What the training command refuses by names, numbers and paths alone: before it imports PyTorch, which takes seconds.

The settings check themselves again when they are made; a test compares the messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etfopt._arrays import as_integer, as_nonnegative, as_positive
from etfopt.cli import _values as values
from etfopt.errors import InputError

__all__ = ["require_file", "require_folder", "require_machine", "require_settings"]

FOLDER = "imagefolder:"

CHOICES = {
    "data.batches": values.BATCHES,
    "data.augmentation": values.AUGMENTATIONS,
    "backbone.name": values.BACKBONES,
    "head.name": values.HEADS,
    "loss.name": values.LOSSES,
    "optimizer.name": values.OPTIMIZERS,
    "schedule.name": values.SCHEDULES,
}
INTEGERS = {"seed": 0, "training.epochs": 1, "training.batch_size": 2, "backbone.width": 1, "backbone.dim": 1}
NUMBERS: dict[str, Callable[[object, str], float]] = {
    "optimizer.learning_rate": as_positive,
    "optimizer.weight_decay": as_nonnegative,
    "schedule.warmup": as_nonnegative,
    "head.delta": as_nonnegative,
}


def require_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what no configuration can hold; a value that was typed with --set is a string, and read if it can be."""
    for name in settings:
        if name not in values.SETTINGS:
            near = [known for known in values.SETTINGS if known.startswith(f"{name.rpartition('.')[0]}.")]
            raise InputError(f"unknown setting {name}; known are: {', '.join(near or values.SETTINGS)}")
    for name, known in CHOICES.items():
        if settings.get(name, known[0]) not in known:
            raise InputError(f"{name} = {settings[name]!r} is not known; choose one of: {', '.join(known)}")
    for name, least in INTEGERS.items():
        if (count := _read(settings.get(name), int)) is not None:
            as_integer(count, name, least)
    for name, check in NUMBERS.items():
        if (number := _read(settings.get(name), float)) is not None:
            check(number, name)
    if (tau := _read(settings.get("head.temperature"), float)) is not None:
        as_positive(tau, "temperature")
    _require_data(settings.get("data.name"))


def _require_data(name: str | None) -> None:
    if name is None or name in values.DATA[:-1]:
        return
    if not name.startswith(FOLDER) or name == FOLDER:
        known = ", ".join([*values.DATA[:-1], f"{FOLDER}PATH"])
        raise InputError(f"data.name = {name!r} is not known; choose one of: {known}")
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")


def _read(value: Any, kind: Callable[[Any], Any]) -> Any:
    """Return a setting as a number, or None where it is none: that is judged where the setting's type is known."""
    try:
        return kind(value) if isinstance(value, str) else value
    except ValueError:
        return None


def require_machine(**counts: int | None) -> None:
    """Refuse more threads or jobs than there are processors."""
    for name, count in counts.items():
        if count is not None and as_integer(count, name, at_least=1) > (os.cpu_count() or 1):
            raise InputError(f"{name} = {count} is more than the {os.cpu_count()} processors of this machine")


def require_file(path: Path) -> None:
    """Refuse a file that is not there or cannot be opened."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def require_folder(path: Path) -> None:
    """Refuse a file where a folder is to be."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: cannot be used as a folder: it is a file; choose another with --out")
