"""Which modules of a network are meant by names, patterns and the name of its classifier."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn

from etfopt.errors import InputError

Layers: TypeAlias = str | re.Pattern[str] | Sequence[str | re.Pattern[str]]
"""A name, a pattern, or several of them."""

SHOWN = 12
"""Names in an error message."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside of DistributedDataParallel and of ``torch.compile``: its names are those users know."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Return the modules by name, in the order of the entries; those of a pattern in the order of the network."""
    entries = [layers] if isinstance(layers, (str, re.Pattern)) else list(layers)
    every = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, nn.Module] = {}
    for entry in entries:
        found.update(_matches(model, every, entry))
    names: dict[nn.Module, str] = {}
    for name, module in found.items():
        if module in names:
            raise InputError(
                f"layers holds {names[module]!r} and {name!r}, which are one module; name it once: "
                "calls='each' tells its calls apart"
            )
        names[module] = name
    return found


def _matches(model: nn.Module, every: dict[str, nn.Module], entry: object) -> dict[str, nn.Module]:
    if isinstance(entry, str) and entry in every:
        return {entry: every[entry]}
    if not isinstance(entry, (str, re.Pattern)):
        raise InputError(
            f"layers holds {entry!r}; pass names of modules, patterns such as 'blocks.*', or re.compile(...)"
        )
    # a module with two names matches by its first
    found = {name: module for name, module in model.named_modules() if name and _fits(name, entry)}
    if not found:
        close = difflib.get_close_matches(str(entry), list(every), n=3, cutoff=0.5)
        listed = close or [name for name in every if name][:SHOWN]
        more = "" if close or len(every) - 1 <= SHOWN else ", ..."
        said = entry.pattern if isinstance(entry, re.Pattern) else entry
        raise InputError(
            f"layers holds {said!r}, and the model has no such module; "
            f"{'did you mean' if close else 'it has'} {', '.join(map(repr, listed))}{more}{'?' * bool(close)}"
        )
    return found


def _fits(name: str, entry: str | re.Pattern[str]) -> bool:
    """Whether a name fits a regular expression as a whole, or a pattern part by part: a star does not match a dot."""
    if isinstance(entry, re.Pattern):
        return entry.fullmatch(name) is not None
    parts, wanted = name.split("."), entry.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def find_classifier(model: nn.Module, name: str, num_classes: int) -> nn.Module:
    """Return the classifier of that name: an ``nn.Linear`` or a head of etfopt for that many classes."""
    ((name, module),) = find_layers(model, [name]).items()
    classifies = isinstance(module, nn.Linear) or callable(getattr(module, "normalize", None))
    weight = getattr(module, "weight", None) if classifies else None
    if not isinstance(weight, Tensor):
        raise InputError(
            f"classifier = {name!r} is a {type(module).__name__}; name an nn.Linear or a head of etfopt, or update a "
            "metric with the features and the weight of your classifier yourself"
        )
    if len(weight) != num_classes:
        raise InputError(
            f"classifier = {name!r} has {len(weight)} classes, and num_classes is {num_classes}; name the last layer, "
            "or correct num_classes"
        )
    return module
