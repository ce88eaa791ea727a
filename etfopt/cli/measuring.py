"""The command that measures features saved in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etfopt._options import METRICS
from etfopt.cli import _tables as tables
from etfopt.cli._app import AsJson, Quiet, hand_over, one_of, progress, require_file

__all__ = ["measure"]


def measure(
    features: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Files with features (n, d): .npz, .npy or .safetensors, of one or several layers."
        ),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Class indices (n,). [the key 'labels' beside the features]")
    ] = None,
    weight: Annotated[Path | None, typer.Option(help="Classifier weight (C, d). [the key 'weight', or none]")] = None,
    bias: Annotated[Path | None, typer.Option(help="Classifier bias (C,). [the key 'bias', or none]")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Measure this array of the files; may be given again. [all but labels, weight and bias]"),
    ] = None,
    classifier_of: Annotated[
        str | None, typer.Option(help="Name of the layer that the classifier multiplies. [the only one]")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes C. [rows of the weight, or one more than the largest label]")
    ] = None,
    ignore_index: Annotated[int, typer.Option(help="Ignore samples with this label.")] = -100,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A metric ({METRICS.listed}), or a measure such as nc1 or cdnv; may be given again. [collapse]",
            autocompletion=one_of(lambda: METRICS),
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Rows read at a time.")] = 4096,
    out: Annotated[Path | None, typer.Option(help="Save the JSON object in this file.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure neural collapse of saved features, layer by layer.

    A file holds arrays under the keys features, labels, weight and bias, or several layers under other names. Large
    files are read in parts.

    ```
    etfopt measure features.npz
    etfopt measure layer1.npy layer2.npy --labels labels.npy
    etfopt measure f.npy --labels y.npy --weight w.npy --measures margin
    etfopt measure hidden.safetensors --key blocks.7 --out collapse.json
    ```
    """
    from etfopt import _catalog, _options, _scalars, files

    keys, others = _catalog.measures_and_metrics(measures or ["collapse"])
    _scalars.as_integer(batch_size, "batch_size", at_least=1)
    for path in (*features, *filter(None, (labels, weight, bias))):
        require_file(path)
    if out is not None:
        files.refuse_occupied([out], ("classes", "layers"), "an earlier measurement", overwrite=True)
    layers = files.find_saved(
        features, keys=key or (), labels=labels, weight=weight, bias=bias, classifier_of=classifier_of
    )
    C = (
        files.classes_of(layers, ignore_index)
        if classes is None
        else _scalars.as_integer(classes, "classes", at_least=2)
    )
    _options.as_ignored(ignore_index, C)
    from etfopt.metrics import _saved as saved  # which imports torch

    metrics = saved.metrics_of(keys, others)
    steps = sum(-(-layer.features.shape[0] // batch_size) for layer in layers)
    with progress(steps, quiet, "batches") as step:
        values = saved.measure_saved(
            layers, num_classes=C, metrics=metrics, ignore_index=ignore_index, batch_size=batch_size, step=step
        )
    found = [
        {
            "layer": layer.name,
            "features": layer.features.where,
            "shape": list(layer.features.shape),
            "classifier": layer.weight is not None,
            "measures": {name: float(value) for name, value in values[layer.name].items()},
        }
        for layer in layers
    ]
    document = {"classes": C, "ignore_index": ignore_index, "layers": found}
    if out is not None:
        files.write_atomically(out, files.strict_json(document).encode())
    said = [] if out is None else [f"wrote {out}"]
    if absent := files.classes_without_samples(layers, C, ignore_index):
        said = [f"{absent} of the {C} classes have no samples; name a label to be ignored with --ignore-index", *said]
    hand_over(document, tables.layer_measures(found, C), said, as_json)
