"""Signatures of constructors that hand options on to the next class."""

from __future__ import annotations

import inspect


def whole_signature(kind: type) -> inspect.Signature:
    """Return the signature of a constructor, with the options that its ``**options`` hand on to the next."""
    parameters: dict[str, inspect.Parameter] = {}
    for init in (vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)):
        own = inspect.signature(init).parameters
        parameters = {**parameters, **{name: p for name, p in own.items() if name not in parameters}}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    parameters.pop("self")
    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    # what is required comes first, also where a subclass adds options
    return inspect.Signature(sorted(named, key=lambda p: (p.kind, p.default is not p.empty)))
