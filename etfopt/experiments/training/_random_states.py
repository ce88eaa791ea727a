"""The global random generators: put back after a run, kept in its checkpoints, and the same after a resumption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

State = dict[str, Any]


def _capture() -> State:
    """Return the states of the generators of PyTorch, NumPy and Python, as tensors and plain values."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - a plugged-in network or data set may draw from it
    state: State = {"torch": torch.get_rng_state(), "python": random.getstate()}
    state["numpy"] = {**numpy, "state": {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(int))}}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch leaves it untyped
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _restore(state: State) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002 - as above
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int, rank: int) -> Iterator[None]:
    """Seed the global generators in this block, each process its own, and put them back after it."""
    before = _capture()
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    torch.manual_seed(int(words[0]))
    random.seed(int(words[1]))
    np.random.seed(int(words[2]))  # noqa: NPY002 - as above
    try:
        yield
    finally:
        _restore(before)


class RandomStates(pl.Callback):
    """Carries the generators from the end of an epoch to the start of the next, through a checkpoint or not.

    Draws between the two epochs have no effect, so an interrupted and an uninterrupted run are the same.
    """

    def __init__(self) -> None:
        self.states: list[State] = []  # one a process

    def on_train_epoch_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Go on from where the last epoch ended."""
        if self.states:
            _restore(self.states[trainer.global_rank])

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Remember where the epoch ended, on every process."""
        self.states = [_capture()]
        if trainer.world_size > 1:
            every: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(every, self.states[0])
            self.states = every

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"states": self.states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.states = state_dict["states"]
