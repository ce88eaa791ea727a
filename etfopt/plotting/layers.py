"""A picture of how a measure changes over the layers of a network and the epochs of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from etfopt._arrays import Array
from etfopt.errors import InputError
from etfopt.plotting._style import axes_or_new

__all__ = ["draw_layers", "layer_values"]

Layers: TypeAlias = Mapping[str, Any]
"""What `etfopt.metrics.LayerMeasures.compute` returns, or what ``etfopt measure --json`` prints."""

FLOOR = 1e-8
"""What is zero up to rounding has the colour of this value on a logarithmic scale."""

NUMBERS = 12
"""Up to so many columns the values are written into the picture."""


def layer_values(results: Sequence[Layers], measure: str) -> tuple[list[str], Array]:
    """Return the layers that occur in a list of results, and the values of one measure.

    Parameters
    ----------
    results : sequence of mapping
        One an epoch, as `etfopt.metrics.LayerMeasures.compute` returns it: measures by layer. The documents that
        ``etfopt measure --json`` prints do as well.
    measure : str
        Which measure, e.g. "nc1".

    Returns
    -------
    names : list of str
        The layers, in the order of their first appearance.
    values : ndarray, shape (layers, epochs)
        NaN where a layer has no value.

    Raises
    ------
    InputError
        If there are no results, or none has the measure.
    """
    epochs = [_by_layer(result) for result in results]
    names = list(dict.fromkeys(name for layers in epochs for name in layers))
    known = dict.fromkeys(key for layers in epochs for values in layers.values() for key in values)
    if measure not in known:
        raise InputError(
            f"measure = {measure!r} is in none of the results; choose one of: {', '.join(known) or '(none)'}"
        )
    rows = [[_number(layers.get(name, {}).get(measure)) for layers in epochs] for name in names]
    return names, np.array(rows, dtype=np.float64)


def _by_layer(result: Layers) -> Mapping[str, Mapping[str, SupportsFloat | None]]:
    layers = result.get("layers")
    return {entry["layer"]: entry["measures"] for entry in layers} if isinstance(layers, list) else result


def _number(value: SupportsFloat | None) -> float:
    return np.nan if value is None else float(value)


def draw_layers(
    results: Sequence[Layers],
    measure: str,
    *,
    epochs: Sequence[Any] | None = None,
    log: bool = True,
    axes: Axes | None = None,
) -> Axes:
    """Draw a measure as a heat map: a row a layer, the first at the top, and a column an epoch.

    Cells without a value are grey. The values are written into the cells where there are at most 12 epochs.

    Parameters
    ----------
    results : sequence of mapping
        One an epoch, as for `layer_values`.
    measure : str
        Which measure, e.g. "nc1".
    epochs : sequence, optional
        Labels of the columns: 0, 1, 2, ... by default.
    log : bool
        Whether the colours are on a logarithmic scale, where values below 1e-8 look like 1e-8. Good for nc1 and for
        the distances; pass False for measures such as accuracy and vci, and for those that may be negative.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If no result has the measure, there are not as many epochs as results, or a value is negative and `log` is true.

    Examples
    --------
    >>> from etfopt.plotting import draw_layers
    >>> results = [{"conv": {"nc1": 2.0}, "fc": {"nc1": 0.5}}, {"conv": {"nc1": 1.0}, "fc": {"nc1": 0.01}}]
    >>> axes = draw_layers(results, "nc1", epochs=[1, 50])
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['conv', 'fc']
    """
    names, values = layer_values(results, measure)
    labels = list(range(len(results))) if epochs is None else list(epochs)
    if len(labels) != len(results):
        raise InputError(f"epochs has {len(labels)} entries, and there are {len(results)} results; pass one for each")
    if log and (values < 0).any():
        raise InputError(f"{measure} has negative values, which have no logarithm; pass log=False")
    shown = np.maximum(values, FLOOR) if log else values  # NaN stays NaN
    axes = axes_or_new(axes, (1.8 + 0.45 * min(len(labels), 24), 1.2 + 0.35 * len(names)))
    image = axes.imshow(
        shown, aspect="auto", interpolation="nearest", cmap=colormaps["viridis"].with_extremes(bad="0.85"),
        norm=_scale(shown, log),
    )  # fmt: skip
    every = -(-len(labels) // NUMBERS)
    axes.set_xticks(range(0, len(labels), every), [str(label) for label in labels[::every]])
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="epoch", title=measure)
    axes.grid(False)
    axes.figure.colorbar(image, ax=axes)
    if len(labels) <= NUMBERS:
        _write_values(axes, values, image)
    return axes


def _scale(values: Array, log: bool) -> Normalize:
    """Return a scale from the smallest value to the largest, or one of some width where they are equal or missing."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    if low == high:
        low, high = (low / 2, 2 * high) if log else (low - 0.5, high + 0.5)
    return LogNorm(low, high) if log else Normalize(low, high)


def _write_values(axes: Axes, values: Array, image: Any) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = image.norm(max(value, FLOOR) if isinstance(image.norm, LogNorm) else value) < 0.55
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", color="white" if dark else "black", fontsize=7)
