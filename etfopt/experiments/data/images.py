"""Labelled images as bytes that are standardised as they are taken, by statistics of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from etfopt.errors import InputError

__all__ = ["Images", "Labelled", "MappedPixels", "Split", "require_classes", "standardized", "value_counts"]

CHUNK = 4096
"""Images whose values are counted at a time."""


@dataclass(frozen=True)
class MappedPixels:
    """Images in a file that is mapped into memory, of which only what is taken is read.

    Attributes
    ----------
    array : ndarray, shape (n, channels, height, width), uint8
        May be read-only.
    counts : Tensor, shape (channels, 256), int64
        How often each channel has each value.
    """

    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    counts: Tensor

    def __getitem__(self, indices: Sequence[int] | slice | Tensor) -> Tensor:
        taken = self.array[np.asarray(indices) if isinstance(indices, Tensor) else indices]
        return torch.from_numpy(np.require(taken, requirements="W"))  # a copy, also where NumPy gives a view

    @property
    def shape(self) -> torch.Size:
        """(n, channels, height, width)."""
        return torch.Size(self.array.shape)


@dataclass(frozen=True)
class Labelled:
    """Images and labels as they were read.

    Attributes
    ----------
    pixels : Tensor or MappedPixels, shape (n, channels, height, width)
        Bytes, or float32 of data of one's own.
    labels : Tensor, shape (n,), int64
        0 to C - 1.
    """

    pixels: Tensor | MappedPixels
    labels: Tensor


class Split(Dataset[tuple[Tensor, Tensor]]):
    """A split that is indexed by a list of samples, and returns them as a batch.

    Parameters
    ----------
    samples : Labelled
    mean, deviation : Tensor, shape (channels,), optional
        If given, images are float32, minus the mean, over the deviation; if not, they are returned as they are.
    """

    def __init__(self, samples: Labelled, mean: Tensor | None = None, deviation: Tensor | None = None) -> None:
        self.pixels, self.labels = samples.pixels, samples.labels
        self.mean, self.deviation = (None if x is None else x[:, None, None] for x in (mean, deviation))

    def part(self, indices: Tensor) -> Split:
        """Return some of its samples, standardised alike.

        Parameters
        ----------
        indices : Tensor, shape (m,), int64
            Which.

        Returns
        -------
        Split
            A copy of their images.
        """
        return self._like(Labelled(self.pixels[indices], self.labels[indices]))

    def relabelled(self, labels: Tensor) -> Split:
        """Return the same images with other labels.

        Parameters
        ----------
        labels : Tensor, shape (n,), int64
            The new ones.

        Returns
        -------
        Split
        """
        return self._like(Labelled(self.pixels, labels))

    def _like(self, samples: Labelled) -> Split:
        return Split(samples, *(None if x is None else x[:, 0, 0] for x in (self.mean, self.deviation)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        pixels: Tensor
        pixels, labels = self.pixels[indices], self.labels[indices]
        if self.mean is None or self.deviation is None:
            return pixels, labels
        return (pixels.float() - self.mean) / self.deviation, labels

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images, standardised float32 of shape (n, channels, height, width), and labels, int64 of shape (n,)."""
        return self[:]


@dataclass(frozen=True)
class Images:
    """A data set in two splits.

    Attributes
    ----------
    train, test : Split
        Standardised alike.
    num_classes : int
        C; the labels are 0 to C - 1.
    """

    train: Split
    test: Split
    num_classes: int

    @property
    def shape(self) -> torch.Size:
        """Shape of one image; of a sample of the unconstrained-features model, which is an index, that of a number."""
        return self.train.pixels.shape[1:]


def standardized(train: Labelled, test: Labelled, num_classes: int) -> Images:
    """Return both splits, standardised by each channel's mean and deviation over the training split.

    Parameters
    ----------
    train, test : Labelled
        As read.
    num_classes : int
        C.

    Returns
    -------
    Images
        Both splits by the training split's mean and deviation.

    Raises
    ------
    InputError
        If a class has no samples in one of them, or the images of the two differ in shape.
    """
    require_classes(train.labels, test.labels, num_classes)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise InputError(
            f"images are of shape {tuple(train.pixels.shape[1:])} in the training split and "
            f"{tuple(test.pixels.shape[1:])} in the test split; give data.size"
        )
    pixels = train.pixels
    if isinstance(pixels, Tensor) and pixels.is_floating_point():
        spread, centre = torch.std_mean(pixels.double(), dim=(0, 2, 3), correction=1 if len(pixels) > 1 else 0)
        mean, deviation = centre.float(), torch.where(spread > 0, spread, 1).float()
    else:
        mean, deviation = _statistics(pixels.counts if isinstance(pixels, MappedPixels) else value_counts(pixels))
    return Images(Split(train, mean, deviation), Split(test, mean, deviation), num_classes)


def require_classes(train: Tensor, test: Tensor, num_classes: int) -> None:
    """Check that every class has a sample in both splits, and there are no other labels."""
    for name, labels in (("training", train), ("test", test)):
        counts = torch.bincount(labels, minlength=num_classes)
        if len(counts) > num_classes:
            raise InputError(f"the {name} split has the label {len(counts) - 1}; C = {num_classes} in training")
        if missing := (counts == 0).nonzero().flatten().tolist():
            raise InputError(
                f"the {name} split has labels 0 to {len(counts) - 1}, and no sample of the classes {missing[:10]}; "
                f"each of the {num_classes} classes needs one"
            )


def value_counts(pixels: Tensor) -> Tensor:
    """Return how often each channel has each of the 256 values."""
    counts = torch.zeros(pixels.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(pixels), CHUNK):
        chunk = pixels[start : start + CHUNK]
        counts += torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in chunk.unbind(dim=1)])
    return counts


def _statistics(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (n - 1) of every channel, float32, from counts of the 256 values: exact, and cheap."""
    values = torch.arange(256, dtype=torch.float64)
    number = counts.sum(dim=1)
    mean = counts.double() @ values / number
    variance = (counts * (values - mean[:, None]) ** 2).sum(dim=1) / (number - 1).clamp(min=1)
    # a channel of one value has nothing to scale
    return mean.float(), torch.where(variance > 0, variance, 1).sqrt().float()
