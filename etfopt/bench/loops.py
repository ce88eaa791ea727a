"""Test accuracy of each head after training loops that running statistics find hard, beside `torch.nn.Linear`."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from etfopt.errors import MissingExtraError, require_extra

require_extra("experiments", "torch", "pytorch_lightning", "sklearn")

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._scalars import as_choice, as_integer
from etfopt.bench import _trainer
from etfopt.bench._loop_problems import Problem, clusters, digits, logits_of
from etfopt.experiments.training.machine import use_threads
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

__all__ = ["HEADS", "LOOPS", "Loop", "LoopRow", "Problem", "bench_loops", "choose_loops"]

MakeHead = Callable[..., nn.Module]
HEADS: dict[str, MakeHead] = {  # called with d, C, and the options of a loop
    "nn.Linear": lambda d, C, **_: nn.Linear(d, C),
    "learned": lambda d, C, **_: LearnedHead(d, C),
    "fixed": FixedETFHead,
    "nearest": NearestETFHead,
    "nearest, paper": partial(NearestETFHead, statistics="paper"),
    "fixed, paper": partial(FixedETFHead, statistics="paper"),
}

LATE_CLASS = 9


@dataclass(frozen=True)
class Loop:
    """A training loop: a plain one with SGD at momentum 0.9, or Hugging Face's Trainer with its defaults."""

    title: str
    problem: Callable[[], Problem]
    epochs: int = 12
    rate: float = 0.05
    batch: int = 128
    parts: int = 1  # a batch is split into so many, whose gradients are added before a step
    in_turn: bool = False  # samples sorted by class
    late: int = 0  # class 9 is left out of so many epochs, and the accuracy is that on class 9
    options: Mapping[str, Any] = field(default_factory=dict)  # of the ETF heads
    trainer: bool = False

    def scaled(self, factor: float) -> Loop:
        """Return the loop with so many times its epochs, at least one."""
        return replace(self, epochs=max(1, round(factor * self.epochs)), late=round(factor * self.late))


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
    "first-at-161": Loop("class 9 in one step", partial(clusters, 64, 10), epochs=161, rate=0.005, batch=200, late=160),
    "trainer-512": Loop("Hugging Face", partial(digits, 512), rate=1e-3, batch=32, trainer=True),
    "trainer-513": Loop("Hugging Face", partial(digits, 513), rate=1e-3, batch=32, trainer=True),
}


def choose_loops(names: Sequence[str] = ()) -> tuple[dict[str, Loop], list[str]]:
    """Return the named loops, or all that can run here, and a line for each that is left out.

    Parameters
    ----------
    names : sequence of str
        Names of `LOOPS`. Empty means all.

    Returns
    -------
    loops, notes : dict of str to Loop, list of str
        The loops by name, and why others are left out.

    Raises
    ------
    InputError
        If a name is unknown.
    MissingExtraError
        If a loop that is named needs a package that is not installed.
    """
    loops, left_out = {}, []
    for name in (as_choice(name, "rows", [*LOOPS]) for name in names or LOOPS):
        try:
            if LOOPS[name].trainer:
                _trainer.require()
            loops[name] = LOOPS[name]
        except MissingExtraError as error:
            if names:
                raise
            left_out.append(f"{name} is left out: {error}")
    return loops, left_out


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
    seconds: float  # CPU time of all runs together
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
                    start, accuracies = time.process_time(), []
                    for seed in range(seeds):
                        accuracies.append(_accuracy(loop, make, seed))
                        if on_step:
                            on_step()
                    seconds = time.process_time() - start
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
        order = int(torch.randint(2**31, ()))  # before the head, which may draw too
        head = make(problem.d, problem.C, **loop.options)
        if loop.trainer:
            _trainer.train(problem, head, epochs=loop.epochs, rate=loop.rate, batch=loop.batch, seed=order)
        else:
            _train(loop, problem, head, torch.Generator().manual_seed(order))
    problem.network.eval()
    head.eval()
    inputs, labels = problem.test_inputs, problem.test_labels
    if loop.late:
        inputs, labels = inputs[labels == LATE_CLASS], labels[labels == LATE_CLASS]
    with torch.no_grad():
        logits = head(problem.network(inputs))
    right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
    return float(right.double().mean())


def _train(loop: Loop, problem: Problem, head: nn.Module, order: torch.Generator) -> None:
    network, inputs, labels = problem.network, problem.inputs, problem.labels
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=loop.rate, momentum=0.9)
    for epoch in range(loop.epochs):
        for batch in _samples(loop, labels, epoch, order).split(loop.batch):  # type: ignore[no-untyped-call] # as below
            optimizer.zero_grad()
            for part in batch.split(loop.batch // loop.parts):
                logits = logits_of(head, network(inputs[part]), labels[part])
                loss = functional.cross_entropy(logits, labels[part]) * (len(part) / len(batch))
                loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()


def _samples(loop: Loop, labels: Tensor, epoch: int, order: torch.Generator) -> Tensor:
    """Return the samples of an epoch in the order of training."""
    samples = torch.randperm(len(labels), generator=order)
    if epoch < loop.late:
        samples = samples[labels[samples] != LATE_CLASS]
    return samples[labels[samples].argsort(stable=True)] if loop.in_turn else samples
