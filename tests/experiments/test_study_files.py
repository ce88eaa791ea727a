"""The committed studies: each is valid, says what was reduced, and changes only what it compares."""

from pathlib import Path

import pytest

from tests import ROOT

pytest.importorskip("pytorch_lightning")

from etfopt.experiments.settings import build_head
from etfopt.experiments.studies.plan_file import read_study

FOLDER = ROOT / "notebooks" / "studies"
FILES = sorted(FOLDER.glob("*.toml"))
CLASSES = {"imagefolder:data/omniglot": 242, "imagefolder:data/cifar10": 10}
"""Of folders of images, which may not be there."""


def test_there_is_a_file_for_every_study() -> None:
    assert {path.stem for path in FILES} == {
        *("ufm", "ufm-1000", "heads", "batches", "gradients", "omniglot"),
        *("imbalance-mnist5k", "imbalance-cifar10", "cifar10-small", "cifar10", "cost"),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_of_a_study_is_valid(path: Path) -> None:
    study = read_study(path)
    runs = study.runs()
    assert len({run.folder for run in runs}) == len(runs) == len(study.seeds) * len(study.variants)
    assert study.question.endswith("?")
    assert study.setup
    for variant in study.variants:
        if variant.config.data.name in CLASSES:  # others are checked when the configuration is made
            build_head(variant.config, CLASSES[variant.config.data.name])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_variants_of_a_cell_differ_in_the_head_alone(path: Path) -> None:
    study = read_study(path)
    for variant in study.variants:
        twin = next(v for v in study.variants if v.cell == variant.cell)
        ours, theirs = variant.config.to_dict(), twin.config.to_dict()
        assert {**ours, "head": None} == {**theirs, "head": None}
