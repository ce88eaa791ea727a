"""One training run: Lightning fits a classifier, and what it measured after every epoch is written down."""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from etfopt._inputs import as_integer
from etfopt.errors import InputError
from etfopt.experiments._termination import heeding_sigterm
from etfopt.experiments.backbones import build_backbone
from etfopt.experiments.classifier import Classifier
from etfopt.experiments.config import TrainConfig, build_head
from etfopt.experiments.data import Images, batches, load_images
from etfopt.files import strict_json

__all__ = ["RunResult", "make_folder", "train"]

WARM_UP_STEPS = 10
OUTPUTS = ("history.json", "class_means.npy", "metrics.csv", "checkpoints/last.ckpt", "config.json")


@dataclass
class RunResult:
    """What a run measured.

    Attributes
    ----------
    config : TrainConfig
    history : list of dict
        One record an epoch, epoch 0 before any training: ``epoch`` and ``train_*``, ``test_*`` measures.
    class_means : ndarray, shape (epochs + 1, d, C)
        Centred class means of the training split.
    step_ms : float
        Median milliseconds of a training step (forward, backward, update), the first ones left out.
    path : Path
        Folder of the run.
    """

    config: TrainConfig
    history: list[dict[str, float]]
    class_means: np.ndarray[Any, np.dtype[np.float64]]
    step_ms: float
    path: Path

    def epochs_to(self, accuracy: float) -> int | None:
        """Return the first epoch after which the training accuracy is at least `accuracy`; None if there is none."""
        reached = (int(record["epoch"]) for record in self.history if record["train_accuracy"] >= accuracy)
        return next(reached, None)


@dataclass
class _Watch(pl.Callback):
    """Times the training steps and reports finished epochs."""

    on_epoch: Callable[[], None] | None
    seconds: list[float] = field(default_factory=list)
    _start: float = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)

    def on_train_epoch_end(self, *_: Any) -> None:
        if self.on_epoch:
            self.on_epoch()

    def step_ms(self) -> float:
        """Return the median step in milliseconds, the first ones left out; NaN if there was none."""
        return 1e3 * statistics.median(self.seconds[WARM_UP_STEPS:] or self.seconds or [math.nan])


def train(
    config: TrainConfig,
    path: Path,
    *,
    images: Images | None = None,
    backbone: nn.Module | None = None,
    on_epoch: Callable[[], None] | None = None,
    threads: int = 1,
    progress_bar: bool = False,
) -> RunResult:
    """Train one network and write its configuration, measures, class means and checkpoint into a folder.

    Parameters
    ----------
    config : TrainConfig
    path : Path
        Folder of the run, made if missing; what an earlier run left there is removed first.
    images : Images, optional
        The data, if they are at hand; otherwise they are loaded by name.
    backbone : nn.Module, optional
        For ``config.backbone.name = "custom"``: any module with features of dimension ``config.backbone.dim``.
    on_epoch : callable, optional
        Called after every epoch.
    threads : int
        CPU threads during the run. On networks as small as the demonstration's, waiting for a second thread costs more
        than it brings, and on a busy machine far more.
    progress_bar : bool
        Whether Lightning draws its own, step by step.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the folder cannot be used, holds files of these names that are of no run, or there are fewer processors
        than threads.
    ConvergenceError
        If the network diverges, naming epoch and step. The measures of finished epochs are kept, here as after Ctrl-C.
    """
    if as_integer(threads, "threads", at_least=1) > (os.cpu_count() or 1):
        raise InputError(f"threads = {threads} is more than the {os.cpu_count()} processors of this machine")
    images = load_images(config.data) if images is None else images
    # what does not fit together is refused before anything changes
    model, watch = _build(config, images, backbone), _Watch(on_epoch)
    make_folder(path)
    _clear(path)
    # the loaders draw from the global generator: it is put back
    with heeding_sigterm() as heed, _quiet_lightning(), _threads(threads), torch.random.fork_rng(devices=[]):
        config.save(path / "config.json")
        try:
            _fit(_trainer(config, path, [heed, watch], progress_bar), model, images)
        finally:
            _save_history(path, model, watch)
    np.save(path / "class_means.npy", model.class_means[-1].numpy())
    return RunResult(config, model.history, torch.stack(model.class_means).numpy(), watch.step_ms(), path)


def make_folder(path: Path) -> None:
    """Make a folder, or raise `InputError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be used as the folder of a run: {error.strerror}") from error


def _clear(path: Path) -> None:
    """Take away what an earlier run left in a folder, so that no two runs are ever mixed; files of others stay."""
    there = [name for name in OUTPUTS if (path / name).exists()]
    if there and not _is_run(path / "config.json"):
        raise InputError(f"{path}: holds {', '.join(there)}, and not of an earlier run; choose another folder")
    try:
        for name in there:  # the configuration, which marks a run, goes last
            (path / name).unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be cleared of the earlier run: {error.strerror}") from error


def _is_run(config: Path) -> bool:
    """Whether a file is the configuration of a run."""
    try:
        record = json.loads(config.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.keys() == TrainConfig().to_dict().keys()


def _fit(trainer: pl.Trainer, model: Classifier, images: Images) -> None:
    """Measure, then train; an interruption surfaces as one, with the finished epochs kept."""
    config, splits = model.config, [batches(images.train), batches(images.test)]
    try:
        trainer.validate(model, splits, verbose=False)
        trainer.fit(model, _training_batches(config, images), splits)
    except SIGTERMException:
        raise
    except SystemExit:
        # Lightning turns Ctrl-C into a bare exit
        raise KeyboardInterrupt from None


def _save_history(path: Path, model: Classifier, watch: _Watch) -> None:
    (path / "history.json").write_text(strict_json({"step_ms": watch.step_ms(), "epochs": model.history}))


def _training_batches(config: TrainConfig, images: Images) -> DataLoader[tuple[Tensor, Tensor]]:
    return batches(images.train, config.training.batch_size, config.seed, config.data.batches)


def _build(config: TrainConfig, images: Images, backbone: nn.Module | None = None) -> Classifier:
    """Build backbone, then head, from the seed alone, so that the backbone is the same under every head."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = build_backbone(config, images, backbone)
        head = build_head(config, images.num_classes)
    return Classifier(backbone, head, config)


def _trainer(config: TrainConfig, path: Path, callbacks: list[pl.Callback], progress_bar: bool) -> pl.Trainer:
    checkpoint = ModelCheckpoint(dirpath=path / "checkpoints", filename="last", enable_version_counter=False)
    return pl.Trainer(
        max_epochs=config.training.epochs,
        gradient_clip_val=config.training.gradient_clip,
        devices=1,
        callbacks=[*callbacks, checkpoint, *([RichProgressBar(leave=False)] if progress_bar else [])],
        logger=CSVLogger(path, name="", version=""),
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notes on hardware and its advice on workers: the data are tensors in memory."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists.*")
            # a note from torch to Lightning's developers
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.* is deprecated.*")
            yield
    finally:
        logger.setLevel(level)
