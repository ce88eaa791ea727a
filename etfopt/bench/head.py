"""What a head costs in training: steps of a real network with each head in turn, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etfopt.errors import require_extra

require_extra("experiments", "torch", "pytorch_lightning")

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._scalars import as_integer
from etfopt.bench.node import usable_device
from etfopt.bench.timing import seconds
from etfopt.experiments.networks.backbones import resnet18
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

__all__ = ["HEADS", "HeadRow", "bench_heads"]

DIM = 512
HEADS: dict[str, Callable[[int], nn.Module]] = {
    "learned": lambda C: LearnedHead(DIM, C),
    "fixed": lambda C: FixedETFHead(DIM, C),
    "nearest, forward only": lambda C: NearestETFHead(DIM, C, implicit_gradient=False),
    "nearest": lambda C: NearestETFHead(DIM, C),
}


@dataclass(frozen=True)
class HeadRow:
    """Medians over the steps.

    Attributes
    ----------
    head : str
    C : int
    batch : int
    device : str
    step : float
        Seconds of a training step: forward, loss, backward, SGD.
    ratio : float
        Median over the rounds of this step's time over that with the learned head in the same round.
    alone : float
        Seconds of the head by itself, forward and backward, on features of that batch.
    share : float
        The time that the head adds over the learned one by itself, over the learned head's step.
    """

    head: str
    C: int
    batch: int
    device: str
    step: float
    ratio: float
    alone: float
    share: float


def bench_heads(
    classes: Sequence[int] = (10, 100),
    batch: int = 128,
    rounds: int = 5,
    device: str = "cpu",
    on_step: Callable[[], None] | None = None,
) -> list[HeadRow]:
    """Time a training step of a ResNet-18 on 32 x 32 images with every head, in turn, for each number of classes.

    Each head takes `rounds` timed steps after one that warms up; `on_step` is called after every step.
    """
    where = usable_device(device)
    as_integer(batch, "batch", at_least=2)  # batch normalisation cannot take one
    as_integer(rounds, "rounds", at_least=1)
    for C in classes:
        as_integer(C, "classes", at_least=2)
    return [row for C in classes for row in _rows(C, batch, rounds, where, on_step or (lambda: None))]


def _rows(C: int, batch: int, rounds: int, device: torch.device, on_step: Callable[[], None]) -> list[HeadRow]:
    torch.manual_seed(0)
    network = resnet18().to(device)
    heads = {name: make(C).to(device) for name, make in HEADS.items()}
    images, features = torch.randn(batch, 3, 32, 32, device=device), torch.randn(batch, DIM, device=device)
    labels = torch.arange(batch, device=device) % C
    steps: dict[str, list[float]] = {name: [] for name in heads}
    alone: dict[str, list[float]] = {name: [] for name in heads}
    for _ in range(rounds + 1):  # the first warms up
        for name, head in heads.items():
            optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=1e-3)
            steps[name].append(_step(nn.Sequential(network), head, images, labels, optimizer))
            on_step()
    for _ in range(10 * rounds):
        for name, head in heads.items():
            alone[name].append(_step(nn.Identity(), head, features.clone().requires_grad_(), labels, None))
    learned = statistics.median(steps["learned"][1:])
    own = {name: statistics.median(times[rounds:]) for name, times in alone.items()}
    return [
        HeadRow(
            head=name,
            C=C,
            batch=batch,
            device=str(device),
            step=statistics.median(times[1:]),
            ratio=statistics.median(a / b for a, b in zip(times[1:], steps["learned"][1:], strict=True)),
            alone=own[name],
            share=(own[name] - own["learned"]) / learned,
        )
        for name, times in steps.items()
    ]


def _step(
    network: nn.Module, head: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer | None
) -> float:
    def run() -> None:
        loss = functional.cross_entropy(head(network(inputs), labels), labels)
        if optimizer:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        if optimizer:
            optimizer.step()
        if inputs.device.type == "cuda":
            torch.cuda.synchronize(inputs.device)

    return seconds(run)
