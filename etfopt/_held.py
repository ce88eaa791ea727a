r"""Held classes: vertices that stay where a given U has them, and what they leave free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Array, Float64Array, as_matrix
from etfopt._scalars import as_integer
from etfopt._scaling import normalized
from etfopt.errors import InputError
from etfopt.polar._products import feasibility


class Held(NamedTuple):
    """Classes whose vertices stay at U_0 f_c.

    Every U that keeps them there is V Q_held' + B U_s Q_free', V = U_0 Q_held, with U_s on the smaller St(d-k, r-k).
    Proof: ``theory/held.py``.
    """

    classes: tuple[int, ...]
    U0: Array
    Q_held: Float64Array  # (r, k): orthonormal basis of the span of the held columns of F
    Q_free: Float64Array  # (r, r-k): of its complement
    V: Float64Array  # (d, k): where the held span lies
    B: Float64Array  # (d, d-k): orthonormal basis of the complement of V

    def frame(self, F: Array) -> Float64Array:
        """Return the frame of the smaller problem, (r-k, C): the held classes have no part in it."""
        free = np.asarray(self.Q_free.T @ F, dtype=np.float64)
        free[:, list(self.classes)] = 0.0
        return free

    def part(self, X: Array) -> Float64Array:
        """Return B'X Q_free, (d-k, r-k), of an X of the shape of U."""
        return np.asarray(self.B.T @ X @ self.Q_free, dtype=np.float64)

    def spread(self, X: Array) -> Float64Array:
        """Return B X Q_free', (d, r): the adjoint of `part`."""
        return np.asarray(self.B @ X @ self.Q_free.T, dtype=np.float64)

    def moved(self, U: Array) -> float:
        """Return the norm by which U moves the held span."""
        with np.errstate(over="ignore", invalid="ignore"):  # of a point of any size
            return float(np.linalg.norm(U @ self.Q_held - self.V))

    def assembled(self, U: Array) -> Float64Array:
        """Return the point of the whole problem, (d, r), of one of the smaller problem."""
        return np.asarray(self.V @ self.Q_held.T + self.spread(U))


def as_held(hold: Sequence[int] | None, hold_at: ArrayLike | None, d: int, F: Array, unit: float) -> Held | None:
    """Return what the arguments `hold` and `hold_at` of a problem say, or raise `InputError`."""
    if hold is None:
        if hold_at is not None:
            raise InputError("hold_at is given without hold", "hold_at", hold_at, "name the classes to hold")
        return None
    r, C = F.shape
    classes = _classes(hold, C)
    if hold_at is None:
        remedy = "pass hold_at=U_0, a point of the manifold such as solution.U"
        raise InputError(f"hold = {list(classes)} needs a point to hold at", "hold_at", None, remedy)
    U0 = as_matrix(hold_at, "hold_at", shape=(d, r))
    # half of what a certificate allows: the free vertices round as well
    off, allowed = feasibility(np.asarray(U0, dtype=np.float64)), 50 * r * unit
    if not off <= allowed:
        message = f"hold_at is not on the manifold: ||U'U - I|| = {off:.1e}, and {allowed:.1e} is allowed"
        raise InputError(message, "hold_at", U0, "pass etfopt.polar_factor(hold_at), in the dtype of H or wider")
    Y, _ = normalized(F)
    Q, s, _ = np.linalg.svd(normalized(Y[:, list(classes)])[0], full_matrices=True)
    k = int(np.count_nonzero(s > max(r, len(classes)) * float(np.finfo(F.dtype).eps) * s[0]))
    # the square frame has a direction that no class sees
    seen = np.linalg.norm(np.delete(Q[:, k:].T @ Y, list(classes), axis=1)) > C * r * unit * np.linalg.norm(Y)
    if k == 0 or not seen:
        left = "span nothing" if k == 0 else "span what the frame spans: nothing is left to solve"
        remedy = "leave hold out" if k == 0 else "hold fewer, or use hold_at itself"
        raise InputError(f"the vertices of hold = {list(classes)} {left}", "hold", list(classes), remedy)
    V = np.asarray(U0, dtype=np.float64) @ Q[:, :k]
    B = np.asarray(np.linalg.qr(V, mode="complete")[0][:, k:], dtype=np.float64)
    bases: list[Float64Array] = [Q[:, :k], Q[:, k:], V, B]
    for basis in bases:
        basis.flags.writeable = False
    return Held(classes, U0, *bases)


def _classes(hold: Sequence[int], C: int) -> tuple[int, ...]:
    """Return different classes of 0 .. C-1."""
    try:
        named = None if isinstance(hold, (str, bytes)) else list(hold)
    except TypeError:
        named = None
    if named is None:
        raise InputError(f"hold must be a sequence of classes; got {hold!r}", "hold", hold, "pass e.g. range(10)")
    classes = tuple(as_integer(c, "hold", at_least=0) for c in named)
    if not classes:
        raise InputError("hold names no class", "hold", hold, "leave it out")
    if max(classes) >= C:
        raise InputError(f"hold names class {max(classes)}, and H has the classes 0 to {C - 1}", "hold", hold)
    if len(set(classes)) < len(classes):
        raise InputError("hold names a class twice", "hold", hold)
    return classes
