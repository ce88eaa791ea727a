"""Names of release 0.1 that have moved still work, with a warning that says where to import them from."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds these names in the modules that they moved to."""

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} has moved; use: from {names[name]} import {name}", DeprecationWarning, stacklevel=2
        )
        return getattr(importlib.import_module(names[name]), name)

    return __getattr__
