"""Cost of a head in training: steps of a real network with each head in turn, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etfopt.errors import require_extra

require_extra("experiments", "torch", "pytorch_lightning")

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt.bench.node import usable_device, wait
from etfopt.bench.timing import times_in_turn
from etfopt.experiments.networks.backbones import resnet18
from etfopt.experiments.training.machine import use_threads
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

__all__ = ["HEADS", "STATISTICS_SHAPES", "HeadRow", "StatisticsRow", "bench_heads", "bench_statistics"]

DIM = 512
HEADS: dict[str, Callable[[int], nn.Module]] = {
    "learned": lambda C: LearnedHead(DIM, C),
    "fixed": lambda C: FixedETFHead(DIM, C),
    "nearest, forward only": lambda C: NearestETFHead(DIM, C, implicit_gradient=False),
    "nearest": lambda C: NearestETFHead(DIM, C),
}


STATISTICS_SHAPES = ((128, 512, 10), (128, 512, 100), (256, 64, 10))


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


@dataclass(frozen=True)
class StatisticsRow:
    """Median seconds of a step of the nearest head by itself, forward and backward, by the statistics that it keeps."""

    batch: int
    d: int
    C: int
    device: str
    running: float
    paper: float
    ratio: float  # median over the rounds of the first time over the second


def bench_statistics(
    shapes: Sequence[tuple[int, int, int]] = STATISTICS_SHAPES, rounds: int = 200, device: str = "cpu"
) -> list[StatisticsRow]:
    """Time the nearest head with running statistics against the paper's, in turn, for each batch, d and C.

    On the CPU by the CPU time of one thread, in which other programs do not count.
    """
    where = usable_device(device)
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    rows = []
    for batch, d, C in shapes:
        torch.manual_seed(0)
        features, labels = _batch(batch, d, C, where)
        steps = {
            kind: _by_itself(NearestETFHead(d, C, statistics=kind, temperature="auto").to(where), features, labels)
            for kind in ("running", "paper")
        }
        with use_threads(1):
            times = times_in_turn(steps, rounds, finish=lambda: wait(where), clock=clock)
        ratio = statistics.median(a / b for a, b in zip(times["running"], times["paper"], strict=True))
        medians = {kind: statistics.median(taken) for kind, taken in times.items()}
        rows.append(StatisticsRow(batch, d, C, str(where), **medians, ratio=ratio))
    return rows


def _batch(batch: int, d: int, C: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return features that ask for a gradient, and labels of all classes in turn."""
    features = torch.randn(batch, d, device=device, requires_grad=True)
    return features, torch.arange(batch, device=device) % C


def _by_itself(head: nn.Module, features: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return what runs a head forward and backward."""

    def run() -> None:
        features.grad = None
        loss = functional.cross_entropy(head(features, labels), labels)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    return run


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
    features, labels = _batch(batch, DIM, C, device)

    def step(head: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            loss = functional.cross_entropy(head(network(images), labels), labels)
            loss.backward()  # type: ignore[no-untyped-call] # as above
            optimizer.step()

        return run

    def finish() -> None:
        wait(device)

    steps = times_in_turn({k: step(head) for k, head in heads.items()}, rounds, finish=finish, on_step=on_step)
    each = {k: _by_itself(head, features, labels) for k, head in heads.items()}
    alone = times_in_turn(each, 10 * rounds, finish=finish)
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
