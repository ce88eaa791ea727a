"""The committed studies: each is valid, says what was reduced, and changes only what it compares."""

import hashlib
from pathlib import Path

import pytest

from etfopt.experiments.studies.plan_file import read_study
from tests import ROOT

FOLDER = ROOT / "notebooks" / "studies"
FILES = sorted(FOLDER.glob("*.toml"))
DIGESTS = {
    **{"batches": "0a5fb9cee958d7b4", "cifar10-small": "3107f39f3369fa41", "cifar10": "9e4a7fa087f1c5aa"},
    **{"cost": "35e5f7c12590a7d8", "gradients": "ed7118ab9718f8c8", "heads": "01bebde2f50b9095"},
    **{"incremental-omniglot": "c8114f71af3f8808", "incremental-cifar10": "feedd6b0ab1a5cc0"},
    **{"imbalance-cifar10": "ca0b522c0a91d508", "imbalance-mnist5k": "91a47646904afba0"},
    **{"cifar10-50k": "ad695579a194c3bd", "codes-omniglot": "e0e7b911f68cbbbc"},
    **{"auxiliary": "963eb97b3969882e", "tails-cifar10": "e79f7cd7b59afc95", "tails-mnist5k": "02fa6c364587ee04"},
    **{"omniglot": "381580c1ef836d70", "ufm-1000": "d0bb103a15058ed9", "ufm": "704db384edb140b7"},
}
"""Of the digests of all runs of each study, as the first version that had it computed them: recorded runs are known
by these.

Of a study with tuning they are those of the runs that choose its settings: what these choose is not known before.
"""

CLASSES = {"imagefolder:data/omniglot": 242, "imagefolder:data/cifar10": 10}
"""Of folders of images, which may not be there."""


def test_there_is_a_file_for_every_study():
    assert {path.stem for path in FILES} == DIGESTS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_of_a_study_is_valid(path: Path):
    study = read_study(path)
    plan = study.tuning or study
    runs = plan.runs()
    assert len({run.folder for run in runs}) == len(runs) == len(plan.seeds) * len(plan.variants)
    assert study.question.endswith("?")
    assert study.setup
    for variant in study.variants:
        if variant.config.data.name in CLASSES:  # others are checked when the configuration is made
            variant.config.check_room(CLASSES[variant.config.data.name])
    # the digests of recorded runs stay
    digests = " ".join(run.config.digest() for run in runs)
    assert hashlib.sha256(digests.encode()).hexdigest()[:16] == DIGESTS[path.stem]


VARIED = dict.fromkeys(("auxiliary", "tails-cifar10", "tails-mnist5k"), ("head", "loss"))
"""What the variants of a study differ in, where that is not the head alone."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_variants_of_a_cell_differ_in_what_is_compared_alone(path: Path):
    study = read_study(path)
    varied = dict.fromkeys(VARIED.get(path.stem, ("head",)))
    for variant in study.variants:
        twin = next(v for v in study.variants if v.cell == variant.cell)
        ours, theirs = variant.config.to_dict(), twin.config.to_dict()
        assert {**ours, **varied} == {**theirs, **varied}
