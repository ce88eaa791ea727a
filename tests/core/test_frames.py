"""Frames: both simplexes against their definitions, and any frame by name or by import path."""

import numpy as np
import pytest

from etfopt import InputError, NearestETF, nearest_etf, simplex_etf
from etfopt.frames import FRAMES
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


@pytest.mark.parametrize("name", list(FRAMES))
def test_every_frame_has_a_name_and_a_column_for_every_class(name):
    F = NearestETF(np.eye(9, 5), frame=name).F
    assert F.shape[1] == 5
    np.testing.assert_array_equal(F, FRAMES.load(name)(5))


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


def test_unknown_and_twofold_frames_are_refused():
    with pytest.raises(InputError, match=r"frame = 'cube' is not known; choose one of: .*reduced, simplex"):
        NearestETF(np.eye(4, 3), frame="cube")
    with pytest.raises(InputError, match="reduced = True names a frame, and frame is given too; leave one out"):
        NearestETF(np.eye(4, 3), frame="simplex", reduced=True)
