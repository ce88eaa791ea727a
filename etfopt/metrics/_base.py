"""`Float64Metric`: a metric whose state stays in float64, wherever its module is built, moved or loaded."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.plot import plot_curve

from etfopt._options import ByKeyword, as_ignored
from etfopt._scalars import as_integer
from etfopt.errors import InputError, require_extra
from etfopt.metrics._checks import Batch, Classifier, check_batch, last_set, same_everywhere


class Float64Metric(ByKeyword, Metric):
    """Base class of the metrics: sizes, checked batches, float64 states and plots."""

    full_state_update = False

    def __init__(self, *, num_classes: int, dim: int, ignore_index: int = -100, **kwargs: Any) -> None:
        device = torch.get_default_device()
        # tensors on the meta device have no values, and to_empty() would fill them with whatever lies in memory
        with torch.device("cpu" if device.type == "meta" else device):
            super().__init__(**kwargs)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.ignore_index = as_ignored(ignore_index, self.num_classes)
        # a MetricCollection unites metrics whose states are equal after the first batch, whatever they would leave out
        self.add_floats("ignored_label", 1, value=float(self.ignore_index), reduce=last_set)

    def extra_repr(self) -> str:  # of `nn.Module`, for ``repr``
        return f"num_classes={self.num_classes}, dim={self.dim}"

    def __getnewargs__(self) -> tuple[()]:  # torchmetrics would hand over the letters of a name
        return ()

    def update(
        self, features: Tensor, labels: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        """Add a batch; one without samples that count changes nothing.

        All metrics take the same arguments, so that they fit into one ``MetricCollection``.

        Parameters
        ----------
        features : Tensor, shape (..., d)
            What the classifier multiplies: after temperature and normalisation, where a head has them. Or the output
            of a hidden layer, without a classifier. All axes but the last number the samples: images, tokens of
            sequences. For feature maps (n, d, h, w) pass ``features.movedim(1, -1)``.
        labels : Tensor of integers in [0, C), shape (...)
            The class of each sample. A sample with the label `ignore_index` counts nowhere, whatever its features.
            The measures are defined for one class a sample: of one-hot labels or probabilities pass
            ``labels.argmax(dim=-1)``.
        weight : Tensor, shape (C, d), optional
            W, as in ``nn.Linear``.
        bias : Tensor, shape (C,), or None for zero
            b, as in ``nn.Linear``.

        Raises
        ------
        InputError
            If an argument has a wrong shape or dtype, or a value that cannot be used, or if `weight` is missing where
            the metric needs a classifier. No state has changed then.
        """
        sizes, ignored = (self.num_classes, self.dim), self.ignore_index
        batch = check_batch(features, labels, weight, bias, sizes=sizes, ignore_index=ignored, device=self.device)
        if len(batch.labels):
            self._add(batch)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return its value; see ``torchmetrics.Metric.forward``. A refused batch changes nothing."""
        # torchmetrics starts a new state for the batch, and would leave that one behind
        before = {name: list(x) if isinstance(x, list) else x for name, x in vars(self).items()}
        try:
            return super().forward(*args, **kwargs)
        except InputError:
            vars(self).update(before)
            raise

    def _add(self, batch: Batch) -> None:
        """Add a batch of at least one sample."""
        raise NotImplementedError

    def classifier_of(self, batch: Batch) -> Classifier:
        """Return the classifier of a batch, or raise where there is none: for metrics that cannot do without."""
        if batch.classifier is None:
            name, shape = type(self).__name__, (self.num_classes, self.dim)
            raise InputError(f"weight is missing, and {name} measures a classifier: pass its weight, of shape {shape}")
        return batch.classifier

    def add_floats(self, name: str, *shape: int, value: float, reduce: str | Callable[[Tensor], Tensor]) -> None:
        """Register a state of this shape that starts with one value."""
        start = torch.full((), value, dtype=torch.float64, device=self.device)
        self.add_state(name, start, dist_reduce_fx=reduce)
        # what `reset` copies is one number, expanded: large states are not held twice, as torchmetrics would
        self._defaults[name] = start.expand(shape)
        setattr(self, name, start.expand(shape).clone())

    def writable(self, name: str) -> Tensor:
        """Return a state to write to in place, outside inference mode also one that was made inside of it."""
        state: Tensor = getattr(self, name)
        if state.is_inference() and not torch.is_inference_mode_enabled():
            state = state.clone()
            setattr(self, name, state)
        return state

    def add_given(self, name: str, value: Tensor) -> None:
        """Register a tensor given by the user: a state and not a buffer, so that no cast of the model rounds it."""
        value = value.to(self.device).contiguous()
        self.add_state(name, value, dist_reduce_fx=partial(same_everywhere, name=name))
        self._defaults[name] = value  # a given state never changes: no copy is needed
        # a MetricCollection unites metrics whose states are close; close is not enough for means far from the origin
        digest = float(zlib.crc32(value.cpu().numpy().data))
        self.add_floats(f"{name}_digest", 1, value=digest, reduce=last_set)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Merge another metric of the same sizes into this one; see ``torchmetrics.Metric.merge_state``."""
        if isinstance(incoming_state, Float64Metric):
            sizes = (incoming_state.num_classes, incoming_state.dim)
            if sizes != (self.num_classes, self.dim):
                raise InputError(
                    f"incoming_state does not fit: it has num_classes, dim = {sizes}, "
                    f"and this metric {(self.num_classes, self.dim)}; merge metrics of the same sizes"
                )
        other = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        for name, mine in self.metric_state.items() if isinstance(other, dict) else ():
            theirs = other.get(name)
            if theirs is None or (isinstance(mine, Tensor) and mine.shape != torch.as_tensor(theirs).shape):
                raise InputError(
                    f"incoming_state does not fit: its {name} is missing or has another shape; "
                    "merge metrics that were built with the same arguments"
                )
        super().merge_state(incoming_state)
        # torchmetrics would return the value computed before the merger
        self._computed = None
        self._update_count += incoming_state.update_count if isinstance(incoming_state, Metric) else 1

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """Draw what ``compute()`` or ``forward()`` returned, or a sequence of it as a curve; see ``torchmetrics``."""
        require_extra("plots", "matplotlib")
        if isinstance(val, Sequence) and not val:
            raise InputError("val is empty; pass the values that compute() or forward() returned")
        curve: Any = self._curve(val)
        if curve is None:
            axes: Any = self._plot(val, ax)[1]
        else:
            points: Any = torch.arange(len(curve)), curve
            axes = plot_curve(points, ax=ax, label_names=("sample", type(self).__name__))[1]
        return axes.figure, axes

    def _curve(self, val: Any) -> Tensor | None:  # noqa: ARG002 - for metrics that have one
        """Return the points of a curve, where `val` is one value that is drawn so."""
        return None

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Refuse every dtype but float64: the measures need all digits of their state."""
        if dst_type != torch.float64:
            raise InputError(
                f"dst_type is {dst_type}, but {type(self).__name__} keeps its state in float64: "
                "call set_dtype on other metrics only; features of any floating-point dtype are accepted"
            )
        return self

    def _apply(  # type: ignore[override] # as torchmetrics has it
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "", **_: Any
    ) -> torch.nn.Module:
        """Move the states to the device that `fn` moves tensors to, and do nothing else that `fn` does.

        A cast would round the states, ``to_empty`` would lose their values, and so would a move to the meta device.
        """
        device = fn(torch.zeros(1, device=self.device)).device
        target = self.device if device.type == "meta" else device
        return super()._apply(lambda tensor: tensor.to(target), exclude_state)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool, *reports: list[str]
    ) -> None:
        """Load the states where they fit; torchmetrics would take any shape, dtype and device."""
        missing, unexpected, errors = reports
        for name, mine in self.metric_state.items():
            if (loaded := state_dict.get(prefix + name)) is None:
                continue
            if problem := _misfit(loaded, mine):
                errors.append(f"{prefix + name} {problem}; load the state of a metric built with the same arguments")
                del state_dict[prefix + name]
                continue
            moved = loaded.to(self.device) if isinstance(loaded, Tensor) else [x.to(self.device) for x in loaded]
            state_dict[prefix + name] = moved
            self._computed, self._update_count = None, max(1, self._update_count)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)


def _misfit(loaded: Any, mine: Any) -> str | None:
    """Say why a loaded state does not fit, or return None."""
    if isinstance(loaded, Tensor) != isinstance(mine, Tensor):
        return f"is a {type(loaded).__name__}, not a {type(mine).__name__}"
    if not isinstance(loaded, Tensor):
        rounded = [x.dtype for x in loaded if x.dtype not in (torch.float64, torch.int64)]
        return f"has dtype {rounded[0]}, which cannot hold the digits of the state" if rounded else None
    if loaded.shape != mine.shape:
        return f"has shape {tuple(loaded.shape)}, not {tuple(mine.shape)}"
    return None if loaded.dtype == mine.dtype else f"has dtype {loaded.dtype}, not {mine.dtype}"
