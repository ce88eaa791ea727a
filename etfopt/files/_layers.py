"""Arrays of files that belong together: the features of each layer, their labels, and the classifier on one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from etfopt.errors import InputError
from etfopt.files._rows import Rows, open_rows

__all__ = ["SavedLayer", "classes_of", "classes_without_samples", "find_saved"]

BESIDE = ("labels", "weight", "bias")
"""Keys that hold no features."""

LARGEST_GUESS = 10**7
"""A label above this is taken for a mistake, such as a hash or a time, where the number of classes is not given."""

Open: TypeAlias = dict[str, Callable[[], Rows]]
AnyArray: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SavedLayer:
    """One layer: features (n, d) or (n, positions, d), their labels, and the classifier on it, if there is one."""

    name: str
    features: Rows
    labels: AnyArray
    weight: AnyArray | None = None
    bias: AnyArray | None = None


def find_saved(
    paths: Sequence[Path],
    *,
    keys: Sequence[str] = (),
    labels: Path | None = None,
    weight: Path | None = None,
    bias: Path | None = None,
    classifier_of: str | None = None,
) -> list[SavedLayer]:
    """Return the layers of some files, in the order given.

    Without `keys`, every array but those of the keys `BESIDE` holds features. A file of its own replaces what lies
    beside the features. With several layers, `classifier_of` names the one that the classifier multiplies.
    """
    opened = {path: open_rows(path) for path in paths}
    found = _layers(opened, keys)
    own = {path: _array(held, "labels") for path, held in opened.items()}
    given = None if labels is None else _alone(labels, "labels")
    features = {name: opened[path][key]() for name, (path, key) in found.items()}
    classified = _classified(found, opened, weight, classifier_of)
    if bias is not None and classified is None:
        raise InputError(f"{bias}: is a bias, and there is no weight; pass --weight too")
    made = []
    for name, (path, _) in found.items():
        y = given if given is not None else own[path]
        if y is None:
            raise InputError(f"{path}: holds no labels; save them under the key 'labels', or pass --labels")
        where = str(labels) if given is not None else f"{path}: labels"
        _require_fit(features[name], y, where)
        W = b = None
        if name == classified:
            W, b = _classifier(opened[path], weight, bias)
        made.append(SavedLayer(name, features[name], y, W, b))
    return made


def _layers(opened: dict[Path, Open], keys: Sequence[str]) -> dict[str, tuple[Path, str]]:
    """Return path and key of every layer, by a name that tells it from the others."""
    everywhere = [(path, key) for path, held in opened.items() for key in held if not keys and key not in BESIDE]
    for key in keys:
        there = [path for path, held in opened.items() if key in held]
        if not there:
            held = ", ".join(repr(name) for held in opened.values() for name in held if name)
            raise InputError(f"--key {key!r} is in no file; the files hold {held or 'one array each, without a key'}")
        everywhere += [(path, key) for path in there]
    if not everywhere:
        raise InputError(f"{next(iter(opened), 'paths')}: holds no features; save them under the key 'features'")
    many = Counter(path for path, _ in everywhere)
    stems = Counter(path.stem for path in many)
    named = {}
    for path, key in everywhere:
        stem = path.stem if stems[path.stem] == 1 else str(path)
        alone = many[path] == 1 and key in ("", "features")
        named[stem if alone else key if len(many) == 1 else f"{stem}:{key}"] = (path, key)
    return named


def _classified(
    found: dict[str, tuple[Path, str]], opened: dict[Path, Open], weight: Path | None, wanted: str | None
) -> str | None:
    """Return the name of the layer that a classifier belongs to, or None where it belongs to none that is measured."""
    candidates = [name for name, (path, _) in found.items() if weight is not None or "weight" in opened[path]]
    rivals = [*candidates, *([] if weight is not None else _left_out(found, opened))]
    if wanted is not None:
        if wanted not in rivals:
            what = ", ".join(rivals) or "none: there is no weight"
            raise InputError(f"--classifier-of {wanted!r} is no layer with a classifier; choose one of: {what}")
        return wanted if wanted in candidates else None
    if not candidates:
        return None
    if len(rivals) > 1 and [found[name][1] for name in candidates] != ["features"]:
        raise InputError(
            f"the weight may belong to {' or '.join(rivals)}; name the layer that it multiplies by --classifier-of"
        )
    return candidates[0]


def _left_out(found: dict[str, tuple[Path, str]], opened: dict[Path, Open]) -> list[str]:
    """Return the keys of features beside a weight that are not measured, and that the weight may belong to."""
    beside = [(path, key) for path, held in opened.items() if "weight" in held for key in held if key not in BESIDE]
    return [key for path, key in beside if (path, key) not in found.values()]


def _classifier(held: Open, weight: Path | None, bias: Path | None) -> tuple[AnyArray | None, AnyArray | None]:
    """Return weight and bias; the bias beside the features is not that of a weight from elsewhere."""
    W = _array(held, "weight") if weight is None else _alone(weight, "weight")
    if bias is not None:
        return W, _alone(bias, "bias")
    return W, _array(held, "bias") if weight is None else None


def _array(held: Open, key: str) -> AnyArray | None:
    return held[key]().read() if key in held else None


def _alone(path: Path, key: str) -> AnyArray:
    """Return the array of that key, or the only one of its file."""
    held = open_rows(path)
    if key not in held and len(held) > 1:
        raise InputError(f"{path}: holds {', '.join(held)}, and no {key}; save it under the key {key!r}")
    return held.get(key, next(iter(held.values())))().read()


def _require_fit(features: Rows, labels: AnyArray, where: str) -> None:
    shape = features.shape
    if features.kind != "f" or len(shape) < 2:
        raise InputError(
            f"{features.where}: has shape {shape} and dtype kind {features.kind!r}; features are floating-point "
            "numbers of shape (n, d), or (n, positions, d)"
        )
    if labels.shape != shape[:-1]:
        maps = len(shape) > 2 and labels.shape == shape[:1]
        remedy = "average over the positions first, or save a label for each" if maps else "save a label for each row"
        raise InputError(
            f"{features.where}: has shape {shape}, and {where} has shape {labels.shape}, not {shape[:-1]}; {remedy}"
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"{where}: has dtype {labels.dtype}; save class indices as integers")


def classes_of(layers: Sequence[SavedLayer], ignore_index: int) -> int:
    """Return the number of classes: that of the classifier, or else one more than the largest label."""
    for layer in layers:
        if layer.weight is not None:
            return len(layer.weight)
    C = 1 + max(int(np.max(x.labels, where=x.labels != ignore_index, initial=0)) for x in layers)
    if not 2 <= C <= LARGEST_GUESS:
        raise InputError(
            f"the largest label is {C - 1}, so that there would be {C} classes; check the labels, or pass --classes"
        )
    return C


def classes_without_samples(layers: Sequence[SavedLayer], num_classes: int, ignore_index: int) -> int:
    """Return how many of the classes have no sample in any layer."""
    seen = np.unique(np.concatenate([np.unique(layer.labels) for layer in layers]))
    return num_classes - int((seen != ignore_index).sum())
