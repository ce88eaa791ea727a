"""Growth: old vertices that are held, or move as little as a larger simplex allows."""

import math

import numpy as np
import pytest

from etfopt import InputError, NearestETF, grow, nearest_etf, random_stiefel, simplex_etf, solve
from tests.tools.strategies import orthonormal


def unit(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=0)


def cosines(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return np.sum(unit(X) * unit(Y), axis=0)


def bounded(rng: np.random.Generator, known: int, C: int = 20, d: int = 64, dtype: type = np.float64, **options):
    """Solve for `known` of C classes."""
    H = np.where(np.arange(C) < known, rng.standard_normal((d, C)), np.nan).astype(dtype)
    return nearest_etf(H, weights=(np.arange(C) < known).astype(float), **{"reduced": True, **options})


def test_ten_classes_become_twenty_with_the_published_old_cosine_and_new_vertices_at_the_new_means(rng):
    old, means = nearest_etf(rng.standard_normal((64, 10))), rng.standard_normal((64, 10))
    new = grow(old, means)
    assert cosines(old.etf, new.etf[:, :10]).mean() >= 0.97332
    assert cosines(means, new.etf[:, 10:]).mean() >= 0.86
    alike = grow(old, means, weight=1.0)
    assert cosines(old.etf, alike.etf[:, :10]).mean() < cosines(old.etf, new.etf[:, :10]).mean() - 0.01
    assert cosines(means, alike.etf[:, 10:]).mean() > cosines(means, new.etf[:, 10:]).mean() + 0.02


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_within_a_bound_old_vertices_stay_exactly_while_classes_come_until_all_are_there(reduced, dtype, rng):
    solution, unit_roundoff = bounded(rng, 10, dtype=dtype, reduced=reduced), float(np.finfo(dtype).eps)
    present = 10
    for k in (1, 4, 3, 1, 1):
        means = rng.standard_normal((64, k))
        grown = grow(solution, means)
        moved = np.linalg.norm((grown.etf - solution.etf)[:, :present], axis=0)
        assert moved.max() <= 10 * 20 * unit_roundoff / math.sqrt(20)
        assert grown.problem.dtype == dtype
        assert grown.converged
        assert (grown.problem.weights > 0).sum() == present + k
        if present + k < 20:
            assert cosines(means, grown.etf[:, present : present + k]).min() > 0.5
        solution, present = grown, present + k


def test_new_classes_take_the_first_places_that_are_left(rng):
    weights = [1.0, 0.0, 2.0, 0.0, 0.0, 1.0]
    old = nearest_etf(rng.standard_normal((9, 6)), weights=weights, reduced=True)
    means = rng.standard_normal((9, 2))
    new = grow(old, means)
    assert new.problem.weights.tolist() == [1, 1, 1, 1, 0, 1]
    np.testing.assert_allclose(new.problem.H[:, [1, 3]], unit(means), atol=1e-15)
    np.testing.assert_allclose(new.etf[:, [0, 2, 5]], old.etf[:, [0, 2, 5]], rtol=0, atol=1e-15)


def test_new_vertices_are_the_best_of_those_that_keep_the_old(rng):
    old, means = bounded(rng, 4, C=8, d=12), rng.standard_normal((12, 2))
    new = grow(old, means)
    free = new.problem.free
    for _ in range(50):
        other = new.problem.held.assembled(orthonormal(free.d, free.r, rng)) @ new.problem.F
        assert cosines(means, other[:, 4:6]).sum() <= cosines(means, new.etf[:, 4:6]).sum()


def test_a_frame_that_is_no_simplex_takes_classes_while_it_has_places(rng):
    F = unit(rng.standard_normal((4, 9)))  # more classes than dimensions: four of them determine all places
    H = rng.standard_normal((10, 9))
    for known in (2, 6):
        old = nearest_etf(H, frame=F, weights=(np.arange(9) < known).astype(float))
        new = grow(old, rng.standard_normal((10, 3)))
        np.testing.assert_allclose(new.etf[:, :known], old.etf[:, :known], rtol=0, atol=1e-13)
    with pytest.raises(InputError, match=r"not a simplex, and none of its classes.*with another frame of more classes"):
        grow(nearest_etf(H, frame=F), rng.standard_normal((10, 1)))


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200])
def test_the_size_of_a_new_mean_does_not_count(size, rng):
    old, means = nearest_etf(rng.standard_normal((12, 4))), rng.uniform(0.5, 1, (12, 3))
    scaled = grow(old, means * [1, 1, size])
    np.testing.assert_allclose(scaled.etf, grow(old, means).etf, rtol=0, atol=1e-3 if size == 1e-320 else 1e-14)


def test_the_least_number_of_features_is_enough(rng):
    old = nearest_etf(rng.standard_normal((7, 4)), prox=random_stiefel(7, 4, 0), delta=0.1)
    new = grow(old, rng.standard_normal((7, 4)), solver="procrustes")
    assert (new.problem.d, new.problem.r, new.converged) == (7, 7, True)
    np.testing.assert_allclose(cosines(old.etf, new.etf[:, :4]).mean(), math.sqrt(3 * 8 / (4 * 7)), atol=1e-4)


ERRORS = {
    "no solution": (lambda old, X: grow(old.problem, X), r"solution must be a Solution; got NearestETF; pass what"),
    "too many for d": (
        lambda old, X: grow(old, np.ones((len(X), 10))),
        r"4 \+ 10 classes needs d >= 13.*d = 12; add at m.* 9 c",
    ),
    "other features": (
        lambda old, X: grow(old, X.T),
        r"new_means has shape \(3, 12\); it needs d = 12 rows.*new_means\.T",
    ),
    "a zero mean": (lambda old, X: grow(old, X * [1, 0, 1]), r"new_means has a zero column, number 1.*leave this cl"),
    "a vector": (lambda old, X: grow(old, X[:, 0]), r"new_means must be a matrix"),
    "nan": (lambda old, X: grow(old, np.nan * X), r"new_means holds 36 value\(s\) that are NaN"),
    "weight zero": (lambda old, X: grow(old, X, weight=0), r"weight must be finite and above 0; got 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_added_is_refused(case, rng):
    call, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        call(nearest_etf(rng.standard_normal((12, 4))), rng.uniform(0.5, 1, (12, 3)))


def test_more_classes_than_places_are_refused(rng):
    with pytest.raises(InputError, match=r"new_means holds 3 classes, and the frame of C = 20 has 2 places left"):
        grow(bounded(rng, 18), rng.standard_normal((64, 3)))


def test_an_infeasible_solution_is_not_held(rng):
    old = solve(NearestETF(rng.standard_normal((6, 4)), frame=simplex_etf(4, reduced=True), weights=[1, 1, 0, 0]))
    off = type(old)(old.problem, 1.1 * old.U, old.termination, old.certificate, old.stats, converged=False)
    with pytest.raises(InputError, match="hold_at is not on the manifold"):
        grow(off, rng.standard_normal((6, 1)))
