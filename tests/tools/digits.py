"""Sixty digits and more by Python's decimal numbers, some hundred times as fast as `oracles` for these small matrices.

Matrices are NumPy arrays of `Decimal`; call within `working()`. No solver, adjoint, certificate or bridge of etfopt is
imported here.
"""

import itertools
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

import numpy as np

Matrix = np.ndarray

CONTEXT = Context(prec=90, Emin=-999999, Emax=999999)
"""Ninety digits in the working: products of ill-conditioned matrices then leave sixty."""

NEGLIGIBLE = Decimal("1e-62")


def exact(X: Matrix | float) -> Matrix:
    """Return the very numbers as decimals: nothing is rounded before the first operation."""
    return np.frompyfunc(lambda x: Decimal(float(x)), 1, 1)(np.asarray(X))


def simplex(C: int) -> Matrix:
    """The simplex ETF in its own coordinates, M, without rounding."""
    eye = exact(np.eye(C))
    return (eye - Decimal(1) / C) / Decimal(C - 1).sqrt()


def norm(X: Matrix) -> Decimal:
    """Frobenius norm."""
    return sum((x * x for x in X.ravel()), Decimal(0)).sqrt()


def floats(X: Matrix) -> Matrix:
    return X.astype(np.float64)


@dataclass(frozen=True)
class SVD:
    """A = P diag(s) Q', s non-increasing; the columns of P that belong to zeros are zero."""

    P: Matrix
    s: Matrix
    Q: Matrix

    @property
    def rank(self) -> int:
        return sum(x > 0 for x in self.s)

    @property
    def U(self) -> Matrix:
        """The polar factor; where A is rank deficient, the part that A determines."""
        return self.P @ self.Q.T


def svd(A: Matrix) -> SVD:
    """One-sided Jacobi iteration, which finds each singular value to all digits of its own."""
    largest = max(abs(x) for x in A.ravel())
    if not largest:
        return SVD(A, A[0], exact(np.eye(A.shape[1])))
    Q = _orthonormal(exact(np.linalg.svd(floats(A / largest))[2].T))
    W, r = A @ Q, A.shape[1]
    for _ in range(60):
        turned = [_rotate(W, Q, i, j) for i, j in itertools.combinations(range(r), 2)]
        if not any(turned):
            break
    else:
        raise ArithmeticError("Jacobi's iteration has not converged")
    s = np.array([norm(w) for w in W.T])
    order = sorted(range(r), key=lambda i: -s[i])
    s = np.array([s[i] if s[i] > NEGLIGIBLE * max(s) else Decimal(0) for i in order])
    P = np.stack([w / x if x else w * 0 for w, x in zip(W.T[order], s, strict=True)], axis=1)
    return SVD(P, s, Q[:, order])


def _orthonormal(Q: Matrix) -> Matrix:
    """Newton-Schulz steps, each of which squares what is left of 1e-15."""
    eye = exact(np.eye(len(Q)))
    for _ in range(3):
        Q = Q @ (3 * eye - Q.T @ Q) / 2
    return Q


def _rotate(W: Matrix, Q: Matrix, i: int, j: int) -> bool:
    """Make two columns of W orthogonal by a rotation, and say whether they were not."""
    a, b, c = W[:, i] @ W[:, i], W[:, j] @ W[:, j], W[:, i] @ W[:, j]
    if abs(c) <= NEGLIGIBLE * max(a, b) * NEGLIGIBLE or c * c <= NEGLIGIBLE * NEGLIGIBLE * a * b:
        return False
    zeta = (b - a) / (2 * c)
    t = (1 if zeta >= 0 else -1) / (abs(zeta) + (1 + zeta * zeta).sqrt())
    cosine = 1 / (1 + t * t).sqrt()
    sine = cosine * t
    for X in (W, Q):
        X[:, i], X[:, j] = cosine * X[:, i] - sine * X[:, j], sine * X[:, i] + cosine * X[:, j]
    return True


def polar_derivative(svd: SVD, X: Matrix) -> Matrix:
    """The closed form of method.md, section 4; on a null space of A nothing is divided."""
    U, Q, s = svd.U, svd.Q, svd.s
    K = U.T @ X
    zero, sums = Decimal(0), s[:, None] + s[None, :]
    turn = Q.T @ (K - K.T) @ Q
    turn = np.array(
        [[x / y if y else zero for x, y in zip(*rows, strict=True)] for rows in zip(turn, sums, strict=True)]
    )
    inverse = np.array([1 / x if x else zero for x in s])
    return U @ (Q @ turn @ Q.T) + ((X - U @ K) @ Q * inverse) @ Q.T


def working() -> AbstractContextManager[Context]:
    """Work with ninety digits inside this context."""
    return localcontext(CONTEXT)
