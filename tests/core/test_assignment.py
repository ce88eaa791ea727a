"""Which frame vector belongs to which class: never worse than the order given, mostly the best, never certified."""

import itertools

import numpy as np
import pytest

from etfopt import InputError, NearestETF, nearest_etf, simplex_etf, solve
from etfopt.assignment import best_assignment
from tests.tools.strategies import orthonormal


def polygon(C: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(C) / C
    return np.array([np.cos(angles), np.sin(angles)])


def least(problem: NearestETF, order: np.ndarray) -> float:
    """Objective of the best rotation for an order."""
    other = NearestETF(problem.H, problem.prox, problem.delta, problem.F[:, order], weights=problem.weights)
    return solve(other).objective


def best_of_all(problem: NearestETF) -> float:
    return min(least(problem, np.array(order)) for order in itertools.permutations(range(problem.C)))


def drawn(kind: str, rng: np.random.Generator) -> NearestETF:
    C, d = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    F = polygon(C) if kind == "polygon" else rng.standard_normal((int(rng.integers(1, d + 1)), C))
    weights = rng.uniform(0, 2, C) if kind == "weighted" else None
    prox = orthonormal(d, len(F), rng) if kind == "proximal" else None
    return NearestETF(rng.standard_normal((d, C)), prox, None if prox is None else 2.0, F, weights=weights)


@pytest.mark.parametrize("kind", ["polygon", "any frame", "weighted", "proximal"])
def test_the_best_of_all_permutations_is_found_in_most_cases_and_nothing_below_it(kind, rng):
    found = 0
    for _ in range(15):
        problem = drawn(kind, rng)
        reached, best = least(problem, best_assignment(problem).vectors), best_of_all(problem)
        assert reached >= best - 1e-12
        assert reached <= least(problem, np.arange(problem.C)) + 1e-12
        found += reached <= best + 1e-9
    assert found >= 13, found


def test_a_permuted_code_is_found_again(rng):
    F = polygon(7) * np.linspace(0.8, 1, 7)  # no two vertices are alike
    order = rng.permutation(7)
    H = orthonormal(6, 2, rng) @ F[:, order]
    found = nearest_etf(H, frame=F, assign=True)
    assert np.array_equal(found.assignment, order)
    np.testing.assert_allclose(found.etf, H, rtol=0, atol=1e-13)
    assert nearest_etf(H, frame=F).distance > 0.1
    np.testing.assert_allclose(found.etf, found.U @ F[:, found.assignment], rtol=0, atol=1e-14)
    assert found.converged
    assert not found.assignment_certified
    assert "joint optimum over assignments is not certified" in repr(found)
    assert "not certified" not in repr(nearest_etf(H, frame=F))


@pytest.mark.parametrize("frame", ["simplex", "reduced"])
def test_the_vectors_of_a_simplex_are_all_alike(frame, rng):
    H = rng.standard_normal((8, 5))
    found = nearest_etf(H, frame=frame, weights=[1, 2, 3, 4, 5], assign=True)
    assert np.array_equal(found.assignment, np.arange(5))
    assert found.assignment_certified
    assert np.array_equal(found.U, nearest_etf(H, frame=frame, weights=[1, 2, 3, 4, 5]).U)
    # a proximal point tells its vectors apart
    F = simplex_etf(5, reduced=True)
    E = orthonormal(8, 4, rng)
    pulled = nearest_etf(
        0.01 * E @ F[:, ::-1], prox=E, delta=1e-6, frame=frame if frame == "reduced" else F, assign=True
    )
    assert not pulled.assignment_certified


def test_more_starts_are_never_worse_and_a_seed_repeats(rng):
    problem = NearestETF(rng.standard_normal((5, 12)), frame=rng.standard_normal((4, 12)))
    values = [least(problem, best_assignment(problem, starts=n, seed=3).vectors) for n in (1, 4, 16)]
    assert values == sorted(values, reverse=True)
    again = [best_assignment(problem, starts=4, seed=3).vectors for _ in range(2)]
    assert np.array_equal(*again)


@pytest.mark.parametrize("size", [1e-300, 1e300])
@pytest.mark.parametrize("which", ["H", "F", "weights", "prox"])
def test_scales_that_leave_the_problem_the_same_leave_the_assignment(which, size, rng):
    H, F, prox, weights = rng.standard_normal((5, 6)), polygon(6), orthonormal(5, 2, rng), rng.uniform(1, 2, 6)
    expected = best_assignment(NearestETF(H, prox, 0.5, F, weights=weights)).vectors
    scaled = {
        "H": NearestETF(size * H, prox, size * 0.5, F, weights=weights),
        "F": NearestETF(H, prox, size * 0.5, size * F, weights=weights),
        "weights": NearestETF(H, prox, size * 0.5, F, weights=size * weights),
        "prox": NearestETF(H, size * prox, 0.5 / size, F, weights=weights),
    }
    assert np.array_equal(best_assignment(scaled[which]).vectors, expected)


def test_absent_classes_get_what_is_left(rng):
    H = np.where(np.arange(6) < 4, rng.standard_normal((5, 6)), np.nan)
    found = nearest_etf(H, frame=polygon(6), weights=[1, 1, 1, 1, 0, 0], assign=True)
    assert sorted(found.assignment) == list(range(6))


def test_what_cannot_be_assigned_is_refused(rng):
    H, at = rng.standard_normal((5, 6)), orthonormal(5, 2, rng)
    with pytest.raises(
        InputError, match=r"held=1\) holds classes, whose vectors are assigned.*leave hold out, or pass"
    ):
        nearest_etf(H, frame=polygon(6), hold=[0], hold_at=at, assign=True)
    problem = NearestETF(H, frame=polygon(6))
    with pytest.raises(InputError, match="starts must be an integer of at least 1; got 0"):
        best_assignment(problem, starts=0)
    with pytest.raises(InputError, match="seed must be a numpy"):
        best_assignment(problem, seed="x")
    with pytest.raises(InputError, match="problem must be a NearestETF"):
        best_assignment(H)
