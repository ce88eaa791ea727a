"""Masked classes of the node, items without any weight, and weights that cannot be used."""

import math

import numpy as np
import pytest

from etfopt import InputError
from tests.tools.blind import blind
from tests.tools.strategies import means_with, orthonormal, with_spectrum

torch = pytest.importorskip("torch")

from etfopt.nn.functional import frame_tensor, nearest_etf
from tests.tools.node_cases import METHODS, looking

Tensor = torch.Tensor


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_masked_column_may_hold_anything_and_its_derivatives_are_zero(batch, hole, seen, rng):
    H, prox = torch.tensor(rng.standard_normal((*batch, 6, 4))), torch.eye(6, 4, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64).expand(*batch, 4)
    results = []
    for entries in ([], [(0, 1)], [(0, 1), (5, 1)]):
        X = H.clone()
        for i, j in entries:
            X[..., i, j] = hole
        given = [Y.clone().requires_grad_() for Y in (X, weights)]
        with looking(seen):
            U = nearest_etf(given[0], prox, 0.3, weights=given[1])
            first = torch.autograd.grad(U.pow(3).sum(), given, create_graph=True)
            second = torch.autograd.grad(sum(Y.pow(2).sum() for Y in first), given)
        results.append([U, *first, *second])
        if entries:
            assert all((Y[..., 1] == 0).all() for Y in (*first, *second))
    kept = [0, 2, 3]
    torch.testing.assert_close(results[1][0], results[0][0])
    for one, other in zip(results[1], results[2], strict=True):
        torch.testing.assert_close(one, other)
        assert one.isfinite().all()
    torch.testing.assert_close(results[1][1][..., kept], results[0][1][..., kept])


# --- what cannot be used ------------------------------------------------------------------------------------------

H = torch.arange(12.0).reshape(4, 3) % 5
REFUSED = {
    "a list": ([1.0, 1.0, 1.0], r"weights must be a .*tensor; got list"),
    "too few": (torch.ones(2), r"weights has shape \(2,\); it must be \(\.\.\., 3\)"),
    "a number": (torch.tensor(1.0), r"weights has shape \(\); it must be"),
    "complex": (torch.ones(3) + 0j, r"weights has dtype torch\.complex64"),
    "negative": (torch.tensor([1.0, -2.0, 1.0]), r"negative value at \(1,\): -2\.0; pass 0 to mask"),
    "NaN": (torch.tensor([1.0, math.nan, 1.0]), r"weights holds 1 value\(s\).*first at \(1,\)"),
    "infinite": (torch.tensor([1.0, math.inf, 1.0]), r"weights holds 1 value\(s\)"),
    "all zero": (torch.zeros(3), r"weights holds an item that is zero for every class"),
    "an item zero": (torch.tensor([[1.0, 0, 0], [0, 0, 0]]), r"weights holds an item that is zero"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_cannot_be_used_are_refused(case):
    weights, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        nearest_etf(H, weights=weights)


def test_batches_of_weights_and_proximal_points_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"prox has shape \(2, 4, 3\) and weights \(3, 3\): the batches do not fit"):
        nearest_etf(H, torch.ones(2, 4, 3), weights=torch.ones(3, 3))


def test_a_column_that_is_not_masked_must_be_finite():
    with pytest.raises(InputError, match=r"H holds 1 value\(s\).*first at \(0, 2\)"):
        nearest_etf(H.index_put((torch.tensor(0), torch.tensor(2)), torch.tensor(math.nan)), weights=torch.arange(3))


@pytest.mark.parametrize("method", METHODS)
def test_unseen_an_item_without_weights_is_left_to_its_proximal_point(method, rng):
    H, prox = torch.tensor(rng.standard_normal((2, 6, 4))), torch.tensor(orthonormal(6, 4, rng))
    weights = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    H.requires_grad_()
    with blind():
        U = nearest_etf(H, prox, 0.1, weights=weights, method=method)
        slope = torch.autograd.grad(U.pow(3).sum(), H)[0]
    torch.testing.assert_close(U[1], prox)
    assert slope.isfinite().all()
    assert not slope[1].any()


def test_unseen_and_without_a_proximal_point_u_is_on_the_manifold_and_its_gradient_zero(rng):
    H = torch.tensor(rng.standard_normal((6, 4)), requires_grad=True)
    with blind():
        U = nearest_etf(H, weights=torch.zeros(4))
        slope = torch.autograd.grad(U.pow(3).sum(), H)[0]
    torch.testing.assert_close(U.mT @ U, torch.eye(4, dtype=torch.float64))
    assert not slope.any()


def test_means_that_a_mask_leaves_centred_are_solved_as_they_are(rng):
    """A shift of all columns is invisible with equal weights, and not with others."""
    H = torch.tensor(means_with(with_spectrum(6, np.array([1.0, 0.7, 0.4]), rng)))
    shift = torch.tensor(rng.standard_normal((6, 1)))
    F = frame_tensor(4, H)
    for weights, invisible in ((torch.full((4,), 2.0), True), (torch.tensor([1.0, 1, 0, 1]), False)):
        moved, plain = (nearest_etf(X, weights=weights) @ F for X in (H + shift, H))
        assert bool((moved - plain).norm() <= 1e-13) == invisible
