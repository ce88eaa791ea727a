"""Checkpoints: what is no checkpoint of this run is refused by name and reason, and the one before is offered."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from etfopt import _atomic
from etfopt.errors import InputError
from etfopt.experiments.training._checkpoints import AtomicCheckpoints, checkpoints, load, verify
from etfopt.experiments.training._records import locked
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.train import RunResult, kept, resume, train
from etfopt.files import StorageError
from tests.tools.runs import Stopped, small, stop_after

CONFIG = small(epochs=4)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory, digits) -> Path:
    path = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train(CONFIG, path, images=digits, on_epoch=stop_after(3))
    return path


@pytest.fixture
def stopped(tmp_path: Path, stopped_once: Path) -> Path:
    """A copy of a run that stopped in its fourth epoch, with checkpoints of epochs 2 and 3."""
    shutil.copytree(stopped_once, tmp_path / "run")
    assert list(checkpoints(tmp_path / "run" / "checkpoints")) == [3, 2]
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits) -> RunResult:
    return train(CONFIG, tmp_path_factory.mktemp("whole"), images=digits)


@pytest.fixture
def going_on(digits) -> Callable[..., RunResult]:
    """Resume the run in a folder."""
    return partial(train, CONFIG, images=digits, resume=True)


def snapshot(path: Path) -> dict[Path, object]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def weights(path: Path, epoch: int = 4) -> dict[str, torch.Tensor]:
    return load(path / "checkpoints" / f"epoch-{epoch:04d}.ckpt")["state_dict"]


def same_as(whole: RunResult, path: Path) -> bool:
    found, expected = weights(path), weights(whole.path)
    return load_run(path).history == whole.history and all(torch.equal(found[k], expected[k]) for k in expected)


def test_the_last_two_are_kept_and_any_torch_reads_them(whole: RunResult):
    found = checkpoints(whole.path / "checkpoints")
    assert list(found) == [4, 3]
    content = torch.load(found[4], weights_only=True)
    assert torch.equal(content["state_dict"]["head.U"], weights(whole.path)["head.U"])
    assert content["etfopt"]["epoch"] == verify(found[4])["epoch"] == 4
    facts = json.loads(found[4].with_suffix(".json").read_text())
    assert (facts["format"], facts["schema"], facts["epoch"], facts["processes"]) == ("etfopt checkpoint", 1, 4, 1)
    assert not list(whole.path.rglob("*.part*"))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def of_another_library(_: bytes) -> bytes:
    torch.save({"state_dict": {}}, file := io.BytesIO())
    return file.getvalue()


DAMAGED = "is damaged: its SHA-256 is not the one it was written with"
SPOILT = {
    "half": ("ckpt", half, DAMAGED),
    "empty": ("ckpt", lambda _: b"", DAMAGED),
    "one byte less": ("ckpt", lambda content: content[:-1], DAMAGED),
    "one bit": ("ckpt", flipped, DAMAGED),
    "another library": ("ckpt", of_another_library, DAMAGED),
    "half of the digest": ("json", half, "is damaged"),
    "no digest": ("json", lambda s: s.replace(b"sha256", b"_ha256"), "is damaged: it does not say sha256"),
    "schema": ("json", lambda s: s.replace(b'"schema": 1', b'"schema": 2'), "another version .*schema 1"),
    "format": ("json", lambda s: s.replace(b"etfopt", b"toflop"), "is not a checkpoint of etfopt"),
}


@pytest.mark.parametrize(("ending", "spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_checkpoint_is_refused_and_the_one_before_is_offered(
    stopped, whole, going_on, ending, spoil, reason: str
):
    newest = stopped / "checkpoints" / f"epoch-0003.{ending}"
    newest.write_bytes(spoil(newest.read_bytes()))
    before = snapshot(stopped)
    with pytest.raises(InputError, match=rf"epoch-0003\..*: .*({reason}).*use --from-epoch 2"):
        going_on(stopped)
    assert snapshot(stopped) == before
    if reason == "is damaged":  # one of them will do
        assert going_on(stopped, from_epoch=2).trained == 2
        assert same_as(whole, stopped)


def test_a_checkpoint_without_its_digest_is_passed_over(stopped: Path, whole: RunResult, going_on):
    (stopped / "checkpoints" / "epoch-0003.json").unlink()
    assert going_on(stopped).trained == 2
    assert same_as(whole, stopped)


def test_checkpoints_of_the_first_version_are_refused_and_left_alone(stopped: Path, going_on):
    for digest in stopped.glob("checkpoints/*.json"):
        digest.unlink()
    before = snapshot(stopped)
    with pytest.raises(InputError, match=r"no checkpoint to continue from.*only etfopt 0\.1 continues from them"):
        going_on(stopped)
    assert snapshot(stopped) == before


def test_a_checkpoint_of_another_run_is_refused(stopped: Path, going_on, digits, tmp_path: Path):
    with pytest.raises(Stopped):
        train(small(4, seed=1), tmp_path / "other", images=digits, on_epoch=stop_after(1))
    for ending in ("ckpt", "json"):
        other = tmp_path / "other" / "checkpoints" / f"epoch-0001.{ending}"
        other.rename(stopped / "checkpoints" / f"epoch-0003.{ending}")
    with pytest.raises(InputError, match=r"belongs to another configuration than this run's config\.json"):
        going_on(stopped)


def test_where_no_checkpoint_is_whole_none_is_offered(stopped: Path, going_on):
    for file in (stopped / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no other checkpoint is whole"):
        going_on(stopped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_epoch": 1}, r"no checkpoint of epoch 1; .*use --from-epoch 3 or --from-epoch 2"),
        ({"precision": "bf16-mixed"}, r"written with 32-true precision, and this is bf16-mixed"),
        ({"devices": 2}, r"written with 1 process\(es\), and this is 2"),
    ],
)
def test_another_epoch_machine_or_precision_than_those_there_were_is_refused(stopped, going_on, options, message):
    with pytest.raises(InputError, match=message):
        going_on(stopped, **options)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    facts = {"epoch": 1, "config": "", "processes": 1, "precision": "32-true"}
    AtomicCheckpoints().save_checkpoint({"etfopt": facts, "code": Path}, tmp_path / "epoch-0001.ckpt")
    with pytest.raises(InputError, match=r"epoch-0001\.ckpt: cannot be read by this version of torch"):
        load(tmp_path / "epoch-0001.ckpt")


def test_a_run_is_resumed_by_its_own_configuration(stopped: Path, whole: RunResult):
    result = resume(stopped)
    assert (result.trained, result.finished) == (1, True)
    assert same_as(whole, stopped)
    starts = json.loads((stopped / "environment.json").read_text())["starts"]
    assert [start["epoch"] for start in starts] == [0, 3]


def test_a_run_with_another_frame_and_weights_goes_on_where_it_was(tmp_path: Path, digits):
    config = small(epochs=3, backbone__dim=6, head__frame="best", head__class_weights="counts")
    whole = train(config, tmp_path / "whole", images=digits)
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", images=digits, on_epoch=stop_after(2))
    train(config, tmp_path / "run", images=digits, resume=True)
    found, expected = weights(tmp_path / "run", 3), weights(whole.path, 3)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(tuple(value.shape) == (6, 10) for name, value in found.items() if name.endswith("frame"))


def test_a_finished_run_is_left_as_it_is(whole: RunResult, going_on):
    before = snapshot(whole.path)
    result = going_on(whole.path)
    assert (result.trained, result.history) == (0, whole.history)
    np.testing.assert_array_equal(result.class_means, whole.class_means)
    assert snapshot(whole.path) == before


def test_resuming_in_an_empty_folder_starts(tmp_path: Path, digits):
    assert train(small(1), tmp_path / "new", images=digits, resume=True).trained == 1
    with pytest.raises(InputError, match=r"nowhere: holds no run: .*name the folder of a run"):
        resume(tmp_path / "nowhere")


# --- disks ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds out by /proc which file is written")
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "class_means_by_epoch.npy", ".epoch-0002.part.ckpt", ".epoch-0002.part.json"]
)
def test_a_disk_that_fills_amid_any_file_leaves_a_run_that_goes_on(
    tmp_path: Path, whole, digits, monkeypatch, going_on, name
):
    write, writes = _atomic.write_through, []

    def fail(descriptor: int, content: bytes) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == name:
            writes.append(name)
            if len(writes) == (1 if ".part" in name else 3):
                os.write(descriptor, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, content)

    with monkeypatch.context() as patch:
        patch.setattr(_atomic, "write_through", fail)
        said = r"No space left on device.*Kept: .*checkpoint of epoch 1\. To go on: etfopt train --resume"
        with pytest.raises(StorageError, match=said):
            train(CONFIG, tmp_path, images=digits)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert list(checkpoints(tmp_path / "checkpoints")) == [1]
    assert not list(tmp_path.rglob("*.part*"))
    assert going_on(tmp_path).trained == 3
    assert same_as(whole, tmp_path)


# --- two processes, and bad samples --------------------------------------------------------------------------------


def test_a_folder_serves_one_process_at_a_time(stopped: Path, going_on):
    before = snapshot(stopped)
    for goes_on in (True, False):
        with locked(stopped), pytest.raises(InputError, match="another process is at work on this run"):
            going_on(stopped, resume=goes_on)
    assert snapshot(stopped) == before


def test_what_is_kept_is_said(stopped: Path, tmp_path: Path):
    again = f"To go on: etfopt train --resume {stopped}"
    assert kept(stopped) == f"Kept: {stopped}/, with the checkpoint of epoch 3. {again}"
    shutil.rmtree(stopped / "checkpoints")
    assert kept(stopped) == f"Kept: {stopped}/; no epoch was finished. {again}"
    none = tmp_path / "none"
    assert kept(none) == f"Nothing was written to {none}/. To start again: the same command"
