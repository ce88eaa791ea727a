"""Checkpoints: one an epoch, put in place whole, the one before kept, and known by a digest when they are read.

A checkpoint is what ``torch.save`` writes, a zip archive, whose comment is a line of JSON: format, schema, epoch,
digest of the configuration, and the SHA-256 of the archive as it is without the comment. So ``torch.load`` reads it,
``unzip -z`` shows what it is, and no part of one is ever taken for the whole.
"""

from __future__ import annotations

import hashlib
import io
import json
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
from etfopt.experiments.training.files import SCHEMA, make_folder, write_atomically
from etfopt.files._text import parse_json, read_bounded

__all__ = ["AtomicCheckpoints", "EpochCheckpoint", "Identity", "checkpoints", "choose", "load", "prune", "verify"]

FORMAT = "etfopt checkpoint"
KEPT = 2
LARGEST = 2**36  # bytes of a checkpoint: 64 GiB
LENGTH = 2  # bytes of the length of the comment, at the end of an archive without one


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to.

    Attributes
    ----------
    config : str
        Digest of the configuration.
    processes : int
        How many took part.
    precision : str
        As Lightning names it.
    """

    config: str
    processes: int
    precision: str


class AtomicCheckpoints(CheckpointIO):
    """How Lightning reads and writes checkpoints here; the run's `EpochCheckpoint` says what they are."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; see `write_atomically`."""
        del storage_options  # the interface has it, and there are none
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        facts = {"format": FORMAT, "schema": SCHEMA, **checkpoint["etfopt"]}
        comment = json.dumps({**facts, "sha256": hashlib.sha256(content).hexdigest()}).encode()
        path = Path(path)
        make_folder(path.parent)
        write_atomically(path, content[:-LENGTH] + len(comment).to_bytes(LENGTH, "little") + comment)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # noqa: ARG002 - the interface has it, and nothing else is ever read
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load`."""
        return load(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class EpochCheckpoint(Checkpoint):
    """Writes a checkpoint at the end of every epoch, after all else, and then removes those before the last two.

    Parameters
    ----------
    folder : Path
        For the checkpoints, made if missing.
    identity : Identity
        Written into each of them.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder, self.identity = folder, identity

    def on_save_checkpoint(self, trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say what the checkpoint belongs to."""
        checkpoint["etfopt"] = {"epoch": trainer.current_epoch + 1, **asdict(self.identity)}

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Write the epoch's checkpoint."""
        epoch = trainer.current_epoch + 1
        trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt")
        if trainer.is_global_zero:
            prune(self.folder)


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a folder by their epochs, the newest first. They are not opened.

    Parameters
    ----------
    folder : Path
        Of the checkpoints; it may be missing.

    Returns
    -------
    dict of int to Path
        By epoch, the newest first.
    """
    found = {path: re.fullmatch(r"epoch-(\d{4,})\.ckpt", path.name) for path in folder.glob("epoch-*.ckpt")}
    return dict(sorted(((int(name[1]), path) for path, name in found.items() if name), reverse=True))


def prune(folder: Path) -> None:
    """Remove all checkpoints but the last two.

    Parameters
    ----------
    folder : Path
        Of the checkpoints.
    """
    for old in list(checkpoints(folder).values())[KEPT:]:
        old.unlink()


def verify(path: Path, identity: Identity | None = None) -> dict[str, Any]:
    """Return what a checkpoint says of itself, after a look at every byte of it.

    Parameters
    ----------
    path : Path
        Of the checkpoint.
    identity : Identity, optional
        What it must belong to.

    Returns
    -------
    dict
        Library, versions, epoch, digests.

    Raises
    ------
    InputError
        Naming file and reason: missing, truncated or damaged, of another library, of another version of etfopt, or
        (given an identity) of another configuration, number of processes or precision.
    """
    facts, _ = _verified(path)
    if identity is not None and facts["config"] != identity.config:
        raise InputError(f"{path}: belongs to another configuration than this run's config.json")
    for name, unit in (("processes", "process(es)"), ("precision", "precision")):
        if identity is not None and facts[name] != (own := getattr(identity, name)):
            raise InputError(f"{path}: was written with {facts[name]} {unit}, and this is {own}; continue as it began")
    return facts


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint: tensors and plain values, nothing that could run.

    Parameters
    ----------
    path : Path
        Of the checkpoint.
    map_location : device
        Where the tensors go.

    Returns
    -------
    dict
        As Lightning wrote it.

    Raises
    ------
    InputError
        As `verify` does.
    """
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
    content = read_bounded(path, LARGEST)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            comment, entries = archive.comment, archive.infolist()
    except Exception as error:  # zipfile raises what it happens to meet in a damaged archive
        raise InputError(f"{path}: is truncated or damaged, or no checkpoint: {error}") from error
    try:
        facts = parse_json(comment)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of etfopt, but a file of something else")
    if facts.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: was written by another version of etfopt (schema {facts.get('schema')}); this one reads {SCHEMA}"
        )
    if missing := [key for key in ("sha256", *Identity.__annotations__) if key not in facts]:
        raise InputError(f"{path}: is damaged: it does not say {', '.join(missing)}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):  # it could unpack to any size
        raise InputError(f"{path}: is not a checkpoint of etfopt: it is compressed, which torch.save does not do")
    content = content[: -len(comment) - LENGTH] + bytes(LENGTH)
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise InputError(f"{path}: is damaged: its SHA-256 is not the one it was written with")
    return facts, content


def choose(folder: Path, identity: Identity, from_epoch: int | None = None) -> Path | None:
    """Return the checkpoint to continue from: the newest or that of an epoch; None if there is none at all.

    Parameters
    ----------
    folder : Path
        Of the checkpoints.
    identity : Identity
        What the checkpoint must belong to.
    from_epoch : int, optional
        None is the newest.

    Returns
    -------
    Path or None
        None if there is no checkpoint at all.

    Raises
    ------
    InputError
        If it cannot be used; the others that can be are named, with the option that takes them.
    """
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
