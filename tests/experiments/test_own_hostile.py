"""What users may hand over is passed on or refused; no setting is dropped without a word, and no record changes."""

import copy
import pickle
import sys

import pytest

pytest.importorskip("pytorch_lightning")
import numpy as np
import torch
from torch import nn

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.networks.backbones import build_backbone
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.networks.losses import build_loss
from etfopt.experiments.networks.optimizers import build_optimizer
from etfopt.experiments.settings import BackboneConfig, DataConfig, HeadConfig, OptimizerConfig, TrainConfig
from etfopt.experiments.studies.plan_file import parse_study
from tests.tools.runs import small  # noqa: F401 - the module sets up what runs need

PARTS = """
import numpy as np, torch
from torch import nn

NUMBER = 5

class Frozen(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 12))
        self[1].eval()

class KwAdam(torch.optim.Adam):
    def __init__(self, params, **kw):
        super().__init__(params, **kw)

class Margin(nn.Linear):
    def __init__(self, dim, num_classes, margin=0.5):
        super().__init__(dim, num_classes)
        self.margin = margin
    def forward(self, features, labels=None):
        logits = super().forward(features)
        return logits if labels is None else logits - self.margin * nn.functional.one_hot(labels, logits.shape[1])

def data(images="float", labels="int"):
    y = np.arange(12) % 3
    x = np.random.default_rng(0).normal(size=(12, 1, 4, 4))
    y = {"int": y, "float": y / 2, "text": np.array(["a", "b", "c"])[y], "sparse": y * 100000, "one": 0 * y}[labels]
    ragged = [np.zeros(n) for n in range(1, 13)]
    x = {"float": x, "complex": x + 1j, "rows": x.reshape(12, 16), "ragged": ragged}[images]
    return (x, y), (x, y)

class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, i):
        return torch.zeros(1, 4, 4), i % 3 / 2

def pairs():
    return Pairs(), Pairs()

def mixed():
    (x, y), test = data()
    return ((255 * x).astype(np.uint8), y), test
"""


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    (tmp_path / "hostile_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_parts", raising=False)


def own(**options) -> dict[str, object]:
    return {"backbone.name": "m:N", "backbone.dim": 12, **{f"backbone.options.{k}": v for k, v in options.items()}}


def test_options_are_frozen_plain_and_part_of_the_identity():
    config = TrainConfig().with_settings(own(a=1, b=(0.5, np.int64(3))))
    for options in (config.backbone.options, TrainConfig().loss.options):
        with pytest.raises(TypeError, match="cannot be changed"):
            options["a"] = 7
    config.to_dict()["backbone"]["options"]["b"].append(7)
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), TrainConfig.from_dict(config.to_dict())):
        assert again == config
        assert again.digest() == config.digest()
        assert hash(again) == hash(config)
    alike, one, true = (TrainConfig().with_settings(own(a=value)) for value in ([1], (1,), True))
    assert alike == one != true
    for value in (float("nan"), np.float32("inf"), object(), {1: 2}):
        with pytest.raises(InputError, match="an option is"):
            TrainConfig().with_settings(own(a=value))


def test_typed_options_are_read_and_those_of_a_study_are_taken_as_they_are():
    typed = own(w="[64, 64]", x="1e-3", t="true", n="none", s="relu", q='"1"', **{"deep.er": "2"})
    options = TrainConfig().with_settings(typed).backbone.options
    assert options == {"w": (64, 64), "x": 1e-3, "t": True, "n": None, "s": "relu", "q": "1", "deep": {"er": 2}}
    given = {"mode": "none", "n": "1", "nested": {"a": 1}, "w": [1, 2]}
    backbone = {"name": "m:N", "dim": 12, "options": given}
    study = parse_study({"title": "t", "question": "q?", "seeds": [0], "base": {"backbone": backbone},
                         "variants": [{"name": "a"}]}, "s")  # fmt: skip
    assert study.variants[0].config == TrainConfig.from_dict({"backbone": backbone})
    with pytest.raises(InputError, match="no such option"):
        TrainConfig().with_settings({"loss.options.": 1})


def test_trying_a_backbone_leaves_frozen_parts_frozen():
    made = build_backbone(BackboneConfig(name="hostile_parts:Frozen", dim=12), torch.randn(2, 1, 8, 8), 10)
    assert [part.training for part in made] == [True, False, True]


def test_an_optimiser_gets_its_rates_and_no_setting_is_dropped():
    made = build_optimizer(nn.Linear(3, 2), OptimizerConfig(name="hostile_parts:KwAdam", learning_rate=0.123))
    assert made.param_groups[0]["lr"] == 0.123
    with pytest.raises(InputError, match=r"optimizer.momentum is for the built-in"):
        OptimizerConfig(name="torch.optim:RMSprop", momentum=0.5)
    with pytest.raises(InputError, match=r"head.frame = 'reduced' is for heads with a frame"):
        HeadConfig(name="learned", frame="reduced")
    with pytest.raises(InputError, match=r"data.size and data.test_share"):
        DataConfig(name="hostile_parts:data", size=8)
    module = nn.ModuleList([nn.RMSNorm(4), nn.MultiheadAttention(4, 1)])
    kept, spared = build_optimizer(module, OptimizerConfig(decay="matrices")).param_groups
    assert {p.ndim for p in kept["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}


def test_a_classifier_that_takes_labels_gets_them_in_training_alone():
    head = build_head(HeadConfig(name="hostile_parts:Margin", options={"margin": 2.0}), 5, 3, seed=0)
    features, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    change = head(features, labels) - head(features)
    torch.testing.assert_close(change, -2.0 * nn.functional.one_hot(labels, 3).float())
    assert torch.equal(head.eval()(features, labels), head(features))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("data", {"labels": "float"}, "labels whole numbers"),
        ("pairs", {}, "labels whole numbers"),
        ("data", {"labels": "text"}, "encode names as 0 to C - 1"),
        ("data", {"labels": "sparse"}, "the largest is 200000"),
        ("data", {"labels": "one"}, "C >= 2; the largest is 0"),
        ("data", {"images": "complex"}, "images must be real"),
        ("data", {"images": "ragged"}, "give numbers of one shape"),
        ("mixed", {}, "one split are bytes, and of the other floats"),
        ("NUMBER", {}, "cannot be called"),
    ],
)
def test_data_that_would_be_misread_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        load_images(DataConfig(name=f"hostile_parts:{name}", options=options))


def test_rows_of_features_are_not_augmented_and_a_loss_must_fit():
    with pytest.raises(InputError, match="rows of features are no images"):
        load_images(DataConfig(name="hostile_parts:data", options={"images": "rows"}, augmentation="flip-crop"))
    with pytest.raises(InputError, match="unexpected keyword argument 'smoothing'"):
        build_loss(TrainConfig().with_settings({"loss.options.smoothing": 0.1}).loss)


def test_submodules_are_found_on_the_package():
    import etfopt

    assert etfopt.solvers.Procrustes().run
    assert not hasattr(etfopt, "no_such_module")


@pytest.mark.parametrize("name", ["hostile_parts:NUMBER", "hostile_parts:pairs"])
def test_a_logger_that_takes_no_folder_is_refused_before_a_run(name, tmp_path):
    from etfopt.experiments.training.train import train

    with pytest.raises(InputError, match=r"must be a class that takes save_dir=FOLDER"):
        train(TrainConfig(), tmp_path / "run", logger=name)
    assert not (tmp_path / "run").exists()
