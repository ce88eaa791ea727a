"""Test accuracy of each head after training loops that running statistics find hard, beside `torch.nn.Linear`."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from etfopt.errors import require_extra

require_extra("experiments", "torch", "pytorch_lightning", "sklearn")

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from etfopt._scalars import as_integer
from etfopt.experiments.training.machine import use_threads
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

__all__ = ["HEADS", "LOOPS", "Loop", "LoopRow", "Problem", "bench_loops", "clusters", "digits"]

MakeHead = Callable[..., nn.Module]
HEADS: dict[str, MakeHead] = {  # called with d, C, and the options of a loop
    "nn.Linear": lambda d, C, **_: nn.Linear(d, C),
    "learned": lambda d, C, **_: LearnedHead(d, C),
    "fixed": FixedETFHead,
    "nearest": NearestETFHead,
}

TEST_SAMPLES = 387
LATE_CLASS = 9


@dataclass(frozen=True)
class Problem:
    """Samples to train and to test on, and a new network with d features below the head."""

    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    network: nn.Module
    d: int
    C: int


def digits(samples: int, relu: bool = False) -> Problem:
    """Return scikit-learn's digits, in an order drawn from the global generator, and a 64-128-64 perceptron.

    Parameters
    ----------
    samples : int
        Training samples: the first so many. The last 387 are for the test.
    relu : bool
        Whether the perceptron ends in a ReLU.

    Returns
    -------
    Problem
    """
    pixels, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(labels))
    inputs, labels = pixels[order].float() / 16, labels[order]
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), *([nn.ReLU()] if relu else [])]
    test = slice(-TEST_SAMPLES, None)
    return Problem(inputs[:samples], labels[:samples], inputs[test], labels[test], nn.Sequential(*layers), 64, 10)


def clusters() -> Problem:
    """Return 100 Gaussian clusters in 128 dimensions, 20 samples of each to train and 20 to test, and a linear layer.

    Centres are N(0, I), and samples centre + 0.5 N(0, I), drawn from the global generator.

    Returns
    -------
    Problem
    """
    d, C = 128, 100
    centres, labels = torch.randn(C, d), torch.arange(C).repeat_interleave(20)
    train, test = (centres[labels] + 0.5 * torch.randn(len(labels), d) for _ in range(2))
    return Problem(train, labels, test, labels, nn.Linear(d, d), d, C)


@dataclass(frozen=True)
class Loop:
    """A plain training loop: SGD with momentum 0.9 on a problem."""

    title: str
    problem: Callable[[], Problem]
    epochs: int = 12
    rate: float = 0.05
    batch: int = 128
    parts: int = 1  # a batch is split into so many, whose gradients are added before a step
    in_turn: bool = False  # samples sorted by class
    late: int = 0  # class 9 is left out of so many epochs, and the accuracy is that on class 9
    options: Mapping[str, Any] = field(default_factory=dict)  # of the ETF heads


LOOPS = {
    "1408": Loop("batches of 128", partial(digits, 1408)),
    "1409": Loop("last batch of one", partial(digits, 1409)),
    "1410": Loop("last batch of two", partial(digits, 1410)),
    "4x32": Loop("accumulation", partial(digits, 1408), parts=4),
    "64x2": Loop("accumulation", partial(digits, 1408), parts=64),
    "128x1": Loop("accumulation", partial(digits, 1408), parts=128),
    "in-turn": Loop("clusters by class", clusters, epochs=5, rate=0.005, batch=20, in_turn=True),
    "in-turn-digits": Loop("digits by class", partial(digits, 1408), in_turn=True),
    "relu": Loop("ReLU features", partial(digits, 1408, relu=True), epochs=25),
    "late": Loop("class 9 comes late", partial(digits, 1408), epochs=14, late=8),
}


@dataclass(frozen=True)
class LoopRow:
    """Test accuracies of a head after a loop, one for each seed."""

    loop: str
    title: str
    head: str
    accuracies: tuple[float, ...]
    median: float
    lowest: float
    highest: float
    seconds: float  # of all runs together
    warned: tuple[str, ...]  # what the heads warned of, each text once


def bench_loops(
    loops: Mapping[str, Loop] = LOOPS,
    seeds: int = 8,
    heads: Mapping[str, MakeHead] = HEADS,
    on_step: Callable[[], None] | None = None,
) -> list[LoopRow]:
    """Train every head by every loop, from each seed, on one thread.

    A seed decides the samples, the network and the batches, which are the same for all heads.

    Parameters
    ----------
    loops : mapping of str to Loop
        Loops by name, `LOOPS` or some of them.
    seeds : int
        Number of runs of each head, with the seeds 0, 1, ...; 8 show the spread.
    heads : mapping of str to callable
        What makes a head from d, C and the options of a loop.
    on_step : callable, optional
        Called after every run.

    Returns
    -------
    list of LoopRow
        One for each loop and head.

    Raises
    ------
    InputError
        If there are no seeds.
    """
    as_integer(seeds, "seeds", at_least=1)
    rows = []
    with use_threads(1):
        for name, loop in loops.items():
            for head, make in heads.items():
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    start, accuracies = time.perf_counter(), []
                    for seed in range(seeds):
                        accuracies.append(_accuracy(loop, make, seed))
                        if on_step:
                            on_step()
                    seconds = time.perf_counter() - start
                warned = tuple(dict.fromkeys(str(warning.message) for warning in caught))
                ends = min(accuracies), max(accuracies)
                middle = statistics.median(accuracies)
                rows.append(LoopRow(name, loop.title, head, tuple(accuracies), middle, *ends, seconds, warned))
    return rows


def _accuracy(loop: Loop, make: MakeHead, seed: int) -> float:
    """Return the test accuracy after one run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        problem = loop.problem()
        order = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # before the head draws, or does not
        head = make(problem.d, problem.C, **loop.options)
    _train(loop, problem, head, order)
    problem.network.eval()
    head.eval()
    counted = problem.test_labels == LATE_CLASS if loop.late else torch.ones_like(problem.test_labels, dtype=torch.bool)
    with torch.no_grad():
        logits = head(problem.network(problem.test_inputs[counted]))
    right = (logits.argmax(1) == problem.test_labels[counted]) & logits.isfinite().all(1)
    return float(right.double().mean())


def _train(loop: Loop, problem: Problem, head: nn.Module, order: torch.Generator) -> None:
    network, inputs, labels = problem.network, problem.inputs, problem.labels
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=loop.rate, momentum=0.9)
    for epoch in range(loop.epochs):
        for batch in _samples(loop, labels, epoch, order).split(loop.batch):  # type: ignore[no-untyped-call] # as below
            optimizer.zero_grad()
            for part in batch.split(loop.batch // loop.parts):
                features = network(inputs[part])
                logits = head(features) if isinstance(head, nn.Linear) else head(features, labels[part])
                loss = functional.cross_entropy(logits, labels[part]) * (len(part) / len(batch))
                loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()


def _samples(loop: Loop, labels: Tensor, epoch: int, order: torch.Generator) -> Tensor:
    """Return the samples of an epoch in the order of training."""
    samples = torch.randperm(len(labels), generator=order)
    if epoch < loop.late:
        samples = samples[labels[samples] != LATE_CLASS]
    return samples[labels[samples].argsort(stable=True)] if loop.in_turn else samples
