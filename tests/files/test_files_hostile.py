"""Arrays that lie: what a file declares is checked before it is believed, and refused in one line."""

import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from etfopt.errors import InputError
from etfopt.files import load_matrix

MEANS = np.random.default_rng(0).standard_normal((7, 4))


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An `.npy` with whatever header."""
    text = header.encode().ljust(117) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + content


def declared(shape: str, dtype: str = "'<f8'", order: str = "False") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


def refusal(path: Path, content: bytes | None = None, key: str | None = None) -> str:
    """The message, which is one line that names the file."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_matrix(path, key)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3", "its header is damaged"),  # a TokenError once
        ("{'descr': '<f8'", "its header is damaged"),
        ("((((", "its header is damaged"),
        ("-" * 9000 + "1", "its header is damaged"),
        (declared("(-3, -3)"), r"its header is damaged: it says shape (-3, -3)"),
        (declared("(True, 1.5)"), "its header is damaged"),
        (declared("(2, 2)", order="2"), "its header is damaged"),
        (declared("(2, 2)", "'|O'"), "it holds Python objects, which are never loaded; save numbers"),
        (declared("(2, 2)", "'<U5'"), "it holds <U5, which are no numbers; save numbers"),
        (declared("(2, 2)", "'<M8[s]'"), "which are no numbers"),
        (declared("(2, 2)", "[('x', '<f8')]"), "which are no numbers"),
        (declared("(99999999999, 3)"), "which is 2.24e+03 GiB; at most 4 GiB are read from a file. Load larger ones"),
        (declared(f"({2**62}, {2**62})"), "at most 4 GiB are read"),
        (declared("(3, 3)"), "its header says 72 bytes of float64 (3, 3), and 32 follow; it is truncated"),
        (declared("(2, 1)"), "its header says 16 bytes of float64 (2, 1), and 32 follow; save one array in a file"),
    ],
)
def test_a_header_that_is_damaged_or_lies_is_refused(tmp_path: Path, header: str, message: str) -> None:
    version = b"\x02\x00" if len(header) > 117 else b"\x01\x00"
    assert message in refusal(tmp_path / "m.npy", npy(header, bytes(32), version))


def test_an_array_of_more_than_the_limit_is_refused_though_the_file_has_as_much(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    path.write_bytes(npy(declared(f"({2**29 + 1},)")))
    os.truncate(path, path.stat().st_size + 8 * (2**29 + 1))  # without a byte on the disk
    assert "it declares float64 (536870913,), which is 4 GiB; at most 4 GiB are read" in refusal(path)


def bomb(path: Path, nbytes: int, said: int | None = None) -> None:
    """An archive of zeros, whose directory and header say how large they are."""
    header = npy(declared(f"({(nbytes if said is None else said) // 8},)"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("H.npy", header + bytes(nbytes))


def test_an_archive_that_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "bomb.npz"
    bomb(path, 2**26)
    assert path.stat().st_size < 2**19
    monkeypatch.setattr("etfopt.files._matrices.LARGEST", 2**25)
    tracemalloc.start()
    try:
        assert "it declares float64 (8388608,), which is 0.0625 GiB; at most 0.03125 GiB are read" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    monkeypatch.undo()
    assert load_matrix(path).shape == (2**23,)


def test_an_array_of_an_archive_that_is_shorter_or_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    for said, word in ((2**24 + 8, "it is truncated"), (2**24 - 8, "save one array in a file")):
        bomb(tmp_path / "m.npz", 2**24, said)
        assert word in refusal(tmp_path / "m.npz")


def test_a_directory_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez_compressed(path, H=np.zeros((100, 100)))
    content, size = path.read_bytes(), struct.pack("<I", 80128)
    at = content.rindex(size)  # the directory is at the end
    for lie in (80128 - 8, 80128 + 8, 2**32 - 2):
        message = refusal(path, content[:at] + struct.pack("<I", lie) + content[at + 4 :])
        assert message.startswith("cannot be read: ")


def test_a_flipped_bit_of_an_archive_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, H=MEANS)
    content = bytearray(path.read_bytes())
    content[content.index(MEANS.tobytes()) + 9] ^= 1
    assert "Bad CRC-32" in refusal(path, bytes(content))


def test_names_in_an_archive_are_shown_on_one_line_and_not_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, **{f"a{i}": MEANS for i in range(50)}, **{"line\nend": MEANS})
    assert refusal(path).endswith("a8, a9, ...; name one with key")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("line\nend.npy", b"nothing")
    assert refusal(path) == r"'line\nend.npy' is not an array"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_not_chosen_silently(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for value in (1, 2):
            with archive.open("H.npy", "w") as file:
                np.save(file, value * MEANS)
    assert refusal(path) == "holds H 2 times; save each array under a name of its own"


def test_a_compression_that_numpy_does_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("H.npy", npy(declared("(2, 2)"), bytes(32)))
    assert "compressed in a way that NumPy does not write; save it by numpy.savez" in refusal(path)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(MEANS),
        MEANS.astype(">f4"),
        MEANS.astype(np.float16),
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.arange(12, dtype=">i2").reshape(3, 4),
        np.array([[True, False]]),
        MEANS * 1j,
        np.float64(3.0),
        np.empty((0, 3)),
        np.arange(24.0).reshape(2, 3, 4),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_every_array_of_numbers_is_read_as_it_was_saved(tmp_path: Path, array, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    found = load_matrix(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "m.npy").open("wb") as file:
        np.lib.format.write_array(file, MEANS, version=version)
    np.testing.assert_array_equal(load_matrix(tmp_path / "m.npy"), MEANS)


def test_an_array_larger_than_a_chunk_is_read_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("etfopt.files._matrices.CHUNK", 50)
    for save, name in ((np.save, "m.npy"), (np.savez_compressed, "m.npz")):
        save(tmp_path / name, MEANS)
        np.testing.assert_array_equal(load_matrix(tmp_path / name), MEANS)


def test_a_folder_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    for suffix in (".npy", ".npz", ".csv"):
        (tmp_path / f"folder{suffix}").mkdir()
        assert refusal(tmp_path / f"folder{suffix}") == "cannot be read: it is a folder"
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes with names here")
    os.mkfifo(tmp_path / "pipe.csv")
    assert refusal(tmp_path / "pipe.csv") == "cannot be read: it is no ordinary file"
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    assert refusal(tmp_path / "zero.npy") == "cannot be read: it is no ordinary file"
