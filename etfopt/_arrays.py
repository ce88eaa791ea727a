"""Validation of arrays: every function refuses the same argument with the same words."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etfopt._scalars import one_line
from etfopt.errors import InputError

Array = NDArray[np.floating[Any]]
Float64Array = NDArray[np.float64]
Seed: TypeAlias = (
    np.random.Generator
    | np.random.BitGenerator
    | np.random.SeedSequence
    | int
    | Sequence[int]
    | NDArray[np.integer[Any]]
    | None
)


def as_matrix(
    value: ArrayLike,
    name: str,
    *,
    copy: bool = True,
    shape: tuple[int, int] | None = None,
    unread: NDArray[np.bool_] | None = None,
) -> Array:
    """Return `value` as a finite, real float32 or float64 matrix of this shape, or raise `InputError`.

    float16 becomes float32 and integers become float64; both conversions are exact or correctly rounded. The matrix
    is fresh and read-only, unless `copy` is False: then it may be `value` itself. Columns that are `unread` become
    zeros, whatever they hold.
    """
    array = _as_real_array(value, name)
    if copy:
        array = np.array(array, order="C")
    if array.ndim != 2:
        raise InputError(f"{name} must be a matrix (2-D); got {array.ndim}-D of shape {array.shape}", name, value)
    if 0 in array.shape:
        raise InputError(f"{name} must not be empty; got shape {array.shape}", name, value)
    if unread is not None and unread.shape == array.shape[1:]:
        array = np.where(unread, array.dtype.type(0), array)
    _require_finite(array, name)
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; it must be {shape}", name, value)
    if copy:
        array.flags.writeable = False
    return array


def as_vector(value: ArrayLike, name: str, C: int | None = None) -> Float64Array:
    """Return one finite number a class, in float64 and fresh, or raise `InputError`."""
    vector = np.array(_as_real_array(value, name), dtype=np.float64)
    if vector.ndim != 1 or C not in (None, len(vector)):
        wanted = "one-dimensional" if C is None else f"({C},)"
        raise InputError(f"{name} has shape {vector.shape}; it must be {wanted}, one number a class", name, value)
    _require_finite(vector, name)
    return vector


def as_weights(value: ArrayLike, name: str, C: int | None = None) -> Float64Array:
    """Return weights of C classes, at least 0 and not all 0, in float64 and read-only, or raise `InputError`."""
    weights = as_vector(value, name, C)
    if (weights < 0).any():
        first = int(np.argmax(weights < 0))
        message = f"{name} holds negative values, the first of class {first}: {weights[first]:g}"
        raise InputError(message, name, value, "pass 0 to leave a class out")
    if not weights.any():
        raise InputError(f"{name} is zero for every class", name, value, "give one class a positive weight")
    weights.flags.writeable = False
    return weights


def _as_real_array(value: Any, name: str) -> Array:
    _refuse_other_libraries(value, name)
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever the value's own conversion raises
        message = f"{name} cannot be read as an array: {one_line(error)}; got {_shown(value)}"
        raise InputError(message, name, value, f"pass {_remedy(value, name)}") from error
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    # by kind and size, not by equality: a file may hold the other byte order
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        where, example = _conversion(value, array, name)
        message, remedy = f"{name} has dtype {array.dtype}{where}", f"pass real numbers of float32 or float64{example}"
        raise InputError(message, name, value, remedy)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _refuse_other_libraries(value: Any, name: str) -> None:
    """Refuse types whose numbers `numpy.asarray` would misread."""
    if isinstance(value, np.ma.MaskedArray):
        remedy = f"fill or drop the masked entries first, e.g. {name}.filled(0.0)"
        raise InputError(f"{name} is a masked array", name, value, remedy)
    if any(kind.__module__.startswith("scipy.sparse") for kind in type(value).__mro__):
        raise InputError(f"{name} is a sparse {type(value).__name__}", name, value, f"pass {name}.toarray()")
    if _is_tensor(value):
        remedy = f"use etfopt.nn.functional for tensors, or pass {name}.detach().cpu().numpy()"
        raise InputError(f"{name} is a torch tensor", name, value, remedy)


def _is_tensor(value: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(value).__mro__)


def _conversion(value: Any, array: np.ndarray[Any, Any], name: str) -> tuple[str, str]:
    """Return where an array of another dtype holds no number, and code that converts it."""
    if array.ndim == 0:
        return f"; got {_shown(value)}", ""
    if array.dtype.kind == "c":
        return "", f", e.g. numpy.real({name})"
    if array.dtype == object:
        others = (index for index, item in np.ndenumerate(array) if not isinstance(item, Real))
        if (first := next(others, None)) is not None:
            return f"; the entry at {first} is {_shown(array[first])}", ""
    example = f"{name}.astype(float)" if isinstance(value, np.ndarray) else f"numpy.array({name}, dtype=float)"
    return "", f", e.g. {example}"


def _remedy(value: Any, name: str) -> str:
    """Say what to pass instead of a value that is no array."""
    if _holds_tensors(value):
        return (
            f"tensors without a gradient on the CPU, e.g. [x.detach().cpu() for x in {name}], or use "
            "etfopt.nn.functional for tensors"
        )
    if isinstance(value, (list, tuple)):
        return "rows of equal length, of real numbers"
    return "a NumPy array of real numbers"


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(_is_tensor(item) or _holds_tensors(item) for item in value)


def _shown(value: object) -> str:
    """Return type and value of an argument in one short line."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"a {type(value).__name__} of shape {shape}"
    try:
        text = reprlib.repr(value)
    except Exception:  # it may be as broken as the conversion
        text = "a value without a representation"
    return f"{one_line(text)} of type {type(value).__name__}"


def _require_finite(array: Array, name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
        where = first if len(first) > 1 else first[0]
        message = f"{name} holds {bad.sum()} value(s) that are NaN or infinite, the first at {where}: {array[first]}"
        raise InputError(message, name, array, "remove or replace them")


def require_shape(array: Array, shape: Sequence[int], name: str) -> None:
    """Raise `InputError` unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise InputError(f"{name} has shape {array.shape}; it must be {tuple(shape)}", name, array)


def room_hint(d: int, C: int, *, simplex: bool, reduced: str, name: str = "d") -> str:
    """Say what to do where d dimensions, an argument called `name`, are too few for a frame of C vectors.

    `simplex` tells whether the frame is the default one, and `reduced` is the code that gives the smaller one.
    """
    if not simplex:
        return f"a frame with at most {d} rows is needed"
    if d == C - 1:
        return f"{name} = C-1 works with frame={reduced}"
    return f"a simplex of C = {C} vectors needs {name} >= C-1 = {C - 1}"


def as_generator(value: Any, name: str) -> np.random.Generator:
    """Return a generator as it is, or the one that `numpy.random.default_rng` makes of a seed; else `InputError`."""
    message = f"{name} must be a numpy.random.Generator or a seed, e.g. {name}=numpy.random.default_rng(0) or {name}=0"
    if isinstance(value, (bool, np.bool_)):
        raise InputError(f"{message}; got {value}", name, value)
    try:
        return np.random.default_rng(value)
    except Exception as error:  # of a type, a value or a shape
        raise InputError(f"{message}; got {_shown(value)}", name, value) from error
