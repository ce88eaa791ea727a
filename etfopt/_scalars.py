"""Validation of numbers and words, without NumPy, which takes a tenth of a second to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from etfopt.errors import InputError, choices

PAPER_DELTA = 1e-3
"""Proximal weight of Markou, Ajanthan and Gould (2024), for class means of norm 1."""


def as_nonnegative(value: object, name: str) -> float:
    """Return `value` as a finite float >= 0, or raise `InputError`."""
    number = as_real(value, name)
    if not 0 <= number < math.inf:
        raise InputError(f"{name} must be finite and at least 0; got {number}", name, value)
    return number


def as_positive(value: object, name: str) -> float:
    """Return `value` as a finite float > 0, or raise `InputError`."""
    number = as_real(value, name)
    if not 0 < number < math.inf:
        raise InputError(f"{name} must be finite and above 0; got {number}", name, value)
    return number


def as_integer(value: object, name: str, at_least: int) -> int:
    """Return `value` as an integer >= `at_least`, or raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        got = f"{one_line(repr(value))} ({type(value).__name__})"
        raise InputError(f"{name} must be an integer of at least {at_least}; got {got}", name, value)
    return int(value)


def as_choice(value: Any, name: str, known: Sequence[str]) -> str:
    """Return `value` if it is one of the known words, or raise `InputError`."""
    if not (isinstance(value, str) and value in known):
        raise InputError(f"{name} = {value!r} is not known", name, value, choices(value, known))
    return value


def proximal_weight(delta: float | None, shape: tuple[int, int], *, has_prox: bool) -> float:
    """Return the proximal weight: by default that of the paper with a proximal point, and 0 without one."""
    if delta is None:
        return PAPER_DELTA if has_prox else 0.0
    weight = as_nonnegative(delta, "delta")
    if weight > 0 and not has_prox:
        remedy = f"pass prox of shape {shape}, or delta=0"
        raise InputError(f"delta = {weight} needs a proximal point", "delta", delta, remedy)
    return weight


def as_real(value: object, name: str) -> float:
    """Return `value` as a float, which may be NaN or infinite, or raise `InputError`."""
    """Return `value` as a float, which may be NaN or infinite, or raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        got = f"{one_line(repr(value))} of type {type(value).__name__}"
        raise InputError(f"{name} must be a real number; got {got}", name, value)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def one_line(text: object) -> str:
    """Return a text in one line of at most 200 characters, without the full stop at its end."""
    words = " ".join(str(text).split()).rstrip(".")
    return words if len(words) <= 200 else f"{words[:197]}..."
