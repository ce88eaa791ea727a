"""`NeuralCollapse`: how far features and classifier are from the collapsed geometry, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._catalog import CATALOG, as_measures
from etfopt._scalars import as_integer
from etfopt.frames import Frame, FramePair
from etfopt.metrics._checks import Batch, predict
from etfopt.metrics._frame_distance import as_target, frame_distances
from etfopt.metrics._groups import measured
from etfopt.metrics._measures import Statistics, centred_means, summarise
from etfopt.metrics._pairs import Progress, all_pairs, sampled_pairs
from etfopt.metrics._precise import norm, residual
from etfopt.metrics._statistics import KeepsMoments

__all__ = ["NeuralCollapse"]


class NeuralCollapse(KeepsMoments):
    r"""Measures of neural collapse of n features :math:`f_i`, with labels :math:`y_i`, and a classifier (W, b).

    With class means :math:`\mu_c`, shares :math:`p_c = n_c/n`, global mean :math:`\mu_G = \sum_c p_c\mu_c` (over the
    samples), :math:`H = [\mu_c - \mu_G]_c` of shape (d, C), :math:`M = (I - 11'/C)/\sqrt{C-1}`, and

    .. math:: \Sigma_W = \tfrac1n \sum_i (f_i - \mu_{y_i})(f_i - \mu_{y_i})', \qquad
              \Sigma_B = \sum_c p_c (\mu_c - \mu_G)(\mu_c - \mu_G)',

    ``compute()`` returns a dict of 0-d float64 tensors, by default with the keys of `MEASURES`:

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
    then stay away from 0: they ask for the simplex of all C classes. In vci, the rounding of float32 features
    that lie in a subspace (such as those of a linear layer with more outputs than inputs) counts as variance, so that
    two machines may give it differently; float64 features have no such part.

    The measures in `FEATURE_MEASURES` need no classifier, so that hidden layers can be measured:
    ``update(features, labels)``. All others are NaN then. The measures use the last classifier given, the accuracy that
    of each batch; it is NaN if any batch came without one.

    Elsewhere a measure is NaN only where it has no value: all before the first sample; nc1, nc2_means, nc3,
    equinorm_means and what uses the nearest ETF of H where all class means are equal, as far as float64 sums can tell
    (vci is 1 there); what W enters by its direction where W = 0; nc3 where WH = 0; the distances where d < C - 1, since
    no simplex ETF fits; etf_distance_between where a nearest ETF is not unique (H or W, centred over the classes, has
    rank below C - 1).

    More measures by `measures`; the page "All measures" of the documentation has their formulas, ranges and values at
    collapse:

    ========================  ====================================================================================
    cdnv                      mean over pairs of :math:`(\sigma_i^2 + \sigma_j^2)/(2\|\mu_i - \mu_j\|^2)`
    gnc2                      standard deviation over pairs of :math:`\log\|\hat h_i - \hat h_j\|^{-1}`
    equinorm_log_means        standard deviation of :math:`\log\|h_c\|`; equinorm_log_weights: of the rows of W
    unc3                      standard deviation over absolute mean of :math:`w_c'h_c`
    self_duality              mean of :math:`\|\hat w_c - \hat h_c\|`
    effective_rank_within     exp of the entropy of the spectrum of :math:`\Sigma_W`; _between: of :math:`\Sigma_B`
    frame_distance_means      least squared distance of the class means, rotated, scaled and moved, to `frame`
    frame_distance_weights    the same of the rows of W, which are not moved
    ========================  ====================================================================================

    Classes without samples are left out. A measure is NaN where a class mean that it compares is the global mean or
    that of another class, as far as rounding can tell. The frame distances are relative to the squared norm.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    measures : list of str, or "all", optional
        Keys of `CATALOG`. By default those of `MEASURES`, and the frame distances if `frame` is given. For vocabularies
        name what you need: without nc1, vci and effective_rank_within no d x d matrix is kept and an update costs a
        fraction; without accuracy no logits are computed; cdnv and gnc2 take time O(C^2 d).
    frame : Frame, FramePair, matrix of shape (r, C) or str, optional
        What the frame distances compare with, r <= d: any frame of `etfopt.frames`, or its name. A pair, such as
        ``etfopt.frames.seli(counts)``, has one frame for class means and one for the classifier.
    frame_weights : array_like, shape (C,), optional
        Weight of each class in the frame distances, at least 0; 0 leaves a class out. By default 1.
    pairs : int, optional
        Number of pairs of classes to sample for cdnv and gnc2; 1e6 give them in seconds. By default all pairs. See
        `pairwise` for standard errors.
    progress : callable, optional
        Called as ``progress(done, total)`` by ``compute()`` after each tile of pairs. Where metrics are pickled, pass a
        function of a module and no lambda.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If `num_classes`, `dim` or `pairs` is not an integer in range, a measure has no such name or needs a frame,
        `frame` or `frame_weights` does not fit, or `frame_weights` is given without `frame`.

    Notes
    -----
    The state is the number, an early sample, the sum and the squares around it of every class, and the scatter, in
    memory O(C d + d^2). An update touches only the classes of the batch. Neither the order of batches and ranks nor an
    offset of the features matters: float64 features with a spread of 1e-3 within classes, at an offset of 1e8, leave
    every measure right to 1e-6 of its size. The measures are those of the numbers given. float32 features are read
    exactly, but the network has rounded them to 6e-8 of their size: at an offset of 1e5 that is 6e-3, and it counts as
    spread within classes. ``compute()`` works on the host, in time O(C d^2 + d^3).

    ``neural-collapse`` (Wu) centres by the mean of the class means, this metric by that of the samples: they differ for
    imbalanced classes. Its GNC2 is the square of ours, and its UNC3 is a variance, which depends on the units.

    References
    ----------
    Papyan, Han, Donoho (2020); Xu, Liu (2023) for VCI; Markou, Ajanthan, Gould (2024) for the choice of measures.
    Galanti, György, Hutter (2022) for CDNV; Wu, Papyan (2024), Linguistic collapse, for GNC2 and UNC3; Roy, Vetterli
    (2007) for the effective rank. The distance to the nearest ETF is a nuclear norm: ``theory/free_scale.py``. The
    sums of a class around one of its samples, and the best translation to a frame: ``theory/class_sums.py``.

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

    correct: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        ignore_index: int = -100,
        measures: Iterable[str] | str | None = None,
        frame: Frame | FramePair | ArrayLike | str | None = None,
        frame_weights: ArrayLike | None = None,
        pairs: int | None = None,
        progress: Progress | None = None,
        **kwargs: Any,
    ) -> None:
        self.measures = as_measures(measures, frame=frame is not None)
        asked = [CATALOG[key] for key in self.measures]
        kept = {
            "scatter": any(measure.scatter for measure in asked),
            "weight": any(CATALOG[key].classifier for key in self.measures if key != "accuracy"),
        }
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kept, **kwargs)
        C, d = self.num_classes, self.dim
        self._target = as_target(frame, frame_weights, C, d)
        self._pairs = None if pairs is None else as_integer(pairs, "pairs", at_least=2)
        self._progress = progress
        if "accuracy" in self.measures:
            self.add_floats("correct", value=0.0, reduce="sum")

    def _add(self, batch: Batch) -> None:
        super()._add(batch)
        if "accuracy" not in self.measures:
            return
        if batch.classifier is None:
            self.correct = self.correct + torch.nan  # how many would be right is not known
        else:
            self.correct = self.correct + (predict(batch.features, batch.classifier.doubles()) == batch.labels).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the measures of everything seen so far, as the table above describes them; NaN where one has no value.

        Returns
        -------
        dict of str to Tensor, shape (), float64
        """
        moments = self._on_host()
        nothing = self.totals.new_full((), torch.nan)
        if not (n := float(moments.counts.sum())):
            return dict.fromkeys(self.measures, nothing)
        W = self._weight_on_host()
        centred, mean, rest = centred_means(moments)
        stats = summarise(moments, centred)
        values = measured(self.measures, W, stats)
        if "accuracy" in self.measures:
            values["accuracy"] = self.correct / n
        if "nc4" in self.measures and W is not None:
            values["nc4"] = norm(residual(W, mean, rest, self.bias.cpu()))[0]
        if self._target is not None:
            values |= frame_distances(self._target, W, stats)
        values |= self._pair_values(stats)
        return {key: values.get(key, nothing).to(self.device) for key in self.measures}

    def _pair_values(self, stats: Statistics) -> dict[str, Tensor]:
        if {"cdnv", "gnc2"}.isdisjoint(self.measures):
            return {}
        if self._pairs is None:
            found = all_pairs(stats, self._progress)
        else:
            found = sampled_pairs(stats, self._pairs, 0, self._progress)
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in found._asdict().items()}
