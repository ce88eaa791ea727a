"""`NeuralCollapse`: how far features and classifier are from the collapsed geometry, in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from etfopt._inputs import as_integer
from etfopt.geometry import simplex_etf, thin_svd
from etfopt.metrics._checks import EPS, check_batch, last_set

__all__ = ["MEASURES", "NeuralCollapse"]

MEASURES = (
    *("accuracy", "nc1", "vci", "nc2", "nc3", "nc4"),
    *("equinorm_means", "equinorm_weights", "equinorm_difference"),
    *("etf_distance_means", "etf_distance_weights", "etf_distance_between"),
)


class NeuralCollapse(Metric):
    r"""Measures of neural collapse of n features :math:`f_i`, with labels :math:`y_i`, and a classifier (W, b).

    With class means :math:`\mu_c`, shares :math:`p_c = n_c/n`, global mean :math:`\mu_G = \sum_c p_c\mu_c` (over the
    samples), :math:`H = [\mu_c - \mu_G]_c` of shape (d, C), :math:`M = (I - 11'/C)/\sqrt{C-1}`, and

    .. math:: \Sigma_W = \tfrac1n \sum_i (f_i - \mu_{y_i})(f_i - \mu_{y_i})', \qquad
              \Sigma_B = \sum_c p_c (\mu_c - \mu_G)(\mu_c - \mu_G)',

    ``compute()`` returns a dict of 0-d float64 tensors, whose keys are always those of `MEASURES`:

    ========================  ====================================================================================
    accuracy                  share of samples with :math:`\arg\max (W f_i + b) = y_i`
    nc1                       :math:`\mathrm{tr}(\Sigma_W \Sigma_B^+)/C`
    vci                       :math:`1 - \mathrm{tr}((\Sigma_W + \Sigma_B)^+ \Sigma_B)/\min(d, C-1)`
    nc2                       :math:`\|WW'/\|WW'\|_F - M\|_F`
    nc3                       :math:`\|WH/\|WH\|_F - M\|_F`
    nc4                       :math:`\|W\mu_G + b\|_2`
    equinorm_means            standard deviation (divisor C - 1) over mean of the norms of the columns of H
    equinorm_weights          the same of the rows of W
    equinorm_difference       absolute difference of these two
    etf_distance_means        squared distance of :math:`H/\|H\|_F` to the nearest simplex ETF of any size
    etf_distance_weights      the same of :math:`W'/\|W\|_F`
    etf_distance_between      squared distance between these two ETFs, each scaled to Frobenius norm 1
    ========================  ====================================================================================

    :math:`\Sigma_B` weights a class by its share, so that :math:`\Sigma_W + \Sigma_B` is the covariance of the
    features; for balanced classes this is the plain mean over classes. C is `num_classes` throughout. A class that
    never occurred has a zero column in H and is left out of equinorm_means. vci, nc3 and etf_distance_means then stay
    away from 0: they ask for the simplex of all C classes.

    A measure is NaN only where it has no value: all before the first sample; nc1, nc3, equinorm_means and what uses
    the nearest ETF of H where all class means are equal, as far as float64 sums can tell (vci is 1 there); what W
    enters by its direction where W = 0; nc3 where WH = 0; the distances where d < C - 1, since no simplex ETF fits;
    etf_distance_between where a nearest ETF is not unique (H or W, centred over the classes, has rank below C - 1).

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    **kwargs
        Passed to ``torchmetrics.Metric``, e.g. ``process_group``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range.

    Notes
    -----
    The states are sums in float64, in memory O(C d + d^2), so that batches and ranks do not matter, but for rounding.
    :math:`\Sigma_W` is a difference of such sums: its error is a few 1e-16 of the mean squared norm of the features,
    about what the rounding of float32 features has put in. ``compute()`` works on the host.

    References
    ----------
    Papyan, Han, Donoho (2020); Xu, Liu (2023) for VCI; Markou, Ajanthan, Gould (2024) for the choice of measures. The
    distance to the nearest ETF is a nuclear norm: ``theory/free_scale.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NeuralCollapse
    >>> metric = NeuralCollapse(num_classes=3, dim=3)
    >>> metric.update(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4), weight=torch.eye(3) - 1 / 3)
    >>> round(float(metric.compute()["nc3"]), 4)
    0.0
    """

    full_state_update = False

    class_counts: Tensor
    class_sums: Tensor
    second_moment: Tensor
    correct: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, num_classes: int, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = C = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = d = as_integer(dim, "dim", at_least=1)
        sums = {"class_counts": (C,), "class_sums": (C, d), "second_moment": (d, d), "correct": ()}
        for name, shape in sums.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name, shape in {"weight": (C, d), "bias": (C,)}.items():
            self.add_state(name, torch.full(shape, torch.nan, dtype=torch.float64), dist_reduce_fx=last_set)

    def update(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Add a batch; one without samples changes nothing.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            What the classifier multiplies: after temperature and normalisation, where a head has them.
        labels : Tensor of integers in [0, C), shape (n,)
        weight : Tensor, shape (C, d)
            W, as in ``nn.Linear``. The measures use the last one given, the accuracy that of each batch.
        bias : Tensor, shape (C,), or None for zero

        Raises
        ------
        InputError
            If an argument has a wrong shape or dtype, or a value that cannot be used. No state has changed then.
        """
        batch = check_batch(features, labels, weight, bias, self.weight)
        if not len(batch.labels):
            return
        predicted = (batch.features @ batch.weight.T + batch.bias).argmax(dim=1)
        self.class_counts = self.class_counts + torch.bincount(batch.labels, minlength=self.num_classes)
        self.class_sums = self.class_sums.index_add(0, batch.labels, batch.features)
        self.second_moment = self.second_moment + batch.features.T @ batch.features
        self.correct = self.correct + (predicted == batch.labels).sum()
        self.weight, self.bias = batch.weight, batch.bias

    def compute(self) -> dict[str, Tensor]:
        """Return the measures of everything seen so far, as the table above describes them.

        Returns
        -------
        dict of str to Tensor, shape (), float64
            A value for each of `MEASURES`, in that order; NaN where it has none.
        """
        n = float(self.class_counts.sum())
        if n == 0:
            return {key: self.weight.new_full((), torch.nan) for key in MEASURES}
        states = (self.class_counts, self.class_sums, self.second_moment, self.correct, self.weight, self.bias)
        counts, sums, second_moment, correct, W, b = (state.cpu().double() for state in states)
        stats = _summarise(counts, sums, second_moment)
        values = {"accuracy": correct / n, "nc1": _nc1(stats), "vci": _vci(stats), **_shape_measures(W, stats)}
        values["nc4"] = torch.linalg.vector_norm(W @ stats.mean + b)
        return {key: values[key].to(self.weight.device) for key in MEASURES}

    def class_means(self) -> Tensor:
        """Return the centred class means H over all ranks.

        Returns
        -------
        Tensor, shape (d, C), float64
            Zero before the first sample.
        """
        means, mean = self.feature_means(), self.global_mean()
        return (means - mean).nan_to_num(0.0).T

    def feature_means(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_c` of every class over all ranks.

        Returns
        -------
        Tensor, shape (C, d), float64
            The row of a class that has not occurred is NaN.
        """
        counts, sums = self._moments()
        return sums / counts[:, None]

    def global_mean(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_G` over all ranks.

        Returns
        -------
        Tensor, shape (d,), float64
            NaN before the first sample.
        """
        counts, sums = self._moments()
        return sums.sum(dim=0) / counts.sum()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Numbers and sums of the features of every class, in float64, on the CPU."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self.class_counts.cpu().double(), self.class_sums.cpu().double()


class _Statistics(NamedTuple):
    """Moments of the features, and the thin SVD P diag(s) Q' of H diag(sqrt(p)), so that Sigma_B = P diag(s^2) P'."""

    seen: Tensor  # (C,), bool
    mean: Tensor  # (d,), mu_G
    H: Tensor  # (d, C), exactly zero where rounding cannot tell the class means apart
    weighted_means: Tensor  # (d, C), columns sqrt(p_c) mu_c
    second_moment: Tensor  # (d, d), per sample
    P: Tensor  # (d, rank of Sigma_B)
    s: Tensor  # (that rank,), non-increasing
    floor: float  # what rounding may have put into H


def _svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    P, s, Q = thin_svd(A.numpy())
    return torch.from_numpy(P), torch.from_numpy(s), torch.from_numpy(Q)


def _summarise(counts: Tensor, sums: Tensor, second_moment: Tensor) -> _Statistics:
    n = float(counts.sum())
    seen = counts > 0
    root_share = (counts / n).sqrt()
    means = (sums / counts.clamp(min=1)[:, None]).T
    mean = sums.sum(dim=0) / n
    H = (means - mean[:, None]) * seen
    weighted_means = means * root_share
    # a sum of n terms, each of about the size of the means
    floor = EPS * max(n, *sums.shape) * float(torch.linalg.norm(weighted_means))
    P, s, _ = _svd(H * root_share)
    rank = int((s[: int(seen.sum()) - 1] > floor).sum())  # the shares sum to one: H diag(p) 1 = 0
    H = H * (rank > 0)
    return _Statistics(seen, mean, H, weighted_means, second_moment / n, P[:, :rank], s[:rank], floor)


def _nc1(stats: _Statistics) -> Tensor:
    """tr(Sigma_W pinv(Sigma_B))/C: the within-class variance along each direction of Sigma_B over the one between."""
    if not len(stats.s):
        return stats.mean.new_full((), torch.nan)
    second = ((stats.P.T @ stats.second_moment) * stats.P.T).sum(dim=1)
    within = second - (stats.P.T @ stats.weighted_means).square().sum(dim=1)
    return torch.div(within.clamp(min=0), stats.s.square()).sum().div(len(stats.seen))


def _vci(stats: _Statistics) -> Tensor:
    d, C = stats.H.shape
    variance, V = torch.linalg.eigh(stats.second_moment - torch.outer(stats.mean, stats.mean))
    keep = variance > EPS * max(d, C) * (variance[-1] + stats.mean.square().sum())
    explained = (V[:, keep].T @ stats.P * stats.s).square().sum(dim=1) / variance[keep]
    vci: Tensor = 1 - explained.sum() / min(d, C - 1)
    return vci.clamp(0, 1)


def _unit(X: Tensor, floor: float = 0.0) -> Tensor:
    """X/||X||_F, and NaN where no entry exceeds `floor`; the first division keeps the squares in range."""
    largest = X.abs().max()
    unit: Tensor = X / largest / torch.linalg.norm(X / largest)
    return unit if largest > floor else torch.full_like(X, torch.nan)


def _variation(norms: Tensor) -> Tensor:
    mean = norms.mean()
    return ((norms - mean).square().sum() / (len(norms) - 1)).sqrt() / mean


def _shape_measures(W: Tensor, stats: _Statistics) -> dict[str, Tensor]:
    """Return the measures of W and H: all that does not look at the features around the means."""
    unit_W, unit_H = _unit(W), _unit(stats.H)
    M = torch.from_numpy(simplex_etf(len(W)))
    rounding = EPS * max(W.shape)
    of_means = _variation(torch.linalg.norm(unit_H, dim=0)[stats.seen])
    of_weights = _variation(torch.linalg.norm(unit_W, dim=1))
    to_means, etf_means = _nearest_etf(unit_H, stats.floor / torch.linalg.norm(stats.H))
    to_weights, etf_weights = _nearest_etf(unit_W.T, rounding)
    return {
        "nc2": torch.linalg.norm(_unit(unit_W @ unit_W.T) - M),
        "nc3": torch.linalg.norm(_unit(unit_W @ unit_H, floor=rounding) - M),
        "equinorm_means": of_means,
        "equinorm_weights": of_weights,
        "equinorm_difference": (of_means - of_weights).abs(),
        "etf_distance_means": to_means,
        "etf_distance_weights": to_weights,
        "etf_distance_between": (etf_means - etf_weights).square().sum(),
    }


def _nearest_etf(X: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Squared distance 1 - ||XF'||_*^2 of X, ||X||_F = 1, to the ETFs sUF; and UF (NaN where it is not unique)."""
    F = torch.from_numpy(simplex_etf(X.shape[1], reduced=True))
    nothing = torch.full_like(X, torch.nan)
    if len(X) < len(F) or X.isnan().any():
        return nothing[0, 0], nothing
    P, s, Q = _svd(X @ F.T)
    return (1 - s.sum().square()).clamp(min=0), P @ Q.T @ F if s[-1] > floor else nothing
