"""The best frames in closed form, by regime."""

from __future__ import annotations

from etfopt.frames._frame import Frame
from etfopt.frames._regimes import Regime
from etfopt.frames.orthoplex import orthoplex
from etfopt.frames.polygon import polygon
from etfopt.frames.reduced import reduced

__all__ = ["closed_form"]


def closed_form(best: Regime, d: int, C: int) -> Frame | None:
    """Return the best frame of C vectors in d dimensions; None if it has no closed form."""
    match best:
        case "simplex":
            return reduced(C)
        case "polygon":
            return polygon(C)
        case "orthoplex":
            return orthoplex(d, C)
        case "code":
            return None
