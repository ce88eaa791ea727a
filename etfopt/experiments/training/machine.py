"""The Lightning trainer of a run, and the surroundings it needs: threads, quiet, which process this is."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from etfopt.errors import InputError
from etfopt.experiments.settings import Machine, TrainingConfig
from etfopt.experiments.training._checkpoints import AtomicCheckpoints

__all__ = ["build_trainer", "process_rank", "quiet_lightning", "use_threads"]


def build_trainer(machine: Machine, training: TrainingConfig, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Return the trainer of a run.

    Parameters
    ----------
    machine : Machine
        Where it runs.
    training : TrainingConfig
        Epochs and clipping.
    callbacks : sequence of Callback
        Recorder, checkpoints and the like.

    Returns
    -------
    pl.Trainer
        Without a logger of its own.

    Raises
    ------
    InputError
        If Lightning refuses the machine.
    """
    on_gpu = machine.accelerator in ("gpu", "cuda") or (machine.accelerator == "auto" and torch.cuda.is_available())
    try:
        return pl.Trainer(
            max_epochs=training.epochs,
            gradient_clip_val=training.gradient_clip,
            accelerator=machine.accelerator,
            devices=machine.devices,
            strategy=machine.strategy,
            precision=machine.precision,  # type: ignore[arg-type] # Lightning checks the string
            sync_batchnorm=on_gpu and machine.devices > 1,
            use_distributed_sampler=False,  # its samplers repeat samples to fill the last batch
            plugins=[AtomicCheckpoints()],
            callbacks=[*callbacks],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise InputError(f"{machine}: Lightning refuses this: {error}") from error


def process_rank() -> int:
    """Return the rank of this process as its launcher says, before Lightning has started; 0 without a launcher.

    Returns
    -------
    int
        From 0.
    """
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Use so many CPU threads in this block.

    Parameters
    ----------
    count : int
        For `torch.set_num_threads`; what was set before comes back after the block.

    Yields
    ------
    None
        The block runs with so many.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


UNNEEDED = (
    ".*does not have many workers.*",
    # of later sessions, where parts are frozen, or nothing is left to train
    ".*module\\(s\\) in eval mode at the start of training.*",
    ".*`training_step` returned `None`.*",
    ".*`LightningModule.configure_optimizers` returned `None`.*",
    ".*treespec, LeafSpec.* is deprecated.*",  # a note from torch to Lightning's developers
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notes on hardware and its advice on workers: the data are tensors in memory.

    Yields
    ------
    None
        The block runs in silence.
    """
    loggers: list[Any] = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in UNNEEDED:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
