"""Slow references: no solver, adjoint, certificate or bridge of etfopt is imported here.

The references for U use no SVD of A; only the transcription of the layer does, which must bear a rank-deficient A.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
from scipy.linalg import helmert

Matrix = np.ndarray


def simplex(C: int) -> Matrix:
    """The simplex ETF in its own coordinates, M, as method.md section 2 writes it."""
    return (np.eye(C) - np.ones((C, C)) / C) / np.sqrt(C - 1)


def reduced_simplex(C: int) -> Matrix:
    return helmert(C) / np.sqrt(C - 1)


# --- the problem by its definition, and a slow solver -------------------------------------------------------------


def objective(U: Matrix, H: Matrix, F: Matrix, prox: Matrix | None = None, delta: float = 0.0) -> float:
    value = np.sum((H - U @ F) ** 2)
    return float(value if prox is None else value + delta / 2 * np.sum((U - prox) ** 2))


def slow_minimum(H: Matrix, F: Matrix, prox: Matrix | None, delta: float, rng: np.random.Generator) -> Matrix:
    """Riemannian gradient descent on the objective from two starts, one in each component of O(r) if d = r."""
    d, r = len(H), len(F)
    start = np.linalg.qr(rng.standard_normal((d, r)))[0]
    ends = [_descend(start * np.append(sign, np.ones(r - 1)), H, F, prox, delta) for sign in (1.0, -1.0)]
    return min(ends, key=lambda U: objective(U, H, F, prox, delta))


def _descend(U: Matrix, H: Matrix, F: Matrix, prox: Matrix | None, delta: float) -> Matrix:
    """Barzilai-Borwein steps, halved until the objective falls below the largest of the last ten values."""
    step, values, xi = 1.0, [objective(U, H, F, prox, delta)], _riemannian_gradient(U, H, F, prox, delta)
    for _ in range(500):
        slope = np.sum(xi**2)
        if slope < 1e-22:
            break
        for _ in range(40):
            Q, R = np.linalg.qr(U - step * xi)
            trial = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
            value = objective(trial, H, F, prox, delta)
            if value <= max(values[-10:]) - 1e-4 * step * slope:
                break
            step /= 2
        following = _riemannian_gradient(trial, H, F, prox, delta)
        move, change = trial - U, following - xi
        step = np.sum(move**2) / max(abs(np.sum(move * change)), 1e-30)
        U, xi = trial, following
        values.append(value)
    return U


def _riemannian_gradient(U: Matrix, H: Matrix, F: Matrix, prox: Matrix | None, delta: float) -> Matrix:
    G = 2 * (U @ F - H) @ F.T + (0 if prox is None else delta * (U - prox))
    return G - U @ (U.T @ G + G.T @ U) / 2


# --- sixty digits -------------------------------------------------------------------------------------------------

mp = mpmath.mp.clone()
mp.dps = 60


def exact(X: Matrix | float):
    """Return the very number or matrix in 60-digit arithmetic: no rounding."""
    return mp.mpf(float(X)) if np.ndim(X) == 0 else mp.matrix(np.asarray(X, dtype=np.float64).tolist())


def rounded(X) -> Matrix:
    return np.array(X.tolist(), dtype=np.float64)


def exact_linear_term(H: Matrix, F: Matrix, prox: Matrix | None = None, delta: float = 0.0):
    A = 2 * exact(H) * exact(F).T
    return A if prox is None else A + exact(delta) * exact(prox)


def exact_polar(A):
    """Return the polar factor U, B = (A'A)^(1/2) and the singular values, ascending, of a 60-digit matrix."""
    E, Q = mp.eigsy(A.T * A)
    s = [mp.sqrt(e) for e in E]
    return A * Q * mp.diag([1 / x for x in s]) * Q.T, Q * mp.diag(s) * Q.T, s


def exact_polar_derivative(A, X):
    """Derivative of the polar factor at A along X, by solving B W + W B = U'X - X'U for the rotation W entry by entry.

    It follows from differentiating A = UB and U'U = I. The map is self-adjoint, so it is the gradient rule too.
    """
    U, B, _ = exact_polar(A)
    r = A.cols
    K, R = mp.zeros(r * r), U.T * X - X.T * U
    for i in range(r):
        for j in range(r):
            for k in range(r):
                K[i * r + j, k * r + j] += B[i, k]
                K[i * r + j, i * r + k] += B[k, j]
    w = mp.lu_solve(K, mp.matrix([R[i, j] for i in range(r) for j in range(r)]))
    W = mp.matrix(r, r)
    for i in range(r):
        for j in range(r):
            W[i, j] = w[i * r + j]
    return U * W + (X - U * (U.T * X)) * B**-1


# --- differences, and the paper's dense formula -------------------------------------------------------------------


def central_differences(loss: Callable[[Matrix], float], X: Matrix, step: float) -> Matrix:
    """Gradient of a scalar loss by central differences, entry by entry, in the dtype of X."""
    gradient = np.zeros(X.shape)
    for index in np.ndindex(X.shape):
        ahead, behind = X.copy(), X.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (loss(ahead) - loss(behind)) / (float(ahead[index]) - float(behind[index]))
    return gradient


def dense_gradient(
    U: Matrix, G: Matrix, H: Matrix, F: Matrix, prox: Matrix | None = None, delta: float = 0.0
) -> Matrix:
    """The paper's dL/dH: Gould et al.'s equality-constrained formula with dense Lagrangian Hessian and Jacobian.

    Dy = L^-1 J' (J L^-1 J')^-1 J L^-1 B - L^-1 B, with vec(U) row by row and one constraint for each i <= j.
    """
    (d, r), C = U.shape, H.shape[1]
    pairs = [(i, j) for i in range(r) for j in range(i, r)]
    units = np.zeros((len(pairs), r, r))
    for k, (i, j) in enumerate(pairs):
        units[k, i, j] += 1
        units[k, j, i] += 1
    gradient = 2 * (U @ F - H) @ F.T + (0 if prox is None else delta * (U - prox))
    J = np.stack([(U @ E).ravel() for E in units])
    multipliers = np.linalg.lstsq(J.T, gradient.ravel(), rcond=None)[0]
    L = np.kron(np.eye(d), 2 * F @ F.T + delta * np.eye(r) - np.tensordot(multipliers, units, 1))
    B = np.kron(np.eye(d), -2 * F)
    LJ, LB = np.linalg.solve(L, J.T), np.linalg.solve(L, B)
    Dy = LJ @ np.linalg.solve(J @ LJ, J @ LB) - LB
    return (G.ravel() @ Dy).reshape(d, C)


# --- one step of the paper's layer, section 5 of method.md --------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What the layer remembers between batches; U is None before the first."""

    step: int
    mean: Matrix
    seen: Matrix
    U: Matrix | None = None


@dataclass(frozen=True)
class Step:
    """What a batch makes of it."""

    memory: Memory
    prox: Matrix
    H: Matrix
    weight: Matrix
    bias: Matrix
    logits: Matrix
    loss: float


def layer_step(
    memory: Memory,
    features: Matrix,
    labels: Matrix,
    rate: Callable[[int], float],
    delta: float,
    tau: float,
    held: Step | None = None,
    hold_U: bool = False,
) -> Step:
    """Run one training step. `held` is the step whose constants (past, proximal point, with hold_U also U) to keep."""
    C, t = memory.mean.shape[1], memory.step + 1
    f = tau * features / np.linalg.norm(features, axis=1, keepdims=True)
    mu = f.mean(axis=0)
    present = np.isin(np.arange(C), labels)
    seen = memory.seen | present
    fill = held.memory.mean if held else np.repeat(mu[:, None], C, axis=1)  # a never-seen column of H_t-bar is mu_G
    past = np.where(seen, memory.mean, fill)
    batch = np.where(seen, past, mu[:, None])
    for c in np.flatnonzero(present):
        batch[:, c] = f[labels == c].mean(axis=0) - mu
    mean = rate(t) * batch + (1 - rate(t)) * past
    H, M = mean / np.linalg.norm(mean), simplex(C)
    prox = held.prox if held else (_nearest(2 * H @ M.T) if memory.U is None else memory.U)
    U = held.memory.U if held and hold_U else _nearest(2 * H @ M.T + delta * prox)
    weight = np.sqrt(C / (C - 1)) * (np.eye(C) - np.ones((C, C)) / C) @ U.T
    bias = -weight @ mu
    logits = f @ weight.T + bias
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return Step(Memory(t, mean, seen, U), prox, H, weight, bias, logits, float(losses.mean()))


def layer_gradient(
    memory: Memory, features: Matrix, labels: Matrix, *, base: Step, hold_U: bool = False, **options
) -> Matrix:
    """Gradient of the loss with respect to the features, the past and the proximal point held constant."""

    def loss(X: Matrix) -> float:
        return layer_step(memory, X, labels, held=base, hold_U=hold_U, **options).loss

    return central_differences(loss, features, 1e-5)


def _nearest(A: Matrix) -> Matrix:
    """Polar factor from A'A + the complement: any factor where A is rank deficient."""
    P, _, Qt = np.linalg.svd(A, full_matrices=False)
    return P @ Qt
