"""Images from folders in the layout of ImageNet, decoded once into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from etfopt.errors import InputError
from etfopt.experiments.data.images import Labelled
from etfopt.experiments.data.selection import held_out

if TYPE_CHECKING:
    from etfopt.experiments.config import DataConfig

__all__ = ["decoded", "load_folder", "load_tiny_imagenet"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "I", "I;16", "F")

Files = list[tuple[Path, int]]
"""Image files and the indices of their classes."""


def load_folder(root: Path, config: DataConfig) -> tuple[Labelled, Labelled, list[str]]:
    """Return training split, test split and the names of the classes, which are those of the folders, sorted.

    Either ROOT/train/CLASS/... and ROOT/test/CLASS/... (or val), or ROOT/CLASS/..., of which a share of every class is
    held out, chosen by the data's seed. Images may lie in folders below CLASS.

    Parameters
    ----------
    root : Path
        The folder above.
    config : DataConfig
        Size, share held out, seed, memory.

    Returns
    -------
    train, test, classes : Labelled, Labelled, list of str
        Labels count the classes in this order.

    Raises
    ------
    InputError
        If a folder is missing or holds no classes, a class has no images or is in one split only, an image cannot be
        read, images differ in size and none is given, or they would need too much memory.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    if not (root / "train").is_dir():
        classes, files = _listed(root)
        labels = torch.tensor([label for _, label in files])
        _require_two(classes, labels, root)
        out = held_out(labels, len(classes), config.test_share, config.seed).tolist()
        train, test = (
            [file for file, is_out in zip(files, out, strict=True) if is_out == test] for test in (False, True)
        )
        return (*decoded(train, test, config), classes)
    held = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held is None:
        raise InputError(f"{root}: there is a folder train, and neither test nor val beside it")
    (classes, train), (others, test) = _listed(root / "train"), _listed(held)
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise InputError(f"{root}: {', '.join(odd[:10])} is a class of only one of train and {held.name}")
    return (*decoded(train, test, config), classes)


def load_tiny_imagenet(root: Path, config: DataConfig) -> tuple[Labelled, Labelled, list[str]]:
    """Return the splits of Tiny-ImageNet as it is unpacked: ``train/CLASS/images/``, and val with a table of labels.

    Parameters
    ----------
    root : Path
        The unpacked folder.
    config : DataConfig
        Size and memory.

    Returns
    -------
    train, test, classes : Labelled, Labelled, list of str
        The 200 classes by their WordNet ids, sorted.

    Raises
    ------
    InputError
        If a folder or the table is missing or damaged, or an image cannot be read.
    """
    table = root / "val" / "val_annotations.txt"
    if not table.is_file():
        raise InputError(
            f"{root}: Tiny-ImageNet is not there; unpack tiny-imagenet-200.zip of http://cs231n.stanford.edu into "
            f"data.root = {config.root!r}, or sort it into folders and use imagefolder:PATH"
        )
    classes, train = _listed(root / "train")
    index = {name: i for i, name in enumerate(classes)}
    rows = [line.split("\t") for line in table.read_text().splitlines() if line.strip()]
    unknown = [row[0] for row in rows if len(row) < 2 or row[1] not in index]
    if unknown:
        raise InputError(f"{table}: {unknown[0]} has a class that is not in train")
    test = [(root / "val" / "images" / row[0], index[row[1]]) for row in rows]
    return (*decoded(train, test, config), classes)


def _listed(root: Path) -> tuple[list[str], Files]:
    """Return the classes below a folder, sorted, and all their images."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise InputError(f"{root}: two classes or more are needed, a folder each; there are {len(folders)}")
    files: Files = []
    for label, folder in enumerate(folders):
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise InputError(
                f"{folder}: a class without images; files that end in {', '.join(SUFFIXES)} are looked for"
            )
        files += [(path, label) for path in images]
    return [folder.name for folder in folders], files


def _require_two(classes: Sequence[str], labels: Tensor, root: Path) -> None:
    alone = [name for name, n in zip(classes, torch.bincount(labels).tolist(), strict=True) if n < 2]
    if alone:
        raise InputError(f"{root / alone[0]}: a class with one image cannot be split; add one, or make train and test")


def decoded(train: Files, test: Files, config: DataConfig) -> tuple[Labelled, Labelled]:
    """Return both splits decoded, in grey if the first image of every class is, in colour otherwise.

    Parameters
    ----------
    train, test : list of file and label
        As the folder was read.
    config : DataConfig
        Of which the size and the memory allowed count.

    Returns
    -------
    train, test : Labelled
        Pixels, uint8.

    Raises
    ------
    InputError
        If an image cannot be read, sizes differ and none is given, or memory would not do.
    """
    firsts = {label: path for path, label in reversed(train)}
    grey = all(_opened(path).mode in GREY for path in firsts.values())
    side = config.size
    height, width = (side, side) if side else _opened(train[0][0]).size[::-1]
    shape = (1 if grey else 3, height, width)
    needed = (len(train) + len(test)) * shape[0] * height * width / 2**30
    if needed > config.memory_gib:
        raise InputError(
            f"{config.name}: {len(train) + len(test)} images of shape {shape} need {needed:.3g} GiB, more than "
            f"data.memory_gib = {config.memory_gib:g}; set a smaller data.size, or raise data.memory_gib"
        )
    return _read(train, shape, config), _read(test, shape, config)


def _read(files: Files, shape: tuple[int, int, int], config: DataConfig) -> Labelled:
    pixels = np.empty((len(files), *shape), dtype=np.uint8)
    for row, (path, _) in zip(pixels, files, strict=True):
        row[:] = _pixels(path, shape, config)
    return Labelled(torch.from_numpy(pixels), torch.tensor([label for _, label in files]))


def _pixels(
    path: Path, shape: tuple[int, int, int], config: DataConfig
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return one image, (channels, height, width)."""
    image = _opened(path)
    if shape[0] == 1 and image.mode not in GREY:
        raise InputError(f"{path}: is in colour, and the first image of every class is grey; convert them alike")
    wanted = (shape[2], shape[1])
    if config.size is None and image.size != wanted:
        raise InputError(
            f"{path}: is {image.size[0]} x {image.size[1]} pixels, and the first image is {wanted[0]} x {wanted[1]}; "
            "give data.size to scale and crop them"
        )
    try:
        image = image.convert("L" if shape[0] == 1 else "RGB")
        if image.size != wanted:
            image = ImageOps.fit(image, wanted, Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise InputError(f"{path}: is no image that can be read: {error}") from error
    array = np.asarray(image)
    return array[None] if shape[0] == 1 else array.transpose(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    try:
        with path.open("rb") as file, Image.open(file) as image:
            image.load()  # decodes, so that the file can be closed
            return image
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: is no image that can be read: {error}") from error
