"""`KeepsMoments`: a metric that keeps number, mean and variance of every class, and hands them out."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from etfopt._scalars import as_integer
from etfopt._torch import require_labels
from etfopt.metrics import _moments
from etfopt.metrics._base import Float64Metric
from etfopt.metrics._checks import Batch
from etfopt.metrics._measures import centred_means, summarise
from etfopt.metrics._pairs import PairMeasures, Progress, all_pairs, of_pairs, sampled_pairs


class KeepsMoments(Float64Metric):
    """Adds the state of `etfopt.metrics._moments`, and what can be asked of it beside the measures."""

    totals: Tensor

    def __init__(
        self, *, num_classes: int, dim: int, ignore_index: int = -100, scatter: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self._layout = _moments.Layout(self.num_classes, self.dim, scatter)
        merge = partial(_moments.merge, layout=self._layout)
        self.add_floats("totals", self._layout.size, value=0.0, reduce=merge)

    def _add(self, batch: Batch) -> None:
        _moments.add_batch(self.totals, batch.features, batch.labels, self._layout)

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
            Number of pairs to draw, with replacement. Without it all are taken, in time O(C^2 d); 1e6 pairs take
            seconds at d = 768.
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
        p = require_labels(first, (first.numel(),), self.num_classes)
        q = require_labels(second, tuple(p.shape), self.num_classes)
        moments = self._gathered()
        if not len(p) or not moments.counts.any():
            return self.totals.new_full(p.shape, torch.nan)
        stats = summarise(moments, centred_means(moments)[0])
        return of_pairs(stats, p.cpu(), q.cpu()).cdnv.to(self.device)

    def _gathered(self) -> _moments.Moments:
        """Return the moments over all ranks, on the CPU."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._on_host()

    def _on_host(self) -> _moments.Moments:
        return self._layout.unpack(self.totals.cpu())

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool, *reports: list[str]
    ) -> None:
        """Load the state, also one of release 0.1, which was called moments."""
        old = state_dict.pop(prefix + "moments", None)
        if isinstance(old, Tensor) and prefix + "totals" not in state_dict:
            if problem := _moments.old_misfit(old, self._layout):
                reports[2].append(f"{prefix}moments, a state of release 0.1, {problem}; or measure again")
            else:
                state_dict[prefix + "totals"] = _moments.from_old(old, self._layout)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *reports)
