"""Every reader on files that were damaged at random: what is right, or an error of ours in one line, and nothing else.

HYPOTHESIS_PROFILE=deep runs thousands of cases a reader.
"""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt.files import load_matrix, open_rows
from tests.tools.fuzzing import fuzz, outcome

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from PIL import Image

from etfopt.experiments.data import load_images
from etfopt.experiments.data._image_file import read_image
from etfopt.experiments.data.cache import mapped
from etfopt.experiments.settings import DataConfig, TrainConfig, read_config
from etfopt.experiments.studies._progress import load_study, save_study
from etfopt.experiments.studies.plan_file import parse_study, read_study
from etfopt.experiments.studies.report import make_report
from etfopt.experiments.training import _checkpoints
from etfopt.experiments.training import _means as means_file
from etfopt.experiments.training import _records as run_files
from etfopt.experiments.training._run_folder import read_starts, refuse_occupied, resume_from
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.train import train

SEEDS = st.integers(0, 2**32 - 1)
MEANS = np.random.default_rng(0).standard_normal((7, 4))
SETTINGS = {"training.epochs": 2, "backbone.width": 8, "backbone.dim": 12, "training.batch_size": 256}
CONFIG = TrainConfig().with_settings(SETTINGS)
STUDY = """
title = "Heads"
question = "Which one?"
seeds = [0, 1]
baselines = ["nearest"]
[base]
training.epochs = 2
backbone = { width = 8, dim = 12 }
[[variants]]
name = "nearest"
[[variants]]
name = "fixed"
"head.name" = "fixed"
[grid]
"data.batches" = ["shuffled", "stratified"]
"""


def written(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def pixels(mode: str) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (9, 8, 4 if mode == "RGBA" else 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def saved(mode: str, kind: str, **settings: Any) -> bytes:
    return written(lambda file: pixels(mode).save(file, format=kind, **settings))


def deep(kind: str) -> bytes:
    values = np.random.default_rng(2).integers(0, 2**16, (9, 8), dtype=np.uint16)
    return written(lambda file: Image.fromarray(values).save(file, format=kind))


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = 6
    return found


def as_json(value: dict) -> bytes:
    return run_files.strict_json({"schema": run_files.SCHEMA, **value}).encode()


def shown(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it passes over
        return np.asarray(read_image(path).image)


def table(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged number may look like a name
        return load_matrix(path)


def rows(path: Path) -> list[np.ndarray]:
    """Every array of a file of samples, read three rows at a time."""
    arrays = [open_array() for open_array in open_rows(path).values()]
    return [part for array in arrays if array.shape and 0 not in array.shape for part in array.batches(3)]


def safetensors(X: np.ndarray) -> bytes:
    table = {"H": {"dtype": "F64", "shape": X.shape, "data_offsets": [0, X.nbytes]}}
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + X.tobytes()


def records(path: Path) -> list:
    return [{**record} for record in run_files.read_lines(path)]


LINES = b"".join(run_files._line({"epoch": e, "train_nc1": 0.5 / (e + 1), "step_ms": 1e-3}) for e in range(4))

READERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "m.npy": (written(lambda file: np.save(file, MEANS)), load_matrix),
    "fortran.npy": (written(lambda file: np.save(file, np.asfortranarray(MEANS))), load_matrix),
    "m.npz": (written(lambda file: np.savez(file, H=MEANS)), load_matrix),
    "small.npz": (written(lambda file: np.savez_compressed(file, H=np.round(MEANS))), load_matrix),
    "m.csv": (written(lambda file: np.savetxt(file, MEANS, delimiter=",")), table),
    "names.csv": (b",a,b\n0,1.5,2.5\n1,3.5,4.5\n", table),
    "rows.npy": (written(lambda file: np.save(file, MEANS)), rows),
    "rows.npz": (written(lambda file: np.savez(file, H=MEANS)), rows),
    "packed.npz": (written(lambda file: np.savez_compressed(file, H=np.round(MEANS))), rows),
    "rows.safetensors": (safetensors(MEANS), rows),
    "config.json": (as_json({"config": CONFIG.to_dict()}), read_config),
    "config.toml": (b"seed = 3\n[head]\nname = 'fixed'\n[optimizer]\nlearning_rate = 0.1\n", read_config),
    "run/config.json": (as_json({"config": CONFIG.to_dict()}), lambda path: run_files.config_of(path.parent)),
    "study.toml": (STUDY.encode(), read_study),
    "metrics.jsonl": (LINES, records),
    "x.png": (saved("RGB", "PNG"), shown),
    "palette.png": (saved("P", "PNG", transparency=3), shown),
    "alpha.png": (saved("RGBA", "PNG"), shown),
    "deep.png": (deep("PNG"), shown),
    "x.jpg": (saved("RGB", "JPEG", exif=exif()), shown),
    "cmyk.jpg": (saved("CMYK", "JPEG"), shown),
    "x.gif": (saved("P", "GIF"), shown),
    "x.bmp": (saved("RGB", "BMP"), shown),
    "x.ppm": (saved("RGB", "PPM"), shown),
    "x.tif": (saved("RGB", "TIFF", compression="tiff_lzw"), shown),
    "deep.tif": (deep("TIFF"), shown),
    "x.webp": (saved("RGB", "WEBP", lossless=True), shown),
}
CHECKED = ("m.npz", "small.npz", "x.png", "deep.png", "palette.png")
"""Readers that compare checksums: what they read is what was written."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@cache
def whole(name: str, place: Path) -> Any:
    content, read = READERS[name]
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(content)
    return outcome(lambda: read(place / name))


@pytest.mark.parametrize("name", READERS)
@given(seed=SEEDS)
def test_a_damaged_file_is_read_right_or_refused_in_one_line(place: Path, name: str, seed: int) -> None:
    before = whole(name, place)
    assert (before is None) == (name == "alpha.png")  # which has transparent pixels
    found = fuzz(place / name, *READERS[name], np.random.default_rng(seed))
    if name in CHECKED and found is not None:
        np.testing.assert_array_equal(found, before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "nearest-seed0"
    train(CONFIG, path)
    return path


def everything(path: Path) -> Any:
    """Whatever reads the folder of a run."""
    result = outcome(lambda: load_run(path))
    outcome(lambda: make_report(path.parent))
    outcome(lambda: refuse_occupied(path, overwrite=True))
    outcome(lambda: read_starts(path))
    outcome(lambda: result and result.margins())
    identity = _checkpoints.Identity(CONFIG.digest(), 1, "32-true")
    outcome(lambda: resume_from(path, CONFIG, identity, None))
    return result


FILES = (
    *("config.json", "environment.json", "metrics.jsonl", "class_means_by_epoch.npy", "margins.npz"),
    "checkpoints/epoch-0002.ckpt",
)


@pytest.mark.parametrize("name", FILES)
@given(seed=SEEDS)
def test_a_damaged_folder_of_a_run_is_read_right_or_refused_in_one_line(run: Path, name: str, seed: int) -> None:
    content = (run / name).read_bytes()
    try:
        fuzz(run / name, content, lambda path: everything(path.parents[name.count("/")]), np.random.default_rng(seed))
    finally:
        (run / name).write_bytes(content)


@given(seed=SEEDS)
def test_a_damaged_checkpoint_is_whole_or_refused(run: Path, place: Path, seed: int) -> None:
    source = run / "checkpoints" / "epoch-0002.ckpt"
    before = _checkpoints.load(source)["state_dict"]
    (place / "x.json").write_bytes(source.with_suffix(".json").read_bytes())
    found = fuzz(place / "x.ckpt", source.read_bytes(), _checkpoints.load, np.random.default_rng(seed))
    if found is not None:
        assert all(torch.equal(found["state_dict"][name], value) for name, value in before.items())


@given(seed=SEEDS)
def test_damaged_class_means_are_neither_read_nor_added_to_silently(run: Path, place: Path, seed: int) -> None:
    content = (run / "class_means_by_epoch.npy").read_bytes()
    found = fuzz(place / "means.npy", content, lambda path: means_file.read_means(path, 2), np.random.default_rng(seed))
    assert found is None or found.shape == (2, 12, 10)
    outcome(lambda: means_file.append_means(place / "means.npy", np.zeros((12, 10)), 2))


@given(seed=SEEDS)
def test_a_damaged_plan_of_a_study_is_refused_in_one_line(place: Path, seed: int) -> None:
    import tomllib

    save_study(place / "study", parse_study(tomllib.loads(STUDY), "study"))
    content = (place / "study" / "study.json").read_bytes()
    fuzz(place / "study" / "study.json", content, lambda path: load_study(path.parent), np.random.default_rng(seed))


@given(seed=SEEDS)
def test_a_damaged_cache_is_refused_in_one_line(place: Path, seed: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    made = place / "cache" / "train-0123456789abcdef.npy"
    made.unlink(missing_ok=True)
    mapped(made.parent, "train", "0123456789abcdef", 5, lambda: iter([images]))

    def read(path: Path) -> Any:
        return mapped(path.parent, "train", "0123456789abcdef", 5, lambda: iter([images]))

    found = fuzz(made, made.read_bytes(), read, np.random.default_rng(seed))
    if found is not None:
        assert found[:].shape[0] == 5


def test_a_folder_of_damaged_images_is_refused_by_the_name_of_one(place: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(8):
        (place / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (place / "set" / "ab"[i % 2] / f"{i}.png").write_bytes(saved("RGB", "PNG"))
    config = DataConfig(name=f"imagefolder:{place / 'set'}")
    assert load_images(config).shape == (3, 9, 8)
    for i in range(8):
        path = place / "set" / "ab"[i % 2] / f"{i}.png"
        before = path.read_bytes()
        assert fuzz(path, before, lambda _: load_images(config), rng) is None or path.read_bytes()[:67] == before[:67]
        path.write_bytes(before)
    shutil.rmtree(place / "set")
