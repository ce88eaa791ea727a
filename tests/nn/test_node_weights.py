"""The node with weights of the classes: the core's numbers, derivatives in the weights, masks, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import NearestETF, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from tests.tools import oracles
from tests.tools.strategies import draws, orthonormal, regular_draws

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck, gradgradcheck

from etfopt.nn.functional import frame_tensor, nearest_etf, on_frame, polar_factor
from tests.tools.node_cases import DTYPES, METHODS, looking, norm, numpy

Tensor = torch.Tensor
WEIGHTS = {
    "counts": [40.0, 20.0, 10.0, 5.0],
    "one masked": [1.0, 0.0, 3.0, 2.0],
    "far apart": [1.0, 1e4, 1e-3, 7.0],
}


def weighted(problem: NearestETF, weights: np.ndarray) -> NearestETF:
    frame = None if problem.r == problem.C else problem.F
    return NearestETF(problem.H, problem.prox, problem.delta, frame, weights=weights)


def leaves(problem: NearestETF) -> tuple[Tensor, Tensor | None, Tensor]:
    dtype = torch.float32 if problem.dtype == np.float32 else torch.float64
    return tuple(
        None if X is None else torch.tensor(np.array(X), dtype=dtype, requires_grad=True)
        for X in (problem.H, problem.prox, problem.weights)
    )


def found(problem: NearestETF, G: np.ndarray, method: str) -> list[np.ndarray]:
    """U and the gradients in H, the proximal point (if there is one) and the weights."""
    H, prox, weights = leaves(problem)
    frame = torch.tensor(problem.F, dtype=torch.float64)
    U = nearest_etf(H, prox, problem.delta, frame, weights=weights, method=method)
    given = [X for X in (H, prox, weights) if X is not None]
    return [numpy(X) for X in (U, *torch.autograd.grad(U, given, torch.tensor(G, dtype=U.dtype)))]


positive = st.lists(st.sampled_from([0.25, 1.0, 1.0, 3.0, 40.0]), min_size=8, max_size=8)


def rounding(problem: NearestETF, G: np.ndarray, s: np.ndarray) -> list[float]:
    """C u kappa times the largest gradient that is possible, of H, of the proximal point and of the weights."""
    H, F, w = (np.float64(X) for X in (problem.H, problem.F, problem.weights))
    sizes = [2 * w.max() * norm(F), problem.delta, 2 * norm(H) * norm(F)]
    unit = problem.C * problem.unit * s[0] / s[-1] * norm(G) / s[-1]
    return [size * unit for k, size in enumerate(sizes) if k != 1 or problem.prox is not None]


@pytest.mark.parametrize("method", METHODS)
@given(
    draw=draws(kinds=("generic", "repeated"), dtypes=(np.float64,), proxes=("none", "near"), limit=100), drawn=positive
)
def test_values_and_gradients_are_those_of_the_core(method, draw, drawn):
    problem, G = weighted(draw.problem, np.array(drawn[: draw.problem.C])), draw.cotangent()
    solution = solve(problem)
    exact = nearest_etf_vjp(problem, solution.U, G)
    U, *gradients = found(problem, G, method)
    s = np.linalg.svd(problem.linear_term, compute_uv=False)
    s = s[s > 1e-13 * s[0]]  # without a proximal point the simplex leaves one out
    np.testing.assert_allclose(U @ problem.F, solution.etf, rtol=0, atol=20 * problem.C * problem.unit * s[0] / s[-1])
    expected = [X for X in (exact.H, exact.prox, exact.weights) if X is not None]
    for slope, of_core, size in zip(gradients, expected, rounding(problem, G, s), strict=True):
        np.testing.assert_allclose(slope, of_core, rtol=0, atol=20 * size)


@pytest.mark.parametrize("method", METHODS)
@given(draw=regular_draws(max_classes=4, limit=10), drawn=positive)
def test_minimiser_and_gradients_are_right_to_sixty_digits_rounded(method, draw, drawn):
    problem = weighted(draw.problem, np.array(drawn[: draw.problem.C]))
    G = np.float32(draw.cotangent()).astype(float)  # exact in either dtype
    H, F = oracles.exact(problem.H), oracles.exact(problem.F)
    A = 2 * H * oracles.mp.diag([oracles.exact(w) for w in problem.weights]) * F.T
    if problem.prox is not None:
        A = A + oracles.exact(problem.delta) * oracles.exact(problem.prox)
    U, _, s = oracles.exact_polar(A)
    s = np.array([float(x) for x in s[::-1]])
    dA = oracles.exact_polar_derivative(A, oracles.exact(G))
    exact = [
        2 * oracles.rounded(dA * F) * problem.weights,
        np.array([2 * (H.T * dA * F)[c, c] for c in range(problem.C)]),
    ]
    numbers = found(problem, G, method)
    assert norm(numbers[0] - oracles.rounded(U)) <= 10 * problem.C * problem.unit * s[0] / s[-1]
    sizes = rounding(problem, G, s)
    assert norm(numbers[1] - exact[0]) <= 20 * sizes[0]
    assert norm(numbers[-1] - exact[1].astype(float)) <= 20 * sizes[-1]


# --- derivatives, at collapse too ---------------------------------------------------------------------------------


def collapsed(d: int, rng: np.random.Generator) -> Tensor:
    return torch.tensor(orthonormal(d, 4, rng) @ simplex_etf(4))


@pytest.mark.parametrize("name", ["counts", "one masked"])
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_at_exact_collapse_pass_the_checks_with_unequal_weights(method, name, rng):
    H, prox = collapsed(5, rng).requires_grad_(), torch.tensor(orthonormal(5, 4, rng), requires_grad=True)
    weights = torch.tensor(WEIGHTS[name], dtype=torch.float64) / 10
    F = frame_tensor(4, H, reduced=True)
    if name == "counts":
        cases = [(lambda H, prox, w: nearest_etf(H, prox, 0.3, weights=w, method=method), (H, prox, weights))]
        cases += [(lambda H, w: nearest_etf(H, frame=F, weights=w, method=method), (H, weights))]
        weights.requires_grad_()
    else:
        cases = [(lambda H, prox: nearest_etf(H, prox, 0.3, weights=weights, method=method), (H, prox))]
        cases += [(lambda H: nearest_etf(H, frame=F, weights=weights, method=method), (H,))]
    for function, inputs in cases:
        assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, atol=1e-4, rtol=1e-4)
        assert gradgradcheck(function, inputs, fast_mode=True, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("batch", [(), (1,)])
def test_the_derivative_in_a_weight_of_zero_is_the_one_to_the_right(batch, rng):
    H, G = (torch.tensor(rng.standard_normal((*batch, 6, 4))) for _ in range(2))
    F = frame_tensor(4, H, reduced=True)
    weights = torch.tensor([1.0, 0.0, 3.0, 2.0], dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        return ((nearest_etf(H, frame=F, weights=w) @ F) * G).sum()

    slope = torch.func.grad(loss)(weights)
    step = torch.tensor([0.0, 1e-6, 0.0, 0.0], dtype=torch.float64)
    ahead = (-3 * loss(weights) + 4 * loss(weights + step) - loss(weights + 2 * step)) / 2e-6
    assert slope[1].item() == pytest.approx(ahead.item(), rel=1e-5)
    assert abs(slope[1]) > 1e-3


@pytest.mark.parametrize("masks", [[0], [0, 2]])
def test_hessians_with_several_masked_classes_are_those_of_the_others_alone(masks, rng):
    """Two masked classes leave A rank deficient, and U free where no weighted class sees it."""
    H = torch.tensor(rng.standard_normal((6, 5)))
    weights = torch.tensor([3.0, 1.0, 0.5, 2.0, 1.5], dtype=torch.float64).index_fill(0, torch.tensor(masks), 0)
    F = frame_tensor(5, H, reduced=True)
    kept = [c for c in range(5) if c not in masks]
    Q = torch.linalg.svd(F[:, kept], full_matrices=False).U  # the columns that are seen span this
    T = torch.tensor(rng.standard_normal((6, len(kept))))

    def loss(H: Tensor) -> Tensor:
        return ((nearest_etf(H, frame=F, weights=weights) @ F)[:, kept] * T).sum()

    def smaller(H: Tensor) -> Tensor:
        return ((polar_factor((H * weights)[:, kept] @ F[:, kept].mT @ Q) @ Q.mT @ F)[:, kept] * T).sum()

    for found, exact in zip(
        (loss(H), torch.func.grad(loss)(H), torch.func.hessian(loss)(H)),
        (smaller(H), torch.func.grad(smaller)(H), torch.func.hessian(smaller)(H)),
        strict=True,
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-11 * float(1 + exact.abs().max()))


# --- batches, routes, sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shapes", [((3, 6, 4), (3, 4)), ((6, 4), (3, 4)), ((3, 6, 4), (4,)), ((2, 1, 6, 4), (3, 4))])
def test_each_item_has_its_own_weights(shapes, method, rng):
    H, prox = torch.tensor(rng.standard_normal(shapes[0])), torch.tensor(orthonormal(6, 4, rng))
    weights = torch.tensor(rng.choice([0.0, 0.5, 1.0, 9.0], shapes[1], p=[0.1, 0.3, 0.3, 0.3]) + 1e-3)
    found = nearest_etf(H, prox, 2.0, weights=weights, method=method)
    for index in np.ndindex(*found.shape[:-2]):
        one, w = H.expand(*found.shape[:-2], 6, 4)[index], weights.expand(*found.shape[:-2], 4)[index]
        expected = polar_factor(2 * on_frame(one * w, None) + 2.0 * prox)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", [(9, 4), (60, 40), (130, 100)])
@pytest.mark.parametrize("noise", [0.0, 1e-5, 1.0])
@pytest.mark.parametrize("kind", ["equal", "one masked", "counts"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_problem_is_a_batch_of_one_near_collapse_too(shape, noise, kind, dtype, rng):
    U, X = orthonormal(*shape, rng), rng.standard_normal(shape)
    H = on_frame(torch.tensor(U), None) + noise * torch.tensor(X / norm(X) + 0.3)  # the shift is seen by weights
    weights = torch.ones(shape[1], dtype=torch.float64) if kind != "counts" else torch.linspace(0.2, 2, shape[1])
    if kind == "one masked":
        weights[1] = 0
    given = [X.detach().to(dtype).requires_grad_() for X in (H, torch.tensor(U), weights)]
    G = torch.tensor(rng.standard_normal(shape), dtype=dtype)

    def slopes(batch: tuple[int, ...]) -> list[Tensor]:
        H, prox, w = given
        U = nearest_etf(H.expand(*batch, *shape), prox, 0.05, weights=w)
        return [U.reshape(shape), *torch.autograd.grad(U, given, G.expand(U.shape))]

    singles, others = slopes(()), slopes((1,))
    for single, batched in zip(singles, others, strict=True):  # near collapse that in the weights all but vanishes
        size = max(float(X.detach().norm()) for X in (batched, others[1]))
        rounding = 300 * shape[1] * torch.finfo(dtype).eps * size
        torch.testing.assert_close(single, batched, rtol=0, atol=rounding)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_one_change_no_bit_and_their_size_is_that_of_delta(method, rng):
    H, prox = torch.tensor(rng.standard_normal((6, 4))), torch.tensor(orthonormal(6, 4, rng))
    plain = nearest_etf(H, prox, 0.3, method=method)
    ones = nearest_etf(H, prox, 0.3, weights=torch.ones(4, dtype=torch.bool), method=method)
    torch.testing.assert_close(ones, plain, rtol=0, atol=1e-15 if method == "auto" else 1e-13)
    for size in (1e-200, 1e-6, 1e200):
        weights = torch.full((4,), size, dtype=torch.float64)
        found = nearest_etf(H, prox, 0.3 * size, weights=weights, method=method)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("size", [-30, -8, 8, 30])
def test_in_single_precision_no_size_of_weights_or_columns_is_out_of_range(size, seen, rng):
    H, F, prox = orthonormal(6, 4, rng), orthonormal(4, 3, rng).T, orthonormal(6, 3, rng)
    columns, weights = 10.0 ** np.array([size, -size, 0, size / 2]), 10.0 ** np.array([-size, size, 0, -size / 2])
    given = (H * columns).astype("f"), weights.astype("f")
    leaf, w = (torch.tensor(X, requires_grad=True) for X in given)
    with looking(seen):
        U = nearest_etf(leaf, torch.tensor(prox, dtype=torch.float32), 0.5, torch.tensor(F.astype("f")), weights=w)
    slopes = torch.autograd.grad(U, (leaf, w), torch.ones_like(U))
    HD = oracles.exact(given[0]) * oracles.mp.diag([oracles.exact(x) for x in given[1]])
    F = np.float32(F)
    A = 2 * HD * oracles.exact(F).T + oracles.exact(0.5) * oracles.exact(np.float32(prox))
    exact, _, s = oracles.exact_polar(A)
    rounding = 10 * 4 * 2.0**-23 * 3 / float(s[0])
    assert norm(numpy(U) - oracles.rounded(exact)) <= rounding
    dA = oracles.exact_polar_derivative(A, oracles.exact(np.ones((6, 3)))) * oracles.exact(F)
    of_H, of_w = 2 * oracles.rounded(dA), 2 * np.einsum("dc,dc->c", given[0].astype(float), oracles.rounded(dA))
    assert norm(numpy(slopes[0]) / given[1] - of_H) <= 10 * rounding * norm(of_H)
    assert norm((numpy(slopes[1]) - of_w) / columns) <= 10 * rounding * norm(of_H)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_single_under_autocast_too(dtype, rng):
    H, weights = torch.tensor(rng.standard_normal((6, 4)), dtype=dtype), torch.tensor([1, 0, 3, 2])
    with torch.autocast("cpu", torch.bfloat16):
        U = nearest_etf(H, torch.eye(6, 4, dtype=dtype), 0.1, weights=weights)
    single = nearest_etf(H.float(), torch.eye(6, 4), 0.1, weights=weights.float())
    assert U.dtype == dtype
    assert torch.equal(U, single.to(dtype))


@pytest.mark.parametrize("method", METHODS)
def test_forward_mode_of_forward_mode_is_refused_and_of_reverse_mode_is_right(method, rng):
    H, weights = (torch.tensor(X) for X in (rng.standard_normal((6, 4)), rng.uniform(0.5, 2, 4)))
    F, V = frame_tensor(4, H, reduced=True), torch.tensor(rng.standard_normal((6, 4)))

    def loss(H: Tensor) -> Tensor:
        return (nearest_etf(H, frame=F, weights=weights, method=method) @ F).pow(3).sum()

    with pytest.raises(Exception, match="forward mode of forward mode is not supported"):
        torch.func.jacfwd(torch.func.jacfwd(loss))(H)
    exact = (torch.func.hessian(loss)(H) * V).sum((-2, -1))
    with torch.autograd.forward_ad.dual_level():  # without create_graph
        dual = torch.autograd.forward_ad.make_dual(H.clone().requires_grad_(), V)
        slope = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss(dual), dual)[0])
        torch.testing.assert_close(slope.tangent, exact)
