"""Classes that come in sessions: which come when, and the images of each session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from etfopt.errors import InputError
from etfopt.experiments.data.images import Images, Split
from etfopt.experiments.data.selection import ranks_in_class

if TYPE_CHECKING:
    from etfopt.experiments.settings import TrainConfig

__all__ = ["Session", "sessions_of"]


@dataclass(frozen=True)
class Session:
    """One session of a run; a run without later sessions has this one alone.

    Attributes
    ----------
    number : int
        0 is the base session.
    start, end : int
        Epochs of the run that are finished before and after it.
    ends : tuple of int
        Number of classes after each session of the run, the later ones included.
    train, test : Tensor, shapes (m,) and (k,), int64
        Which images of the splits it trains on and is tested on.
    images : Images
        All images, with classes numbered in the order in which they come.
    """

    number: int
    start: int
    end: int
    ends: tuple[int, ...]
    train: Tensor
    test: Tensor
    images: Images

    @property
    def classes(self) -> int:
        """Number of classes after this session."""
        return self.ends[self.number]

    @property
    def old(self) -> int:
        """Number of classes before this session."""
        return self.ends[self.number - 1] if self.number else 0

    @property
    def epochs(self) -> int:
        """Number of its epochs."""
        return self.end - self.start

    def splits(self) -> tuple[Split, Split]:
        """Return the images that the session trains on, and those of all classes so far that it is tested on.

        Returns
        -------
        train, test : Split
        """
        if len(self.ends) == 1:
            return self.images.train, self.images.test
        return self.images.train.part(self.train), self.images.test.part(self.test)


def sessions_of(images: Images, config: TrainConfig) -> list[Session]:
    """Return the sessions of a run, the base session first.

    The run's seed draws the order of the classes and the images of each: runs of a seed see the same, whatever the
    head. The images of an older class that a later session trains on are the first of those that it came with. Pixels
    stay standardised by the whole training split.

    Parameters
    ----------
    images : Images
        The data, with all classes.
    config : TrainConfig
        Seed, epochs and sessions.

    Returns
    -------
    list of Session

    Raises
    ------
    InputError
        If too few classes are left for the base session, or a class has fewer images than it is to come with.

    Examples
    --------
    >>> from etfopt.experiments.data import load_images
    >>> from etfopt.experiments.data.sessions import sessions_of
    >>> from etfopt.experiments.settings import TrainConfig
    >>> config = TrainConfig().with_settings({"sessions.count": 3, "sessions.classes": 2, "sessions.images": 5})
    >>> base, *later = sessions_of(load_images(config.data), config)
    >>> base.classes, [(session.classes, len(session.train)) for session in later]
    (4, [(6, 10), (8, 10), (10, 10)])
    """
    plan, C, first = config.sessions, images.num_classes, config.training.epochs
    base = plan.base(C)
    ends = tuple(range(base, C + 1, plan.classes)) if plan.count else (C,)
    generator = torch.Generator().manual_seed(config.seed)
    drawn = plan.count and plan.order == "drawn"
    order = torch.randperm(C, generator=generator) if drawn else torch.arange(C)
    number_of = order.argsort()
    images = Images(_renumbered(images.train, number_of), _renumbered(images.test, number_of), C)
    labels, tested = images.train.labels, images.test.labels
    rank = ranks_in_class(labels, C, generator) if plan.count else torch.zeros_like(labels)
    came = torch.bincount(labels, minlength=C)
    if plan.images is not None:
        _require_images(came[base:], plan.images)
        came[base:] = plan.images
    found = []
    for number, end in enumerate(ends):
        old = ends[number - 1] if number else 0
        most = torch.where(torch.arange(C) < old, came.clamp(max=plan.buffer), came)
        most[end:] = 0
        start = first + (number - 1) * plan.epochs if number else 0
        chosen = (rank < most[labels]).nonzero().flatten(), (tested < end).nonzero().flatten()
        found.append(Session(number, start, first + number * plan.epochs, ends, *chosen, images))
    return found


def _renumbered(split: Split, number: Tensor) -> Split:
    return split.relabelled(number[split.labels])


def _require_images(counts: Tensor, least: int) -> None:
    if int(counts.min()) < least:
        raise InputError(
            f"sessions.images = {least}: a class that comes later has {int(counts.min())} training images; set it "
            "smaller, or leave it out to take all"
        )
