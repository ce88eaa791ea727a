"""Codes with an explicit construction that a search from random starts does not find."""

from __future__ import annotations

import itertools

import numpy as np

from etfopt._arrays import Float64Array

__all__ = ["known_code"]


def known_code(d: int, C: int) -> Float64Array | None:
    """Return the unit rows of a code that is known in closed form; None for other (d, C)."""
    return _from_ternary_words() if (d, C) == (21, 162) else None


def _from_ternary_words() -> Float64Array:
    r"""Return 162 vectors in R^21 with cosines 1/7 and -2/7.

    The ten points of the quadric :math:`x_0^2 + x_1^2 + x_2x_3 = 0` over the field of three elements are the columns of
    a generator matrix of 81 words of length 10, whose weights are 0, 6 and 9. One coset of the words has the weights 5
    and 8. Letters become cube roots of unity, in the plane, with the other sign for the coset, and the last coordinate
    tells the two apart.
    """
    points = np.array(list(itertools.product(range(3), repeat=4)))
    zero = (points[:, 0] ** 2 + points[:, 1] ** 2 + points[:, 2] * points[:, 3]) % 3 == 0
    first = np.array([next((int(x) for x in p if x), 0) for p in points])  # 1 for one point of each line
    words = points @ points[zero & (first == 1)].T % 3
    weights = np.count_nonzero
    coset = next(
        (words + shift) % 3
        for shift in itertools.product(range(3), repeat=10)
        if set(weights((words + np.array(shift)) % 3, axis=1)) == {5, 8}
    )
    angles = 2 * np.pi / 3 * np.vstack([words, coset])
    signs = np.repeat([1.0, -1.0], 81)[:, None]
    X = np.hstack([signs * np.cos(angles), signs * np.sin(angles)]) * np.sqrt(2 / 21)
    return np.hstack([X, signs / np.sqrt(21)])
