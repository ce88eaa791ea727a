"""Lists of images in folders in the layout of ImageNet."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from etfopt.errors import InputError
from etfopt.experiments.data._walk import files_below, visible
from etfopt.experiments.data.decoding import ImageFiles
from etfopt.experiments.data.selection import held_out
from etfopt.experiments.settings.names import FOLDER
from etfopt.files._text import read_bounded

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["load_folder", "load_tiny_imagenet"]

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
    ".gif",
)
LARGEST_TABLE = 2**24
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}


def load_folder(config: DataConfig) -> tuple[ImageFiles, ImageFiles, int]:
    """Return training split, test split and the number of classes, which are the folders of ``imagefolder:ROOT``.

    Either ROOT/train/CLASS/... and ROOT/test/CLASS/... (or val), or ROOT/CLASS/..., of which a share of every class is
    held out, chosen by the data's seed. Images may lie in folders below CLASS. Hidden files and folders, and what
    systems leave behind (``Thumbs.db``, ``desktop.ini``, ``__MACOSX`` and the like), are passed over at every level.

    Parameters
    ----------
    config : DataConfig
        Name, share held out and seed.

    Returns
    -------
    train, test, num_classes : ImageFiles, ImageFiles, int
        Labels count the names of the classes, sorted.

    Raises
    ------
    InputError
        If a folder is missing, cannot be read or holds no classes, a class has no images or is in one split only, a
        folder is reached twice through links, or the folders have the names of splits that are not found.

    Warns
    -----
    UserWarning
        If files of a class are no images by their ending, or images lie outside the class folders: they are left out.
    """
    root = Path(config.name.removeprefix(FOLDER)).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    if not (root / "train").is_dir():
        classes, files = _listed(root)
        if all(name.lower() in SPLITS for name in classes):
            raise InputError(
                f"{root}: {' and '.join(classes)} would be the classes, and look like splits; call them train and test"
            )
        _require_two(classes, files.labels, root)
        out = held_out(files.labels, len(classes), config.test_share, config.seed)
        return _part(files, ~out), _part(files, out), len(classes)
    held = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held is None:
        raise InputError(f"{root}: there is a folder train, and neither test nor val beside it")
    (classes, train), (others, test) = _listed(root / "train"), _listed(held)
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise InputError(f"{root}: {', '.join(odd[:10])} is a class of only one of train and {held.name}")
    return train, test, len(classes)


def load_tiny_imagenet(config: DataConfig) -> tuple[ImageFiles, ImageFiles, int]:
    """Return the splits of Tiny-ImageNet as it is unpacked: ``train/CLASS/images/``, and val with a table of labels."""
    root = Path(config.root) / "tiny-imagenet-200"
    table = root / "val" / "val_annotations.txt"
    if not table.is_file():
        raise InputError(
            f"{root}: Tiny-ImageNet is not there; unpack tiny-imagenet-200.zip of http://cs231n.stanford.edu into "
            f"data.root = {config.root!r}, or sort it into folders and use imagefolder:PATH"
        )
    classes, train = _listed(root / "train", companions=(".txt",))  # the boxes of a class
    index = {name: i for i, name in enumerate(classes)}
    rows = [
        line.split("\t")
        for line in read_bounded(table, LARGEST_TABLE).decode(errors="replace").splitlines()
        if line.strip()
    ]
    unknown = [row[0] for row in rows if len(row) < 2 or row[1] not in index]
    if unknown:
        raise InputError(f"{table}: {unknown[0]} has a class that is not in train")
    test = [root / "val" / "images" / row[0] for row in rows]
    return train, ImageFiles(test, torch.tensor([index[row[1]] for row in rows], dtype=torch.int64)), len(classes)


def _part(files: ImageFiles, chosen: Tensor) -> ImageFiles:
    indices = chosen.nonzero().flatten()
    return ImageFiles([files.paths[i] for i in indices.tolist()], files.labels[indices])


def _listed(root: Path, companions: tuple[str, ...] = ()) -> tuple[list[str], ImageFiles]:
    """Return the classes below a folder, sorted, and all their images; `companions` are endings that are no images."""
    entries = list(visible(root))
    folders = sorted(path for path, is_folder in entries if is_folder)
    if len(folders) < 2:
        raise InputError(f"{root}: two classes or more are needed, a folder each; there are {len(folders)}")
    left_out = sorted(path for path, is_folder in entries if not is_folder and path.suffix.lower() in SUFFIXES)
    paths: list[Path] = []
    labels: list[int] = []
    seen = {root.resolve(): root}
    for label, folder in enumerate(folders):
        files = sorted(files_below(folder, seen))
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not images:
            raise InputError(
                f"{folder}: a class without images; files that end in {', '.join(SUFFIXES)} are looked for"
            )
        left_out += [path for path in files if path.suffix.lower() not in (*SUFFIXES, *companions)]
        paths += images
        labels += [label] * len(images)
    if left_out:
        warnings.warn(
            f"{root}: {len(left_out)} file(s) are left out, such as {left_out[0].relative_to(root)}: images lie in the "
            f"folders of classes and end in {', '.join(SUFFIXES)}",
            stacklevel=1,
        )
    return [folder.name for folder in folders], ImageFiles(paths, torch.tensor(labels))


def _require_two(classes: Sequence[str], labels: Tensor, root: Path) -> None:
    alone = [name for name, n in zip(classes, torch.bincount(labels).tolist(), strict=True) if n < 2]
    if alone:
        raise InputError(f"{root / alone[0]}: a class with one image cannot be split; add one, or make train and test")
