"""One training run: Lightning fits a classifier, and what it measured after every epoch is written down."""

from __future__ import annotations

import logging
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

from etfopt._inputs import as_integer
from etfopt.experiments.classifier import Classifier
from etfopt.experiments.config import TrainConfig, build_head
from etfopt.experiments.data import DATASETS, Images, batches
from etfopt.experiments.models import mlp
from etfopt.files import strict_json

__all__ = ["RunResult", "train"]

WARM_UP_STEPS = 10


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


def train(
    config: TrainConfig,
    path: Path,
    *,
    images: Images | None = None,
    on_epoch: Callable[[], None] | None = None,
    threads: int = 1,
    progress_bar: bool = False,
) -> RunResult:
    """Train one network and write its configuration, measures, class means and checkpoint into a folder.

    Parameters
    ----------
    config : TrainConfig
    path : Path
        Folder of the run, made if missing; files of an earlier run there are replaced.
    images : Images, optional
        The data, if they are at hand; otherwise they are loaded by name.
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
    """
    images = DATASETS[config.data].load() if images is None else images
    path.mkdir(parents=True, exist_ok=True)
    config.save(path / "config.json")
    model = _build(config, images)
    watch = _Watch(on_epoch)
    with _quiet_lightning(), _threads(threads):
        trainer = _trainer(config, path, watch, progress_bar)
        splits = [batches(images.train), batches(images.test)]
        trainer.validate(model, splits, verbose=False)
        trainer.fit(model, batches(images.train, config.batch_size, config.seed), splits)
    result = RunResult(
        config=config,
        history=model.history,
        class_means=torch.stack(model.class_means).numpy(),
        step_ms=1e3 * statistics.median(watch.seconds[WARM_UP_STEPS:] or watch.seconds),
        path=path,
    )
    np.save(path / "class_means.npy", result.class_means[-1])
    (path / "history.json").write_text(strict_json({"step_ms": result.step_ms, "epochs": result.history}))
    return result


def _build(config: TrainConfig, images: Images) -> Classifier:
    """Build backbone, then head, from the seed alone, so that the backbone is the same under every head."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = mlp(images.shape, config.width, config.dim)
        head = build_head(config, DATASETS[config.data].num_classes)
    return Classifier(backbone, head, config)


def _trainer(config: TrainConfig, path: Path, watch: _Watch, progress_bar: bool) -> pl.Trainer:
    checkpoint = ModelCheckpoint(dirpath=path / "checkpoints", filename="last", enable_version_counter=False)
    return pl.Trainer(
        max_epochs=config.epochs,
        devices=1,
        callbacks=[watch, checkpoint, *([RichProgressBar(leave=False)] if progress_bar else [])],
        logger=CSVLogger(path, name="", version=""),
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(as_integer(count, "threads", at_least=1))
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
