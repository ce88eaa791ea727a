"""Data sets of torchvision, which has no build for every platform: a stand-in with the shapes of its classes."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.settings import DataConfig

KNOWN = {  # the shape of an image, the number of classes, where the labels are and of what kind
    "CIFAR10": ((32, 32, 3), 10, "targets", list),
    "CIFAR100": ((32, 32, 3), 100, "targets", list),
    "MNIST": ((28, 28), 10, "targets", torch.tensor),
    "FashionMNIST": ((28, 28), 10, "targets", torch.tensor),
    "EMNIST": ((28, 28), 47, "targets", torch.tensor),
    "SVHN": ((3, 32, 32), 10, "labels", np.asarray),
    "STL10": ((3, 96, 96), 10, "labels", np.asarray),
}


def pixels_of(classes: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2 * classes, *shape), dtype=np.uint8)


class FakeSets(types.ModuleType):
    """A stand-in for torchvision.datasets, with the attributes and shapes that its classes have."""

    def __init__(self, folder: Path) -> None:
        super().__init__("torchvision.datasets")
        self.folder = folder

    def __getattr__(self, name: str):
        if name not in KNOWN:
            raise AttributeError(name)
        shape, classes, attribute, kind = KNOWN[name]
        pixels, labels = pixels_of(classes, shape), np.arange(2 * classes) % classes

        def make(_root, *, download: bool, **_options):
            if not download:
                raise RuntimeError("Dataset not found. You can use download=True to download it")
            data = torch.tensor(pixels) if kind is torch.tensor else pixels
            return types.SimpleNamespace(data=data, **{attribute: kind(labels)})

        return make

    def ImageNet(self, root, split):
        path = self.folder / root / f"{split}.jpg"  # one image stands for all
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 30)).save(path)
        return types.SimpleNamespace(samples=[(str(path), label) for label in range(1000)])


@pytest.fixture
def torchvision(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", FakeSets(tmp_path))


SMALL, MEDIUM, LARGE = (1, 28, 28), (3, 32, 32), (3, 96, 96)
SETS = [("cifar10", MEDIUM, 10), ("cifar100", MEDIUM, 100), ("svhn", MEDIUM, 10), ("stl10", LARGE, 10)]
SETS += [("mnist", SMALL, 10), ("fashion-mnist", SMALL, 10), ("emnist", SMALL, 47)]


@pytest.mark.parametrize(("name", "shape", "C"), SETS)
@pytest.mark.usefixtures("torchvision")
def test_the_sets_of_torchvision_become_tensors(name: str, shape: tuple[int, ...], C: int):
    images = load_images(DataConfig(name=name, download=True))
    assert (images.shape, images.num_classes) == (shape, C)
    raw = pixels_of(C, shape)
    if name.startswith("cifar"):  # whose channels come last
        raw = pixels_of(C, (*shape[1:], 3)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.train.pixels.numpy(), raw)
    assert images.train.labels.tolist() == [i % C for i in range(2 * C)]


@pytest.mark.usefixtures("torchvision")
def test_imagenet_is_decoded_to_the_size_asked_for():
    images = load_images(DataConfig(name="imagenet", size=16))
    assert (images.shape, images.num_classes, len(images.test)) == ((3, 16, 16), 1000, 1000)


@pytest.mark.usefixtures("torchvision")
def test_imagenet_is_kept_on_the_disk_where_a_cache_is_given(tmp_path: Path):
    places = (None, str(tmp_path / "c"))
    memory, cached = (load_images(DataConfig(name="imagenet", size=4, cache=place)) for place in places)
    assert len(list((tmp_path / "c").glob("*.npy"))) == 2
    assert torch.equal(cached.train.pixels[:], memory.train.pixels)
    assert torch.equal(cached.test[[3, 999]][0], memory.test[[3, 999]][0])


@pytest.mark.usefixtures("torchvision")
def test_a_set_of_torchvision_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"svhn: cannot be read from data.root = 'data': Dataset not found.*download"):
        load_images(DataConfig(name="svhn"))


def test_without_torchvision_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    said = r"'cifar10' is read by torchvision, which cannot be imported.*pip install torch"
    with pytest.raises(InputError, match=said):
        load_images(DataConfig(name="cifar10"))
