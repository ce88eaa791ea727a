"""Frames: both simplexes against their definitions, and any frame by name or by import path."""

import inspect

import numpy as np
import pytest

from etfopt import InputError, NearestETF, nearest_etf, simplex_etf
from etfopt.frames import FRAMES, Frame, frame_matrix, orthoplex, seli
from tests.tools import oracles

CLASSES = (2, 3, 5, 10, 100)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("C", CLASSES)
def test_columns_of_a_simplex_are_equally_long_and_equally_far_apart(C, reduced):
    F = simplex_etf(C, reduced=reduced)
    expected = (np.eye(C) * C - 1) / (C * (C - 1))
    np.testing.assert_allclose(F.T @ F, expected, rtol=0, atol=1e-15)
    assert F.shape == (C - 1 if reduced else C, C)
    # the matrix of the paper, and the Helmert matrix over a root
    np.testing.assert_allclose(F, (oracles.reduced_simplex if reduced else oracles.simplex)(C), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_frame_has_the_dtype_asked_for_and_belongs_to_the_caller(dtype):
    F = simplex_etf(4, dtype=dtype)
    assert F.dtype == dtype
    F[0, 0] = 7.0
    assert simplex_etf(4, dtype=dtype)[0, 0] != 7.0


FITTING = {"polygon": (2, 5), "orthoplex": (4, 6), "code": (3, 12)}
"""A pair (d, C) for the frames that fit some only."""


@pytest.mark.parametrize("name", list(FRAMES))
def test_every_frame_has_a_name_and_a_column_for_every_class(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ETFOPT_CACHE", str(tmp_path))
    d, C = FITTING.get(name, (9, 5))
    F = frame_matrix(name, C, d)
    make = FRAMES.load(name)
    expected = make(C=C, d=d) if "d" in inspect.signature(make).parameters else make(C)
    assert isinstance(expected, Frame)
    assert F.shape == expected.F.shape == (expected.r, C)
    np.testing.assert_array_equal(F, expected)
    np.testing.assert_array_equal(frame_matrix(expected, C), F)
    np.testing.assert_array_equal(NearestETF(np.eye(9, C), frame=expected).F, F)


def test_a_frame_by_name_is_that_by_value(rng):
    H = rng.standard_normal((8, 4))
    by_value = {None: nearest_etf(H).U, "reduced": nearest_etf(H, frame=simplex_etf(4, reduced=True)).U}
    for options, expected in [
        ({"frame": "simplex"}, None),
        ({"frame": "reduced"}, "reduced"),
        ({"reduced": True}, "reduced"),
    ]:
        np.testing.assert_array_equal(nearest_etf(H, **options).U, by_value[expected])


def test_a_frame_of_ones_own_is_found_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_frames.py").write_text("import numpy as np\ndef pair(C):\n    return np.eye(2, C)\nthree = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(NearestETF(np.eye(4, 3), frame="own_frames:pair").F, np.eye(2, 3))
    with pytest.raises(InputError, match="frame = 'own_frames:three' is a int; name a function that takes C"):
        NearestETF(np.eye(4, 3), frame="own_frames:three")


def test_a_name_that_depends_on_the_dimension_gets_that_of_the_means(rng):
    H = rng.standard_normal((4, 6))
    np.testing.assert_array_equal(NearestETF(H, frame="orthoplex").F, orthoplex(4, 6).F)
    np.testing.assert_array_equal(nearest_etf(H, frame="best").U, nearest_etf(H, frame=orthoplex(4, 6)).U)


def test_a_function_of_ones_own_gets_the_dimension_if_it_asks_for_it(tmp_path, monkeypatch):
    (tmp_path / "frames_of_d.py").write_text("import numpy as np\ndef axes(C, d):\n    return np.eye(d, C)\n")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(frame_matrix("frames_of_d:axes", 3, 2), np.eye(2, 3))
    with pytest.raises(InputError, match=r"'frames_of_d:axes' depends on the dimension d.*pass the frame itself"):
        frame_matrix("frames_of_d:axes", 3)


def test_frames_that_do_not_fit_are_refused_with_a_remedy():
    for frame, C, d, message in [
        ("orthoplex", 6, None, r"'orthoplex' depends on the dimension d.*best_frame\(d, 6\)"),
        ("orthoplex", 3, 4, r"need C >= d \+ 2 = 6 vectors; got C = 3; use etfopt.frames.reduced"),
        ("polygon", 2, None, "C = 2 vectors are no polygon; use etfopt.frames.reduced"),
        (seli([3, 2, 1]), 3, 4, "frame is a pair of frames.*pass its F_H for class means"),
        (seli([3, 2, 1]).F_H, 4, 4, r"frame has shape \(2, 3\); it needs C = 4 columns"),
    ]:
        with pytest.raises(InputError, match=message):
            frame_matrix(frame, C, d)


def test_unknown_and_twofold_frames_are_refused():
    with pytest.raises(InputError, match=r"frame = 'cube' is not known; choose one of: best, .*reduced, simplex"):
        NearestETF(np.eye(4, 3), frame="cube")
    with pytest.raises(InputError, match="reduced = True names a frame, and frame is given too; leave one out"):
        NearestETF(np.eye(4, 3), frame="simplex", reduced=True)
