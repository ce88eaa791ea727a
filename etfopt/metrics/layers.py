"""`LayerMeasures`: the measures of many layers of a network in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from etfopt._options import as_ignored
from etfopt.errors import InputError
from etfopt.metrics._checks import require_values
from etfopt.metrics._hooks import CALLS, Read, by_call, hooked
from etfopt.metrics._layerwise import LayerResults, Make, said_of
from etfopt.metrics._named import Layers, find_classifier, find_layers, unwrapped
from etfopt.metrics._outputs import Pool, as_class_indices, counted, first_tensor
from etfopt.metrics._passes import call, evaluating, moved, unpacked
from etfopt.metrics._reading import Reading, Seen, require_known
from etfopt.metrics.collapse import NeuralCollapse

__all__ = ["LayerMeasures"]


class LayerMeasures(LayerResults):
    r"""Measures of collapse of named layers of a network, all in one pass over the data.

    Inside ``with measures.labels(y): model(x)`` hooks keep the outputs of the layers, and the metrics of each layer
    are updated when the block ends. No hook outlives the block, so the model can be saved, copied and compiled outside
    of it. `measure` runs a whole loader. The width of a layer is found at its first batch.

    An output becomes samples as follows. The first tensor of a tuple, list or mapping is taken, or what the function
    `output` returns. Its first axis numbers the samples. One feature lies along the channels, which are the last axis
    of (n, d). With `channels` = "auto" and more axes, labels for every position decide, or else the modules inside the
    layer: convolutions and batch norms have the channels second, linear layers and layer norms last. Where a layer has
    neither, (n, t, d) are tokens and (n, d, h, w) is a map. Where it has both, or a network with one-dimensional
    convolutions leaves (n, t, d) open, you are asked for `channels`. `dims` shows which width was taken. Positions (t,
    or h and w) are treated as `pool` says.

    Parameters
    ----------
    model : nn.Module
        Any network; names are those inside of ``DistributedDataParallel``.
    layers : str, re.Pattern, or sequence of them
        Names as in ``model.named_modules()``. In a pattern such as ``"blocks.*.mlp"`` a star stays within one part of
        the name. A compiled regular expression must match the whole name.
    num_classes : int
        C, at least 2.
    classifier : str, optional
        Name of the classifier, an ``nn.Linear`` or a head of etfopt with C classes. Its *input* is measured under this
        name, normalised where a head does so, and its weight and bias are passed to the metrics. Layers without
        a classifier are measured by their features alone.
    metrics : callable, or sequence of them
        Each is called with ``num_classes=`` and ``dim=`` and returns a metric or a ``MetricCollection``. Use
        ``functools.partial`` for other options. All layers have the same metrics: for metrics that need a classifier
        build a second `LayerMeasures` without `layers`, and use both blocks around one forward.
    pool : "auto", "mean", "each" or callable
        "mean" averages over the positions, so that an image or a sequence is one sample. "each" makes every position
        a sample; labels are one a position, or those of the image are repeated. "auto" (default) is "mean" for labels
        of shape (n,) and "each" for labels with more axes. A mean over tokens includes padding: a function from (n,
        ..., d) to (n, d), e.g. ``lambda tokens: tokens[:, 0]``, selects what counts.
    channels : "auto", "first" or "last"
        Whether the channels are the second or the last axis of outputs with more than two axes.
    output : callable
        From what a module returns to a tensor.
    calls : "once", "first", "last" or "each"
        What to do where one forward calls a layer several times, as residual blocks do with one ReLU. "once" (default)
        is an error, "first" and "last" take one call, "each" measures them as ``name[0]``, ``name[1]`` and so on.
    ignore_index : int
        Label of samples that count nowhere: by default -100, as in PyTorch's cross-entropy.

    Raises
    ------
    InputError
        If a name or pattern fits no module, two names are one module, or an option is out of range.

    Notes
    -----
    The states are float64, on the device of the outputs; that device needs float64. The hooks copy outputs, since later
    layers may overwrite them; with "mean" only the averages are kept. Under distributed training every process calls
    `compute`, and its value is that of all samples, as for one metric; a process may have had no batch.

    References
    ----------
    Papyan, Han, Donoho (2020) for the measures; see `NeuralCollapse`.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import LayerMeasures
    >>> model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> measures = LayerMeasures(model, ["0", "1"], num_classes=3, classifier="2")
    >>> with measures.labels(torch.arange(30) % 3):
    ...     logits = model(torch.randn(30, 5))
    >>> measures.dims
    {'0': 8, '1': 8, '2': 8}
    >>> bool(measures.compute()["1"]["nc1"] > 0)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = (),
        *,
        num_classes: int,
        classifier: str | None = None,
        metrics: Make | Sequence[Make] = NeuralCollapse,
        pool: Pool = "auto",
        channels: str = "auto",
        output: Callable[[Any], Tensor] = first_tensor,
        calls: str = "once",
        ignore_index: int = -100,
    ) -> None:
        super().__init__(num_classes, metrics)
        self.model = model
        self.ignore_index = as_ignored(ignore_index, self.num_classes)
        require_known("calls", calls, CALLS)
        self._reading, self._calls = Reading(unwrapped(model), pool, channels, output), calls
        self._layers, self._classifier = find_layers(unwrapped(model), layers), classifier
        if classifier is not None:
            module = find_classifier(unwrapped(model), classifier, self.num_classes)
            if classifier in self._layers:
                raise InputError(f"layers and classifier both name {classifier!r}; leave it out of layers")
            self._layers[classifier] = module
        if not self._layers:
            raise InputError("layers is empty and there is no classifier; name at least one module to measure")
        self._open = False

    @contextmanager
    def labels(self, labels: Tensor) -> Iterator[None]:
        """Measure the one forward inside the block; the metrics are updated when it ends.

        Nothing is added where the block raises, or where anything about the batch is refused.

        Parameters
        ----------
        labels : Tensor of integers in [0, C), shape (n,) or (n, positions)
            One a sample, or one for every token or pixel.

        Yields
        ------
        None

        Raises
        ------
        InputError
            On entry if the labels are no class indices (of one-hot or soft labels pass ``labels.argmax(dim=-1)``), or
            inside another block of the same object. On exit if a layer was not called, or called several times against
            `calls`, or if its output does not fit the labels or is not finite.
        """
        if self._open:
            raise InputError(
                "labels() is called inside a labels() block of the same LayerMeasures; leave that block first"
            )
        index = as_class_indices(labels, self.num_classes, self.ignore_index)
        self._open = True
        try:
            with hooked(self._layers, self._reads(tuple(index.shape)), self._calls) as kept:
                yield
        finally:
            self._open = False
        self._add(by_call(kept, self._calls), index)

    def measure(
        self,
        loader: Iterable[Any],
        *,
        device: torch.device | str | None = None,
        unpack: Callable[[Any], tuple[Any, Tensor]] = unpacked,
    ) -> dict[str, dict[str, Tensor]]:
        """Run the model over a loader and return the measures of all of it; see `compute`.

        The model runs in evaluation mode and without gradients; every module gets its own mode back. What was measured
        before is forgotten. For training mode, or another loop, use `labels`.

        Parameters
        ----------
        loader : iterable
            Of pairs (inputs, labels), or of mappings with the key "labels". Inputs are a tensor, a tuple of arguments,
            or a mapping of keywords.
        device : torch.device or str, optional
            Where the batches go; that of the model's first parameter by default.
        unpack : callable
            From a batch to a pair (inputs, labels), for other loaders.

        Returns
        -------
        dict of str to dict of str to Tensor
            For each layer its measures by name, tensors of shape () for the metrics of this package.

        Raises
        ------
        InputError
            As `labels`, or if a batch is of an unknown form, or there is none.
        """
        self.reset()
        if device is None:
            device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        with evaluating(self.model), torch.no_grad():
            for batch in loader:
                inputs, labels = moved(unpack(batch), device)
                with self.labels(labels):
                    call(self.model, inputs)
        return self.compute()

    def _reads(self, labels: tuple[int, ...]) -> dict[str, Read]:
        reads: dict[str, Read] = {}
        for name, module in self._layers.items():
            read = self._reading.of_input if name == self._classifier else self._reading.of_output
            reads[name] = partial(read, module, labels)
        return reads

    def _add(self, seen: dict[str, Seen], labels: Tensor) -> None:
        """Update the metrics of every layer, after everything that can be refused has been looked at."""
        rows: dict[str, tuple[Tensor, Tensor]] = {}
        for name, one in seen.items():
            with said_of(f"layer {name!r}, whose features have shape {tuple(one.features.shape)}"):
                rows[name] = counted(one.features, labels, self.num_classes, self.ignore_index)
                self._require_width(name, one.features.shape[-1])
                for key, value in one.classifier.items():
                    if value is not None:
                        require_values(value, key)
        known = set(self.dims)
        try:
            for name, (features, index) in rows.items():
                with said_of(f"layer {name!r}"):
                    metrics = self.metrics_of(name, features.shape[-1], features.device)
                    metrics.update(features, index, **seen[name].classifier)
        except Exception:  # a metric that lacks a classifier says so at the first batch, behind others that took it
            self._forget(set(self.dims) - known)
            raise
