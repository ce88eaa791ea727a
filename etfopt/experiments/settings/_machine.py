"""The machine of a run: it is no setting, since the same run can go on elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from etfopt._scalars import as_integer
from etfopt.errors import InputError, nearest


def require_processors(count: int, name: str) -> None:
    """Refuse more threads or processes than there are processors.

    Parameters
    ----------
    count : int
        How many are wanted.
    name : str
        The argument's.

    Raises
    ------
    InputError
        If it is no integer of at least 1, or too large.
    """
    if as_integer(count, name, at_least=1) > (os.cpu_count() or 1):
        raise InputError(f"{name} = {count} is more than the {os.cpu_count()} processors of this machine")


@dataclass(frozen=True)
class Machine:
    """On what a run is trained; the values are those of ``pytorch_lightning.Trainer``.

    Attributes
    ----------
    accelerator : str
        "auto", "cpu", "gpu", ...
    devices : int
        Number of devices, each with a process of its own. They share every batch.
    strategy : str
        "auto", "ddp", ...
    precision : str
        "32-true", "bf16-mixed", "64-true", ...
    threads : int
        CPU threads. On networks as small as the demonstration's, waiting for a second thread costs more than it
        brings, and on a busy machine far more.

    Raises
    ------
    InputError
        If there are fewer processors than threads.
    """

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int = 1

    def __post_init__(self) -> None:
        as_integer(self.devices, "devices", at_least=1)
        require_processors(self.threads, "threads")


def machine_of(options: Mapping[str, Any]) -> Machine:
    """Return the machine of a function's other keyword arguments.

    Parameters
    ----------
    options : mapping
        Attributes of `Machine` by name.

    Returns
    -------
    Machine

    Raises
    ------
    InputError
        If one is none of them, or is refused.
    """
    known = [field.name for field in fields(Machine)]
    for name in options:
        if name not in known:
            said = f"{name} is no argument; {nearest(name, known)}"
            raise InputError(f"{said}those of the machine: {', '.join(known)}")
    return Machine(**options)
