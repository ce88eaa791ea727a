"""Checkpoints: what is no checkpoint of this run is refused by name and reason, and the one before is offered."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import Images, load_images
from etfopt.experiments.training._checkpoints import AtomicCheckpoints, checkpoints, load, verify
from etfopt.experiments.training._records import locked
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.train import RunResult, kept, resume, train
from etfopt.files import StorageError, _atomic
from tests.tools.runs import Stopped, small, stop_after

CONFIG = small(epochs=4)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(CONFIG.data)


@pytest.fixture
def stopped(tmp_path: Path, images: Images) -> Path:
    """A run that stopped in its fourth epoch, with checkpoints of epochs 2 and 3."""
    with pytest.raises(Stopped):
        train(CONFIG, tmp_path / "run", images=images, on_epoch=stop_after(3))
    assert list(checkpoints(tmp_path / "run" / "checkpoints")) == [3, 2]
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Images) -> RunResult:
    return train(CONFIG, tmp_path_factory.mktemp("whole"), images=images)


def weights(path: Path, epoch: int = 4) -> dict[str, torch.Tensor]:
    return load(path / "checkpoints" / f"epoch-{epoch:04d}.ckpt")["state_dict"]


def same_as(whole: RunResult, path: Path) -> bool:
    found, expected = weights(path), weights(whole.path)
    return load_run(path).history == whole.history and all(torch.equal(found[k], expected[k]) for k in expected)


def test_the_last_two_are_kept_and_any_torch_reads_them(whole: RunResult) -> None:
    found = checkpoints(whole.path / "checkpoints")
    assert list(found) == [4, 3]
    content = torch.load(found[4], weights_only=True)
    assert torch.equal(content["state_dict"]["head.U"], weights(whole.path)["head.U"])
    assert content["etfopt"]["epoch"] == verify(found[4])["epoch"] == 4
    assert not list(whole.path.rglob("*.part*"))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def without(key: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(key, b"_" + key[1:])


DAMAGED = "is damaged: its SHA-256 is not the one it was written with"
SPOILT = {
    "half": ("ckpt", half, DAMAGED),
    "empty": ("ckpt", lambda _: b"", DAMAGED),
    "one byte less": ("ckpt", lambda content: content[:-1], DAMAGED),
    "one bit": ("ckpt", flipped, DAMAGED),
    "half of the digest": ("json", half, "is damaged"),
    "no digest": ("json", without(b"sha256"), "is damaged: it does not say sha256"),
    "schema": ("json", lambda s: s.replace(b'"schema": 1', b'"schema": 2'), "another version .*schema 1"),
    "format": ("json", lambda s: s.replace(b"etfopt", b"toflop"), "is not a checkpoint of etfopt"),
}


@pytest.mark.parametrize(("ending", "spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_checkpoint_is_refused_and_the_one_before_is_offered_and_used(
    stopped: Path, whole: RunResult, images: Images, ending: str, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    newest = stopped / "checkpoints" / f"epoch-0003.{ending}"
    newest.write_bytes(spoil(newest.read_bytes()))
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=rf"epoch-0003\..*: .*({reason}).*use --from-epoch 2"):
        train(CONFIG, stopped, images=images, resume=True)
    assert {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()} == before
    if ending == "ckpt":
        return
    result = train(CONFIG, stopped, images=images, resume=True, from_epoch=2)
    assert result.trained == 2
    assert same_as(whole, stopped)


def test_a_checkpoint_without_its_digest_is_passed_over(stopped: Path, whole: RunResult, images: Images) -> None:
    (stopped / "checkpoints" / "epoch-0003.json").unlink()
    assert train(CONFIG, stopped, images=images, resume=True).trained == 2
    assert same_as(whole, stopped)


def test_checkpoints_of_the_first_version_are_refused_and_left_alone(stopped: Path, images: Images) -> None:
    for digest in stopped.glob("checkpoints/*.json"):
        digest.unlink()
    before = sorted(stopped.rglob("*"))
    with pytest.raises(InputError, match=r"no checkpoint to continue from.*only etfopt 0\.1 continues from them"):
        train(CONFIG, stopped, images=images, resume=True)
    assert sorted(stopped.rglob("*")) == before


def test_a_file_of_another_library_is_no_checkpoint(stopped: Path, images: Images) -> None:
    torch.save({"state_dict": {}}, stopped / "checkpoints" / "epoch-0003.ckpt")
    with pytest.raises(InputError, match=r"epoch-0003\.ckpt: is damaged: its SHA-256 .*--from-epoch 2"):
        train(CONFIG, stopped, images=images, resume=True)


def test_a_checkpoint_of_another_run_is_refused(
    stopped: Path, whole: RunResult, images: Images, tmp_path: Path
) -> None:
    other = CONFIG.model_copy(update={"seed": 1})
    with pytest.raises(Stopped):
        train(other, tmp_path / "other", images=images, on_epoch=stop_after(1))
    for ending in ("ckpt", "json"):
        (tmp_path / "other" / "checkpoints" / f"epoch-0001.{ending}").rename(
            stopped / "checkpoints" / f"epoch-0003.{ending}"
        )
    with pytest.raises(InputError, match=r"belongs to another configuration than this run's config\.json"):
        train(CONFIG, stopped, images=images, resume=True)
    with pytest.raises(InputError, match="is a run of another configuration"):
        train(other, stopped, images=images, resume=True)
    assert same_as(whole, whole.path)


def test_where_no_checkpoint_is_whole_none_is_offered(stopped: Path, images: Images) -> None:
    for file in (stopped / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no other checkpoint is whole"):
        train(CONFIG, stopped, images=images, resume=True)


def test_an_epoch_without_a_checkpoint_is_refused_with_those_there_are(stopped: Path, images: Images) -> None:
    with pytest.raises(InputError, match=r"no checkpoint of epoch 1; .*use --from-epoch 3 or --from-epoch 2"):
        train(CONFIG, stopped, images=images, resume=True, from_epoch=1)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    facts = {"epoch": 1, "config": "", "processes": 1, "precision": "32-true"}
    AtomicCheckpoints().save_checkpoint({"etfopt": facts, "code": Path}, tmp_path / "epoch-0001.ckpt")
    with pytest.raises(InputError, match=r"epoch-0001\.ckpt: cannot be read by this version of torch"):
        load(tmp_path / "epoch-0001.ckpt")


def test_other_processes_or_another_precision_do_not_go_on(stopped: Path, images: Images) -> None:
    with pytest.raises(InputError, match=r"written with 32-true precision, and this is bf16-mixed"):
        train(CONFIG, stopped, images=images, resume=True, precision="bf16-mixed")
    with pytest.raises(InputError, match=r"written with 1 process\(es\), and this is 2"):
        train(CONFIG, stopped, images=images, resume=True, devices=2)


def test_a_run_is_resumed_by_its_own_configuration(stopped: Path, whole: RunResult) -> None:
    result = resume(stopped)
    assert result.trained == 1
    assert result.finished
    assert same_as(whole, stopped)
    starts = json.loads((stopped / "environment.json").read_text())["starts"]
    assert [start["epoch"] for start in starts] == [0, 3]


def test_a_finished_run_is_left_as_it_is(whole: RunResult, images: Images) -> None:
    before = {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.path.rglob("*.?*") if file.name != ".lock"
    }
    result = train(CONFIG, whole.path, images=images, resume=True)
    assert result.trained == 0
    assert result.history == whole.history
    np.testing.assert_array_equal(result.class_means, whole.class_means)
    after = {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.path.rglob("*.?*") if file.name != ".lock"
    }
    assert after == before


def test_resuming_in_an_empty_folder_starts(tmp_path: Path, images: Images) -> None:
    config = CONFIG.with_settings({"training.epochs": 1})
    assert train(config, tmp_path / "new", images=images, resume=True).trained == 1
    with pytest.raises(InputError, match=r"nowhere: holds no run: .*name the folder of a run"):
        resume(tmp_path / "nowhere")


# --- disks ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, whole: RunResult, images: Images
) -> None:
    path = tmp_path / "run"
    epochs: list[None] = []

    def fill() -> None:
        epochs.append(None)
        if len(epochs) == 3:  # the third checkpoint goes, by way of its temporary name, to a device without room
            (path / "checkpoints" / ".epoch-0003.part.ckpt").symlink_to("/dev/full")

    with pytest.raises(
        StorageError, match=r"epoch-0003\.ckpt: .*No space left on device.*Kept: .*checkpoint of epoch 2"
    ):
        train(CONFIG, path, images=images, on_epoch=fill)
    assert list(checkpoints(path / "checkpoints")) == [2, 1]
    assert not list(path.rglob("*.part*"))
    assert train(CONFIG, path, images=images, resume=True).trained == 2
    assert same_as(whole, path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds out by /proc which file is written")
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "class_means_by_epoch.npy", ".epoch-0002.part.ckpt", ".epoch-0002.part.json"]
)
def test_a_disk_that_fills_amid_any_file_leaves_a_run_that_goes_on(
    tmp_path: Path, whole: RunResult, images: Images, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
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
        with pytest.raises(StorageError, match=r"No space left on device.*To go on: etfopt train --resume"):
            train(CONFIG, tmp_path, images=images)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    train(CONFIG, tmp_path, images=images, resume=True)
    assert same_as(whole, tmp_path)


# --- two processes, and bad samples --------------------------------------------------------------------------------


def test_a_folder_serves_one_process_at_a_time(stopped: Path, images: Images) -> None:
    with locked(stopped), pytest.raises(InputError, match="another process is at work on this run"):
        train(CONFIG, stopped, images=images, resume=True)
    with locked(stopped), pytest.raises(InputError, match="another process is at work on this run"):
        train(CONFIG, stopped, images=images)
    assert list(checkpoints(stopped / "checkpoints")) == [3, 2]


def test_a_loss_that_is_no_number_names_epoch_step_batch_and_samples(tmp_path: Path) -> None:
    images, config = load_images(CONFIG.data), CONFIG.with_settings({"training.batch_size": 8})
    images.train.pixels, images.train.mean = images.train.tensors[0], None  # what is to be NaN must be a float
    epochs: list[None] = []

    def poison() -> None:
        epochs.append(None)
        if len(epochs) == 2:
            images.train.pixels[17] = float("nan")

    said = r"diverged at step (\d+), in epoch 3, in batch (\d+) \(samples ([\d, ]+)\): .*Kept: .*checkpoint of epoch 2"
    with pytest.raises(ConvergenceError, match=said) as caught:
        train(config, tmp_path, images=images, on_epoch=poison)
    step, batch, samples = re.search(said, str(caught.value)).groups()
    assert "17" in samples.split(", ")
    assert len(samples.split(", ")) == 8
    assert int(step) == 2 * 180 + int(batch)  # 1437 samples in batches of 8
    assert list(checkpoints(tmp_path / "checkpoints")) == [2, 1]
    assert [record["epoch"] for record in load_run(tmp_path).history] == [0, 1, 2]


def test_what_is_kept_is_said(stopped: Path, tmp_path: Path) -> None:
    assert (
        kept(stopped) == f"Kept: {stopped}/, with the checkpoint of epoch 3. To go on: etfopt train --resume {stopped}"
    )
    for checkpoint in (stopped / "checkpoints").iterdir():
        checkpoint.unlink()
    assert kept(stopped) == f"Kept: {stopped}/; no epoch was finished. To go on: etfopt train --resume {stopped}"
    none = tmp_path / "none"
    assert kept(none) == f"Nothing was written to {none}/. To start again: the same command"


def test_a_checkpoint_says_what_it_is(whole: RunResult) -> None:
    facts = json.loads((whole.path / "checkpoints" / "epoch-0004.json").read_text())
    assert facts["format"] == "etfopt checkpoint"
    assert (facts["schema"], facts["epoch"], facts["processes"]) == (1, 4, 1)
