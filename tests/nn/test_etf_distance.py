"""The distance to the nearest ETF as a loss: its value, masks, sets of any size, and bad input."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError, NearestETF, simplex_etf, solve
from tests.tools import oracles
from tests.tools.strategies import means_with, orthonormal, spectrum, with_spectrum

torch = pytest.importorskip("torch")

from etfopt.nn.functional import etf_distance, frame_tensor
from etfopt.nn.minimiser import _distance
from tests.tools.node_cases import DTYPES, METHODS, looking, numpy

Tensor = torch.Tensor
WEIGHTS = torch.tensor([1.0, 3.0, 0.2, 2.0], dtype=torch.float64)


def exact_distance(H: np.ndarray, F: np.ndarray, w: np.ndarray, free: bool) -> float:
    """By its formula in 60 digits."""
    means, D = oracles.exact(H), oracles.mp.diag([oracles.exact(x) for x in w])
    x = sum(oracles.mp.svd_r(means * D * oracles.exact(F).T, compute_uv=False))
    square, size = (
        sum(D[j, j] * X[i, j] ** 2 for j in range(X.cols) for i in range(X.rows)) for X in (means, oracles.exact(F))
    )
    return float(square - x**2 / size if free else square - 2 * x + size)


# --- the value ----------------------------------------------------------------------------------------------------

KINDS = ("generic", "repeated", "clustered", "graded", "zero", "rank one", "deficient")


@pytest.mark.parametrize("method", METHODS)
@given(
    kind=st.sampled_from(KINDS),
    C=st.integers(2, 5),
    extra=st.sampled_from([0, 1, 6]),
    size=st.sampled_from([1.0, 1e-12, 1e12]),
    free=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_value_is_right_to_sixty_digits_rounded(method, kind, C, extra, size, free, dtype, seed):
    rng, unit = np.random.default_rng(seed), torch.finfo(dtype).eps
    values = spectrum(kind, C - 1, np.float32 if dtype == torch.float32 else np.float64, rng)
    H = size * (means_with(with_spectrum(C - 1 + extra, values, rng)) + rng.choice([0, 0.1]))
    H, w = torch.tensor(H, dtype=dtype), torch.tensor(rng.choice([0.0, 0.5, 1.0, 3.0], C), dtype=dtype)
    w[int(rng.integers(C))] = 1.0
    F = frame_tensor(C, H, reduced=True)
    exact = exact_distance(numpy(H), numpy(F), numpy(w), free)
    found = etf_distance(H, None, w, free, method=method)
    assert found.dtype == dtype
    # the residual is right to rounding, and so is the root of the distance
    whole = math.sqrt(
        float((w * H.square().sum(dim=0)).sum()) + (0 if free else float((w * F.square().sum(dim=0)).sum()))
    )
    assert abs(math.sqrt(float(found)) - math.sqrt(max(exact, 0))) <= 30 * C * unit * whole + 1e-30


@pytest.mark.parametrize("frame", ["simplex", "reduced"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_square_of_the_cores_distance(weighted, frame, rng):
    H = rng.standard_normal((6, 4))
    problem = NearestETF(H, frame=frame, weights=numpy(WEIGHTS) if weighted else None)
    found = etf_distance(torch.tensor(H), torch.tensor(np.array(problem.F)), WEIGHTS if weighted else None)
    assert float(found) == pytest.approx(solve(problem).distance ** 2, rel=1e-13)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_rotations_permutations_rows_of_zeros_and_sizes_do_what_they_must(seed, size):
    rng = np.random.default_rng(seed)
    H, Q = torch.tensor(rng.standard_normal((6, 4))), torch.tensor(orthonormal(6, 6, rng))
    here = etf_distance(H)
    order = torch.tensor(rng.permutation(4))
    for other, factor in (
        (Q @ H, 1),
        (H[:, order], 1),
        (torch.cat([H, torch.zeros(2, 4)]), 1),
        (size * H, size**2),
        (-H, 1),
    ):
        torch.testing.assert_close(etf_distance(other), factor * here, rtol=1e-12, atol=0)
    torch.testing.assert_close(etf_distance(H, weights=size * WEIGHTS), size * etf_distance(H, weights=WEIGHTS))
    torch.testing.assert_close(etf_distance(H[:, order], weights=WEIGHTS[order]), etf_distance(H, weights=WEIGHTS))


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_near_collapse_the_distance_keeps_its_digits(noise, rng):
    E = 3 * orthonormal(6, 3, rng) @ simplex_etf(4, reduced=True)
    H, F, w = E + noise * rng.standard_normal(E.shape), simplex_etf(4, reduced=True), numpy(WEIGHTS)
    found = etf_distance(torch.tensor(H), None, WEIGHTS)
    assert float(found) == pytest.approx(exact_distance(H, F, w, True), rel=100 * 2.0**-52 / noise)


# --- masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("hole", [math.nan, math.inf])
def test_a_masked_column_may_hold_anything_and_its_derivatives_are_zero(hole, seen, rng):
    H = torch.tensor(rng.standard_normal((2, 6, 4)))
    w = torch.tensor([[1.0, 0, 2, 1], [1, 1, 1, 0.5]], dtype=torch.float64)
    X = H.clone()
    X[0, 2, 1] = hole
    given = [Y.clone().requires_grad_() for Y in (X, w)]
    with looking(seen):
        D = etf_distance(given[0], weights=given[1])
        first = torch.autograd.grad(D.sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(Y.pow(2).sum() for Y in first), given)
    torch.testing.assert_close(D, etf_distance(H, weights=w))
    for Y in (first[0][0, :, 1], first[1][0, 1], second[0][0, :, 1], second[1][0, 1]):
        assert (Y == 0).all()
    assert all(Y.isfinite().all() for Y in (*first, *second))


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("free", [True, False])
def test_an_item_without_any_weight_has_distance_zero_and_no_gradient(free, seen, rng):
    H = torch.tensor(rng.standard_normal((2, 6, 4)), requires_grad=True)
    w = torch.tensor([[1.0, 0, 2, 1], [0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    with looking(seen):
        D = etf_distance(H, None, w, free)
        slopes = torch.autograd.grad(D.sum(), (H, w))
    assert D[1] == 0
    assert not slopes[0][1].any()
    assert slopes[1].isfinite().all()
    torch.testing.assert_close(D[0], etf_distance(H[0], None, w[0], free))


def test_the_derivative_in_a_weight_of_zero_is_the_one_to_the_right(rng):
    H, w = torch.tensor(rng.standard_normal((6, 4))), torch.tensor([1.0, 0, 2, 1], dtype=torch.float64)
    step = torch.tensor([0, 1e-6, 0, 0], dtype=torch.float64)
    D = functools.partial(etf_distance, H, None)
    ahead = (-3 * D(w) + 4 * D(w + step) - D(w + 2 * step)) / 2e-6
    assert torch.func.grad(D)(w)[1].item() == pytest.approx(ahead.item(), rel=1e-6)


# --- sets of any size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_list_of_sets_is_a_loop_in_value_and_gradients(weighted, rng, monkeypatch):
    sizes = [(5, 3), (5, 2), (6, 3), (5, 3), (5, 6), (5, 2), (5, 3)]
    sets = [torch.tensor(rng.standard_normal(size), requires_grad=True) for size in sizes]
    weights = [torch.tensor(rng.uniform(0, 2, C), requires_grad=True) for _, C in sizes] if weighted else None
    given = [*sets, *(weights or [])]
    calls = []
    plain = _distance.minimiser
    monkeypatch.setattr(_distance, "minimiser", lambda *given: calls.append(0) or plain(*given))
    whole = etf_distance(sets, None, weights)
    assert len(calls) == len(set(sizes))
    each = [etf_distance(X, None, w) for X, w in zip(sets, weights or [None] * 7, strict=True)]
    torch.testing.assert_close(whole, torch.stack(each), rtol=1e-12, atol=1e-14)
    factors = torch.arange(1.0, 8.0).double()
    slopes = [torch.autograd.grad((D * factors).sum(), given) for D in (whole, torch.stack(each))]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-12)


def test_the_sets_of_a_list_may_share_a_frame(rng):
    sets = tuple(torch.tensor(rng.standard_normal((5, 4))) for _ in range(3))
    F = torch.tensor(orthonormal(4, 4, rng))
    torch.testing.assert_close(etf_distance(sets, F), etf_distance(torch.stack(sets), F))


def test_a_first_call_in_inference_mode_leaves_nothing_behind(rng):
    H = torch.tensor(rng.standard_normal((23, 19)))
    with torch.inference_mode():
        value = etf_distance(H)
    leaf = H.clone().requires_grad_()
    D = etf_distance(leaf)
    D.backward()
    assert D.item() == value.item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_and_returned_in_single_under_autocast_too(dtype, rng):
    H = torch.tensor(rng.standard_normal((6, 4)), dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        D = etf_distance(H, weights=torch.tensor([1, 0, 3, 2]))
    slope = torch.autograd.grad(D, H)[0]
    leaf = H.detach().float().requires_grad_()
    single = etf_distance(leaf, weights=torch.tensor([1.0, 0, 3, 2]))
    assert D.dtype == torch.float32
    assert slope.dtype == dtype
    assert single == D
    torch.testing.assert_close(slope, torch.autograd.grad(single, leaf)[0].to(dtype))


# --- what cannot be used ------------------------------------------------------------------------------------------

H = torch.arange(12.0).reshape(4, 3).cos()
REFUSED = {
    "a vector": ({"H": torch.ones(3)}, r"H has shape \(3,\)"),
    "one class": ({"H": torch.ones(4, 1)}, r"H has shape \(4, 1\).*C >= 2"),
    "d < C - 1": ({"H": torch.ones(2, 4)}, r"d = 2 .*r = 3 rows"),
    "NaN": ({"H": H * math.nan}, r"H holds 12 value\(s\)"),
    "a negative weight": ({"H": H, "weights": torch.tensor([1.0, -1, 1])}, r"weights holds a negative value at \(1,\)"),
    "weights as a list": ({"H": H, "weights": [1.0, 1.0, 1.0]}, r"weights must be a torch tensor, as H is; got list"),
    "batches": ({"H": H.expand(2, 4, 3), "weights": torch.ones(3, 3)}, r"the batches do not fit"),
    "a frame of other classes": ({"H": H, "frame": torch.eye(2)}, r"frame has shape \(2, 2\)"),
    "a method": ({"H": H, "method": "qr"}, r"method = 'qr' is not known"),
    "no sets": ({"H": []}, r"H is an empty sequence"),
    "a set of one class": ({"H": [H, H[:, :1]]}, r"H\[1\] has shape \(4, 1\).*C >= 2"),
    "a set of sets": ({"H": [H, H[None]]}, r"H\[1\] has shape \(1, 4, 3\); it must be \(d, C\)"),
    "a set that is a list": ({"H": [H, [1.0]]}, r"H\[1\] must be a .*tensor; got list"),
    "a set with NaN": ({"H": [H[:, :2], H, H * math.nan]}, r"of the sets \[1, 2\], stacked: H holds 12 .*\(1, 0, 0\)"),
    "one tensor of weights": ({"H": [H], "weights": torch.ones(3)}, r"weights must be a sequence of 1 tensors"),
    "weights too few": ({"H": [H, H], "weights": [torch.ones(3)]}, r"weights must be a sequence of 2 tensors"),
    "weights of a set": ({"H": [H], "weights": [torch.ones(2)]}, r"weights\[0\] has shape \(2,\); it must be \(3,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_means_and_weights_that_cannot_be_used_are_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        etf_distance(**options)
