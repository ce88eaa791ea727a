"""Try other packages on the nearest-ETF problem and print what each did; the table of comparison.md comes from here.

By hand, in an environment that has them, with PyTorch 2.14 or newer: pip install '.[all]' roma geoopt cvxpylayers
Times are the task of `etfopt bench peers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import cvxpy as cp
import geoopt
import numpy as np
import pymanopt
import roma
import torch
from cvxpylayers.torch import CvxpyLayer
from pymanopt.manifolds import Stiefel
from pymanopt.optimizers import TrustRegions
from scipy.linalg import orthogonal_procrustes

import etfopt
from etfopt.adjoint import kkt_vjp, nearest_etf_vjp
from etfopt.nn.functional import nearest_etf, polar_factor
from etfopt.solvers import TrustRegion

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Solve = Callable[[Matrix, Matrix, Matrix], tuple[Matrix, Matrix | None]]
"""From H, F and a cotangent of U to U and, where the package differentiates, the gradient in H."""


def _torch(polar: Callable[[torch.Tensor], torch.Tensor]) -> Solve:
    def solve(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, Matrix]:
        leaf = torch.tensor(H, requires_grad=True)
        U = polar(2 * leaf @ torch.tensor(F).T)
        U.backward(torch.tensor(G))
        assert leaf.grad is not None
        return U.detach().numpy(), leaf.grad.numpy()

    return solve


def by_etfopt(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, Matrix]:
    leaf = torch.tensor(H, requires_grad=True)
    U = nearest_etf(leaf, frame=torch.tensor(F))
    U.backward(torch.tensor(G))
    assert leaf.grad is not None
    return U.detach().numpy(), leaf.grad.numpy()


def by_svd(A: torch.Tensor) -> torch.Tensor:
    P, _, Qh = torch.linalg.svd(A, full_matrices=False)
    return P @ Qh


def by_cvxpylayers(A: torch.Tensor) -> torch.Tensor:
    X, term = cp.Variable(tuple(A.shape[-2:])), cp.Parameter(tuple(A.shape[-2:]))
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(term, X))), [cp.sigma_max(X) <= 1])
    (U,) = CvxpyLayer(problem, parameters=[term], variables=[X])(A)
    return U


def by_scipy(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, None]:  # noqa: ARG001 - one signature for all
    # orthogonal_procrustes finds a square R: the frame is padded with zero rows
    padded = np.vstack([F, np.zeros((len(H) - len(F), F.shape[1]))])
    R, _ = orthogonal_procrustes(padded.T, H.T)
    return R.T[:, : len(F)], None


def by_pymanopt(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, None]:  # noqa: ARG001 - as above
    A, manifold = 2 * H @ F.T, Stiefel(len(H), len(F))
    cost = pymanopt.function.numpy(manifold)(lambda U: -float((A * U).sum()))
    gradient = pymanopt.function.numpy(manifold)(lambda U: -A)  # noqa: ARG005 - linear
    hessian = pymanopt.function.numpy(manifold)(lambda U, V: 0 * V)  # noqa: ARG005 - linear
    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
    return TrustRegions(verbosity=0).run(problem, initial_point=np.eye(*A.shape)).point, None


def by_geoopt(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, None]:  # noqa: ARG001 - as above
    A = torch.tensor(2 * H @ F.T)
    X = geoopt.ManifoldParameter(torch.eye(*A.shape, dtype=A.dtype), manifold=geoopt.EuclideanStiefel())
    optimizer = geoopt.optim.RiemannianSGD([X], lr=float(0.5 / torch.linalg.matrix_norm(A, 2)))
    for _ in range(500):
        optimizer.zero_grad()
        (-(A * X).sum()).backward()
        optimizer.step()
    return X.detach().numpy(), None


def by_paper(H: Matrix, F: Matrix, G: Matrix) -> tuple[Matrix, Matrix]:
    """The release's steps, rebuilt: a trust region on derivatives by autograd, then the dense gradient."""
    problem = etfopt.NearestETF(H, frame=F)
    solver = TrustRegion(max_iterations=30, gradient_tolerance=1e-6, derivatives="autograd")
    U = etfopt.solve(problem, solver, initial_point=np.eye(problem.d, problem.r), throw=False).U
    return U, kkt_vjp(problem, U, G)


PACKAGES: dict[str, Solve] = {
    "etfopt": by_etfopt,
    "torch.linalg.polar": _torch(lambda A: torch.linalg.polar(A)[0]),
    "torch.linalg.svd, autograd": _torch(by_svd),
    "scipy orthogonal_procrustes": by_scipy,
    "roma.procrustes": _torch(lambda A: roma.procrustes(A[None])[0]),
    "pymanopt TrustRegions": by_pymanopt,
    "geoopt RiemannianSGD, 500 steps": by_geoopt,
    "cvxpylayers": _torch(by_cvxpylayers),
    "the paper's method, rebuilt": by_paper,
}

POLARS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "etfopt": polar_factor,
    "torch.linalg.polar": lambda A: torch.linalg.polar(A)[0],
    "torch.linalg.svd, autograd": by_svd,
    "roma.procrustes": roma.procrustes,
    "cvxpylayers": by_cvxpylayers,
}
"""Those that differentiate, as functions of the linear term: asked for batches and second derivatives."""


def main() -> None:
    """Print a line for each package on four problems, and what else was asked of those that differentiate."""
    warnings.simplefilter("ignore")
    print({name: version(name) for name in ("torch", "scipy", "roma", "pymanopt", "geoopt", "cvxpylayers")})
    for title, d, C, collapsed in (
        ("generic", 64, 10, False),
        ("collapsed", 64, 10, True),
        ("d = r, generic", 9, 10, False),
        ("d = r, collapsed", 9, 10, True),
    ):
        rng = np.random.default_rng(0)
        F = etfopt.simplex_etf(C, reduced=True)
        H = etfopt.random_stiefel(d, C - 1, rng=rng) @ F if collapsed else rng.standard_normal((d, C))
        problem, G = etfopt.NearestETF(H, frame=F), rng.standard_normal((d, C)) @ F.T
        truth = nearest_etf_vjp(problem, etfopt.solve(problem).U, G).H
        print(f"{title}: d = {d}, C = {C}")
        for name, solve in PACKAGES.items():
            print(f"  {name:32s}{_line(solve, problem, G, truth)}")

    print("batches; derivatives of derivatives")
    for name, polar in POLARS.items():
        print(f"  {name:32s}{_tried(batched, polar)}; {_tried(twice, polar)}")


def batched(polar: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether three square matrices at once give what each gives alone."""
    A = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 9, 9)))
    return torch.allclose(polar(A), torch.stack([polar_factor(a) for a in A]), atol=1e-3)


def twice(polar: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the derivative of the derivative is that of etfopt, at a generic square matrix."""
    rng = np.random.default_rng(0)
    A, G, V = (torch.from_numpy(rng.standard_normal((1, 9, 9))) for _ in range(3))

    def product(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        leaf = A.clone().requires_grad_()
        (slope,) = torch.autograd.grad((function(leaf) * G).sum(), leaf, create_graph=True)
        return torch.autograd.grad((slope * V).sum(), leaf)[0]

    found, right = product(polar), product(polar_factor)
    return bool((found - right).norm() < 1e-3 * right.norm())


def _tried(trial: Callable[[Callable[[torch.Tensor], torch.Tensor]], bool], polar: Any) -> str:
    try:
        return "yes" if trial(polar) else "wrong"
    except Exception as error:  # a package that cannot is a row
        return f"no ({type(error).__name__}: {str(error).splitlines()[0][:60]})"


def _line(solve: Solve, problem: etfopt.NearestETF, G: Matrix, truth: Matrix) -> str:
    try:
        U, gradient = solve(problem.H, problem.F, G)
    except Exception as error:  # a package that cannot is a row
        return f"fails: {type(error).__name__}: {str(error).splitlines()[0][:70]}"
    found = etfopt.certify(problem, U)
    error = "none" if gradient is None else f"{np.linalg.norm(gradient - truth) / np.linalg.norm(truth):.0e}"
    return f"gap {found.relative_gap:8.0e}  feasibility {found.feasibility:6.0e}  gradient error {error}"


if __name__ == "__main__":
    main()
