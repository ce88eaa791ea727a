"""Polar factors and random points of the Stiefel manifold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import polar_factor, random_stiefel
from etfopt.polar._products import feasibility, sym
from tests.tools import oracles
from tests.tools.strategies import REGULAR, matrices, orthonormal


def unit(X: np.ndarray) -> float:
    return float(np.finfo(X.dtype).eps)


@given(matrices())
def test_a_polar_factor_is_orthonormal_in_the_dtype_of_its_matrix(A):
    U = polar_factor(A)
    assert U.dtype == A.dtype
    assert feasibility(U) <= 10 * A.shape[1] * unit(A)


@given(matrices())
def test_a_polar_factor_leaves_a_symmetric_positive_semidefinite_rest(A):
    A64 = A.astype(np.float64)
    A64 /= np.abs(A64).max() or 1.0
    U = polar_factor(A).astype(np.float64)
    tolerance = 15 * A.shape[1] * unit(A) * np.linalg.norm(A64, 2)
    assert np.linalg.norm(A64 - U @ sym(U.T @ A64)) <= tolerance
    assert np.linalg.eigvalsh(sym(U.T @ A64))[0] >= -tolerance


@given(matrices(dtypes=(np.float64,), kinds=REGULAR, max_columns=5))
def test_the_polar_factor_of_a_polar_factor_is_itself(A):
    U = polar_factor(A)
    np.testing.assert_allclose(polar_factor(U), U, rtol=0, atol=10 * A.shape[1] * unit(U))


@given(matrices(kinds=REGULAR, max_columns=5))
def test_a_polar_factor_agrees_with_sixty_digits(A):
    U, _, s = oracles.exact_polar(oracles.exact(A))
    kappa = float(s[-1] / s[0])
    assert np.linalg.norm(polar_factor(A) - oracles.rounded(U)) <= 10 * A.shape[1] * unit(A) * kappa


@given(matrices(dtypes=(np.float64,), kinds=("generic", "repeated"), limit=0), st.integers(0, 2**32 - 1))
def test_rotations_on_either_side_pass_through_a_polar_factor(A, seed):
    rng = np.random.default_rng(seed)
    Q, R = (orthonormal(n, n, rng) for n in A.shape)
    np.testing.assert_allclose(polar_factor(Q @ A @ R), Q @ polar_factor(A) @ R, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", ["tiny", "smallest_subnormal", "max"])
def test_a_polar_factor_bears_the_ends_of_the_range(dtype, scale):
    A = np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]) * float(getattr(np.finfo(dtype), scale))
    np.testing.assert_allclose(polar_factor(A.astype(dtype)), np.sign(A), rtol=0, atol=4 * np.finfo(dtype).eps)


def test_a_polar_factor_leaves_its_argument_alone(rng):
    A = rng.standard_normal((5, 3))
    before = A.copy()
    polar_factor(A)[:] = 0
    assert np.array_equal(A, before)


def test_random_square_points_come_from_both_components(rng):
    signs = {round(float(np.linalg.det(random_stiefel(3, 3, rng)))) for _ in range(40)}
    assert signs == {-1, 1}


def test_random_points_prefer_no_direction(rng):
    points = np.stack([random_stiefel(4, 2, rng) for _ in range(4000)])
    assert np.abs(points.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose((points**2).mean(axis=0), 0.25, rtol=0, atol=0.02)
