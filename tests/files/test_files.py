"""Files in, files out: every failure names the path and leaves what was there."""

from pathlib import Path

import numpy as np
import pytest

import etfopt
from etfopt.errors import InputError
from etfopt.files import load_matrix, save_solution, whole

MEANS = np.random.default_rng(0).standard_normal((7, 4))


def test_an_archive_of_several_arrays_needs_a_key(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    np.savez(path, H=MEANS, prox=MEANS[:, :2])
    np.testing.assert_array_equal(load_matrix(path, "prox"), MEANS[:, :2])
    with pytest.raises(InputError, match=r"both.npz: holds the arrays H, prox; name one with key"):
        load_matrix(path)
    with pytest.raises(InputError, match="'M' is not among them"):
        load_matrix(path, "M")


def test_capitals_in_the_ending_of_a_name_are_no_obstacle(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "EXCEL.CSV", MEANS, delimiter=",", fmt="%.17g")
    np.testing.assert_array_equal(load_matrix(str(tmp_path / "EXCEL.CSV")), MEANS)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"key": "H"}, "the key 'H'"), ({"header": True}, "is no CSV, so header = True"), ({"index": False}, "is no CSV")],
)
def test_an_option_that_has_no_meaning_for_the_file_is_refused(tmp_path: Path, given: dict, message: str) -> None:
    np.save(tmp_path / "m.npy", MEANS)
    with pytest.raises(InputError, match=rf"m.npy: .*{message}.* has no meaning"):
        load_matrix(tmp_path / "m.npy", **given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "No such file"),
        ("text.txt", b"1,2", "ends in .npy or .npz or .csv"),
        ("damaged.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("empty.npy", b"", "cannot be read"),
        ("damaged.npz", b"PK\x03\x04rubbish", "cannot be read"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_matrix(path)
    assert str(path) in str(caught.value)


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
