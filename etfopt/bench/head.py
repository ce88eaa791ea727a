"""Cost of a head in training: steps of a real network with each head in turn, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etfopt.errors import require_extra

require_extra("experiments", "torch", "pytorch_lightning")

import torch
from torch import nn
from torch.nn import functional

from etfopt.bench.node import usable_device, wait
from etfopt.bench.timing import times_in_turn
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
    """Medians over the steps."""

    head: str
    C: int
    batch: int
    device: str
    step: float  # seconds of a training step: forward, loss, backward, SGD
    ratio: float  # median over the rounds of this step's time over that with the learned head in the same round
    alone: float  # seconds of the head by itself, forward and backward, on features of that batch
    share: float  # time that the head adds over the learned one by itself, over the learned head's step


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
    return [row for C in classes for row in _rows(C, batch, rounds, where, on_step)]


def _rows(C: int, batch: int, rounds: int, device: torch.device, on_step: Callable[[], None] | None) -> list[HeadRow]:
    torch.manual_seed(0)
    network = resnet18().to(device)
    heads = {name: make(C).to(device) for name, make in HEADS.items()}
    images = torch.randn(batch, 3, 32, 32, device=device)
    features = torch.randn(batch, DIM, device=device, requires_grad=True)
    labels = torch.arange(batch, device=device) % C

    def step(head: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            loss = functional.cross_entropy(head(network(images), labels), labels)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()

        return run

    def by_itself(head: nn.Module) -> Callable[[], None]:
        def run() -> None:
            features.grad = None
            loss = functional.cross_entropy(head(features, labels), labels)
            loss.backward()  # type: ignore[no-untyped-call] # as above

        return run

    def finish() -> None:
        wait(device)

    steps = times_in_turn({k: step(head) for k, head in heads.items()}, rounds, finish=finish, on_step=on_step)
    alone = times_in_turn({k: by_itself(head) for k, head in heads.items()}, 10 * rounds, finish=finish)
    learned = statistics.median(steps["learned"])
    own = {name: statistics.median(times[rounds:]) for name, times in alone.items()}
    return [
        HeadRow(
            head=name,
            C=C,
            batch=batch,
            device=str(device),
            step=statistics.median(times),
            ratio=statistics.median(a / b for a, b in zip(times, steps["learned"], strict=True)),
            alone=own[name],
            share=(own[name] - own["learned"]) / learned,
        )
        for name, times in steps.items()
    ]
