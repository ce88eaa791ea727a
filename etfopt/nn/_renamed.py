"""Options of release 0.1 that have another name: they still work, with a warning that says how to write them now."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from etfopt._options import collapse_temperature

Kind = TypeVar("Kind", bound=type)


def takes_old_options(kind: Kind) -> Kind:
    """Let a head or `ClassMeans` take ``process_group=`` and ``confidence=``, and say where ``averaging=`` is now."""
    init: Callable[..., None] = getattr(kind, "__init__")  # noqa: B009 - it may be inherited

    @functools.wraps(init)
    def renaming(self: Any, *args: Any, **options: Any) -> None:
        if "averaging" in options and "averaging" not in inspect.signature(kind).parameters:
            raise TypeError(f"{kind.__name__} takes memory= now; averaging= is an option of PaperClassMeans")
        if "process_group" in options:
            _warn(kind, "process_group=GROUP", "synchronize=GROUP")
            group = options.pop("process_group")
            if group is not None and options.get("synchronize", True) is True:
                options["synchronize"] = group
        if "confidence" in options:
            _warn(kind, "confidence=P", "temperature=collapse_temperature(C, P)")
            confidence = options.pop("confidence")
            if options.get("temperature") == "auto":
                C = options["num_classes"] if "num_classes" in options else args[1]
                options["temperature"] = collapse_temperature(C, confidence)
        init(self, *args, **options)

    kind.__init__ = renaming  # type: ignore[misc] # on purpose
    return kind


def _warn(kind: type, old: str, new: str) -> None:
    warnings.warn(f"{kind.__name__}({old}) is written {new} now", DeprecationWarning, stacklevel=3)
