"""The exceptions of etfopt. Every message names the argument, the value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.util import find_spec

__all__ = ["ConvergenceError", "EtfoptError", "InputError", "MissingExtraError", "require_extra"]


class EtfoptError(Exception):
    """Base class of every exception that etfopt raises on purpose."""


class InputError(EtfoptError, ValueError):
    """An argument cannot be used. Raised before anything is computed or changed.

    ``str(error)`` is the message, followed by the remedy; ``error.args[0]`` is the message alone.

    Parameters
    ----------
    message : str
        What is wrong, with the argument's name and value, without the remedy.
    argument : str, optional
        Name of the argument at fault.
    value : object, optional
        What was passed.
    remedy : str, optional
        What to pass or call instead. A message that says so itself needs none.
    """

    def __init__(
        self, message: str, argument: str | None = None, value: object = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.argument, self.value, self.remedy = argument, value, remedy

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.remedy is None else f"{message}; {self.remedy}"


class ConvergenceError(EtfoptError, RuntimeError):
    """A solver's answer was rejected by the certificate, or a factorisation failed.

    Parameters
    ----------
    message : str
        What failed, with the numbers that matter, and a remedy.
    solution : etfopt.Solution, optional
        The rejected solution.

    Attributes
    ----------
    solution : etfopt.Solution or None
        The rejected solution, with its certificate, where there is one.
    """

    def __init__(self, message: str, solution: object | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class MissingExtraError(EtfoptError, ImportError):
    """An optional dependency is not installed; the message gives the pip line."""


def require_extra(extra: str, *modules: str) -> None:
    """Raise `MissingExtraError`, with the ``pip`` line, unless these modules of an extra are installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            f"run: pip install 'etfopt[{extra}]'",
            name=missing[0],
        )


def choices(value: object, known: Iterable[str]) -> str:
    """Return the remedy for an unknown name: the nearest of the known ones, if one is near, and all of them."""
    known = list(known)
    return f"{nearest(value, known)}choose one of: {', '.join(known)}"


def nearest(value: object, known: Iterable[str]) -> str:
    """Return a question that ends in a space, "did you mean 'this'? ", or nothing where no known name is near."""
    from difflib import get_close_matches

    word = str(value).lower()[:LONGEST_NAME]
    spelt = {name.lower(): name for name in known}
    near = get_close_matches(word, spelt, n=1, cutoff=0.65) if re.search("[a-z]", word) else []  # numbers are no slips
    # "optimizer.speed" and "optimizer.name" have their topic in common, and nothing else
    near = [name for name in near if get_close_matches(word.split(".")[-1], [name.split(".")[-1]])]
    return "".join(f"did you mean {spelt[name]!r}? " for name in near)


LONGEST_NAME = 100
"""A longer value is not compared with names: that takes time, and it is no name."""
