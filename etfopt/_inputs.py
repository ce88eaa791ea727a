"""Validation of array and scalar arguments: one place, so that every function refuses the same things alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etfopt.errors import InputError

Array = NDArray[np.floating[Any]]
Float64Array = NDArray[np.float64]


def as_matrix(value: ArrayLike, name: str, *, copy: bool = True) -> Array:
    """Return `value` as a finite, real float32 or float64 matrix, or raise `InputError`.

    float16 becomes float32 and integers become float64; both conversions are exact or correctly rounded. The matrix
    is fresh and read-only, unless `copy` is False: then it may be `value` itself.
    """
    array = _as_real_array(value, name)
    if copy:
        array = np.array(array, order="C")
    if array.ndim != 2:
        raise InputError(f"{name} must be a matrix (2-D); got {array.ndim}-D of shape {array.shape}")
    if 0 in array.shape:
        raise InputError(f"{name} must not be empty; got shape {array.shape}")
    _require_finite(array, name)
    if copy:
        array.flags.writeable = False
    return array


def _as_real_array(value: Any, name: str) -> Array:
    origin = type(value).__module__.partition(".")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array; fill or drop the masked entries first, e.g. {name}.filled(0.0)")
    if origin[0] == "scipy" and origin[2].startswith("sparse"):
        raise InputError(f"{name} is a sparse {type(value).__name__}; pass {name}.toarray()")
    if origin[0] == "torch":
        raise InputError(
            f"{name} is a torch tensor; use etfopt.nn.functional for tensors, or pass {name}.detach().cpu().numpy()"
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be read as an array: {error}; pass rows of equal length") from error
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    # by kind and size, not by equality: a file may hold the other byte order
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(
            f"{name} has dtype {array.dtype}; pass real numbers of float32 or float64, e.g. {name}.astype(float)"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _require_finite(array: Array, name: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        bad = ~finite
        count = int(np.count_nonzero(bad))
        first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
        raise InputError(
            f"{name} holds {count} value(s) that are NaN or infinite, the first at {first}: {array[first]}; "
            "remove or replace them"
        )


def require_shape(array: Array, shape: Sequence[int], name: str) -> None:
    """Raise `InputError` unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise InputError(f"{name} has shape {array.shape}; it must be {tuple(shape)}")


def room_hint(d: int, C: int, *, simplex: bool, reduced: str, name: str = "d") -> str:
    """Say what to do where d dimensions, an argument called `name`, are too few for a frame of C vectors.

    `simplex` tells whether the frame is the default one, and `reduced` is the code that gives the smaller one.
    """
    if not simplex:
        return f"a frame with at most {d} rows is needed"
    if d == C - 1:
        return f"{name} = C-1 works with frame={reduced}"
    return f"a simplex of C = {C} vectors needs {name} >= C-1 = {C - 1}"


def as_nonnegative(value: object, name: str) -> float:
    """Return `value` as a finite float >= 0, or raise `InputError`."""
    number = _as_real(value, name)
    if not 0 <= number < math.inf:
        raise InputError(f"{name} must be finite and at least 0; got {number}")
    return number


def as_positive(value: object, name: str) -> float:
    """Return `value` as a finite float > 0, or raise `InputError`."""
    number = _as_real(value, name)
    if not 0 < number < math.inf:
        raise InputError(f"{name} must be finite and above 0; got {number}")
    return number


def as_integer(value: object, name: str, at_least: int) -> int:
    """Return `value` as an integer >= `at_least`, or raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise InputError(f"{name} must be an integer of at least {at_least}; got {value!r} ({type(value).__name__})")
    return int(value)


def _as_real(value: object, name: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise InputError(f"{name} must be a real number; got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf
