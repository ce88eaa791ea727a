"""Files in, files out: every failure names the path and leaves what was there."""

from pathlib import Path

import numpy as np
import pytest

import etfopt
from etfopt.errors import InputError
from etfopt.files import load_matrix, save_solution

MEANS = np.random.default_rng(0).standard_normal((7, 4))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_a_matrix_survives_the_round_trip_through_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"means{suffix}"
    if suffix == ".npy":
        np.save(path, MEANS)
    elif suffix == ".npz":
        np.savez(path, H=MEANS)
    else:
        np.savetxt(path, MEANS, delimiter=",", fmt="%.17g")
    np.testing.assert_array_equal(load_matrix(path), MEANS)


def test_an_archive_of_several_arrays_needs_a_key(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    np.savez(path, H=MEANS, prox=MEANS[:, :2])
    np.testing.assert_array_equal(load_matrix(path, "prox"), MEANS[:, :2])
    with pytest.raises(InputError, match=r"both.npz: holds the arrays H, prox; name one with --key"):
        load_matrix(path)
    with pytest.raises(InputError, match="'M' is not among them"):
        load_matrix(path, "M")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "No such file"),
        ("text.txt", b"1,2", "use one of .npy, .npz, .csv"),
        ("damaged.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("empty.npy", b"", "cannot be read"),
        ("damaged.npz", b"PK\x03\x04rubbish", "cannot be read"),
        ("words.csv", b"a,b\nc,d\n", "cannot be read"),
        ("ragged.csv", b"1,2\n3\n", "cannot be read"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_matrix(path)
    assert str(path) in str(caught.value)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy: cannot be read"):
        load_matrix(path)


def test_a_solution_is_saved_whole(tmp_path: Path) -> None:
    path = tmp_path / "nearest.npz"
    solution = etfopt.nearest_etf(MEANS)
    save_solution(solution, path)
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["U"], solution.U)
        np.testing.assert_array_equal(saved["etf"], solution.etf)
        np.testing.assert_array_equal(saved["weight"], solution.weight)
        assert saved["distance"] == solution.distance
    assert [p.name for p in tmp_path.iterdir()] == ["nearest.npz"]


def test_a_solution_goes_nowhere_but_into_an_npz_in_an_existing_folder(tmp_path: Path) -> None:
    solution = etfopt.nearest_etf(MEANS)
    with pytest.raises(InputError, match=r"ends in \.npz"):
        save_solution(solution, tmp_path / "nearest.npy")
    with pytest.raises(InputError, match="cannot be written"):
        save_solution(solution, tmp_path / "no" / "nearest.npz")
    assert not list(tmp_path.iterdir())
