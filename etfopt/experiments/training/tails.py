"""Measures of imbalanced classes: accuracy of frequent and of rare classes, and which geometry the class means have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from etfopt.frames import seli
from etfopt.metrics import NeuralCollapse

__all__ = ["GROUPS", "TailMeasures", "groups", "is_imbalanced"]

GROUPS = ("head", "middle", "tail")
LEAST_RATIO = 2
"""Classes are imbalanced where the most frequent has so many times the samples of the rarest."""


def is_imbalanced(counts: Tensor) -> bool:
    """Return whether there is a head and a tail: three classes or more, none empty, the most frequent twice the rarest.

    Parameters
    ----------
    counts : Tensor, shape (C,)
        Training samples of each class.

    Returns
    -------
    bool
    """
    return len(counts) >= len(GROUPS) and bool(counts.max() >= LEAST_RATIO * counts.min() > 0)


def groups(counts: Tensor) -> list[Tensor]:
    """Return the classes of `GROUPS`: the C // 3 of most training samples, the rest, and the C // 3 of fewest.

    Thirds hold classes at every imbalance. Fixed numbers of samples, such as more than 100 and fewer than 20, would
    leave groups empty. Of equally frequent classes the one of the lower label comes first.

    Parameters
    ----------
    counts : Tensor, shape (C,)
        Training samples of each class.

    Returns
    -------
    list of Tensor
        Labels.
    """
    order, third = counts.argsort(descending=True, stable=True), len(counts) // len(GROUPS)
    return [order[:third], order[third : len(counts) - third], order[len(counts) - third :]]


class TailMeasures(nn.Module):
    """The measures of one split that imbalanced classes ask for.

    ``accuracy_head``, ``accuracy_middle`` and ``accuracy_tail`` are means over the classes of a group.
    ``distance_to_simplex`` and ``distance_to_seli`` are ``frame_distance_means`` of `etfopt.metrics.NeuralCollapse`:
    the least squared distance of the class means, rotated, scaled and moved, to the frame, relative to their squared
    norm. They are left out where d < C - 1, since neither frame fits.

    Parameters
    ----------
    counts : Tensor, shape (C,)
        Training samples of each class.
    dim : int
        Dimension d of the features.
    """

    distances: Any  # metrics by name

    def __init__(self, counts: Tensor, dim: int) -> None:
        super().__init__()
        C = len(counts)
        self.accuracy = MulticlassAccuracy(num_classes=C, average=None)
        self.groups = groups(counts)
        frames: dict[str, Any] = {"simplex": "reduced", "seli": seli(counts.tolist()).F_H} if dim >= C - 1 else {}
        self.distances = nn.ModuleDict(
            {
                name: NeuralCollapse(num_classes=C, dim=dim, measures=["frame_distance_means"], frame=frame)
                for name, frame in frames.items()
            }
        )

    def update(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Add a batch of features as the head sees them."""
        self.accuracy.update(torch.addmm(bias.double(), features.double(), weight.double().T), labels)
        for distance in self.distances.values():
            distance.update(features, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the measures by name. Every rank has to call this."""
        by_class = self.accuracy.compute().double()
        found = {f"accuracy_{name}": by_class[group].mean() for name, group in zip(GROUPS, self.groups, strict=True)}
        distances = {name: metric.compute()["frame_distance_means"] for name, metric in self.distances.items()}
        return found | {f"distance_to_{name}": distance for name, distance in distances.items()}

    def reset(self) -> None:
        """Forget everything."""
        self.accuracy.reset()
        for distance in self.distances.values():
            distance.reset()
