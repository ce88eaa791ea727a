r"""What an answer is off by, as a multiple of what docs/explanation/accuracy.md promises: above 1 a promise is broken.

The data are what they are, but A is formed from them with rounding: of :math:`2HF' + \delta U_{prox}` and not of A, so
that where the summands cancel the promises are of rounding times the *cancellation*, how much larger they are than A.
The core forms A in float64, whatever the dtype. A gradient is measured by the largest one that a cotangent of the same
size can have: where it is much smaller than that, the cotangent hardly turns U, and digits are lost.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch

from etfopt import InputError, NearestETF, solve
from etfopt.adjoint import nearest_etf_vjp
from etfopt.nn.functional import nearest_etf
from etfopt.solvers.procrustes import Procrustes
from tests.tools import digits
from tests.tools.blind import blind
from tests.tools.promise_cases import Case, Matrix

EPS = 2.0**-52
WORST = float("inf")

Answer = tuple[Matrix, Matrix | None, bool]
"""U, dL/dH or None where it is refused, and whether the certificate agrees."""


def core(method: str) -> Callable[[Case, Matrix], Answer]:
    def answer(case: Case, G: Matrix) -> Answer:
        problem = NearestETF(case.H, case.prox, case.delta, case.F, weights=case.weights)
        solution = solve(problem, Procrustes(method), throw=False)
        try:
            slope = nearest_etf_vjp(problem, solution.U, G).H
        except InputError:
            slope = None
        return solution.U, slope, solution.converged

    return answer


def bridge(method: str, seen: bool = True) -> Callable[[Case, Matrix], Answer]:
    def answer(case: Case, G: Matrix) -> Answer:
        H = torch.tensor(case.H, requires_grad=True)
        prox, F = (None if X is None else torch.tensor(X) for X in (case.prox, case.F))
        with contextlib.nullcontext() if seen else blind():
            U = nearest_etf(H, prox, case.delta, F, method=method)
            U.backward(torch.tensor(G))
        return U.detach().numpy(), H.grad.numpy(), True

    return answer


METHODS = {
    **{f"core, {method}": core(method) for method in ("svd", "gram", "newton-schulz")},
    **{f"bridge, {method}": bridge(method) for method in ("auto", "svd", "gram", "newton-schulz")},
    **{f"bridge, {method}, unseen": bridge(method, seen=False) for method in ("svd", "gram", "newton-schulz")},
}


class Reference:
    """A problem with what ninety digits say of it, in units in which nothing is out of range."""

    def __init__(self, case: Case) -> None:
        self.case, self.svd = case, case.svd
        self.rank = self.svd.rank
        s = self.svd.s
        self.kappa = float(s[0] / s[self.rank - 1])
        self.A, self.U = _long(case.A / s[0]), _long(self.svd.U)
        self.nuclear = _long(np.array([sum(s) / s[0]]))[0]
        # without a proximal term the paper's frame leaves one direction of U free, and determines the ETF
        self.etf_alone = case.F is None and case.prox is None and self.rank == case.C - 1
        self.determined = self.rank == case.r or self.etf_alone
        size = max(abs(x) for x in case.frame.ravel())
        self.frame = digits.floats(case.frame / size)
        self.frame_norm = size * digits.exact(np.linalg.norm(self.frame, 2))

    @cached_property
    def cotangent(self) -> Matrix:
        """dL/dU, of a loss of the ETF where only that is determined."""
        G = self.case.G
        return (G - G.mean(axis=1, keepdims=True)).astype(G.dtype) if self.etf_alone else G

    @cached_property
    def gradient(self) -> Matrix:
        G = digits.exact(self.cotangent)
        G = G - G.sum(axis=1)[:, None] / self.case.C if self.etf_alone else G
        slope = 2 * digits.polar_derivative(self.svd, G) @ self.case.frame
        return slope if self.case.weights is None else slope * digits.exact(self.case.weights)

    @cached_property
    def steepest(self) -> Matrix:
        """Norm of the derivative times that of the cotangent: theory/conditioning.py, 1."""
        s, k = self.svd.s, self.rank
        norm = 1 / s[k - 1] if len(self.case.H) > k or k == 1 else 2 / (s[k - 1] + s[k - 2])
        heaviest = 1 if self.case.weights is None else digits.exact(self.case.weights.max())
        return 2 * heaviest * self.frame_norm * norm * digits.norm(digits.exact(self.cotangent))

    @cached_property
    def in_range(self) -> bool:
        """Whether the gradient, and what its rounding is measured by, are ordinary numbers of the dtype."""
        info, steepest = np.finfo(self.case.H.dtype), float(self.steepest)
        return bool(float(info.tiny) / float(info.eps) ** 2 < steepest < float(info.max) / 100)


def measured(reference: Reference, method: str) -> dict[str, float]:
    """Return what the answer of a method is off by, over what is promised, for each promise that applies."""
    case, n = reference.case, reference.case.n
    in_core = method.startswith("core")
    data = case.u * case.cancellation(centred=in_core)
    formed = case.u + EPS * case.cancellation(centred=True) if in_core and case.u > EPS else data
    U, slope, agreed = METHODS[method](case, reference.cotangent)
    if np.isnan(U).any():
        return {} if "unseen" in method else {"NaN": WORST}
    found = dict(_of_factor(reference, U.astype(np.longdouble), n, formed))
    if not agreed:
        found["certified"] = WORST
    if slope is None:
        # where rounding the data can take a singular value away there is no gradient
        determined = reference.determined and n * case.u * case.cancellation(centred=False) * reference.kappa < 0.1
        return {**found, "refused": WORST} if determined else found
    if reference.determined and reference.in_range and n * data * reference.kappa < 0.01:
        off = digits.norm(digits.exact(slope) - reference.gradient) if np.isfinite(slope).all() else WORST
        found["gradient"] = float(off / reference.steepest) / (20 * n * data * reference.kappa) if off < WORST else off
    return found


def _of_factor(reference: Reference, U: Matrix, n: int, rounding: float) -> Iterator[tuple[str, float]]:
    A, K = reference.A, U.T @ reference.A
    yield "feasibility", _norm(U.T @ U - np.eye(U.shape[1])) / (10 * n * reference.case.u)
    yield "stationarity", _norm(A - U @ (K + K.T) / 2) / (15 * n * rounding)
    yield "gap", abs(float((reference.nuclear - np.trace(K)) / reference.nuclear)) / (10 * n * rounding)
    if reference.determined:
        off = U - reference.U
        if reference.etf_alone:
            off = off @ reference.frame / np.linalg.norm(reference.frame, 2)
        yield "U", _norm(off) / (10 * n * rounding * reference.kappa)


def _norm(X: Matrix) -> float:
    return float(np.sqrt(np.sum(X * X)))


def _long(X: Matrix) -> Matrix:
    """Decimals in the longest floats there are."""
    high = digits.floats(X)
    return high.astype(np.longdouble) + digits.floats(X - digits.exact(high)).astype(np.longdouble)
