"""Arrays read some rows at a time are those that were saved, and damaged files are named and refused."""

import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from etfopt.errors import InputError
from etfopt.files import open_rows

DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "|u1": "U8"}


def save_safe(path: Path, arrays: dict[str, np.ndarray], **changes: object) -> None:
    """Write the format by hand: a length, a table in JSON, and the arrays."""
    table, data = {"__metadata__": {"made": "here"}}, b""
    for name, X in arrays.items():
        raw = np.ascontiguousarray(X).tobytes()
        kind = DTYPES[X.dtype.str]
        table[name] = {
            "dtype": kind,
            "shape": list(X.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
            **changes,
        }
        data += raw
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def save(path: Path, X: np.ndarray) -> str:
    """Save in the format of the suffix, and return the key."""
    if path.suffix == ".npy":
        np.save(path, X)
        return ""
    if path.suffix == ".safetensors":
        save_safe(path, {"x": X})
    else:
        (np.savez_compressed if "packed" in path.name else np.savez)(path, other=np.arange(3), x=X)
    return "x"


FILES = ["rows.npy", "rows.npz", "packed.npz", "rows.safetensors"]


@pytest.mark.parametrize("name", FILES)
@seed(0)
@settings(max_examples=25, deadline=None)
@given(
    X=st.sampled_from(sorted(DTYPES)).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7))
    ),
    rows=st.integers(1, 9),
    column_order=st.booleans(),
)
def test_the_batches_of_a_file_are_the_array(tmp_path_factory, name, X, rows, column_order):
    path = tmp_path_factory.mktemp("rows") / name
    key = save(path, np.asfortranarray(X) if column_order else X)
    found = open_rows(path)[key]()
    assert (found.shape, found.kind) == (X.shape, X.dtype.kind)
    parts = list(found.batches(rows))
    assert [len(part) for part in parts] == [min(rows, len(X) - i) for i in range(0, len(X), rows)]
    if parts:
        np.testing.assert_array_equal(np.concatenate(parts), X, strict=True)
        assert all(part.flags.writeable for part in parts)
    assert str(path) in found.where
    assert found.where.endswith(key)


@pytest.mark.parametrize("name", FILES)
def test_arrays_in_column_order_are_read_by_rows(tmp_path, name):
    X = np.arange(24.0).reshape(4, 3, 2)
    key = save(tmp_path / name, np.asfortranarray(X))
    np.testing.assert_array_equal(np.concatenate(list(open_rows(tmp_path / name)[key]().batches(3))), X)


def test_other_byte_orders_and_bfloat16_become_numbers_of_the_machine(tmp_path):
    X = np.array([[1.5, -2.0], [0.0, 3.0e38]])
    np.save(tmp_path / "big.npy", X.astype(">f8"))
    (part,) = open_rows(tmp_path / "big.npy")[""]().batches(5)
    np.testing.assert_array_equal(part, X, strict=True)
    bits = (X.astype("<f4").view("<u4") >> 16).astype("<u2")
    save_safe(tmp_path / "b.safetensors", {"x": bits.view("<f2")}, dtype="BF16")
    found = open_rows(tmp_path / "b.safetensors")["x"]()
    (part,) = found.batches(5)
    assert found.kind == "f"
    np.testing.assert_array_equal(part, (bits.astype("<u4") << 16).view("<f4"), strict=True)


def test_a_file_of_the_formats_own_library_is_read(tmp_path):
    saving = pytest.importorskip("safetensors.numpy")
    X = {"b": np.arange(6.0).reshape(3, 2), "a": np.arange(3)}
    saving.save_file(X, tmp_path / "x.safetensors", metadata={"format": "np"})
    found = open_rows(tmp_path / "x.safetensors")
    assert {key: open_().read().tolist() for key, open_ in found.items()} == {key: x.tolist() for key, x in X.items()}


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_loaded_whole(tmp_path, name):
    X = np.zeros((100_000, 6))
    key = save(tmp_path / name, X)
    tracemalloc.start()
    try:
        rows = sum(len(part) for part in open_rows(tmp_path / name)[key]().batches(1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 100_000
    assert peak < X.nbytes / 4


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(np.float64(7.0).tobytes())
    content[at : at + 8] = np.float64(8.0).tobytes()
    path.write_bytes(bytes(content))


def lengthened(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


def test_the_checksum_of_a_compressed_array_is_compared_at_its_end(tmp_path):
    path = tmp_path / "packed.npz"
    save(path, np.random.default_rng(0).standard_normal(30_000))
    with zipfile.ZipFile(path) as archive:
        right = struct.pack("<L", archive.getinfo("x.npy").CRC)
    path.write_bytes(path.read_bytes().replace(right, bytes(4)))
    batches = open_rows(path)["x"]().batches(10_000)
    next(batches)
    with pytest.raises(InputError, match=r"packed.npz: x: cannot be read: Bad CRC-32"):
        list(batches)


DAMAGED = {
    "an npy is cut": ("x.npy", truncated, "x.npy: cannot be read: its header says 32 bytes.*truncated"),
    "an npy has more": ("x.npy", longer, "x.npy: cannot be read: .*save one array in a file"),
    "an npz is cut": ("x.npz", truncated, "x.npz: cannot be read"),
    "an npz fails its checksum": ("x.npz", flipped, "x.npz: x: cannot be read: .*Bad CRC-32"),
    "a safetensors is cut": ("x.safetensors", truncated, "x.safetensors: cannot be read: x lies at .* truncated"),
    "a safetensors has no header": ("x.safetensors", lengthened, "cannot be read: it is no safetensors file"),
    "nothing": ("x.npy", Path.unlink, "x.npy: cannot be read: No such file or directory; check the path"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named_and_refused(tmp_path, name, damage, message):
    key = save(tmp_path / name, np.array([[7.0, 7.0], [7.0, 7.0]]))
    damage(tmp_path / name)
    with pytest.raises(InputError, match=message):
        open_rows(tmp_path / name)[key]().read()


TABLES = {
    "no table": (b"[1]", "it holds no table of arrays"),
    "no JSON": (b"{", "cannot be read"),
    "no place": (b'{"x": {"dtype": "F64", "shape": [1]}}', "x has no shape and place"),
    "a negative place": (b'{"x": {"dtype": "F64", "shape": [1], "data_offsets": [-8, 0]}}', "no shape and place"),
    "a truth value": (b'{"x": {"dtype": "F64", "shape": [true], "data_offsets": [0, 8]}}', "no shape and place"),
    "an unknown dtype": (b'{"x": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}', "dtype F8_E4M3; save"),
    "a shape too large": (b'{"x": {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}}', "needs 16 bytes"),
    "beyond the end": (b'{"x": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}}', "the file is truncated"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "message"), TABLES.values(), ids=TABLES.keys())
def test_a_header_of_safetensors_is_checked(tmp_path, header, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(InputError, match=message):
        open_rows(path)


def test_other_files_objects_and_empty_labels_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"x.csv: a file that ends in .npz or .npy or .safetensors is needed; got .csv"
    ):
        open_rows(tmp_path / "x.csv")
    np.save(tmp_path / "objects.npy", np.array([None, "a"], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy: cannot be read: it holds Python objects"):
        open_rows(tmp_path / "objects.npy")[""]()
    np.save(tmp_path / "none.npy", np.empty(0))
    with pytest.raises(InputError, match=r"none.npy: has shape \(0,\); an array with at least one row"):
        open_rows(tmp_path / "none.npy")[""]().read()
