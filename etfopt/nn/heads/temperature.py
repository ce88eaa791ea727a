r"""The feature temperature that a wanted confidence at collapse asks for."""

from __future__ import annotations

import math

from etfopt._scalars import as_integer, as_positive
from etfopt.errors import InputError

__all__ = ["CONFIDENCE", "LARGEST_TEMPERATURE", "as_temperature", "collapse_temperature"]

CONFIDENCE = 0.9664
"""The confidence at collapse of the paper's released scripts: tau = 5 for C = 10 classes."""

LARGEST_TEMPERATURE = 1e15
"""Beyond it the squares of features could leave the range of float32."""


def collapse_temperature(num_classes: int, confidence: float = CONFIDENCE) -> float:
    r"""Return the temperature at which a collapsed network has this softmax probability for the right class.

    With features of norm :math:`\tau` and classifier rows of unit norm, no network brings the mean cross-entropy of
    balanced classes below :math:`\log(1 + (C-1)e^{-\tau C/(C-1)})`, which is reached at collapse to the simplex ETF
    and nowhere else. There every sample has the probability :math:`p = 1/(1 + (C-1)e^{-\tau C/(C-1)})`, so

    .. math:: \tau = \frac{C-1}{C} \, \log\frac{(C-1)\,p}{1-p}.

    The paper's :math:`\tau = 5` means p = 0.966 for 10 classes, 0.387 for 242 and 0.129 for 1000.

    Parameters
    ----------
    num_classes : int
        C, at least 2.
    confidence : float
        p, above 1/C and below 1.

    Returns
    -------
    float
        tau > 0.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    The proof and its numerical evidence are in ``theory/temperature.py``.

    Examples
    --------
    >>> [round(collapse_temperature(C), 2) for C in (10, 100, 242, 1000)]
    [5.0, 7.87, 8.81, 10.26]
    """
    C = as_integer(num_classes, "num_classes", at_least=2)
    p = as_positive(confidence, "confidence")
    odds = (C - 1) * p / (1 - p) if p < 1 else math.inf
    if not 1 < odds < math.inf:
        raise InputError(
            f"confidence must lie between 1/num_classes = {1 / C:.3g}, which is chance, and 1; got {p:g}: "
            f"the default is {CONFIDENCE}"
        )
    return (C - 1) / C * math.log(odds)


def as_temperature(value: object, num_classes: int, confidence: float) -> float:
    """Return a head's temperature from what its caller asks for.

    Parameters
    ----------
    value : float or "auto"
        A number in (0, 1e15] is taken as it is.
    num_classes : int
        C, for "auto".
    confidence : float
        For "auto", as in `collapse_temperature`.

    Returns
    -------
    float
        tau.

    Raises
    ------
    InputError
        If the value is neither, or out of range.
    """
    automatic = collapse_temperature(num_classes, confidence)
    if isinstance(value, str):
        if value != "auto":
            raise InputError(f"temperature must be a real number or 'auto'; got {value!r}")
        return automatic
    temperature = as_positive(value, "temperature")
    if temperature > LARGEST_TEMPERATURE:
        raise InputError(f"temperature must be at most {LARGEST_TEMPERATURE:g}; got {temperature:g}")
    return temperature
