"""`NeuralCollapse`: how far features and classifier are from the collapsed geometry, in one pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from etfopt.metrics import _moments
from etfopt.metrics._base import Float64Metric
from etfopt.metrics._checks import Batch, last_set, predict
from etfopt.metrics._measures import centred_means, nc1, shape_measures, summarise, vci
from etfopt.metrics._precise import norm, residual

__all__ = ["FEATURE_MEASURES", "MEASURES", "NeuralCollapse"]

MEASURES = (
    *("accuracy", "nc1", "vci", "nc2", "nc2_means", "nc3", "nc4"),
    *("equinorm_means", "equinorm_weights", "equinorm_difference"),
    *("etf_distance_means", "etf_distance_weights", "etf_distance_between"),
)
"""Keys of what ``NeuralCollapse.compute()`` returns."""

FEATURE_MEASURES = ("nc1", "vci", "nc2_means", "equinorm_means", "etf_distance_means")
"""Those of `MEASURES` that need no classifier."""


class NeuralCollapse(Float64Metric):
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
    nc2_means                 :math:`\|H'H/\|H'H\|_F - M\|_F`
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
    never occurred has a zero column in H and is left out of equinorm_means. vci, nc2_means, nc3 and etf_distance_means
    then stay away from 0: they ask for the simplex of all C classes.

    The measures in `FEATURE_MEASURES` need no classifier, so that hidden layers can be measured:
    ``update(features, labels)``. All others are NaN then. The measures use the last classifier given, the accuracy that
    of each batch; it is NaN if any batch came without one.

    Elsewhere a measure is NaN only where it has no value: all before the first sample; nc1, nc2_means, nc3,
    equinorm_means and what uses the nearest ETF of H where all class means are equal, as far as float64 sums can tell
    (vci is 1 there); what W enters by its direction where W = 0; nc3 where WH = 0; the distances where d < C - 1, since
    no simplex ETF fits; etf_distance_between where a nearest ETF is not unique (H or W, centred over the classes, has
    rank below C - 1).

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range.

    Notes
    -----
    The state is the number and the mean of every class, the latter as a sum of two float64, and the scatter around
    the class means, in memory O(C d + d^2). Batches and ranks are merged by the update of Chan, Golub and LeVeque, so
    that neither their order nor an offset of the features matters: float64 features with a spread of 1e-3 within
    classes, at an offset of 1e8, leave every measure right to 1e-6 of its size. The measures are those of the numbers
    given. float32 features are read exactly, but the network has rounded them to 6e-8 of their size: at an offset of
    1e5 that is 6e-3, and it counts as spread within classes. ``compute()`` works on the host, in time O(C d^2 + d^3).

    References
    ----------
    Papyan, Han, Donoho (2020); Xu, Liu (2023) for VCI; Markou, Ajanthan, Gould (2024) for the choice of measures. The
    distance to the nearest ETF is a nuclear norm: ``theory/free_scale.py``. Chan, Golub, LeVeque (1983), Algorithms
    for computing the sample variance, for the state.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NeuralCollapse
    >>> metric = NeuralCollapse(num_classes=3, dim=3)
    >>> metric.update(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4), weight=torch.eye(3) - 1 / 3)
    >>> round(float(metric.compute()["nc3"]), 4)
    0.0

    A hidden layer has no classifier, and the label -100 marks what does not count:

    >>> layer = NeuralCollapse(num_classes=3, dim=3)
    >>> layer.update(torch.eye(3)[None].repeat(4, 1, 1), torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, -100]]))
    >>> round(float(layer.compute()["nc1"]), 4)
    0.0
    """

    plot_lower_bound = 0.0

    moments: Tensor
    correct: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, *, num_classes: int, dim: int, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        C, d = self.num_classes, self.dim
        merge = partial(_moments.merge, C=C, d=d)
        self.add_floats("moments", _moments.size(C, d), value=0.0, reduce=merge)
        self.add_floats("correct", value=0.0, reduce="sum")
        self.add_floats("weight", C, d, value=torch.nan, reduce=last_set)
        self.add_floats("bias", C, value=torch.nan, reduce=last_set)

    def _add(self, batch: Batch) -> None:
        self.moments = _moments.add_batch(self.moments, batch.features, batch.labels, self.num_classes, self.dim)
        if batch.classifier is None:
            self.correct = self.correct + torch.nan  # how many would be right is not known
        else:
            self.correct = self.correct + (predict(batch.features, batch.classifier) == batch.labels).sum()
            self.weight, self.bias = batch.classifier

    def compute(self) -> dict[str, Tensor]:
        """Return the measures of everything seen so far, as the table above describes them; NaN where one has no value.

        Returns
        -------
        dict of str to Tensor, shape (), float64
        """
        moments, W, b = self._on_host(self.moments), self.weight.cpu(), self.bias.cpu()
        if not (n := float(moments.counts.sum())):
            return {key: self.weight.new_full((), torch.nan) for key in MEASURES}
        centred, mean, rest = centred_means(moments)
        stats = summarise(moments, centred)
        values = {"accuracy": self.correct / n, "nc1": nc1(stats), "vci": vci(stats), **shape_measures(W, stats)}
        values["nc4"] = norm(residual(W, mean, rest, b))[0]
        return {key: values[key].to(self.weight.device) for key in MEASURES}

    def class_means(self) -> Tensor:
        """Return the centred class means H over all ranks, zero before the first sample.

        Returns
        -------
        Tensor, shape (d, C), float64
        """
        moments = self._gathered()
        return centred_means(moments)[0].T if moments.counts.any() else torch.zeros_like(moments.means.T)

    def feature_means(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_c` of every class over all ranks, NaN for one that has not occurred.

        Returns
        -------
        Tensor, shape (C, d), float64
        """
        moments = self._gathered()
        return moments.means.where(moments.counts[:, None] > 0, torch.nan)

    def global_mean(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_G` over all ranks, NaN before the first sample.

        Returns
        -------
        Tensor, shape (d,), float64
        """
        return centred_means(self._gathered())[1]

    def _gathered(self) -> _moments.Moments:
        """Return the moments over all ranks, on the CPU."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._on_host(self.moments)

    def _on_host(self, vector: Tensor) -> _moments.Moments:
        return _moments.unpack(vector.cpu(), self.num_classes, self.dim)
