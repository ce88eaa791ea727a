"""Files in, files out: every failure names the path and leaves what was there."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import etfopt
from etfopt.errors import InputError
from etfopt.files import load_matrix, save_solution, whole

HUGE = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }".ljust(117)
    + b"\n"
)
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
    with pytest.raises(InputError, match=r"both.npz: holds the arrays H, prox; name one with key"):
        load_matrix(path)
    with pytest.raises(InputError, match="'M' is not among them"):
        load_matrix(path, "M")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "No such file"),
        ("text.txt", b"1,2", "ends in .npy or .npz or .csv"),
        ("empty.csv", b"", "holds no numbers"),
        ("semicolons.csv", b"1;2\n3;4\n", "separated by commas"),
        ("damaged.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("empty.npy", b"", "cannot be read"),
        ("huge.npy", HUGE, "cannot be read"),
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


@pytest.mark.parametrize("name", ["nearest.npz", "nearest.NPZ"])
def test_a_solution_is_saved_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    solution = etfopt.nearest_etf(MEANS)
    save_solution(solution, path)
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["U"], solution.U)
        np.testing.assert_array_equal(saved["etf"], solution.etf)
        np.testing.assert_array_equal(saved["weight"], solution.weight)
        assert saved["distance"] == solution.distance
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_solution_goes_nowhere_but_into_an_npz_in_an_existing_folder(tmp_path: Path) -> None:
    solution = etfopt.nearest_etf(MEANS)
    with pytest.raises(InputError, match=r"ends in \.npz"):
        save_solution(solution, tmp_path / "nearest.npy")
    with pytest.raises(InputError, match="cannot be written"):
        save_solution(solution, tmp_path / "no" / "nearest.npz")
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_and_capitals_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "EXCEL.CSV"
    path.write_bytes(b"\xef\xbb\xbf1.5,2\r\n3,4\r\n")
    np.testing.assert_array_equal(load_matrix(str(path)), [[1.5, 2], [3, 4]])


def test_a_key_where_there_is_one_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "means.npy", MEANS)
    with pytest.raises(InputError, match="the key 'H' has no meaning"):
        load_matrix(tmp_path / "means.npy", "H")


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "words")
    with pytest.raises(InputError, match=r"notes.npz: notes.txt is not an array"):
        load_matrix(tmp_path / "notes.npz")


def test_saving_through_a_link_keeps_link_and_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "private.npz", tmp_path / "link.npz"
    target.touch(mode=0o600)
    link.symlink_to(target)
    save_solution(etfopt.nearest_etf(MEANS), link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert load_matrix(target, "U").shape == (7, 4)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_a_file_is_put_in_place_whole_or_not_at_all(tmp_path, stopped):
    path = tmp_path / "numbers.json"
    with whole(path) as part:
        part.write_text("old")
        assert not path.exists()
        assert part.suffix == path.suffix  # by which writers of figures know the format
    assert path.read_text() == "old"

    def write():
        with whole(path) as part:
            part.write_text("ne")
            raise stopped

    with pytest.raises(stopped):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
