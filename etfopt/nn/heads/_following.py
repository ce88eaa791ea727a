r"""What a head does that follows the class means: an update, a solve and a classifier in every training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._options import as_method, as_shrinkage
from etfopt._scalars import as_integer, as_nonnegative
from etfopt._torch import full_precision, outside_graphs, visible
from etfopt.errors import InputError
from etfopt.nn._running import MeansOptions, MeansUpdate, RunningMeans
from etfopt.nn._state import refuse_trace, where_valid
from etfopt.nn._targets import LABELS_REQUIRED
from etfopt.nn.class_means import ClassMeans
from etfopt.nn.functional import nearest_etf, on_frame
from etfopt.nn.heads._framed import FrameOptions
from etfopt.nn.heads._holding import Holding
from etfopt.nn.heads._rotation import nearest_minimiser
from etfopt.nn.heads._shrinkage import shrunk_rows, unit_means
from etfopt.nn.heads._weighting import as_class_weights, posed
from etfopt.nn.heads.base import affine
from etfopt.nn.paper_means import PaperClassMeans

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


__all__ = ["FollowingHead"]


ROUNDING = 1e-5
"""Singular values of float32 class means below this share of the largest are rounding."""


class FollowingHead(Holding):
    """A head whose ETF is the one nearest to the running class means; `NearestETFHead` documents it."""

    prox: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        delta: float = 1e-3,
        memory: float | None = None,
        averaging: str | float | None = None,
        implicit_gradient: bool = True,
        freeze_after: int | None = None,
        solve_every: int = 1,
        method: str = "auto",
        shrinkage: float = 1.0,
        evaluation_shrinkage: float | None = None,
        classify_first: bool = False,
        class_weights: ArrayLike | Tensor | str | None = None,
        synchronize: bool | ProcessGroup = True,
        **options: Unpack[FrameOptions],
    ) -> None:
        super().__init__(dim, num_classes, **options)
        self.delta = as_nonnegative(delta, "delta")
        self.implicit_gradient = bool(implicit_gradient)
        self.freeze_after = None if freeze_after is None else as_integer(freeze_after, "freeze_after", at_least=0)
        self.solve_every = as_integer(solve_every, "solve_every", at_least=1)
        self.method = as_method(method)
        self.shrinkage = as_shrinkage(shrinkage, "shrinkage")
        later = shrinkage if evaluation_shrinkage is None else evaluation_shrinkage
        self.evaluation_shrinkage = as_shrinkage(later, "evaluation_shrinkage")
        self.classify_first = bool(classify_first)
        self.class_weights = as_class_weights(class_weights, self.num_classes, self.statistics)
        self.means = _class_means(
            self.statistics,
            memory,
            averaging,
            num_classes=num_classes,
            dim=dim,
            ignore_index=self.ignore_index,
            synchronize=synchronize,
            device=options.get("device"),
            dtype=options.get("dtype"),
        )
        self.register_buffer("prox", self.U.clone())  # the proximal point of the last solve

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: frame and rotation, and no batch has been seen."""
        super().reset_parameters()
        self.prox.copy_(self.U)
        self.means.reset_parameters()

    def _center(self) -> Tensor:
        return self.means.center() * self.unit

    def _judged(self) -> bool:
        return bool(self.means.occurred.all())

    def _doubts(self) -> list[str]:
        H, r = self.means.centred().double(), self.U.shape[1]
        if not self.means.occurred.all():
            return super()._doubts()
        sizes = torch.linalg.svdvals(H)
        rank = int((sizes > ROUNDING * sizes[0]).sum())
        needed = min(r, self.num_classes - 1)
        low = (
            f"the class means have rank {rank}, and the frame has rank {needed}: no rotation of it fits. The layers "
            f"below leave too few directions; let the last one be linear, with at least {needed} inputs and outputs."
        )
        return [*super()._doubts(), *([low] if rank < needed else [])]

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        means = f"{prefix}means."
        wrong = self._other_statistics(state_dict, f"{means}samples", f"{means}seen")
        return wrong or super()._misfits(state_dict, prefix)  # of other statistics the shapes may differ too

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        if self._old_bias(state_dict, prefix) is not None:
            del state_dict[prefix + "bias"]  # it is that of the means

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        refuse_trace(self)
        return self._step(features, labels)

    @outside_graphs  # for the reason that `etfopt.nn.ClassMeans` gives
    def _step(self, features: Tensor, labels: Tensor | None) -> Tensor:
        with self.means.sharing_refusals():
            f, target = self._checked(features, labels)
            if target is None:
                raise InputError(LABELS_REQUIRED)
        update = self.means.updated(f, target, self.unit)
        if update is None:
            return self._classified(f)
        return affine(f, *self._classifier(update))

    def _classifier(self, update: MeansUpdate) -> tuple[Tensor, Tensor]:
        """Return the weight and bias for the updated means, differentiable, and make them the state."""
        with full_precision(update.mean):
            mean = update.mean if self.implicit_gradient else update.mean.detach()
            current = self.rotation()  # first, for it refuses a state that nobody initialised
            step = self.means.count()
            solves = step % self.solve_every == 0 and (self.freeze_after is None or step < self.freeze_after)
            U, prox = current.to(mean.dtype), self.prox
            if solves:
                U, prox = self._solve(update, mean, current, first=step == 0)
            if self.classify_first:
                weight = self._shrunk(current, self.means.centred(), self.means.occurred, self.shrinkage).to(mean.dtype)
            else:
                weight = self._shrunk(U, mean, update.seen, self.shrinkage)
            if self.evaluation_shrinkage != self.shrinkage:  # for a batch that does not count: what fits its bias
                weight = where_valid(update.valid, weight, self.weight)
            center = update.unlabelled if self.classify_first else update.center
            bias = -weight @ (center * self.unit)
        # no check can fail after this line, except a NaN in U that could not be detected without synchronising
        solved = None if visible(U) else U.isfinite().all()
        self.means.commit(update)
        with torch.no_grad():
            self.prox.copy_(where_valid(solved, prox, self.prox))  # before U, which it may be a view of
            self.U.copy_(where_valid(solved, U, self.U))
            if solved is not None:
                self.know_rotation()
            self.means.count_rejected(None if solved is None else ~solved)
        return weight, bias

    @property
    def weight(self) -> Tensor:
        """Classifier weight in evaluation, shape (C, d), detached: the nearest ETF's rows, see `shrinkage`."""
        return self._shrunk(self.rotation(), self.means.centred(), self.means.occurred, self.evaluation_shrinkage)

    def _shrunk(self, U: Tensor, mean: Tensor, seen: Tensor, s: float) -> Tensor:
        if s == 1:
            return self._weight(U)
        return shrunk_rows(self._weight(U), unit_means(torch.where(seen, mean, 0), self.temperature / self.unit), s)

    def _posed(self, mean: Tensor, seen: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the H and the weights of the problem of centred class means; the numbers of samples are for counts."""
        weights = samples if isinstance(self.class_weights, str) else self.class_weights
        if weights is not None:
            weights = torch.where(seen, weights.to(seen.device), 0)
        return posed(mean, weights, self.temperature / self.unit)

    def _posed_now(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the H and the weights of the problem of the current means."""
        mean = self.means.centred()
        return self._posed(mean.to(dtype or mean.dtype), self.means.occurred, getattr(self.means, "samples", None))

    def _nearest_of_all(self, H: Tensor, weights: Tensor | None, start: Tensor) -> Tensor:
        """Return, of all minimisers without a proximal term, the one nearest to a point."""
        HD = H if weights is None else H * weights
        return nearest_minimiser(2 * on_frame(HD, self._means_of, transpose=True), start)

    @torch.no_grad()
    def turn_to_means(self) -> None:
        """Turn the frame to the class means as they are, as a first step does."""
        with full_precision(self.U):
            H, weights = self._posed_now()
            self.U.copy_(self._nearest_of_all(H, weights, self.U))
        self.prox.copy_(self.U)

    def _solve(self, update: MeansUpdate, mean: Tensor, current: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
        """Return U and its proximal point; what they were, for a batch that does not count."""
        H, weights = self._posed(mean, update.seen, update.state.get("samples"))
        prox, held, frame = current.to(H.dtype), self.spanning, self._means_of
        if self.pinned:
            return prox, self.prox
        if first and not held:
            prox = self._nearest_of_all(H.detach(), weights, prox)
        hold, at = (held, self.held_at) if held else (None, None)
        U = nearest_etf(H, prox, self.delta, frame, weights=weights, hold=hold, hold_at=at, method=self.method)
        U = self.means.ranks.agreed(U)
        return where_valid(update.valid, U, current), where_valid(update.valid, prox, self.prox)


def _class_means(
    statistics: str, memory: float | None, averaging: str | float | None, **options: Unpack[MeansOptions]
) -> RunningMeans:
    if statistics == "paper":
        if memory is not None:
            raise InputError(
                f"memory = {memory!r} is an option of statistics='running'; leave it out, or pass averaging= instead"
            )
        return PaperClassMeans(averaging="paper" if averaging is None else averaging, **options)
    if averaging is not None:
        raise InputError(
            f"averaging = {averaging!r} is a rule of statistics='paper'; pass that too, or memory= in its place"
        )
    return ClassMeans(**options) if memory is None else ClassMeans(memory=memory, **options)
