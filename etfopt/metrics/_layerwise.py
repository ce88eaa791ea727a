"""The metrics of many layers: made at a layer's first batch, and alike on every process when they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeAlias

import torch
from torch import Tensor, distributed
from torchmetrics import Metric, MetricCollection

from etfopt._scalars import as_integer
from etfopt.errors import InputError

Make: TypeAlias = Callable[..., Metric | MetricCollection]
"""A metric class, or a function of `num_classes` and `dim`."""


class LayerResults:
    """A `MetricCollection` for each layer, by name, and what is read from them."""

    def __init__(self, num_classes: int, make: Make | Sequence[Make]) -> None:
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self._make = [make] if callable(make) else list(make)
        self._dims: dict[str, int] = {}
        self._metrics: dict[str, MetricCollection] = {}

    @property
    def dims(self) -> dict[str, int]:
        """Width of the features of each layer that has been measured.

        Returns
        -------
        dict of str to int
        """
        return dict(self._dims)

    def __getitem__(self, layer: str) -> MetricCollection:
        """Return the metrics of a layer: ``measures["fc"]["NeuralCollapse"].class_means()``."""
        if layer not in self._metrics:
            listed = ", ".join(map(repr, self._metrics)) or "(none yet)"
            raise InputError(f"layer {layer!r} has not been measured; choose one of: {listed}")
        return self._metrics[layer]

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """Return the measures of all batches so far, of all processes.

        Returns
        -------
        dict of str to dict of str to Tensor
            For each layer its measures by name: the keys of a metric that returns a dict, or else the name of the
            metric's class. Tensors of shape () for the metrics of this package.

        Raises
        ------
        InputError
            If nothing has been measured, or processes found different widths.
        """
        self._agree()
        if not self._metrics:
            raise InputError("nothing has been measured; call the model inside labels(), or pass a loader with batches")
        return {name: metrics.compute() for name, metrics in self._metrics.items()}

    def flat(self, prefix: str = "") -> dict[str, Tensor]:
        """Return `compute` as one dict with keys such as ``"fc/nc1"``, for ``log_dict`` and other loggers.

        Parameters
        ----------
        prefix : str
            In front of every key, e.g. "val/".

        Returns
        -------
        dict of str to Tensor
        """
        return {f"{prefix}{layer}/{key}": x for layer, values in self.compute().items() for key, x in values.items()}

    def reset(self) -> None:
        """Forget all batches. The widths are found anew."""
        self._dims, self._metrics = {}, {}

    def merge_state(self, incoming: Self) -> None:
        """Add the batches that another object has measured to those of this one.

        Parameters
        ----------
        incoming : LayerMeasures
            Built with the same arguments, for a copy of the model.

        Raises
        ------
        InputError
            If a layer has other metrics, classes or another width there. Nothing has changed then.
        """
        for name, metrics in incoming._metrics.items():
            here, there = (self.num_classes, self._dims.get(name)), (incoming.num_classes, incoming._dims[name])
            if name in self._metrics and (here != there or self._metrics[name].keys() != metrics.keys()):
                raise InputError(
                    f"incoming does not fit: for layer {name!r} it has (num_classes, dim) = {there} and "
                    f"{_listed(metrics)}, and this object {here} and {_listed(self._metrics[name])}; "
                    "build both with the same arguments"
                )
        for name, metrics in incoming._metrics.items():
            device = next(iter(metrics.values())).device
            for key, metric in self.metrics_of(name, incoming._dims[name], device).items():
                metric.merge_state(metrics[key])

    def metrics_of(self, name: str, dim: int, device: torch.device | str) -> MetricCollection:
        """Return the metrics of a layer, and make them if there are none.

        Parameters
        ----------
        name : str
        dim : int
            Width of its features.
        device : torch.device or str
            Where new metrics keep their states.

        Returns
        -------
        MetricCollection

        Raises
        ------
        InputError
            If the layer has another width.
        """
        self._require_width(name, dim)
        if name not in self._metrics:
            with torch.inference_mode(False):  # states made in inference mode could not be added to outside of it
                made = [make(num_classes=self.num_classes, dim=dim) for make in self._make]
                self._metrics[name] = _united(made).to(device)
            self._dims[name] = dim
        return self._metrics[name]

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            del self._dims[name], self._metrics[name]

    def _require_width(self, name: str, dim: int) -> None:
        if (before := self._dims.get(name, dim)) != dim:
            raise InputError(
                f"features have width {dim}, and had {before} before; choose what to measure with output= or channels="
            )

    def _agree(self) -> None:
        """Make the metrics that only other processes have, in one order: to compute one is a collective."""
        alone = not (distributed.is_available() and distributed.is_initialized())
        if alone or not all(m.sync_on_compute for metrics in self._metrics.values() for m in metrics.values()):
            return
        everywhere: list[dict[str, int]] = [{} for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(everywhere, self._dims)
        dims: dict[str, int] = {}
        for found in everywhere:
            for name, dim in found.items():
                if dims.setdefault(name, dim) != dim:
                    raise InputError(
                        f"layer {name!r} has width {dims[name]} on one process and {dim} on another; "
                        "choose what to measure with output= or channels="
                    )
        for name in dims.keys() - self._dims.keys():
            none = torch.empty(0, dims[name]), torch.empty(0, dtype=torch.int64)
            self.metrics_of(name, dims[name], _gathered_on()).update(*none)  # or torchmetrics warns that it saw none
        self._metrics = {name: self._metrics[name] for name in dims}


def _united(made: Sequence[Metric | MetricCollection]) -> MetricCollection:
    try:
        # without groups: those are found from the values of the first batch, which differ between processes
        return MetricCollection(made, compute_groups=False)
    except ValueError as error:  # of two metrics of one class
        raise InputError(
            f"metrics cannot be in one collection: {error}; pass a function of num_classes and dim that returns a "
            "MetricCollection of a dict, with a name for each"
        ) from error


def _listed(metrics: MetricCollection) -> str:
    return ", ".join(map(str, metrics))


def _gathered_on() -> torch.device:
    """Return where a process without batches keeps its metrics: where its group can gather them."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """Put what a refusal is about in front of its message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
