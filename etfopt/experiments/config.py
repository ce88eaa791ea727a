"""What a training run is: one frozen record, checked when it is made and written beside the results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from etfopt._inputs import as_integer, as_nonnegative, as_positive
from etfopt.errors import InputError
from etfopt.experiments.data import DATASETS
from etfopt.files import strict_json
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from etfopt.nn.heads import AnyHead

__all__ = ["HEADS", "TrainConfig", "build_head"]

HEADS = ("learned", "fixed", "nearest")

LARGEST_RATE = 1e38
"""About the largest number of float32."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run. Two runs that differ in `head` alone see the same batches and the same initial backbone.

    Attributes
    ----------
    data : str
        Name of a data set, one of `etfopt.experiments.data.DATASETS`.
    head : str
        "learned", "fixed" or "nearest".
    seed : int
        Seeds the backbone, the head and the order of the batches, each from its own generator.
    epochs, batch_size : int
    learning_rate, momentum, weight_decay : float
        Of SGD; the rate falls to zero as a half cosine over the run.
    width, dim : int
        Hidden width of the network and dimension d of its features.
    temperature : float
        Norm tau of the features, for every head.
    delta, averaging, implicit_gradient
        Of the nearest-ETF head; see `etfopt.nn.NearestETFHead`.

    Raises
    ------
    InputError
        If a name is unknown (the known ones are listed) or a number is out of range.
    """

    data: str = "digits"
    head: str = "nearest"
    seed: int = 0
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    width: int = 128
    dim: int = 64
    temperature: float = 5.0
    delta: float = 1e-3
    averaging: str | float = "paper"
    implicit_gradient: bool = True

    def __post_init__(self) -> None:
        if self.data not in DATASETS:
            raise InputError(f"data = {self.data!r} is not known; choose one of: {', '.join(DATASETS)}")
        if self.head not in HEADS:
            raise InputError(f"head = {self.head!r} is not known; choose one of: {', '.join(HEADS)}")
        for name in ("epochs", "width", "dim"):
            as_integer(getattr(self, name), name, at_least=1)
        as_integer(self.batch_size, "batch_size", at_least=2)  # batch normalisation cannot take one sample
        if as_integer(self.seed, "seed", at_least=0) >= 2**64:
            raise InputError(f"seed must be below 2**64; got {self.seed}")
        if as_positive(self.learning_rate, "learning_rate") > LARGEST_RATE:
            raise InputError(f"learning_rate must be at most {LARGEST_RATE:g}; got {self.learning_rate:g}")
        for name in ("momentum", "weight_decay"):
            as_nonnegative(getattr(self, name), name)
        # the heads' own checks, so that they come before any data are read; the nearest head's whichever is named,
        # since its settings are recorded in any case
        C = DATASETS[self.data].num_classes
        NearestETFHead(max(self.dim, C), C, delta=self.delta, averaging=self.averaging)
        build_head(self, C)

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(strict_json(dataclasses.asdict(self)))


def build_head(config: TrainConfig, num_classes: int) -> AnyHead:
    """Return the head that a configuration names."""
    dim, temperature = config.dim, config.temperature
    if config.head == "learned":
        return LearnedHead(dim, num_classes, temperature=temperature)
    if config.head == "fixed":
        return FixedETFHead(dim, num_classes, temperature=temperature)
    return NearestETFHead(
        dim,
        num_classes,
        delta=config.delta,
        temperature=temperature,
        averaging=config.averaging,
        implicit_gradient=config.implicit_gradient,
    )
