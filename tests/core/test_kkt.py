"""The paper's dense gradient equals the closed form at the minimiser, and the formula written out in the oracles."""

import numpy as np
import pytest
from hypothesis import given

from etfopt import InputError, NearestETF, simplex_etf, solve
from etfopt.adjoint import kkt_memory, kkt_vjp, nearest_etf_vjp
from tests.tools import oracles
from tests.tools.strategies import draws

FULL_RANK = {"kinds": ("generic", "repeated", "clustered"), "dtypes": (np.float64,), "limit": 0}


@given(draws(frames=("reduced",), proxes=("none",), **FULL_RANK) | draws(proxes=("near",), **FULL_RANK))
def test_the_dense_formula_equals_the_closed_form(draw):
    problem, G = draw.problem, draw.rng.standard_normal((draw.problem.d, draw.problem.r))
    U = solve(problem).U
    A = np.linalg.svd(problem.linear_term, compute_uv=False)
    closed = nearest_etf_vjp(problem, U, G).H
    error = np.linalg.norm(kkt_vjp(problem, U, G) - closed)
    assert error <= 1e-13 * (A[0] / A[-1]) * np.linalg.norm(G) * max(1.0, np.linalg.norm(closed))


def test_the_constraints_are_those_written_out_one_by_one(rng):
    H, prox = rng.standard_normal((6, 4)), np.linalg.qr(rng.standard_normal((6, 4)))[0]
    problem, G = NearestETF(H, prox, 0.3), rng.standard_normal((6, 4))
    U = solve(problem).U
    expected = oracles.dense_gradient(U, G, H, simplex_etf(4), prox, 0.3)
    np.testing.assert_allclose(kkt_vjp(problem, U, G), expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_a_singular_hessian_is_named_with_its_remedy(rng):
    problem = NearestETF(rng.standard_normal((6, 4)))  # the square frame leaves a direction of U free
    with pytest.raises(InputError, match=r"not positive definite.*add a proximal term"):
        kkt_vjp(problem, -solve(problem).U, np.ones((6, 4)))


def test_the_memory_is_that_of_the_matrices_it_holds():
    assert kkt_memory(512, 10) == 8 * (2 * 55 * 5120 + 55**2)
    assert kkt_memory(2048, 1000) > 1e13
