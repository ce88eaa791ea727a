"""Checkpoints: one for every epoch, the last two kept, and verified by a digest before they are read.

A checkpoint is a pair of files. ``epoch-0003.ckpt`` is what ``torch.save`` writes. ``epoch-0003.json``, written after
it, says what it belongs to and its SHA-256; without a valid one, the checkpoint is not used. Each file appears
completely or not at all, so a pair that matches is complete, whenever the process was killed.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from etfopt.errors import InputError
from etfopt.experiments.training._records import read_json, write_json
from etfopt.files import make_folder, write_atomically
from etfopt.files._text import read_bounded

FORMAT = "etfopt checkpoint"
KEPT = 2
LARGEST = 2**36  # bytes of a checkpoint: 64 GiB
NAME = re.compile(r"epoch-(\d{4,})\.(?:ckpt|json)")


@dataclass(frozen=True)
class Identity:
    """The run that a checkpoint belongs to: digest of its configuration, number of processes, Lightning's precision."""

    config: str
    processes: int
    precision: str


class AtomicCheckpoints(CheckpointIO):
    """Lightning's way to read and write checkpoints; `EpochCheckpoint` adds the run that they belong to."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the checkpoint, then the file that vouches for it."""
        del storage_options  # the interface has it, and there are none
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        make_folder(path.parent)
        path.with_suffix(".json").unlink(missing_ok=True)  # it vouches for an earlier file of this name
        write_atomically(path, content)
        digest = hashlib.sha256(content).hexdigest()
        write_json(path.with_suffix(".json"), {"format": FORMAT, **checkpoint["etfopt"], "sha256": digest})

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # noqa: ARG002 - the interface has it, and nothing else is ever read
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load`."""
        return load(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, its digest first."""
        for file in (Path(path).with_suffix(".json"), Path(path)):
            file.unlink(missing_ok=True)


class EpochCheckpoint(Checkpoint):
    """Writes a checkpoint after every epoch, when all else is recorded, and removes those before the last two."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder, self.identity = folder, identity

    def on_save_checkpoint(self, trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the run that the checkpoint belongs to."""
        checkpoint["etfopt"] = {"epoch": trainer.current_epoch + 1, **asdict(self.identity)}

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Write the epoch's checkpoint."""
        epoch = trainer.current_epoch + 1
        trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt")
        if trainer.is_global_zero:
            prune(self.folder)


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a folder by epoch, the newest first, without opening them.

    A checkpoint that has no ``.json`` beside it is left out: its process was killed before it was complete.
    """
    found = _by_epoch(folder)
    pairs = {epoch: files[0].with_suffix(".ckpt") for epoch, files in found.items() if len(files) == 2}
    return dict(sorted(pairs.items(), reverse=True))


def _by_epoch(folder: Path) -> dict[int, list[Path]]:
    """Return all files of checkpoints by epoch; of each pair the ``.json`` comes first."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("epoch-*"), key=lambda path: path.suffix, reverse=True):
        if name := NAME.fullmatch(path.name):
            found.setdefault(int(name[1]), []).append(path)
    return found


def prune(folder: Path) -> None:
    """Remove all files of checkpoints older than the last two complete ones."""
    oldest = min(list(checkpoints(folder))[:KEPT], default=0)
    for epoch, files in _by_epoch(folder).items():
        for file in files if epoch < oldest else ():
            file.unlink()


def files_after(folder: Path, epoch: int) -> list[Path]:
    """Return the files of all checkpoints after an epoch, in the order in which they can be removed."""
    return [file for e, files in _by_epoch(folder).items() if e > epoch for file in files]


def verify(path: Path, identity: Identity | None = None) -> dict[str, Any]:
    """Check every byte of a checkpoint, and return what its ``.json`` file says."""
    facts, _ = _verified(path)
    if identity is not None and facts["config"] != identity.config:
        raise InputError(f"{path}: belongs to another configuration than this run's config.json")
    for name, unit in (("processes", "process(es)"), ("precision", "precision")):
        if identity is not None and facts[name] != (own := getattr(identity, name)):
            raise InputError(f"{path}: was written with {facts[name]} {unit}, and this is {own}; continue as it began")
    return facts


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint: tensors and plain values, no code."""
    _, content = _verified(path)
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(content), map_location, weights_only=True)
    except Exception as error:  # the unpickler raises what it happens to meet
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read by this version of torch: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: is not a checkpoint of etfopt: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _verified(path: Path) -> tuple[dict[str, Any], bytes]:
    facts = read_json(path.with_suffix(".json"))
    if facts.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of etfopt; name the folder of a run of etfopt")
    if missing := [key for key in ("epoch", "sha256", *Identity.__annotations__) if key not in facts]:
        raise InputError(f"{path.with_suffix('.json')}: is damaged: it does not say {', '.join(missing)}")
    content = read_bounded(path, LARGEST)
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise InputError(f"{path}: is damaged: its SHA-256 is not the one it was written with")
    return facts, _uncompressed(path, content)


def _uncompressed(path: Path, content: bytes) -> bytes:
    """Refuse an archive that could unpack to any size; ``torch.save`` does not compress."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises whatever it meets in a damaged archive
        raise InputError(f"{path}: is not a checkpoint of etfopt: {error}") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: is not a checkpoint of etfopt: it is compressed, which torch.save does not do")
    return content


def choose(folder: Path, identity: Identity, from_epoch: int | None = None) -> Path | None:
    """Return the checkpoint to resume from, the newest or that of an epoch; None if there is none at all."""
    found = checkpoints(folder)
    if not found and not from_epoch:
        return None
    epoch = max(found) if from_epoch is None else from_epoch
    try:
        if epoch not in found:
            raise InputError(f"{folder}: holds no checkpoint of epoch {epoch}")
        verify(found[epoch], identity)
    except InputError as error:
        offers = " or ".join(f"--from-epoch {e}" for e in found if e != epoch and _usable(found[e], identity))
        offer = f"there are whole ones before it: use {offers}" if offers else "no other checkpoint is whole"
        raise InputError(f"{error}; {offer}") from error
    return found[epoch]


def _usable(path: Path, identity: Identity) -> bool:
    try:
        verify(path, identity)
    except InputError:
        return False
    return True
