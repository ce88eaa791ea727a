"""Frames in closed form: cosines, certificates, the SELI pair against 40 digits, and what `best_frame` chooses."""

import dataclasses
import math
import time

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError, nearest_etf
from etfopt.frames import (
    Frame,
    FrameCertificate,
    best_frame,
    code,
    orthogonal,
    orthoplex,
    polygon,
    reduced,
    seli,
    simplex,
)

EPS = np.finfo(np.float64).eps


def measured(frame: Frame) -> float:
    """The largest cosine between two columns."""
    unit = frame.F / np.linalg.norm(frame.F, axis=0)
    return float((unit.T @ unit)[~np.eye(frame.C, dtype=bool)].max())


# --- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "name", "r", "cosine", "d"),
    [
        (simplex(2), "simplex", 2, -1.0, None),
        (simplex(7), "simplex", 7, -1 / 6, None),
        (reduced(7), "reduced", 6, -1 / 6, None),
        (polygon(3), "polygon", 2, -0.5, None),
        (polygon(4), "polygon", 2, 0.0, 2),
        (polygon(6), "polygon", 2, 0.5, 2),
        (polygon(11), "polygon", 2, math.cos(2 * math.pi / 11), 2),
        (orthoplex(2, 4), "orthoplex", 2, 0.0, 2),
        (orthoplex(5, 10), "orthoplex", 5, 0.0, 8),
        (orthoplex(7, 9), "orthoplex", 7, 0.0, 7),
    ],
)
def test_a_closed_form_has_its_largest_cosine_and_is_proven_optimal(frame, name, r, cosine, d):
    certificate = frame.certificate
    assert (frame.name, frame.r, frame.reason) == (name, r, "")
    assert (frame.largest_cosine, certificate.d, certificate.proven) == (cosine, d, True)
    assert (certificate.gap, certificate.method) == (0.0, "Rankin")
    assert measured(frame) == pytest.approx(cosine, abs=4 * EPS)
    np.testing.assert_allclose(np.linalg.norm(frame.F, axis=0), 1 / math.sqrt(frame.C), rtol=4 * EPS)
    np.testing.assert_allclose(np.linalg.norm(frame.vectors, axis=0), 1, rtol=4 * EPS)
    assert not frame.F.flags.writeable
    assert not frame.vectors.flags.writeable


@pytest.mark.parametrize(
    ("frame", "rho"),
    [
        (simplex(6), 6 / 5),
        (reduced(10), 10 / 9),
        (orthoplex(5, 7), 1.0),
        (orthoplex(5, 10), 1.0),
        (polygon(7), 1 - math.cos(2 * math.pi / 7)),
    ],
    ids=repr,
)
def test_the_margin_is_that_of_the_regime(frame, rho):
    assert frame.margin.rho == pytest.approx(rho, abs=1e-9)
    assert 0 <= frame.margin.gap <= 1e-9
    assert frame.margin is frame.margin  # computed once


def test_the_polygon_goes_round_once():
    X = polygon(12).vectors
    np.testing.assert_allclose(np.sum(X * np.roll(X, 1, axis=1), axis=0), math.cos(math.pi / 6), rtol=1e-14)
    np.testing.assert_allclose(X[:, 3], [0, 1], atol=EPS)


@given(st.integers(2, 40).flatmap(lambda d: st.tuples(st.just(d), st.integers(d + 2, 2 * d))))
def test_orthogonal_simplices_fill_the_dimension_and_are_as_equal_as_can_be(size):
    d, C = size
    X = orthoplex(d, C).vectors
    gram = X.T @ X
    k, (n, larger) = C - d, divmod(C, C - d)
    sizes = [n + 1] * larger + [n] * (k - larger)
    expected = np.zeros((C, C))
    for start, m in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        block = slice(start, start + m)
        expected[block, block] = np.eye(m) * m / (m - 1) - 1 / (m - 1)
    np.testing.assert_allclose(gram, expected, atol=8 * EPS)
    assert np.linalg.matrix_rank(X) == d


def test_a_thousand_classes_in_512_dimensions_take_no_time():
    start = time.perf_counter()
    frame = orthoplex(512, 1000)
    assert time.perf_counter() - start < 1
    assert (frame.r, frame.C, frame.largest_cosine, frame.certificate.d) == (512, 1000, 0.0, 998)
    assert measured(frame) <= 4 * EPS


def test_orthogonal_vectors_are_not_called_optimal():
    frame = orthogonal(5)
    np.testing.assert_allclose(frame.F.T @ frame.F, np.eye(5) / 5, atol=EPS)
    assert frame.certificate == FrameCertificate(0.0, -0.25, None, "Rankin", proven=False)
    assert frame.certificate.gap == 0.25


# --- the object ----------------------------------------------------------------------------------------------------


def test_a_frame_is_taken_for_its_matrix(rng):
    frame, H = orthoplex(4, 6), rng.standard_normal((8, 6))
    np.testing.assert_array_equal(nearest_etf(H, frame=frame).U, nearest_etf(H, frame=frame.F).U)
    assert np.asarray(frame) is frame.F
    assert np.array(frame) is not frame.F
    assert np.asarray(frame, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        frame.__array__(np.float32, copy=False)


def test_a_frame_cannot_be_changed_and_says_in_a_line_what_is_known():
    F = np.eye(3, 4) + 0.5
    F /= np.linalg.norm(F)
    frame = Frame("own", F, FrameCertificate(0.75, 0.5, 3, "a bound", proven=False))
    F[0, 0] = 7
    assert frame.F[0, 0] != 7
    assert repr(frame) == "Frame('own', r=3, C=4, largest cosine 0.75, at most 0.25 above the smallest possible)"
    assert "proven optimal" in repr(simplex(4))
    assert dataclasses.replace(frame, reason="why").F is frame.F  # it cannot change, so it is not copied
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("F", "message"),
    [
        (np.eye(3), r"F must have Frobenius norm 1; got 1.73205; divide it by its norm"),
        (np.eye(2, 3) / math.sqrt(2), "F has a zero column, number 2"),
        (np.full((2, 2), np.nan), "F holds 4 value"),
    ],
)
def test_a_matrix_that_is_no_frame_is_refused(F, message):
    with pytest.raises(InputError, match=message):
        Frame("own", F, FrameCertificate(0.0, -1.0, None, "none", proven=False))


# --- SELI ----------------------------------------------------------------------------------------------------------


def roots_in_40_digits(counts):
    """(SDS)^(1/2) and D^(-1/2) (D^(1/2) S D^(1/2))^(1/2) D^(-1/2), from eigenvalues, with norm 1."""
    mp = mpmath.mp.clone()
    mp.dps = 40
    C, n = len(counts), [mp.mpf(int(c)) for c in counts]
    S = mp.eye(C) - mp.ones(C) / C
    D, root, inverse = mp.diag(n), mp.diag([mp.sqrt(c) for c in n]), mp.diag([1 / mp.sqrt(c) for c in n])

    def square_root(A):
        values, V = mp.eigsy(A)
        return V * mp.diag([mp.sqrt(max(value, 0)) for value in values]) * V.T

    found = square_root(S * D * S), inverse * square_root(root * S * root) * inverse
    return [np.array((G / mp.mnorm(G, "f")).tolist(), dtype=np.float64) for G in found]


@pytest.mark.parametrize("counts", [[5, 5, 5], [500, 100, 20, 5], [1, 7], [10, 10, 10, 1, 1, 1], [10**6, 1, 1, 10**3]])
def test_seli_has_the_logits_and_the_gram_matrices_of_its_formulas(counts):
    pair, C = seli(counts), len(counts)
    np.testing.assert_allclose(pair.scale * pair.F_H.F.T @ pair.F_W.F, np.eye(C) - 1 / C, atol=1e-12)
    for frame, expected in zip((pair.F_W, pair.F_H), roots_in_40_digits(counts), strict=True):
        gram = frame.F.T @ frame.F
        np.testing.assert_allclose(gram / np.linalg.norm(gram), expected, atol=1e-12)
        assert frame.largest_cosine == pytest.approx(measured(frame), abs=4 * EPS)
        assert frame.certificate.lower_bound == -1 / (C - 1)
    assert (pair.C, pair.r, pair.F_H.name, pair.F_W.name) == (C, C - 1, "seli-H", "seli-W")


def test_seli_of_equal_counts_is_the_reduced_simplex_and_of_others_is_not():
    for frame in seli([8.0] * 6):
        np.testing.assert_allclose(frame.F, reduced(6).F, atol=1e-15)
        assert frame.certificate.proven
    pair = seli([8, 8, 8, 8, 1, 1])
    assert not pair.F_W.certificate.proven
    assert np.linalg.norm(pair.F_W.F - reduced(6).F) > 0.1


def test_the_norm_ratio_of_a_step_imbalance_and_the_cosine_of_its_minority():
    squares = np.sum(seli([10] * 3 + [1] * 3).F_W.F ** 2, axis=0)
    assert squares[0] / squares[-1] == pytest.approx(2.36309, abs=1e-5)
    assert seli([10] * 3 + [1] * 3).F_W.largest_cosine == pytest.approx(0.0544, abs=1e-4)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=12), st.floats(1e-6, 1e6))
def test_seli_depends_on_proportions_only_and_treats_all_classes_alike(counts, factor):
    pair = seli(counts)
    order = np.argsort(counts, kind="stable")
    for frame, scaled, sorted_ in zip(pair, seli(np.multiply(counts, factor)), seli(np.sort(counts)), strict=True):
        np.testing.assert_allclose(scaled.F, frame.F, atol=1e-11)
        gram = frame.F.T @ frame.F
        np.testing.assert_allclose(sorted_.F.T @ sorted_.F, gram[np.ix_(order, order)], atol=1e-11)
    off = ~np.eye(len(counts), dtype=bool)
    assert (pair.F_H.F.T @ pair.F_H.F)[off].max() < 0  # class means are always at obtuse angles


def test_the_lead_of_the_right_logit_at_collapse():
    pair = seli([10, 10, 1])
    logits = math.sqrt(3) * pair.F_W.F.T @ pair.F_H.vectors
    lead = np.diagonal(logits) - logits
    assert pair.logit_gap == pytest.approx(lead[~np.eye(3, dtype=bool)].min(), abs=4 * EPS)
    assert seli([2, 2, 2]).logit_gap == pytest.approx(1.5, abs=8 * EPS)


# --- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "C", "name", "reason"),
    [
        (9, 10, "reduced", "C = 10 <= d + 1 = 10: the simplex has the smallest possible largest cosine, -1/9"),
        (1, 2, "reduced", "C = 2 <= d + 1 = 2"),
        (9, 11, "orthoplex", "d + 2 = 11 <= C = 11 <= 2d = 18: no frame has a largest cosine below 0, which 2 orthog"),
        (9, 18, "orthoplex", "which 9 orthogonal"),
        (2, 4, "orthoplex", "which 2 orthogonal"),
        (2, 5, "polygon", r"d = 2: the regular polygon has the smallest possible largest cosine, cos(2 pi/5)"),
    ],
)
def test_the_best_frame_follows_from_d_and_C(d, C, name, reason):
    frame = best_frame(d, C)
    assert isinstance(frame, Frame)
    assert (frame.name, frame.C) == (name, C)
    assert frame.r <= d
    assert reason in frame.reason
    assert frame.certificate.proven


def test_beyond_twice_the_dimension_the_best_frame_is_computed(tmp_path):
    seen = []
    frame = best_frame(3, 7, starts=1, cache=tmp_path, progress=seen.append)
    expected = code(3, 7, starts=1, cache=False)
    np.testing.assert_array_equal(frame.F, expected.F)
    assert seen
    assert frame.certificate == expected.certificate
    assert frame.reason == "C = 7 > 2d = 6: no closed form is known, so the frame was computed"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(TypeError, match="start"):
        best_frame(3, 4, start=1)


def test_the_best_frame_of_unequal_counts_is_the_pair_where_it_has_room():
    pair = best_frame(3, 4, counts=[30, 3, 3, 3])
    np.testing.assert_array_equal(pair.F_H.F, seli([30, 3, 3, 3]).F_H.F)
    assert "differ by a factor of 10: imbalanced classes collapse to the SELI geometry" in pair.reason
    assert best_frame(3, 4, counts=[3, 3, 3, 3]).name == "reduced"
    crowded = best_frame(2, 4, counts=[30, 3, 3, 3])
    assert crowded.name == "orthoplex"
    assert "differ by a factor of 10, but the SELI geometry needs d >= C - 1 = 3" in crowded.reason


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simplex(1), "C must be an integer of at least 2; got 1"),
        (lambda: reduced(2.5), r"C must be an integer of at least 2; got 2.5 \(float\)"),
        (lambda: polygon(0), "C must be an integer of at least 2; got 0"),
        (lambda: polygon(2), "C = 2 vectors are no polygon; use etfopt.frames.reduced"),
        (lambda: orthogonal(True), "C must be an integer"),
        (lambda: orthogonal(-3), "C must be an integer of at least 2; got -3"),
        (lambda: orthoplex(0, 4), "d must be an integer of at least 1; got 0"),
        (lambda: orthoplex(4.0, 6), r"d must be an integer of at least 1; got 4.0 \(float\)"),
        (lambda: orthoplex(4, float("nan")), "C must be an integer of at least 2; got nan"),
        (lambda: orthoplex(4, 5), "need C >= d \\+ 2 = 6 vectors; got C = 5; use etfopt.frames.reduced"),
        (lambda: orthoplex(4, 9), r"at most 2d = 8 .* got C = 9; use etfopt.frames.best_frame\(4, 9\), or d >= 5"),
        (lambda: best_frame(1, 3), "d = 1 has room for 2 different unit vectors; got C = 3; use d >= 2"),
        (lambda: best_frame(4, 1), "C must be an integer of at least 2; got 1"),
        (lambda: best_frame(4, 3, counts=[1, 2]), "counts has 2 entries for C = 3 classes; pass one a class"),
        (lambda: best_frame(2, 4, counts=[1, 2, 0, 1]), "counts must be above 0; class 2 has 0"),
        (lambda: seli([3, 0, 2]), "counts must be above 0; class 1 has 0; leave classes without samples out"),
        (lambda: seli([3, -1, 2]), "counts must be above 0; class 1 has -1"),
        (lambda: seli([3, np.nan]), "counts holds 1 value.s. that are NaN or infinite"),
        (lambda: seli([3, np.inf]), "counts holds 1 value.s. that are NaN or infinite"),
        (lambda: seli([4]), "counts must have an entry for each of C >= 2 classes; got 1"),
        (lambda: seli([[4, 2]]), r"counts has shape \(1, 2\); it must be one-dimensional"),
        (lambda: seli(["4", "2"]), "counts has dtype <U1"),
        (lambda: seli([1e13, 1]), "counts must differ by a factor of at most 1e\\+12; got 1e\\+13"),
    ],
)
def test_impossible_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
