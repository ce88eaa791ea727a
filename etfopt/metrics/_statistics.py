"""`KeepsMoments`: a metric that keeps number, mean and variance of every class, and hands them out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.frames._margin import Margin, one_vs_rest_margin
from etfopt.metrics import _moments
from etfopt.metrics._base import Float64Metric
from etfopt.metrics._checks import Batch, last_set, require_classes
from etfopt.metrics._classes import class_distances
from etfopt.metrics._measures import centred_means, summarise
from etfopt.metrics._pairs import PairMeasures, Progress, all_pairs, of_pairs, sampled_pairs


class KeepsMoments(Float64Metric):
    """Adds the state of `etfopt.metrics._moments`, and what can be asked of it beside the measures."""

    totals: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, *, num_classes: int, dim: int, ignore_index: int = -100, scatter: bool, weight: bool, **kwargs: Any
    ) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self._layout = _moments.Layout(self.num_classes, self.dim, scatter)
        merge = partial(_moments.merge, layout=self._layout)
        self.add_floats("totals", self._layout.size, value=0.0, reduce=merge)
        self._keeps_weight = weight
        if weight:
            self.add_floats("weight", self.num_classes, self.dim, value=torch.nan, reduce=last_set)
            self.add_floats("bias", self.num_classes, value=torch.nan, reduce=last_set)

    def _add(self, batch: Batch) -> None:
        _moments.add_batch(self.writable("totals"), batch.features, batch.labels, self._layout)
        if batch.classifier is not None and self._keeps_weight:
            for name, value in batch.classifier._asdict().items():
                self.writable(name).copy_(value)

    def class_counts(self) -> Tensor:
        """Return the number of samples of every class over all ranks.

        Returns
        -------
        Tensor, shape (C,), float64
        """
        return self._gathered().counts.clone()

    def class_means(self) -> Tensor:
        """Return the centred class means H over all ranks, zero before the first sample.

        Returns
        -------
        Tensor, shape (d, C), float64
        """
        moments = self._gathered()
        return centred_means(moments)[0].T if moments.counts.any() else torch.zeros_like(moments.shifts.T)

    def feature_means(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_c` of every class over all ranks, NaN for one that has not occurred.

        Returns
        -------
        Tensor, shape (C, d), float64
        """
        moments = self._gathered()
        return torch.addcdiv(moments.shifts, moments.sums, moments.counts[:, None])

    def class_variances(self) -> Tensor:
        r"""Return the variance of every class over all ranks: the mean of :math:`\|f_i - \mu_c\|^2` over its samples.

        Returns
        -------
        Tensor, shape (C,), float64
            NaN for a class that has not occurred.
        """
        moments = self._gathered()
        return _moments.within_squares(moments) * moments.unit.square() / moments.counts

    def global_mean(self) -> Tensor:
        r"""Return the mean feature :math:`\mu_G` over all ranks, NaN before the first sample.

        Returns
        -------
        Tensor, shape (d,), float64
        """
        return centred_means(self._gathered())[1]

    def pairwise(self, pairs: int | None = None, seed: int = 0, progress: Progress | None = None) -> PairMeasures:
        """Return CDNV and GNC2 over all pairs of classes that occurred on all ranks, or over a sample of the pairs.

        Parameters
        ----------
        pairs : int, optional
            Number of pairs to draw, with replacement. Without it, or if there are no more, all are taken, in time
            O(C^2 d); 1e6 pairs take seconds at d = 768.
        seed : int
            Of the draw.
        progress : callable, optional
            Called as ``progress(done, total)`` after each tile.

        Returns
        -------
        PairMeasures

        Raises
        ------
        InputError
            If `pairs` is no integer of at least 2, or `seed` none of at least 0.
        """
        if pairs is not None:
            pairs, seed = as_integer(pairs, "pairs", at_least=2), as_integer(seed, "seed", at_least=0)
        moments = self._gathered()
        if not moments.counts.any():
            return PairMeasures(0, *[torch.nan] * 5)
        stats = summarise(moments, centred_means(moments)[0])
        return all_pairs(stats, progress) if pairs is None else sampled_pairs(stats, pairs, seed, progress)

    def cdnv_of(self, first: Tensor, second: Tensor) -> Tensor:
        r"""Return the CDNV of given pairs of classes over all ranks.

        Parameters
        ----------
        first, second : Tensor of integers in [0, C), shape (m,)
            The classes of each pair. For all pairs: ``torch.triu_indices(C, C, offset=1)``.

        Returns
        -------
        Tensor, shape (m,), float64
            :math:`(\sigma_i^2 + \sigma_j^2)/(2\|\mu_i - \mu_j\|^2)`; NaN for a class that has not occurred, and where
            rounding cannot tell the two means apart.

        Raises
        ------
        InputError
            If `first` and `second` are no class indices of one shape (m,).
        """
        p, q = (require_classes(x, name, self.num_classes) for x, name in ((first, "first"), (second, "second")))
        if len(p) != len(q):
            raise InputError(f"first has {len(p)} classes and second {len(q)}; pass one of each for every pair")
        moments = self._gathered()
        if not len(p) or not moments.counts.any():
            return self.totals.new_full(p.shape, torch.nan)
        stats = summarise(moments, centred_means(moments)[0])
        return of_pairs(stats, p, q).cdnv.to(self.device)

    def self_duality(self) -> Tensor:
        r"""Return the distance between the directions of classifier and class mean of every class, over all ranks.

        Returns
        -------
        Tensor, shape (C,), float64
            :math:`\|w_c/\|w_c\| - h_c/\|h_c\|\|`, 0 at collapse and 2 at worst; NaN for a class that has not occurred,
            where a direction has no value, and without a classifier.

        Raises
        ------
        InputError
            If no measure of a classifier was asked for, so that none was kept.
        """
        if not self._keeps_weight:
            raise InputError("self_duality() needs the classifier; build the metric with measures=['self_duality']")
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            moments, W = self._on_host(), self._weight_on_host()
            if W is None or not moments.counts.any():
                return self.totals.new_full((self.num_classes,), torch.nan)
            return class_distances(W, summarise(moments, centred_means(moments)[0])).to(self.device)

    def margin(
        self, of: str = "means", tolerance: float = 1e-9, progress: Callable[[float], object] | None = None
    ) -> Margin:
        r"""Return the one-vs-rest margin of class means or classifier over all ranks, with its duality gap.

        The margin is :math:`\rho = \min_k dist(v_k, conv\{v_j : j \ne k\})` for the directions
        :math:`v_c = h_c/\|h_c\|` of the centred class means, or those of the rows of W. It is C/(C - 1) at collapse to
        a simplex. `etfopt.frames.Frame.margin` is the same of a frame.

        Parameters
        ----------
        of : {"means", "weights"}
            What to measure. Classes without samples are left out of the means.
        tolerance : float
            Duality gap at which to stop. 1e-9 is exact for most uses; 1e-3 saves time for thousands of classes.
        progress : callable, optional
            Called with the gap after each quadratic program.

        Returns
        -------
        Margin
            ``rho``, ``gap`` and the bounds for each class.

        Raises
        ------
        InputError
            If `of` is no such name, fewer than two classes are there, or one has no direction.
        """
        if of not in ("means", "weights"):
            raise InputError(f"of is {of!r}; choose 'means' or 'weights'")
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            moments, W = self._on_host(), self._weight_on_host()
            rows = W if of == "weights" else None
            if of == "means" and moments.counts.any():
                stats = summarise(moments, centred_means(moments)[0])
                norms = torch.linalg.vector_norm(stats.H, dim=1, keepdim=True)
                rows = stats.H.where(norms > stats.floor, 0.0)[stats.seen]
        if rows is None or len(rows) < 2 or not rows.any(dim=1).all():
            raise InputError(
                f"the margin of the {of} needs at least two classes, each with a direction: add samples of every "
                "class, and for the weights a classifier, to a metric that measures one"
            )
        directions = rows / rows.abs().amax(dim=1, keepdim=True)
        directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        return one_vs_rest_margin(directions.T.numpy(), tolerance=tolerance, progress=progress)

    def _gathered(self) -> _moments.Moments:
        """Return the moments over all ranks, on the CPU."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._on_host()

    def _on_host(self) -> _moments.Moments:
        return self._layout.unpack(self.totals.cpu())

    def _weight_on_host(self) -> Tensor | None:
        """Return the last classifier given, or None."""
        return self.weight.cpu() if self._keeps_weight and not self.weight[0, 0].isnan() else None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool, *reports: list[str]
    ) -> None:
        """Load the state. One of release 0.1 has not the digits that these measures promise."""
        if prefix + "class_sums" in state_dict:
            reports[2].append(f"{prefix}class_sums is of release 0.1, whose states are not read: measure again")
        else:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *reports)
