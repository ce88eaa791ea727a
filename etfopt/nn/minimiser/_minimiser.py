"""The minimiser of nearest-ETF problems whose arguments have been checked."""

from __future__ import annotations

from torch import Tensor

from etfopt._torch import require_finite
from etfopt.nn.minimiser._gauge import completed, without_gauge
from etfopt.nn.minimiser._held import Held
from etfopt.nn.minimiser._linear_term import frame_factor, scaled_linear_term, size_of
from etfopt.nn.minimiser._single import single_minimiser
from etfopt.nn.polar._node import polar


def minimiser(
    H: Tensor,
    prox: Tensor | None,
    delta: float,
    frame: Tensor | None,
    weights: Tensor | None,
    held: Held | None = None,
    method: str = "auto",
) -> Tensor:
    """Return U, (..., d, r), for tensors of float32 or float64, checked but for values that are not finite."""
    if method == "auto" and held is None:
        U = single_minimiser(H, prox, delta / frame_factor(H.shape[-1], frame), frame, weights)
        if U is not None:
            return U
    for X, name in ((H, "H"), (prox, "prox"), (frame, "frame")):
        if X is not None:
            require_finite(X, name)
    H = H if held is None else held.without(H)
    A = scaled_linear_term(H, prox, delta, frame, weights)
    bare = frame is None and not delta  # then no term sees the direction 1
    if held is not None:
        A = held.part(A)
        A = A / size_of(A)
        return held.assembled(completed(polar(A[..., :-1], method)) if bare else polar(A, method))
    # what cancels is small, and squares of it must stay in range
    A = A / size_of(A)
    return without_gauge(A, method) if bare and method in ("gram", "newton-schulz") else polar(A, method)
