"""The measures of one split of the data under a fixed network, exact whatever the batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from etfopt.experiments.networks.heads import AnyHead
from etfopt.experiments.training.tails import TailMeasures, is_imbalanced
from etfopt.metrics import CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank

__all__ = ["Measured", "SplitMeasures"]


def predicted(f: Tensor, head: AnyHead) -> Tensor:
    """Return the classes of features as the head sees them, by float64 logits."""
    return (f.double() @ head.weight.double().mT + head.bias.double()).argmax(dim=1)


@dataclass(frozen=True)
class Measured:
    """What was measured on a split.

    Attributes
    ----------
    values : dict
        Every measure by name.
    class_means : Tensor, shape (d, C)
        Centred class means, float64, on the CPU.
    margins : Tensor, shape (n,)
        All cosine margins, in ascending order (the curve P_CM), float64, on the CPU.
    """

    values: dict[str, float]
    class_means: Tensor
    margins: Tensor


class _MeanLoss(Metric):
    """Mean over all samples of losses that come as means over batches, in float64."""

    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor, n: int) -> None:
        """Add the mean of a batch of n samples; that of none is not looked at."""
        if n:
            self.total, self.count = self.total + n * mean.detach(), self.count + n

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.count


class SplitMeasures(nn.Module):
    """The measures of one split, for features as the head sees them.

    One pass gives what sums can give. The margins need the global mean and the nearest class mean needs them all, and
    both are known only then: the features of this process's batches are kept for a second pass, in their own
    precision, n d numbers in all.

    Parameters
    ----------
    head : NearestETFHead, FixedETFHead or LearnedHead
        Gives d and C.
    counts : Tensor, shape (C,)
        Training samples of each class. Imbalanced classes have more measures, see `TailMeasures`.
    """

    def __init__(self, head: AnyHead, counts: Tensor) -> None:
        super().__init__()
        self.loss = _MeanLoss()
        self.collapse = NeuralCollapse(num_classes=head.num_classes, dim=head.dim)
        self.rank = NumericalRank(num_classes=head.num_classes, dim=head.dim)
        self.tails = TailMeasures(counts, head.dim) if is_imbalanced(counts) else None
        self._kept: list[tuple[Tensor, Tensor]] = []

    def update(self, features: Tensor, labels: Tensor, head: AnyHead, loss: Tensor) -> None:
        """Add a batch."""
        f = head.normalize(features)
        self.collapse.update(f, labels, head.weight, head.bias)
        self.rank.update(f, labels, head.weight, head.bias)
        if self.tails:
            self.tails.update(f, labels, head.weight, head.bias)
        self._kept.append((f.detach(), labels))
        self.loss.update(loss, len(labels))

    def right_by_class(self, head: AnyHead) -> tuple[Tensor, Tensor]:
        """Return how many samples of each class so far are classified right, and how many there are."""
        right, labels = zip(*((predicted(f, head) == y, y) for f, y in self._kept), strict=True)
        label = torch.cat(labels)
        counts = torch.bincount(label, minlength=head.num_classes)
        return torch.bincount(label[torch.cat(right)], minlength=head.num_classes), counts

    def finish(self, head: AnyHead) -> Measured:
        """Return what was measured, and start anew. Every rank has to call this."""
        C, d, mean, means = head.num_classes, head.dim, self.collapse.global_mean(), self.collapse.feature_means()
        margin = CosineMargin(num_classes=C, dim=d, global_mean=mean, keep_margins=True).to(self.collapse.device)
        mismatch = NearestMeanMismatch(num_classes=C, dim=d, class_means=means).to(self.collapse.device)
        for metric in (margin, mismatch):
            for f, labels in self._kept:
                metric.update(f, labels, head.weight, head.bias)
        values = {
            "loss": self.loss.compute(),
            **self.collapse.compute(),
            "ncc_mismatch": mismatch.compute(),
            "cosine_margin": margin.compute(),
            "numerical_rank": self.rank.compute(),
            **(self.tails.compute() if self.tails else {}),
        }
        measured = Measured(
            {name: float(value) for name, value in values.items()}, self.collapse.class_means(), margin.sorted().cpu()
        )
        self.reset()
        return measured

    def reset(self) -> None:
        """Forget everything."""
        for metric in (self.loss, self.collapse, self.rank):
            metric.reset()
        if self.tails:
            self.tails.reset()
        self._kept.clear()
