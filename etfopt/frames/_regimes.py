"""The pairs (d, C) for which the best frame is known in closed form, and the certificates of those frames."""

from __future__ import annotations

from typing import Literal

from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.frames._frame import FrameCertificate

Regime = Literal["simplex", "polygon", "orthoplex", "code"]


def regime(d: int, C: int) -> tuple[int, int, Regime]:
    """Return d and C as checked integers, and what frame is best for them; refuse pairs that have none."""
    d, C = as_integer(d, "d", at_least=1), as_integer(C, "C", at_least=2)
    if d + 1 >= C:
        return d, C, "simplex"
    if d == 1:
        message = f"d = 1 has room for 2 different unit vectors; got C = {C}"
        raise InputError(message, "d", d, "use d >= 2")
    if 2 * d >= C:
        return d, C, "orthoplex"
    return d, C, "polygon" if d == 2 else "code"


def simplex_certificate(C: int) -> FrameCertificate:
    """Return the certificate of the simplex, whose bound holds in every dimension."""
    return optimal(-1.0 / (C - 1), None)


def optimal(largest_cosine: float, d: int | None) -> FrameCertificate:
    """Return the certificate of a closed-form frame that Rankin's bounds prove optimal in R^d."""
    return FrameCertificate(largest_cosine, largest_cosine, d, "Rankin", proven=True)
