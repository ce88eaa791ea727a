"""The bridge: the same numbers as the core, at every spectrum, batch, dtype and transform, and no NaN anywhere."""

import fractions

import numpy as np
import pytest
from hypothesis import assume, given

from etfopt import NearestETF, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from etfopt.polar._products import sym
from tests.tools import oracles
from tests.tools.strategies import DEGENERATE, draws, means_with, orthonormal, regular_draws, with_spectrum

torch = pytest.importorskip("torch")
from etfopt.nn.functional import frame_tensor, nearest_etf, polar_factor
from tests.tools.node_cases import METHODS, looking, numpy

SOFT = ("generic", "repeated", "clustered")


def tensors(problem: NearestETF) -> dict:
    """The arguments of the bridge for a problem of the core; H is a leaf."""
    dtype = torch.float32 if problem.dtype == np.float32 else torch.float64
    return {
        "H": torch.tensor(problem.H, dtype=dtype, requires_grad=True),
        "prox": None if problem.prox is None else torch.tensor(problem.prox, dtype=dtype),
        "delta": problem.delta,
        "frame": torch.tensor(problem.F, dtype=torch.float64),
    }


def gradient(problem: NearestETF, G: np.ndarray, method: str = "auto") -> np.ndarray:
    arguments = tensors(problem)
    nearest_etf(**arguments, method=method).backward(torch.tensor(G, dtype=arguments["H"].dtype))
    return numpy(arguments["H"].grad)


# --- the promises, and agreement with the core --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(draw=regular_draws(max_classes=5))
def test_the_minimiser_is_right_to_ten_c_u_kappa(method, draw):
    problem = draw.problem
    U, _, s = oracles.exact_polar(oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta))
    error = np.linalg.norm(numpy(nearest_etf(**tensors(problem), method=method)) - oracles.rounded(U))
    assert error <= 10 * problem.C * problem.unit * float(s[-1] / s[0])


@pytest.mark.parametrize("method", METHODS)
@given(draw=draws(kinds=SOFT, dtypes=(np.float64,), limit=250))
def test_values_and_gradients_are_those_of_the_core(method, draw):
    problem, solution, G = draw.problem, solve(draw.problem), draw.cotangent()
    assume(problem.prox is None or (solution.certificate.relative_gap < 1 and solution.certificate.unique))
    etf = numpy(nearest_etf(**tensors(problem), method=method)) @ problem.F
    np.testing.assert_allclose(etf, solution.etf, rtol=0, atol=1e-11)
    expected = nearest_etf_vjp(problem, solution.U, G).H
    # with d = r = 1 the gradient vanishes, and rounding is left: of the order of u |G| / sigma
    vanishes = problem.d == problem.r == 1
    rounding = 10 * problem.unit * np.linalg.norm(G) / solution.certificate.margin if vanishes else 0
    found = gradient(problem, G, method)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max() + rounding)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("size", [-30, -8, 8, 30])
@pytest.mark.parametrize("pull", [-30, -8, 8, 30])
def test_in_single_precision_no_size_of_means_frame_or_proximal_point_is_out_of_range(pull, size, seen, method, rng):
    H, F, prox = 10.0**-size * orthonormal(6, 4, rng), 10.0**size * orthonormal(4, 3, rng).T, orthonormal(6, 3, rng)
    for factor in (1.0, 1e6, 1e-6):
        given = [(factor * H).astype("f"), F.astype("f"), (10.0**pull * prox).astype("f")]
        delta = factor * 10.0**-pull
        U, _, s = oracles.exact_polar(oracles.exact_linear_term(*given, delta))
        H_, F_, prox_ = (torch.tensor(X) for X in given)
        with looking(seen):
            found = nearest_etf(H_, prox_, delta, F_, method=method)
        error = np.linalg.norm(numpy(found) - oracles.rounded(U))
        assert error <= 10 * 4 * 2.0**-23 * 3 / float(s[0] / factor)  # the summands have norm 3


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_means_that_differ_in_the_last_digits_of_single_precision_keep_the_promise(method, seen):
    k = torch.arange(1.0, 7.0)
    H = 1 + 2.0**-23 * torch.stack([k, torch.zeros(6)], dim=1)  # exact, and so is the difference of the columns
    with looking(seen):
        found = nearest_etf(H, frame=torch.tensor([[1.0, -1.0]]), method=method)
    torch.testing.assert_close(found[:, 0], k / k.norm(), rtol=0, atol=10 * 2 * 2.0**-23)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delta", [1e-25, 1e-15, 1e-3])
def test_in_single_precision_a_faint_delta_decides_where_the_means_are_equal(delta, method, seen, rng):
    prox = torch.tensor(orthonormal(7, 4, rng), dtype=torch.float32)
    with looking(seen):
        found = nearest_etf(torch.ones(7, 4), prox, delta, method=method)
    torch.testing.assert_close(found, prox, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delta", [1e-300, 1e-60, 1e60, 1e300])
def test_in_single_precision_any_delta_decides_where_the_means_are_zero(delta, method, rng):
    prox = torch.tensor(orthonormal(7, 4, rng), dtype=torch.float32)
    found = nearest_etf(torch.zeros(7, 4), prox, delta, method=method)
    torch.testing.assert_close(found, prox, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "device"), [("auto", False), ("auto", True), ("svd", False)])
@pytest.mark.parametrize("seed", [746, 2144, 2577, 4231])
def test_singular_values_that_a_dominating_proximal_term_clusters_do_not_loosen_the_promise(seed, method, device):
    rng = np.random.default_rng(seed)  # found by search: LAPACK splits such clusters at about fifty units
    prox = orthonormal(3, 3, rng)
    problem = NearestETF(10.0 ** rng.uniform(-12, -5) * rng.standard_normal((3, 3)), prox, 1.0)
    U, _, s = oracles.exact_polar(oracles.exact_linear_term(problem.H, problem.F, prox, 1.0))
    with looking(not device):
        found = nearest_etf(**tensors(problem), method=method)
    error = np.linalg.norm(numpy(found) - oracles.rounded(U))
    assert error <= 10 * 3 * problem.unit * float(s[-1] / s[0])


@given(regular_draws(max_classes=4, limit=20))
def test_the_gradient_is_right_to_twenty_c_u_kappa(draw):
    problem, G, U = draw.problem, draw.cotangent(), solve(draw.problem).U
    assume(np.linalg.norm(G - U @ sym(U.T @ G)) > 0.5 * np.linalg.norm(G))
    A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
    s = oracles.exact_polar(A)[2]
    exact = oracles.rounded(2 * oracles.exact_polar_derivative(A, oracles.exact(G)) * oracles.exact(problem.F))
    error = np.linalg.norm(gradient(problem, G) - exact) / np.linalg.norm(exact)
    assert error <= 20 * problem.C * problem.unit * float(s[-1] / s[0])


@given(draws(kinds=SOFT, dtypes=(np.float64,), frames=("simplex",), proxes=("near", "far"), limit=0))
def test_without_a_frame_it_is_the_simplex_with_its_proximal_term(draw):
    problem, solution, G = draw.problem, solve(draw.problem), draw.cotangent()
    arguments = {**tensors(problem), "frame": None}
    U = nearest_etf(**arguments)
    U.backward(torch.tensor(G))
    np.testing.assert_allclose(numpy(U) @ problem.F, solution.etf, rtol=0, atol=1e-11)
    expected = nearest_etf_vjp(problem, solution.U, G).H
    np.testing.assert_allclose(numpy(arguments["H"].grad), expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@given(draws())
def test_u_lies_on_the_manifold_and_no_gradient_is_nan(draw):
    problem = draw.problem
    U = numpy(nearest_etf(**tensors(problem)))
    assert np.linalg.norm(U.T @ U - np.eye(problem.r)) <= 10 * problem.C * problem.unit
    assert not np.isnan(gradient(problem, draw.rng.standard_normal(U.shape))).any()


@pytest.mark.parametrize("shift", [2.0**7, 2.0**11])
def test_a_mean_common_to_all_classes_costs_no_digits_in_single_precision(shift):
    X = np.diag([1.0, 0.75, 0.5])
    H = np.round(means_with(np.vstack([X, X[::-1] / 4])) * 2**10) / 2**10
    shifted = H + shift * np.array([[1.0], [-1.0], [2.0], [1.0], [0.0], [-1.0]])  # exact in single precision
    plain, moved = (nearest_etf(torch.tensor(X, dtype=torch.float32)) for X in (H, shifted))
    F = frame_tensor(4, plain)
    assert torch.linalg.matrix_norm(plain @ F - moved @ F) <= 2 * 10 * 4 * 2.0**-23 * 2


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 3e38])
def test_every_finite_scale_of_single_precision_is_solved(scale, rng):
    H = means_with(with_spectrum(6, np.array([1.0, 0.7, 0.4]), rng))
    H /= np.abs(H).max()
    U = nearest_etf(torch.tensor(scale * H, dtype=torch.float32))
    tolerance = 0.2 if scale < 1e-40 else 1e-5  # there are few digits below the smallest normal number
    np.testing.assert_allclose(numpy(U) @ simplex_etf(4), solve(NearestETF(H)).etf, rtol=0, atol=tolerance)


# --- batches and dtypes -------------------------------------------------------------------------------------------


def test_members_of_very_different_size_do_not_disturb_each_other(rng):
    H = torch.tensor(rng.standard_normal((3, 6, 4)))
    sizes = torch.tensor([1e-200, 1.0, 1e200], dtype=torch.float64)[:, None, None]
    frame = torch.tensor(simplex_etf(4, reduced=True))
    torch.testing.assert_close(nearest_etf(sizes * H, frame=frame), nearest_etf(H, frame=frame))


def test_delta_counts_only_with_a_proximal_point(rng):
    H = torch.tensor(rng.standard_normal((6, 4)))
    prox = torch.eye(6, 4, dtype=H.dtype)
    assert torch.equal(nearest_etf(H, prox), nearest_etf(H, prox, 1e-3))
    assert torch.equal(nearest_etf(H, torch.eye(6, 4), 0.0), nearest_etf(H))


@pytest.mark.parametrize("delta", [1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1), fractions.Fraction(1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_real_number_serves_as_delta(delta, dtype, rng):
    H, prox = (torch.tensor(rng.standard_normal((6, 4)), dtype=dtype) for _ in range(2))
    assert torch.equal(nearest_etf(H, prox, delta), nearest_etf(H, prox, float(delta)))


@pytest.mark.parametrize("delta", [1e39, 1e300, 1e-50, 1e-300])
def test_a_delta_outside_the_range_of_single_precision_is_still_a_weight(delta, rng):
    H, prox = torch.tensor(rng.standard_normal((6, 4)), dtype=torch.float32), torch.eye(6, 4).flip(0)
    limit = prox if delta > 1 else nearest_etf(H)
    F = frame_tensor(4, H)
    torch.testing.assert_close(nearest_etf(H, prox, delta) @ F, limit @ F, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_proximal_term_beyond_tiny_means_by_more_than_the_range_is_the_answer(dtype, rng):
    info, prox = torch.finfo(dtype), torch.tensor(orthonormal(6, 4, rng), dtype=dtype)
    H = torch.tensor(rng.standard_normal((6, 4)), dtype=dtype) * info.tiny * 10
    torch.testing.assert_close(nearest_etf(H, prox, info.max), prox, rtol=0, atol=20 * info.eps)


# --- repeated singular values -------------------------------------------------------------------------------------


@given(draws(kinds=DEGENERATE, limit=0))
def test_second_derivatives_of_degenerate_means_are_not_nan(draw):
    arguments = tensors(draw.problem)
    loss = nearest_etf(**arguments).pow(3).sum()
    first = torch.autograd.grad(loss, arguments["H"], create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), arguments["H"])[0]
    assert not torch.isnan(second).any()


@pytest.mark.parametrize(("dtype", "kappa"), [(np.float32, 45.0), (np.float64, 45.0), (np.float64, 110.0)])
def test_many_columns_of_middling_condition_are_orthonormal_too(dtype, kappa, rng):
    A = with_spectrum(300, np.geomspace(1, 1 / kappa, 260), rng).astype(dtype)
    U = numpy(polar_factor(torch.tensor(A))).astype(np.float64)
    assert np.linalg.norm(U.T @ U - np.eye(260)) <= 260 * np.finfo(dtype).eps


@pytest.mark.parametrize("kappa", [1e5, 1e7, 1e9])
def test_single_precision_columns_of_bad_condition_are_orthonormal_too(kappa, rng):
    A = torch.tensor(with_spectrum(12, np.array([1.0, 1.0, 1 / kappa, 1 / kappa]), rng).astype(np.float32))
    U = numpy(polar_factor(A)).astype(np.float64)
    assert np.linalg.norm(U.T @ U - np.eye(4)) <= 10 * 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("hidden", [False, True])
def test_a_direction_that_is_null_up_to_rounding_is_left_out_of_the_gradient(hidden, monkeypatch, rng):
    if hidden:  # as on a device, or in a compiled graph
        monkeypatch.setattr("etfopt.nn.polar._node.visible", lambda _: False)
    A = torch.tensor(with_spectrum(12, np.array([1.0, 0.5, 1e-19]), rng), requires_grad=True)
    G = torch.tensor(rng.standard_normal((12, 3)))
    U = polar_factor(A)
    U.backward(G)
    assert A.grad.norm() <= 10 * G.norm() / 0.5
    along = A.grad @ torch.linalg.svd(A.detach()).Vh[-1]
    assert (along - U @ (U.mT @ along)).norm() <= 1e-12 * G.norm()  # of (G - UK) B^+


def test_a_faint_proximal_term_does_not_leak_into_losses_of_the_etf_of_many_classes(rng):
    C, d = 40, 60
    reduced = frame_tensor(C, torch.zeros(1, dtype=torch.float64), reduced=True)
    H = torch.tensor(means_with(with_spectrum(d, rng.uniform(0.5, 1, C - 1), rng)))
    G = torch.tensor(rng.standard_normal((d, C)))

    def gradient_of(prox: torch.Tensor | None, delta: float, frame: torch.Tensor | None) -> torch.Tensor:
        leaf = H.clone().requires_grad_()
        U = nearest_etf(leaf, prox, delta, frame)
        F = frame_tensor(C, H) if frame is None else frame
        return torch.autograd.grad(((U @ F) * G).sum(), leaf)[0]

    exact = gradient_of(None, 0.0, reduced)
    near = nearest_etf(H)
    for delta in (1e-6, 1e-9, 1e-12):
        assert (gradient_of(near, delta, None) - exact).norm() <= (30 * delta + 1e-10) * exact.norm()
