r"""The options of the PyTorch bridge that are names and numbers, checked without importing torch."""

from __future__ import annotations

import math
import warnings
from typing import Self

from etfopt._registry import Registry
from etfopt._scalars import as_choice, as_integer, as_positive, as_real
from etfopt.errors import InputError

METHODS = ("auto", "svd", "gram", "newton-schulz")
"""Routes to a polar factor."""

AVERAGINGS = Registry(
    "averaging", {"paper": "etfopt.nn.averaging:paper", "cumulative": "etfopt.nn.averaging:cumulative"}
)
"""Rules of running means that have a name; a rate is another."""

METRICS = Registry(
    "measures",
    {
        "collapse": "etfopt.metrics:NeuralCollapse",
        "rank": "etfopt.metrics:NumericalRank",
        "margin": "etfopt.metrics:CosineMargin",
        "mismatch": "etfopt.metrics:NearestMeanMismatch",
        "ncc": "etfopt.metrics:NCCAgreement",
    },
)
"""Metrics that have a name on the command line."""

STATISTICS = ("running", "paper")
"""How a head keeps class means."""

CONFIDENCE = 0.9664
"""The confidence at collapse of the paper's released scripts: tau = 5 for C = 10 classes."""

LEAST_CONFIDENCE = 0.9
"""Heads whose temperature allows less than this at collapse say so."""

LARGEST_TEMPERATURE = 1e15
"""Beyond it the squares of features could leave the range of float32."""

LARGEST_COSINE = 1 - 1e-6
"""A frame with a larger cosine between two vectors has no useful temperature."""


class ByKeyword:
    """A class whose constructor takes keywords only: heads take dim first, and two sizes are easily swapped."""

    def __new__(cls, *positional: object, **_: object) -> Self:
        """Refuse positional arguments by an error that shows the right call."""
        if positional:
            raise TypeError(
                f"{cls.__name__} takes its arguments by keyword, and got {positional!r} without: write "
                f"{cls.__name__}(num_classes=..., dim=...)"
            )
        return super().__new__(cls)


def collapse_temperature(num_classes: int, confidence: float = CONFIDENCE) -> float:
    r"""Return the temperature at which a collapsed network has this softmax probability for the right class.

    With features of norm :math:`\tau` and classifier rows of unit norm, the mean cross-entropy of balanced classes is
    at least :math:`\log(1 + (C-1)e^{-\tau C/(C-1)})`. Only collapse to the simplex ETF reaches this bound. There every
    sample has the probability :math:`p = 1/(1 + (C-1)e^{-\tau C/(C-1)})`, so

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

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Proof: ``theory/temperature.py``.

    Examples
    --------
    >>> from etfopt.nn import collapse_temperature
    >>> [round(collapse_temperature(C), 2) for C in (10, 100, 242, 1000)]
    [5.0, 7.87, 8.81, 10.26]
    """
    C = as_integer(num_classes, "num_classes", at_least=2)
    return (C - 1) / C * _log_odds(C, confidence)


def frame_temperature(num_classes: int, largest_cosine: float, confidence: float = CONFIDENCE) -> float:
    r"""Return a temperature at which every class of a collapsed network has at least this softmax probability.

    At collapse on a frame of unit vectors with largest cosine :math:`\mu`, the logit of the right class is
    :math:`\tau`, and no other exceeds :math:`\tau\mu`. So the right class has a probability of at least
    :math:`1/(1 + (C-1)e^{-\tau(1-\mu)})`, which is p for

    .. math:: \tau = \frac{1}{1-\mu} \, \log\frac{(C-1)\,p}{1-p}.

    For a simplex, :math:`\mu = -1/(C-1)`, this is `collapse_temperature`, and every class has exactly p.

    Parameters
    ----------
    num_classes : int
        C, at least 2.
    largest_cosine : float
        :math:`\mu`, from -1/(C-1) to 1, 1 excluded: ``frame.largest_cosine`` of an `etfopt.frames.Frame`. For a frame
        with columns of different norms, such as the SELI pair, pass ``1 - pair.logit_gap``.
    confidence : float
        p, above 1/C and below 1.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Proof: ``theory/temperature.py``.

    Examples
    --------
    >>> from etfopt.frames import best_frame
    >>> from etfopt.nn import frame_temperature
    >>> round(frame_temperature(1000, best_frame(512, 1000).largest_cosine), 2)
    10.27
    """
    C = as_integer(num_classes, "num_classes", at_least=2)
    mu, simplex = as_real(largest_cosine, "largest_cosine"), -1.0 / (C - 1)
    if not simplex - 1e-9 <= mu < 1:
        message = f"largest_cosine of C = {C} vectors lies between -1/(C-1) = {simplex:.3g} and 1; got {mu:.6g}"
        raise InputError(message, "largest_cosine", largest_cosine, "pass that of a frame of different vectors")
    if mu == simplex:  # the same formula; this keeps the same digits
        return collapse_temperature(C, confidence)
    return _log_odds(C, confidence) / (1 - mu)


def _log_odds(C: int, confidence: float) -> float:
    """Return log((C-1) p/(1-p)): by how much one logit must exceed C - 1 equal ones."""
    p = as_positive(confidence, "confidence")
    odds = (C - 1) * p / (1 - p) if p < 1 else math.inf
    if not 1 < odds < math.inf:
        raise InputError(
            f"confidence must lie between 1/num_classes = {1 / C:.3g}, which is chance, and 1; got {p:g}: "
            f"the default is {CONFIDENCE}"
        )
    return math.log(odds)


def as_temperature(value: object, num_classes: int, largest_cosine: float | None = None) -> float:
    """Return a positive number as it is and "auto" as the temperature of a frame, or raise `InputError`.

    None for the largest cosine means that of a simplex.
    """
    if isinstance(value, str):
        if value != "auto":
            raise InputError(f"temperature must be a real number or 'auto'; got {value!r}")
        if largest_cosine is None:
            return collapse_temperature(num_classes)
        if largest_cosine > LARGEST_COSINE:
            raise InputError(
                "temperature='auto' needs a frame in which the right class has the largest logit; here another class "
                f"is ahead, or equal up to rounding (largest cosine {largest_cosine:.6g}); pass a number, or a frame "
                "whose vectors differ"
            )
        return frame_temperature(num_classes, largest_cosine)
    temperature = as_positive(value, "temperature")
    if temperature > LARGEST_TEMPERATURE:
        raise InputError(f"temperature must be at most {LARGEST_TEMPERATURE:g}; got {temperature:g}")
    return temperature


def warn_of_low_temperature(
    temperature: float, num_classes: int, stacklevel: int, largest_cosine: float | None = None
) -> None:
    """Warn if a collapsed network could not give the right class a probability of 0.9; 1 is for dot-regression."""
    C = num_classes
    lead = C / (C - 1) if largest_cosine is None else 1 - largest_cosine
    p = 1 / (1 + (C - 1) * math.exp(-max(min(temperature * lead, 700), -700)))
    if temperature > 1 and p < LEAST_CONFIDENCE * (1 - 1e-9):  # up to rounding: 0.9 itself may be asked for
        remedy = "Pass a frame whose vectors differ"
        if largest_cosine is None or largest_cosine <= LARGEST_COSINE:
            auto = as_temperature("auto", C, largest_cosine)
            remedy = f"Leave temperature out, or pass 'auto': that is {auto:.3g} here"
        warnings.warn(
            f"temperature = {temperature:g} is small for {C} classes: after cross-entropy, even a collapsed network "
            f"gives the right class a probability of {p:.2g} only. {remedy}",
            UserWarning,
            stacklevel=stacklevel,
        )


def as_averaging(value: object) -> str | float:
    """Return the name of a rule for running means, or a constant rate, or raise `InputError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    if isinstance(value, str):
        return AVERAGINGS.checked(value)
    raise InputError(f"averaging must be 'paper', 'cumulative', an import path or a rate in (0, 1]; got {value!r}")


def as_ignored(value: object, num_classes: int) -> int:
    """Return the label of ignored samples, an integer outside [0, num_classes), or raise `InputError`."""
    usable = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if not isinstance(value, int) or not usable or 0 <= value < num_classes:
        raise InputError(
            f"ignore_index must be an integer outside [0, {num_classes}), no class; got {value!r}: the default is -100"
        )
    return value


def as_statistics(value: object) -> str:
    """Return the name of a way to keep class means, or raise `InputError`."""
    return as_choice(value, "statistics", STATISTICS)


def as_memory(value: object) -> float:
    """Return a number of samples above 0, infinity included, or raise `InputError`."""
    if isinstance(value, float) and value == math.inf:
        return value
    return as_positive(value, "memory")


def as_shrinkage(value: object, name: str) -> float:
    """Return an intensity in (0, 1], or raise `InputError`."""
    s = as_positive(value, name)
    if s > 1:
        raise InputError(f"{name} must lie in (0, 1]; got {s:g}: 1 is the nearest ETF itself")
    return s


def as_method(value: object) -> str:
    """Return the name of a method, or raise `InputError`."""
    return as_choice(value, "method", METHODS)
