"""The distance to the nearest ETF as a loss: value, derivatives of both orders, collapse, masks, sets of any size."""

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
from torch.autograd import gradcheck, gradgradcheck

from etfopt.nn import ETFDistance, _distance
from etfopt.nn.functional import etf_distance, frame_tensor
from etfopt.nn.polar._collapsed import Collapsed
from etfopt.nn.polar._factors import Decomposition
from tests.tools.node_cases import DTYPES, METHODS, SPECTRA, looking, norm, numpy

Tensor = torch.Tensor
WEIGHTS = torch.tensor([1.0, 3.0, 0.2, 2.0], dtype=torch.float64)


def means(values: np.ndarray, rng: np.random.Generator, d: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(means_with(with_spectrum(d, values, rng)), dtype=dtype)


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


# --- derivatives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("values", SPECTRA)
def test_gradients_are_central_differences(values, free, rng):
    H, F = means(SPECTRA[values], rng) + 0.1, frame_tensor(4, WEIGHTS, reduced=True) + 0.05
    given = [X.clone().requires_grad_() for X in (H, F, WEIGHTS)]
    slopes = torch.autograd.grad(etf_distance(*given, free), given)
    for k, slope in enumerate(slopes):

        def loss(X: np.ndarray, k: int = k) -> float:
            moved = [torch.tensor(X) if i == k else Y.detach() for i, Y in enumerate(given)]
            return float(etf_distance(*moved, free))

        differences = oracles.central_differences(loss, numpy(given[k]), 1e-5)
        assert norm(numpy(slope) - differences) <= 1e-6 * (1 + norm(differences))


CASES = {
    "one": lambda rng: (torch.tensor(rng.standard_normal((6, 4))), WEIGHTS),
    "d = C - 1": lambda rng: (torch.tensor(rng.standard_normal((3, 4))), WEIGHTS),
    "a batch": lambda rng: (torch.tensor(rng.standard_normal((2, 5, 4))), WEIGHTS + torch.arange(2)[:, None]),
    "weights of each": lambda rng: (torch.tensor(rng.standard_normal((5, 4))), WEIGHTS + torch.arange(2)[:, None]),
    "collapsed": lambda rng: (means(np.ones(3), rng), torch.ones(4, dtype=torch.float64)),
    "clustered": lambda rng: (means(SPECTRA["clustered"], rng), WEIGHTS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("free", [True, False])
def test_both_derivatives_pass_the_checks(free, case, rng):
    inputs = tuple(X.clone().requires_grad_() for X in CASES[case](rng))
    function = functools.partial(_of_means_and_weights, free=free)
    options = {"atol": 1e-4, "rtol": 1e-4}
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, **options)
    assert gradgradcheck(function, inputs, fast_mode=case != "one", check_fwd_over_rev=True, **options)


def _of_means_and_weights(H: Tensor, w: Tensor, free: bool) -> Tensor:
    return etf_distance(H, None, w, free)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("masks", [[], [1], [0, 3]])
def test_second_derivatives_contain_that_of_u_however_they_are_taken(masks, method, rng):
    H, w = torch.tensor(rng.standard_normal((6, 5))), torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=torch.float64)
    w = w.index_fill(0, torch.tensor(masks, dtype=torch.int64), 0)
    V = torch.tensor(rng.standard_normal((6, 5)))

    def loss(H: Tensor) -> Tensor:
        return etf_distance(H, None, w, method=method)

    def slope(H: Tensor) -> Tensor:
        leaf = H.detach().clone().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0]

    exact = (slope(H + 1e-5 * V) - slope(H - 1e-5 * V)) / 2e-5
    leaf = H.clone().requires_grad_()
    first = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
    with torch.autograd.forward_ad.dual_level():  # without create_graph
        dual = torch.autograd.forward_ad.make_dual(H.clone().requires_grad_(), V)
        ahead = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss(dual), dual)[0]).tangent
    for found in (
        torch.autograd.grad((first * V).sum(), leaf)[0],
        (torch.func.hessian(loss)(H) * V).sum((-2, -1)),
        torch.func.jvp(torch.func.grad(loss), (H,), (V,))[1],
        torch.func.grad(lambda H: torch.func.jvp(loss, (H,), (V,))[1])(H),
        ahead,
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-7 * float(exact.norm()))
    with pytest.raises(Exception, match="forward mode of forward mode is not supported"):
        torch.func.jacfwd(torch.func.jacfwd(loss))(H)


@pytest.mark.filterwarnings("ignore")  # compilers warn of what they meet on the way, differently in each version
def test_a_compiled_graph_is_differentiable_once_and_says_so(rng):
    H = torch.tensor(rng.standard_normal((6, 4)), requires_grad=True)
    torch.compiler.reset()
    D = torch.compile(lambda H: etf_distance(H).sin(), backend="aot_eager", fullgraph=True)(H)
    slope = torch.autograd.grad(D, H, create_graph=True)[0]
    torch.testing.assert_close(slope, torch.func.grad(lambda H: etf_distance(H).sin())(H))
    with pytest.raises(RuntimeError, match="double backward"):
        (D + slope.square().sum()).backward()


@pytest.mark.parametrize("shape", [(9, 4), (130, 100), (2, 9, 4)])
def test_one_polar_factor_gives_value_and_gradient(shape, monkeypatch, rng):
    for kind in (Decomposition, Collapsed):
        monkeypatch.setattr(kind, "derivative", lambda *_, **__: pytest.fail("U is not to be differentiated"))
    H = torch.tensor(rng.standard_normal(shape), requires_grad=True)
    etf_distance(H).sum().backward()
    assert H.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 4), (130, 100), (2, 6, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_at_collapse_value_and_gradient_are_zero_to_rounding(weighted, shape, dtype, rng):
    E = torch.tensor(orthonormal(shape[-2], shape[-1] - 1, rng)) @ frame_tensor(shape[-1], WEIGHTS, reduced=True)
    H = (2 * E).expand(shape).to(dtype).requires_grad_()
    w = torch.linspace(0.5, 2, shape[-1], dtype=dtype) if weighted else None
    D = etf_distance(H, None, w)
    slope = torch.autograd.grad(D.sum(), H)[0]
    rounding = 20 * shape[-1] * torch.finfo(dtype).eps
    assert float(D.max().detach()) <= rounding**2
    assert float(slope.norm()) <= 2 * rounding


@pytest.mark.parametrize("case", ["zero", "equal", "one class", "rank one"])
def test_means_without_a_unique_nearest_etf_have_finite_derivatives(case, rng):
    H = (
        {
            "zero": torch.zeros(6, 4),
            "equal": torch.ones(6, 4),
            "one class": torch.eye(6, 4) * torch.tensor([1.0, 0, 0, 0]),
            "rank one": torch.outer(torch.arange(6.0), torch.tensor([1.0, -1, 2, 0])),
        }[case]
        .double()
        .requires_grad_()
    )
    first = torch.autograd.grad(etf_distance(H), H, create_graph=True)[0]
    second = torch.autograd.grad(first.pow(2).sum(), H)[0]
    assert first.isfinite().all()
    assert second.isfinite().all()
    # it is a bound from above: D(H + X) <= D(H) + <gradient, X> + |X|^2
    for size in (1e-3, 1.0):
        X = size * torch.tensor(rng.standard_normal((6, 4)))
        assert etf_distance(H + X) <= etf_distance(H) + (first * X).sum() + X.square().sum() + 1e-12


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


# --- the module ---------------------------------------------------------------------------------------------------


def test_the_module_reduces_as_the_losses_of_torch_do(rng):
    H, w = torch.tensor(rng.standard_normal((3, 6, 4))), torch.tensor(rng.uniform(0, 1, (3, 4)))
    each = etf_distance(H, weights=w)
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        assert torch.equal(ETFDistance(reduction=reduction)(H, w), expected)
    sets = [H[0], H[1, :, :3]]
    torch.testing.assert_close(ETFDistance()(sets), etf_distance(sets).mean())
    assert not ETFDistance(frame=simplex_etf(4)).state_dict()
    module = ETFDistance(simplex_etf(4), free_scale=False)
    torch.testing.assert_close(module(H), etf_distance(H, torch.tensor(simplex_etf(4)), None, False).mean())
    assert "frame=(4, 4), free_scale=False" in repr(module)


@pytest.mark.parametrize("sets", [False, True])
def test_the_relative_distance_is_a_share_that_shrinking_does_not_change(sets, rng):
    H, w = torch.tensor(rng.standard_normal((3, 6, 4))), torch.tensor(rng.uniform(0, 1, (3, 4)))
    H[0, 0, 2], w[0, 2] = math.nan, 0
    module = ETFDistance(relative=True, reduction="none")
    leaf = H.clone().requires_grad_()
    D = module(list(leaf), list(w)) if sets else module(leaf, w)
    size = (w * H.nan_to_num().square().sum(dim=1)).sum(dim=1)
    torch.testing.assert_close(D, etf_distance(H, weights=w) / size)
    torch.testing.assert_close(module(1e-5 * H, w), D)
    slope = torch.autograd.grad(D.sum(), leaf)[0]
    assert (slope * H.nan_to_num()).sum().abs() <= 1e-12
    assert module(torch.zeros(6, 4)) == 0


@pytest.mark.parametrize("relative", [False, True])
def test_features_and_labels_give_the_distance_of_the_classes_that_occur(relative, rng):
    features = torch.tensor(rng.standard_normal((2, 9, 6)), requires_grad=True)
    labels = torch.tensor(rng.permutation([7, 2, 40, -100] * 5)[:18].reshape(2, 9))
    module = ETFDistance(relative=relative)
    means = torch.stack([features[labels == c].mean(dim=0) for c in (2, 7, 40)], dim=1)
    expected = module(means - means.mean(dim=1, keepdim=True))
    found = module.from_features(features, labels)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(D, features)[0] for D in (found, expected)]
    torch.testing.assert_close(*slopes)
    assert not slopes[0][labels == -100].any()


def test_features_collapsed_to_some_vertices_of_a_simplex_have_distance_zero(rng):
    E = torch.tensor(orthonormal(9, 7, rng) @ simplex_etf(8, reduced=True))
    labels = torch.tensor([0, 3, 5, 3, 0])
    assert float(ETFDistance().from_features(3 * E[:, labels].mT + 0.7, labels)) <= 1e-28


@pytest.mark.parametrize("labels", [[4, 4, 4], [-100, -100, -100], [-100, 2, -100]])
def test_fewer_than_two_classes_have_distance_zero_and_a_gradient_of_zero(labels):
    features = torch.tensor([[1.0, math.nan], [2.0, 1.0], [0.0, 1.0]], requires_grad=True)
    D = ETFDistance().from_features(features, torch.tensor(labels))
    assert D.item() == 0
    assert not torch.autograd.grad(D, features)[0].any()


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ETFDistance(reduction="max"), r"reduction = 'max' is not known; choose one of: mean, sum, none"),
        (lambda: ETFDistance(method="qr"), r"method = 'qr' is not known"),
        (lambda: ETFDistance(torch.ones(3)), r"frame has shape \(3,\); it must be \(r, C\)"),
        (lambda: ETFDistance(simplex_etf(3)).from_features(H, torch.arange(4)), r"this module has a frame"),
        (lambda: ETFDistance().from_features(H, torch.arange(3)), r"labels has shape \(3,\); it must be \(4,\)"),
        (lambda: ETFDistance().from_features(H, torch.arange(4) - 1), r"labels holds -1"),
        (lambda: ETFDistance().from_features(H[0], torch.arange(3)), r"features has shape \(3,\)"),
        (lambda: ETFDistance().from_features(H[:, :2], torch.arange(4)), r"d = 2 .*r = 3 rows"),
    ],
)
def test_a_module_that_cannot_be_built_or_called_so_says_why(call, message):
    with pytest.raises(InputError, match=message):
        call()
