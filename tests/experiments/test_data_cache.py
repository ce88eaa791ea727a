"""Decoded images kept on the disk: the same batches, made once, never a part, never those of other files."""

import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from etfopt.errors import InputError
from etfopt.experiments.data import Images, batches, decoding, images, load_images
from etfopt.experiments.settings import DataConfig


def noise(path: Path, seed: int, side: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with 6 and 3 images each, of two sizes and two formats."""
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate("abc"):
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.{'png' if i % 2 else 'jpg'}"
                noise(path, 100 * label + i + 50 * (split == "test"), 7 + i % 3)
    return tmp_path / "set"


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """The files that are decoded, in any order."""
    seen: list[str] = []
    decode = decoding._pixels

    def counted(path: Path, shape, fit):
        seen.append("/".join(path.parts[-3:]))
        return decode(path, shape, fit)

    monkeypatch.setattr(decoding, "_pixels", counted)
    return seen


def of(folder: Path, **settings) -> DataConfig:
    return DataConfig(name=f"imagefolder:{folder}", **{"size": 8, **settings})


def bits(data: Images) -> list:
    """An epoch of batches of both splits, their statistics, and what a slice gives."""
    shuffled = [x for split in (data.train, data.test) for batch in batches(split, 4, seed=3) for x in batch]
    return [*shuffled, data.train.mean, data.train.deviation, *data.train[2:4], *data.test.tensors]


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.npy"))


FEWER = {"subset": 4, "test_subset": 2, "label_noise": 0.5}


@pytest.mark.parametrize("chunk", [512, 4])
@pytest.mark.parametrize("settings", [{}, FEWER, {"imbalance": "exp", "imbalance_factor": 0.3}])
def test_batches_and_statistics_are_those_of_memory_to_the_bit(monkeypatch, folder, tmp_path, settings, chunk):
    monkeypatch.setattr(decoding, "CHUNK", chunk)
    memory = load_images(of(folder, **settings))
    assert isinstance(memory.train.pixels, torch.Tensor)
    for _ in ("made", "found"):
        cached = load_images(of(folder, **settings, cache=str(tmp_path / "cache")))
        assert isinstance(cached.train.pixels, images.MappedPixels)
        assert (cached.shape, len(cached.train)) == (memory.shape, len(memory.train))
        assert all(torch.equal(x, y) for x, y in zip(bits(cached), bits(memory), strict=True))
    assert np.array_equal(np.load(files(tmp_path / "cache")[1]), memory.train.pixels.numpy())  # an .npy for all


def test_a_batch_is_a_copy_and_the_file_stays_as_it_is(folder: Path, tmp_path: Path):
    data = load_images(of(folder, cache=str(tmp_path)))
    before = files(tmp_path)[1].read_bytes()
    for taken in (data.train.pixels[:], data.train.pixels[1:3], data.train.pixels[[0, 1]], data.train.pixels[0]):
        taken.zero_()
    assert torch.equal(data.train.pixels[torch.tensor([5, 2])], load_images(of(folder)).train.pixels[[5, 2]])
    assert files(tmp_path)[1].read_bytes() == before


def test_only_what_is_kept_is_decoded(folder: Path, decodings: list[str]):
    data = load_images(of(folder, subset=2, test_subset=1))
    assert len(decodings) == len(data.train) + len(data.test) == 9
    everything = load_images(of(folder))
    names = ["/".join(path.parts[-3:]) for path in sorted((folder / "train").rglob("*.*"))]
    found = {i for i, x in enumerate(everything.train.pixels) if any(torch.equal(x, y) for y in data.train.pixels)}
    assert {names[i] for i in found} == {name for name in decodings[:9] if name.startswith("train")}


def test_a_cache_is_made_once_and_each_selection_has_its_own(folder, tmp_path, decodings: list[str]):
    cache = str(tmp_path / "new" / "cache")
    for settings, decoded in (
        ({}, 27),
        ({}, 0),
        ({"label_noise": 0.5}, 0),  # no matter of pixels
        ({"subset": 2}, 6),  # the test split is the same
        ({"size": 6}, 27),
    ):
        decodings.clear()
        load_images(of(folder, cache=cache, **settings))
        assert len(decodings) == decoded
    folder.rename(tmp_path / "elsewhere")
    load_images(of(tmp_path / "elsewhere", cache=cache))
    assert (len(decodings), len(files(Path(cache)))) == (27, 5)


def test_a_file_that_was_changed_added_or_taken_away_is_noticed(folder, tmp_path, decodings: list[str]):
    config = of(folder, cache=str(tmp_path / "cache"))
    load_images(config)
    path, moved = folder / "train" / "b" / "1.png", (folder / "train/b/1.png").stat().st_mtime_ns
    noise(path, 999, 8)
    os.utime(path, ns=(moved + 1, moved + 1))
    again = load_images(config)
    assert len(decodings) == 27 + 18  # the test split stays
    assert torch.equal(again.train.pixels[:], load_images(of(folder)).train.pixels)
    path.unlink()
    assert len(load_images(config).train) == 17
    noise(folder / "test" / "a" / "9.png", 5)
    assert len(load_images(config).test) == 10


def test_the_colour_of_a_file_that_is_not_kept_counts_as_without_a_cache(tmp_path: Path):
    for i in range(40):
        noise(tmp_path / "set" / ("train" if i < 30 else "test") / "ab"[i % 2] / f"{i:02d}.png", i, 8)
    config = of(tmp_path / "set", subset=1, cache=str(tmp_path / "cache"))
    assert load_images(config).shape == (3, 8, 8)
    for first in ("a/00.png", "b/01.png"):
        Image.new("L", (8, 8), 3).save(tmp_path / "set" / "train" / first)
    for attempt in (config, of(tmp_path / "set", subset=1)):
        with pytest.raises(InputError, match=r"is in colour, and the first image of every class is grey"):
            load_images(attempt)


def test_with_a_cache_memory_is_no_limit_and_without_one_what_is_kept_counts(folder: Path, tmp_path: Path):
    gib = 3 * 8 * 8 * (3 * 2 + 9) / 2**30
    assert len(load_images(of(folder, subset=2, memory_gib=1.001 * gib)).train) == 6
    with pytest.raises(InputError, match=r"15 images of shape \(3, 8, 8\) need .* GiB.*data.cache = FOLDER"):
        load_images(of(folder, subset=2, memory_gib=0.999 * gib))
    assert len(load_images(of(folder, memory_gib=1e-9, cache=str(tmp_path / "cache"))).train) == 18


def test_a_corrupt_image_is_named_and_leaves_no_cache(folder: Path, tmp_path: Path):
    path = folder / "train" / "c" / "5.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"train/c/5.png: is no image that can be read"):
        load_images(of(folder, cache=str(tmp_path / "cache")))
    assert files(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob("*.part*"))
    path.write_bytes(whole)
    assert len(load_images(of(folder, cache=str(tmp_path / "cache"))).train) == 18


DAMAGES = {
    "empty": lambda _content, _other: b"",
    "cut off": lambda content, _: content[:1000],
    "without its end": lambda content, _: content[:-1],
    "another split": lambda _, other: other,
    "foreign": lambda _content, _other: b"no array" * 500,
    "an array of others": lambda content, _: content[: content.index(b'{"key"')],
    "another key": lambda content, _: content.replace(b'{"key": "', b'{"key": "x'),
}


def test_a_damaged_file_is_named_with_the_remedy(folder: Path, tmp_path: Path):
    config = of(folder, cache=str(tmp_path / "cache"))
    load_images(config)
    test, train = files(tmp_path / "cache")
    whole = train.read_bytes()
    for damage, damaged in DAMAGES.items():
        train.write_bytes(damaged(whole, test.read_bytes()))
        with pytest.raises(InputError, match=rf"{re.escape(str(train))}: is damaged, or no file .*; remove it"):
            pytest.fail(f"{damage}: {load_images(config)}")
    train.unlink()
    load_images(config)
    assert train.read_bytes() == whole


def test_a_folder_that_cannot_be_used_and_a_full_disk_are_said(monkeypatch, folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/train-.*: cannot be written: .*data.cache"):
        load_images(of(folder, cache=str(tmp_path / "file")))
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("etfopt.experiments.data.cache.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device; make room"):
        load_images(of(folder, cache=str(tmp_path / "cache")))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def everything(data: Images) -> bytes:
    return data.train.pixels[:].numpy().tobytes() + data.test.pixels[:].numpy().tobytes()


def load_and_count(config: DataConfig, gate: Path, number: int, size: int) -> tuple[int, bytes]:
    """Wait for the other processes, load, and return how many images this one decoded, and the bits."""
    decoding._pixels = counted = mock.Mock(side_effect=decoding._pixels)
    (gate / str(number)).touch()
    while len(list(gate.iterdir())) < size:
        pass
    content = everything(load_images(config))
    return counted.call_count, content


def test_of_processes_that_make_a_cache_at_once_one_makes_it(folder: Path, tmp_path: Path):
    gate, config = tmp_path / "gate", of(folder, cache=str(tmp_path / "cache"))
    gate.mkdir()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = [future.result() for future in [pool.submit(load_and_count, config, gate, i, 2) for i in range(2)]]
    assert sum(count for count, _ in found) == 27
    assert [content for _, content in found] == [everything(load_images(of(folder)))] * 2


def test_statistics_are_counted_in_parts(monkeypatch, folder: Path):
    whole = load_images(of(folder)).train
    monkeypatch.setattr(images, "CHUNK", 5)
    parts = load_images(of(folder)).train
    assert torch.equal(whole.mean, parts.mean)
    assert torch.equal(whole.deviation, parts.deviation)
    x = whole.pixels.double()
    torch.testing.assert_close(whole.mean.flatten().double(), x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(whole.deviation.flatten().double(), x.transpose(0, 1).flatten(1).std(dim=1))
