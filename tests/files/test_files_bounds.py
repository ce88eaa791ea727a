"""JSON, TOML and the files of a run: texts that would take minutes or all memory, and lines that are no records."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig, read_config
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.training import _records as run_files
from etfopt.experiments.training._checkpoints import Identity, verify
from etfopt.experiments.training._means import append_means, read_means
from etfopt.experiments.training._run_folder import read_starts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", b"[" * 100_000, "it is nested too deeply"),
        ("c.json", b'{"seed": 1, "seed": 2}', "the key 'seed' is there twice"),
        ("c.json", b'{"seed": NaN}', "NaN is no JSON; use a number or null"),
        ("c.json", b'{"seed": ' + b"9" * 30 + b"}", "an integer of more than 64 bits"),
        ("c.json", b'{"seed": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        ("c.json", '{"seed": 1}'.encode("utf-16"), "it is no text in UTF-8 .* save it as UTF-8"),
        ("c.json", b"[]", "a table of settings is needed; got a list"),
        ("c.json", b'{"schema": 1, "config": 3}', "a table of settings is needed; got a int"),
        ("c.json", b" " * (2**20 + 1), "is too large: it has 1,048,577 bytes; at most 1,048,576 are read"),
        ("c.toml", b"a = " + b"[" * 100_000, "it is nested too deeply"),
        ("c.toml", b"a." * 100_000 + b"a = 1", "a key is nested more than 100 levels deep"),
        ("c.toml", b"seed = 0x" + b"f" * 100_000, "an integer of more than 64 bits"),
        ("c.toml", b"#" * (2**18 + 1), "it has 262,145 bytes; at most 262,144 are read as TOML"),
        ("c.toml", b"backbone.dim = 1000000000", "has 1e.10 weights; at most 5.37e.08 are taken: set backbone.dim"),
        (
            "c.toml",
            b"data.name = 'ufm'\ndata.samples = 1000000000000\nbackbone.name = 'free'",
            "is more than 1,000,000,000 free features; set one of them smaller",
        ),
    ],
)
def test_a_hostile_configuration_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}") as caught:
        read_config(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("c.json", b'{"seed": 7}'), ("c.toml", b"seed = 7\r\n")])
def test_a_byte_order_mark_before_a_configuration_is_no_obstacle(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert read_config(tmp_path / name) == TrainConfig(seed=7)


def test_a_configuration_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "c.toml").mkdir()
    with pytest.raises(InputError, match=r"c.toml: cannot be read: it is a folder"):
        read_config(tmp_path / "c.toml")
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes with names here")
    os.mkfifo(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"c.json: cannot be read: it is no ordinary file"):
        read_config(tmp_path / "c.json")


def test_a_grid_of_billions_is_refused_before_it_is_made() -> None:
    grid = {f"head.{name}": [i / 100 for i in range(1, 51)] for name in ("delta", "temperature", "shrinkage")}
    plan = {"title": "t", "question": "q", "seeds": [0], "grid": grid}
    with pytest.raises(InputError, match="make 125,000 variants; at most 10,000 are taken: split the study"):
        parse_study(plan, "s")
    plan["grid"] = {"seed": list(range(10_001))}
    with pytest.raises(InputError, match="grid: seed has 10,001 values; at most 10,000 are taken"):
        parse_study(plan, "s")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3", "written by another version"),
        ('{"epoch": 0}', "written by another version"),
        ('{"schema": 1, "epoch": 1}', "is damaged: line 1: epoch 0 is due"),
        ('{"schema": 1}', "is damaged: line 1: epoch 0 is due"),
        ('{"schema": 1, "epoch": false}', "is damaged: line 1: 'epoch' is not a number"),
        ('{"schema": 1, "epoch": 0, "nc1": "much"}', "is damaged: line 1: 'nc1' is not a number"),
        ('{"schema": 1, "epoch": 0, "nc1": [1]}', "is damaged: line 1: 'nc1' is not a number"),
        ("[" * 10_000, "is damaged: line 1: it is nested too deeply"),
    ],
)
def test_a_line_that_is_no_record_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        run_files.read_lines(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("value", [None, 3, {}, [3], [{"git": 3}], [{"git": {"revision": 3, "dirty": True}}]])
def test_starts_that_are_none_are_refused(tmp_path: Path, value: object) -> None:
    run_files.write_json(tmp_path / "environment.json", {"starts": value})
    with pytest.raises(InputError, match=r"environment.json: is damaged: it holds no list of starts; remove it"):
        read_starts(tmp_path)


@pytest.mark.parametrize(
    "header",
    ["{'descr': '<f8', 'fortran_order': False, 'shape': (", "{'descr': '<f8', 'fortran_order': False, 'shape': ()}"],
)
def test_class_means_with_a_damaged_header_are_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "means.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode().ljust(117) + b"\n" + bytes(96))
    for use in (lambda: read_means(path, 1), lambda: append_means(path, torch.zeros(3, 4).numpy(), 1)):
        with pytest.raises(InputError, match=r"means\.npy: is damaged"):
            use()


def test_class_means_that_end_early_are_refused_before_room_is_made_for_them(tmp_path: Path) -> None:
    path = tmp_path / "means.npy"
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1000000000, 1000000000)}"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode().ljust(117) + b"\n" + bytes(96))
    with pytest.raises(InputError, match=r"means\.npy: is damaged: it is truncated"):
        read_means(path, 1)


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "epoch-0001.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(100))
    facts = {"format": "etfopt checkpoint", "epoch": 1, "config": "x", "processes": 1, "precision": "32-true"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    run_files.write_json(path.with_suffix(".json"), {**facts, "sha256": digest})
    with pytest.raises(InputError, match=r"it is compressed, which torch\.save does not do"):
        verify(path, Identity("x", 1, "32-true"))
