"""Lower bounds on the largest cosine: tight where they can be, never above a code, decided without rounding."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError
from etfopt.bench.codes import REFERENCES
from etfopt.frames import orthoplex, polygon, reduced
from etfopt.frames._delsarte import delsarte_bound
from etfopt.frames._gegenbauer import monomials, multiplied, values_and_slopes
from etfopt.frames._levenshtein import best_degree, design_size, levenshtein
from etfopt.frames._linear_program import improved
from etfopt.frames._nonpositive import proven_nonpositive

TIGHT = {(3, 12): 5, (5, 16): 3, (6, 27): 4, (7, 56): 5, (8, 240): 7, (22, 100): 3, (21, 162): 3, (4, 120): 17}
"""Pairs whose best known code is optimal by Delsarte's bound, and the degree of the polynomial."""


@pytest.mark.parametrize(("d", "C"), TIGHT)
def test_the_bound_is_tight(d, C):
    bound = delsarte_bound(d, C)
    assert -1e-15 < REFERENCES[d, C] - bound.value < 1e-12
    assert bound.method == f"Delsarte, degree {TIGHT[d, C]}"


@pytest.mark.parametrize(("d", "C", "at_least"), [(3, 7, 0.1439), (4, 24, 0.4785), (512, 10000, 0.02379)])
def test_the_bound_is_as_good_as_it_was(d, C, at_least):
    bound = delsarte_bound(d, C)
    assert at_least < bound.value < REFERENCES.get((d, C), 1.0)


@pytest.mark.parametrize("frame", [reduced(2), reduced(9), orthoplex(4, 6), orthoplex(5, 10), polygon(5), polygon(17)])
def test_closed_forms_reach_the_bound(frame):
    d = frame.r
    assert 0 <= frame.largest_cosine - delsarte_bound(d, frame.C).value < 1e-15
    assert not delsarte_bound(d, frame.C).polynomial


@given(st.integers(1, 40), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_no_code_is_below_the_quick_bound(d, C, seed):
    X = np.random.default_rng(seed).standard_normal((d, C))
    X /= np.linalg.norm(X, axis=0)
    largest = (X.T @ X - 2 * np.eye(C)).max()
    assert (levenshtein(d, C)[0] if 2 * d < C and d > 2 else delsarte_bound(d, C).value) <= largest + 1e-14


@pytest.mark.parametrize(("d", "C"), [(3, 12), (4, 24), (5, 16), (8, 240)])
def test_a_part_of_a_code_is_not_below_the_bound_of_its_size(d, C):
    for fewer in (C - 1, C - 2, 2 * d + 1):
        assert levenshtein(d, fewer)[0] <= REFERENCES[d, C] + 1e-15


def test_fejes_toth_for_many_points_on_the_sphere():
    bound = delsarte_bound(3, 1000)
    assert bound.method == "Fejes Toth"
    # caps of half the least angle are disjoint
    angle = np.arccos(bound.value)
    assert 1000 * (1 - np.cos(angle / 2)) / 2 < 1
    assert bound.value > levenshtein(3, 1000)[0]


@pytest.mark.parametrize(("d", "C", "message"), [(0, 4, "d must be"), (3, 1, "C must be"), (3, 9.5, "C must be")])
def test_bad_arguments_are_named(d, C, message):
    with pytest.raises(InputError, match=message):
        delsarte_bound(d, C)


# --- polynomials --------------------------------------------------------------------------------------------------


def value(f: list[Fraction], t: Fraction) -> Fraction:
    return sum((c * t**k for k, c in enumerate(f)), Fraction(0))


@given(st.integers(3, 9), st.lists(st.fractions(-2, 2, max_denominator=50), min_size=1, max_size=6))
def test_products_and_bases_are_exact(d, roots):
    f = [Fraction(1)]
    for root in roots:
        f = multiplied(d, f, root)
    assert sum(f) == np.prod([1 - root for root in roots])  # all G_k(1) are 1
    t = Fraction(3, 7)
    assert value(monomials(d, f), t) == np.prod([t - root for root in roots])
    G, slopes = values_and_slopes(d, len(f) - 1, np.array([3 / 7]))
    floats = np.array([float(c) for c in f])
    assert abs(floats @ G[:, 0] - float(value(monomials(d, f), t))) < 1e-10
    derivative = [k * c for k, c in enumerate(monomials(d, f))][1:]
    assert abs(floats @ slopes[:, 0] - float(value(derivative, t))) < 1e-9


TINY = Fraction(1, 10**12)
TOUCHING = [Fraction(-1, 9), Fraction(2, 3), Fraction(-1)]  # -(t - 1/3)^2


@pytest.mark.parametrize(
    ("f", "low", "high", "proven"),
    [
        ([-TINY], -1, 1, True),
        ([Fraction(0)], -1, 1, True),
        ([TINY], -1, 1, False),
        ([Fraction(-1), Fraction(1)], -1, 1, True),  # t - 1 touches at the end
        ([Fraction(-1) + TINY, Fraction(1)], -1, 1, False),
        ([TOUCHING[0] - TINY, *TOUCHING[1:]], -1, 1, True),
        ([TOUCHING[0] + TINY, *TOUCHING[1:]], -1, 1, False),
        (TOUCHING, -1, 1, False),  # true, and not provable by halving: it must be shifted
        ([-c for c in TOUCHING], -1, 1, False),
        ([Fraction(0), Fraction(-1), Fraction(0), Fraction(1)], 0, 1, True),  # t^3 - t
        ([Fraction(0), Fraction(-1), Fraction(0), Fraction(1)], Fraction(-1, 10**6), 1, False),
    ],
)
def test_a_proof_accepts_no_polynomial_that_is_positive_anywhere(f, low, high, proven):
    assert proven_nonpositive(f, Fraction(low), Fraction(high)) is proven


@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_a_proof_agrees_with_values(degree, seed):
    rng = np.random.default_rng(seed)
    hundredths = rng.integers(-200, 100, degree + 1).tolist()
    f = [Fraction(c, 100) for c in hundredths]
    scaled = [c * 500 ** (degree - j) for j, c in enumerate(hundredths)]  # integers are faster than fractions
    numerator, i = max((value(scaled, i), i) for i in range(-500, 501))
    largest = Fraction(numerator, 100 * 500**degree)
    assert largest == value(f, Fraction(i, 500))
    if proven_nonpositive(f, Fraction(-1), Fraction(1)):
        assert largest <= 0
    elif largest <= 0:  # then it touches zero, or nearly
        assert largest > Fraction(-1, 10)


@pytest.mark.parametrize(
    ("d", "m", "size"), [(8, 7, 240), (3, 5, 12), (24, 11, 196560), (22, 4, 275), (7, 5, 56), (5, 2, 6)]
)
def test_sizes_of_tight_designs(d, m, size):
    assert design_size(d, m) == size
    assert best_degree(d, size) == m
    assert best_degree(d, size - 1) == m - 1


def test_the_linear_program_does_not_improve_a_tight_bound():
    s, _ = levenshtein(5, 16)
    assert improved(5, 16, s, 11) is None
