"""The core computes alike under any `numpy.errstate` of its caller, says nothing, and leaves the caller's as it was."""

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from etfopt import NearestETF, certify, nearest_etf, polar_factor, random_stiefel, simplex_etf, solve
from etfopt.adjoint import kkt_vjp, nearest_etf_jvp, nearest_etf_vjp, polar_derivative
from etfopt.polar import _products, _svd
from etfopt.solvers import as_solver
from etfopt.solvers.base import Solver
from etfopt.solvers.procrustes import Procrustes

STATES = ("raise", "warn", "call", "print", "ignore")
SCALES = (1e-310, 1e-300, 1e-160, 1e-8, 1.0, 1e8, 1e160, 1e300)
D, C = 6, 4
MEANS = np.random.default_rng(0).standard_normal((D, C))
REDUCED = simplex_etf(C, reduced=True)
FRAMES = {"simplex": None, "reduced": REDUCED, "tiny": 1e-150 * np.eye(3, C), "weighted": REDUCED, "held": REDUCED}
GIVEN: dict[str, dict[str, object]] = {
    "weighted": {"weights": 10.0 ** np.array([-308, 0, 300, -20])},
    "held": {"hold": [0], "hold_at": np.eye(D, 3), "weights": [1, 1e-300, 0, 1e300]},
}


def refuse_call(kind: str, _flag: int) -> None:
    pytest.fail(f"{kind} reached the caller")


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Iterator[str]:
    """The caller's error handling, which must be there again afterwards."""
    with np.errstate(all=request.param, call=refuse_call):
        before = np.geterr(), np.geterrcall()
        yield request.param
        assert (np.geterr(), np.geterrcall()) == before
    assert capfd.readouterr() == ("", "")


def problem(scale: float, frame: str = "simplex", dtype: type = np.float64) -> NearestETF:
    with np.errstate(all="ignore"):
        H = (scale * MEANS).astype(dtype)
    F = FRAMES[frame]
    r = C if F is None else 3
    return NearestETF(H, prox=np.eye(D, r), delta=scale, frame=F, **GIVEN.get(frame, {}))


def everything(scale: float, frame: str, solver: Solver, dtype: type) -> dict[str, object]:
    """Call all that is public on one problem; return what came out of it."""
    p = problem(scale, frame, dtype)
    solution = solve(p, solver, initial_point=np.eye(p.d, p.r), throw=False)
    U, G = solution.U, 1e-3 * np.eye(p.d, p.r)[::-1]
    found = {name: getattr(solution, name) for name in ("etf", "weight", "objective", "scale", "distance")}
    found |= {name: getattr(p, name) for name in ("linear_term", "gram", "gram_spectrum")}
    found |= {name: getattr(p, name)(U) for name in ("on_frame", "objective", "gradient", "hessian_vector_product")}
    found |= {"certificate": solution.certificate, "repr": repr(p), "U": U}
    if solution.certificate.unique and isinstance(solver, Procrustes):
        found["vjp"] = nearest_etf_vjp(p, U, G)
        found["jvp"] = nearest_etf_jvp(p, U, np.ones((p.d, p.C)))
    return found


@functools.cache
def usual(scale: float, frame: str, method: str, dtype: type) -> dict[str, object]:
    """What comes out under NumPy's own error handling."""
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="ignore"):
        return everything(scale, frame, Procrustes(method), dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("frame", FRAMES)
def test_the_closed_form_and_its_derivatives_do_not_depend_on_it(state: str, frame: str, dtype: type) -> None:
    del state
    # 1e-310 is zero in float32
    scales = SCALES if dtype == np.float64 else [scale ** (1 / 8) for scale in SCALES]
    for scale, method in itertools.product(scales, ("auto", "svd", "gram", "newton-schulz")):
        np.testing.assert_equal(everything(scale, frame, Procrustes(method), dtype), usual(scale, frame, method, dtype))


def test_a_weight_has_unit_rows_for_a_frame_of_any_size(state: str) -> None:
    """In float32 it was NaN for a frame of size 1e-150."""
    del state
    for size in (1e-150, 1.0, 1e150):
        solution = nearest_etf(MEANS.astype(np.float32), frame=size * simplex_etf(C, reduced=True))
        np.testing.assert_allclose(np.linalg.norm(solution.weight, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_the_derivative_of_a_polar_factor_is_homogeneous_of_degree_minus_one(state: str, scale: float) -> None:
    """At 1e160 it was refused as that of a matrix of rank 0."""
    del state
    U, X, t = polar_factor(MEANS), np.eye(D, C), 2.0 ** round(np.log2(scale))
    expected = polar_derivative(MEANS, U, X)
    np.testing.assert_array_equal(polar_derivative(t * MEANS, U, X) * t, expected)


FUNCTIONS: dict[str, Callable[[float], object]] = {
    "polar_factor": lambda t: polar_factor(scaled(t)),
    "polar_derivative": lambda t: polar_derivative(A := scaled(t), polar_factor(A), np.eye(D, C)),
    "certify": lambda t: certify(problem(t), np.eye(D, C)),
    "certify a huge point": lambda t: certify(problem(1.0), np.full((D, C), max(t, 1e200))),
    "kkt_vjp": lambda t: kkt_vjp(p := problem(max(t, 1e-8)), solve(p).U, np.eye(D, C)),
    "feasibility": lambda t: _products.feasibility(scaled(t)),
    "sym": lambda t: _products.sym(scaled(t)[:C]),
    "thin_svd": lambda t: _svd.thin_svd(MEANS * max(t, 1e-150) if t < 1 else MEANS),
    "simplex_etf": lambda _: [simplex_etf(n, reduced=r, dtype=np.float32) for n in (2, C, 1000) for r in (False, True)],
    "random_stiefel": lambda _: random_stiefel(D, C, np.random.default_rng(0)),
    "objective of a huge point": lambda t: problem(t).objective(np.full((D, C), 1e300)),
    "a derivative that is out of range": lambda t: nearest_etf_vjp(p := problem(min(t, 1e-300)), solve(p).U, MEANS),
}


def scaled(scale: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return scale * MEANS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_deaf_to_it(state: str, name: str) -> None:
    del state
    for scale in SCALES:
        FUNCTIONS[name](scale)


def iterative(name: str) -> Solver:
    pytest.importorskip("pymanopt" if "-" in name else "cvxpy")
    options = {"backend": name} if name.isupper() else {"max_iterations": 20}
    path = "convex-relaxation" if name.isupper() else name.removesuffix("-autograd")
    return as_solver(path, **options, **({"derivatives": "autograd"} if name.endswith("autograd") else {}))


@pytest.mark.parametrize("scale", [1e-310, 1.0, 1e300])
@pytest.mark.parametrize(
    "name", ["trust-region", "trust-region-autograd", "conjugate-gradient", "steepest-descent", "CLARABEL", "SCS"]
)
def test_every_solver_is_deaf_to_it(state: str, name: str, scale: float) -> None:
    del state
    everything(scale, "reduced", iterative(name), np.float64)
    iterative(name).run(problem(scale), None)


def test_pictures_of_cosines_are_deaf_to_it(state: str) -> None:
    cosines = pytest.importorskip("etfopt.plotting").cosines
    del state
    assert cosines(scaled(1e-310)).shape == (C, C)


def test_every_public_name_of_the_core_is_wrapped() -> None:
    """A new function of the core must not be forgotten."""
    from etfopt import Solution, adjoint

    functions = [polar_factor, random_stiefel, _svd.thin_svd, *map(vars(_products).get, ("sym", "feasibility"))]
    functions += [getattr(adjoint, name) for name in adjoint.__all__ if name not in ("Gradient", "kkt_memory")]
    functions += [certify, solve, NearestETF.__init__, Procrustes.run]
    for kind in (NearestETF, Solution):
        members = [v for name, v in vars(kind).items() if not name.startswith("_")]
        functions += [v.func for v in members if isinstance(v, functools.cached_property)]
    functions += [NearestETF.objective, NearestETF.gradient, NearestETF.hessian_vector_product, NearestETF.on_frame]
    assert not [f.__qualname__ for f in functions if not hasattr(f, "__wrapped__")]
