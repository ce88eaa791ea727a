"""Image files and how they become bytes: only those that are kept are decoded, many at a time, in order."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from etfopt.errors import InputError
from etfopt.experiments.data._image_file import read_image
from etfopt.experiments.data.cache import digest_of, mapped
from etfopt.experiments.data.images import Labelled
from etfopt.experiments.data.selection import Selection

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["ImageFiles", "decoded"]

CHUNK = 512
"""Images that are decoded before they are put where they belong."""

Bytes: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Shape: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class ImageFiles:
    """A split as it lies on the disk.

    Attributes
    ----------
    paths : sequence of Path
        n image files.
    labels : Tensor, shape (n,), int64
        0 to C - 1.
    """

    paths: Sequence[Path]
    labels: Tensor


def decoded(
    splits: tuple[ImageFiles, ImageFiles], kept: tuple[Selection, Selection], config: DataConfig
) -> tuple[Labelled, Labelled]:
    """Return what is kept of both splits, decoded: in grey if the first image of every class is, in colour otherwise.

    What the first images are, and what size where none is given, is a matter of the whole training split, so that
    subsets are parts of it.
    """
    firsts = _firsts(splits[0])
    train, test = (
        [split.paths[i] for i in chosen.indices.tolist()] for split, chosen in zip(splits, kept, strict=True)
    )
    shape = functools.cache(functools.partial(_shape, firsts, config.size))
    if config.cache is None:
        _require_memory(len(train) + len(test), shape(), config.name, config.memory_gib)
        pixels = [torch.from_numpy(_in_memory(files, shape(), config.size is not None)) for files in (train, test)]
        return Labelled(pixels[0], kept[0].labels), Labelled(pixels[1], kept[1].labels)
    folder = Path(config.cache).expanduser()

    def kept_on_disk(name: str, files: Sequence[Path], chosen: Selection) -> Labelled:
        key = digest_of([*firsts, *files], settings=(config.size, len(firsts)))
        return Labelled(
            mapped(folder, name, key, len(files), lambda: _chunks(files, shape(), config.size is not None)),
            chosen.labels,
        )

    return kept_on_disk("train", train, kept[0]), kept_on_disk("test", test, kept[1])


def _firsts(train: ImageFiles) -> list[Path]:
    """Return the first image, and after it that of every class."""
    by_class = {label: path for path, label in zip(reversed(train.paths), train.labels.flip(0).tolist(), strict=True)}
    return [train.paths[0], *by_class.values()]


def _shape(firsts: Sequence[Path], side: int | None) -> Shape:
    found = [(picture.image.mode, picture.image.size, picture.deep) for picture in map(read_image, firsts)]
    if deep := [path for path, (*_, is_deep) in zip(firsts, found, strict=True) if is_deep]:
        warnings.warn(
            f"{deep[0]}: has 16 bits a channel, and 8 are kept: 65535 becomes 255. If the set uses fewer, such as 12, "
            "convert it to 8 bits by its own range",
            stacklevel=1,
        )
    height, width = (side, side) if side else found[0][1][::-1]
    return (1 if all(mode == "L" for mode, *_ in found) else 3, height, width)


def _require_memory(count: int, shape: Shape, name: str, most: float) -> None:
    needed = count * shape[0] * shape[1] * shape[2] / 2**30
    if needed > most:
        raise InputError(
            f"{name}: {count} images of shape {shape} need {needed:.3g} GiB, more than data.memory_gib = "
            f"{most:g}; set a smaller data.size or data.subset, keep them on the disk by data.cache = "
            "FOLDER, or raise data.memory_gib"
        )


def _in_memory(files: Sequence[Path], shape: Shape, fit: bool) -> Bytes:
    pixels, start = np.empty((len(files), *shape), dtype=np.uint8), 0
    for chunk in _chunks(files, shape, fit):
        pixels[start : start + len(chunk)] = chunk
        start += len(chunk)
    return pixels


def _chunks(files: Sequence[Path], shape: Shape, fit: bool) -> Iterator[Bytes]:
    """Yield images, (at most CHUNK, *shape), in the order of the files. Pillow lets other threads run as it decodes."""
    decode: Callable[[Path], Bytes] = functools.partial(_pixels, shape=shape, fit=fit)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), CHUNK):
            yield np.stack(list(pool.map(decode, files[start : start + CHUNK])))


def _pixels(path: Path, shape: Shape, fit: bool) -> Bytes:
    """Return one image, (channels, height, width); with `fit`, one of another size is scaled and cropped."""
    image = read_image(path).image
    if shape[0] == 1 and image.mode != "L":
        raise InputError(f"{path}: is in colour, and the first image of every class is grey; convert them alike")
    wanted = (shape[2], shape[1])
    if not fit and image.size != wanted:
        raise InputError(
            f"{path}: is {image.size[0]} x {image.size[1]} pixels, and the first image is {wanted[0]} x {wanted[1]}; "
            "give data.size to scale and crop them"
        )
    image = image.convert("L" if shape[0] == 1 else "RGB")
    if image.size != wanted:
        image = ImageOps.fit(image, wanted, Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if shape[0] == 1 else array.transpose(2, 0, 1)
