"""A configuration is a value: checked when made, the same after writing and reading, known by its digest."""

import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from etfopt.errors import InputError
from etfopt.experiments.settings import (
    HEADS,
    BackboneConfig,
    DataConfig,
    HeadConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainingConfig,
    read_config,
)

VARIED = {
    **{"seed": 7, "data.name": "ufm", "data.classes": 12, "data.samples": 5, "data.imbalance": "exp"},
    **{"data.imbalance_factor": 0.01, "backbone.name": "free", "backbone.dim": 40, "head.temperature": "auto"},
    **{"head.statistics": "paper", "head.averaging": 0.25, "head.freeze_after": 100},
    **{"optimizer.name": "adamw", "optimizer.learning_rate": 0.003},
    **{"schedule.name": "step", "schedule.milestones": [10, 20.0], "training.gradient_clip": 1},
}


def varied() -> TrainConfig:
    return TrainConfig().with_settings(VARIED)


def test_a_record_comes_back_from_its_dictionary_and_its_json(tmp_path: Path):
    for config in (TrainConfig(), varied()):
        assert TrainConfig.from_dict(config.to_dict()) == config
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        config.save(tmp_path / "config.json")
        again = read_config(tmp_path / "config.json")
        assert again == config
        assert again.digest() == config.digest()


def test_a_file_of_toml_needs_to_say_only_what_differs(tmp_path: Path):
    (tmp_path / "run.toml").write_text(
        'seed = 7\n[data]\nname = "ufm"\nclasses = 12\nsamples = 5\nimbalance = "exp"\nimbalance_factor = 0.01\n'
        '[backbone]\nname = "free"\ndim = 40\n[head]\ntemperature = "auto"\n'
        'statistics = "paper"\naveraging = 0.25\nfreeze_after = 100\n'
        '[optimizer]\nname = "adamw"\nlearning_rate = 3e-3\n[schedule]\nname = "step"\nmilestones = [10, 20]\n'
        "[training]\ngradient_clip = 1\n"
    )
    assert read_config(tmp_path / "run.toml") == varied()


@given(rate=st.floats(1e-6, 10), warmup=st.integers(0, 5), clip=st.none() | st.floats(0.1, 5), milestones=st.booleans())
def test_any_record_comes_back_and_its_strings_do_too(rate, warmup, clip, milestones):
    steps = {"name": "step", "milestones": (10, 20)} if milestones else {}
    config = TrainConfig(
        optimizer=OptimizerConfig(learning_rate=rate),
        schedule=ScheduleConfig(warmup=warmup, **steps),
        training=TrainingConfig(gradient_clip=clip),
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    strings = {"optimizer.learning_rate": rate, "schedule.warmup": warmup, "training.gradient_clip": clip}
    strings |= {"schedule.name": config.schedule.name, "schedule.milestones": "10, 20" if milestones else ""}
    again = TrainConfig().with_settings({name: str(value) for name, value in strings.items()})
    assert again == config
    assert again.digest() == config.digest()


def test_equal_records_have_equal_digests_and_others_have_others():
    base = TrainConfig(optimizer=OptimizerConfig(weight_decay=0, learning_rate=1))
    alike = TrainConfig(optimizer=OptimizerConfig(weight_decay=-0.0, learning_rate=1.0))
    assert base.digest() == alike.digest()
    digests = {TrainConfig().with_settings({name: value}).digest() for name, value in SINGLE.items()}
    assert len(digests | {TrainConfig().digest()}) == len(SINGLE) + 1


def test_where_decoded_images_are_kept_is_no_part_of_a_digest():
    base, cached = TrainConfig(), TrainConfig().with_settings({"data.cache": "fast/disk"})
    assert (cached.data.cache, cached.with_settings({"data.cache": "none"})) == ("fast/disk", base)
    assert (cached.digest(), cached.data.digest()) == (base.digest(), base.data.digest())
    assert TrainConfig.from_dict(cached.to_dict()) == cached != base


SINGLE = {
    **{"seed": 1, "data.batches": "stratified", "data.subset": 3, "data.label_noise": 0.1, "data.seed": 4},
    **{"backbone.width": 64, "backbone.affine": True, "head.name": "fixed", "head.solve_every": 2},
    **{"optimizer.nesterov": True, "optimizer.decay": "matrices", "schedule.warmup": 2, "training.epochs": 61},
    **{"training.gradient_clip": 1.0, "head.implicit_gradient": False},
}


def test_a_digest_can_be_computed_from_the_saved_file(tmp_path: Path):
    varied().save(tmp_path / "config.json")
    record = json.loads((tmp_path / "config.json").read_text())
    del record["data"]["cache"]  # what changes no result is no part of it
    assert record["head"].pop("statistics") == "paper"  # what every run of 0.1 did is not either
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert varied().digest() == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_the_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().seed = 3
    assert hash(varied()) == hash(varied())
    with pytest.raises(InputError, match="head must be a HeadConfig"):
        TrainConfig(head=LossConfig())


REFUSED = [
    ({"optimizer.name": "lion"}, "optimizer.name = 'lion' is not known; choose one of: sgd, adam, adamw, agd"),
    ({"loss.name": "hinge"}, "loss.name = 'hinge' is not known; choose one of: cross-entropy, dot-regression"),
    ({"backbone.name": "vit"}, "mlp, free, convnet, .*, resnet18, resnet34, resnet50, vgg13; or name your own"),
    ({"data.name": "cats"}, "data.name = 'cats' is not known; choose one of: digits"),
    ({"data.name": 3}, "data.name = 3 is not known"),
    ({"data.name": "imagefolder:"}, "data.name = 'imagefolder:' names no folder"),
    ({"data.root": ""}, "data.root must be a non-empty string"),
    ({"head.name": "last"}, f"choose one of: {', '.join(HEADS)}"),
    ({"data.label_noise": 1.5}, "data.label_noise must be at most 1; got 1.5"),
    ({"data.label_noise": -0.5}, "data.label_noise must be finite and at least 0; got -0.5"),
    ({"data.test_share": 0}, "data.test_share must be finite and above 0"),
    ({"data.subset": 0}, "data.subset must be an integer of at least 1"),
    ({"seed": -1}, "seed must be an integer of at least 0"),
    ({"seed": 2**64}, "seed must be at most"),
    ({"training.epochs": 0}, "training.epochs must be an integer of at least 1"),
    ({"training.epochs": 2.0}, "training.epochs must be an integer"),
    ({"training.batch_size": 1}, "batch_size must be an integer of at least 2"),
    ({"optimizer.learning_rate": 0.0}, "learning_rate must be finite and above 0"),
    ({"optimizer.learning_rate": 1e300}, "learning_rate must be at most"),
    ({"optimizer.learning_rate": True}, "optimizer.learning_rate must be a real number"),
    ({"optimizer.weight_decay": math.nan}, "optimizer.weight_decay must be finite"),
    ({"optimizer.gain": 10**400}, "optimizer.gain must be finite"),
    ({"head.temperature": -5}, "head.temperature"),
    ({"head.temperature": 1e30}, "temperature must be at most"),
    ({"head.name": "fixed", "head.delta": -1.0}, "head.delta must be finite and at least 0"),
    ({"head.name": "learned", "head.averaging": "median"}, "head.averaging"),
    ({"head.implicit_gradient": 1}, "head.implicit_gradient must be true or false; got 1"),
    ({"head.rotation": "random"}, "head.rotation = 'random' is of the fixed head"),
    ({"data.imbalance": "exp"}, "do not go together; give both"),
    ({"schedule.milestones": 3}, "schedule.milestones must be a list"),
    ({"schedule.name": "step"}, "'step' needs milestones"),
    ({"schedule.milestones": "3"}, "the others take none"),
    ({"schedule.name": "step", "schedule.milestones": "30, 20"}, r"must increase; got \[30.0, 20.0\]"),
    ({"schedule.name": "step", "schedule.milestones": "2", "schedule.warmup": 3}, "after the warm-up"),
    ({"schedule.warmup": 0.5}, "needs whole epochs; got"),
    ({"schedule.warmup": 60}, "the schedule still changes at epoch 60, and training.epochs = 60"),
    ({"optimizer.nesterov": "true", "optimizer.momentum": 0}, "nesterov needs SGD with momentum"),
    ({"optimizer.name": "agd"}, "'agd': it has no learning rate: use schedule.name = 'constant'"),
    ({"optimizer.name": "agd", "schedule.name": "constant", "backbone.affine": "true"}, "backbone.affine = false"),
    ({"data.name": "ufm", "backbone.name": "mlp"}, "'ufm' with the backbone 'free'"),
    ({"backbone.name": "free"}, "'ufm' with the backbone 'free'"),
    ({"data.name": "ufm", "data.test_subset": 3}, "data.test_subset = 3: 'ufm' has no test images"),
    ({"data.name": "ufm", "data.augmentation": "flip-crop"}, "'ufm' has no images"),
    ({"backbone.name": "custom"}, "needs backbone.dim"),
    ({"loss.name": "dot-regression", "head.temperature": "auto"}, "dot-regression needs a number, 1"),
    ({"data.name": "cifar100"}, "dim = 64 is smaller than the r = 99 rows"),
    ({"backbone.dim": 8}, "dim = 8 is smaller than the r = 9 rows of the frame; set backbone.dim to at least 9"),
    (
        {"backbone.dim": 9, "head.statistics": "paper"},
        "dim = 9 .*; set backbone.dim to at least 10, or use head.frame = 'reduced', or head.name",
    ),
    (
        {"data.name": "ufm", "data.classes": 1000},
        "dim = 512 is smaller than the r = 999.*use head.frame = 'best', which",
    ),
    ({"head.class_weights": "counts", "head.name": "fixed"}, "'counts' is of the nearest head; head.name is 'fixed'"),
    ({"head.class_weights": "counts", "head.statistics": "paper"}, "'counts' is for head.statistics = 'running'"),
    ({"head.averaging": 0.1}, "head.averaging = 0.1 is a rule of head.statistics = 'paper'"),
    ({"head.memory": 8.0, "head.statistics": "paper"}, "head.memory = 8 is for head.statistics = 'running'"),
    ({"speed": 1}, r"unknown setting speed; did you mean 'seed'\? known are: seed, data.name"),
    ({"optimizer.speed": 1}, "unknown setting optimizer.speed; known are: optimizer.name, optimizer.learning_rate"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_cannot_be_used_is_refused_with_its_name(settings, message: str):
    with pytest.raises(InputError, match=message):
        TrainConfig().with_settings(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, r"unknown setting sed; did you mean 'seed'\? known are: seed, data, backbone"),
        (
            {"data": {"nam": "digits", "x": 1}},
            r"unknown settings data.nam, data.x; did .*'data.name'\? known are: data.name",
        ),
        ({"data": "digits"}, "data = 'digits' must be a table"),
        ({"head": {"delta": "much"}}, r"head.delta must be a real number; got 'much' of type str"),
        ({"optimizer": {"learning_rate": "1"}}, r"learning_rate must be a real number; got '1' of type str"),
    ],
)
def test_dictionaries_are_read_strictly(values, message: str):
    """A string is a number for `with_settings` alone, which reads the command line."""
    with pytest.raises(InputError, match=message):
        TrainConfig.from_dict(values)


DOT = {"loss.name": "dot-regression"}


def test_dot_regression_has_features_of_norm_one_unless_another_norm_is_named(tmp_path: Path):
    """At tau = 5 the loss is zero on a cone around each row, and collapse is no minimiser."""
    base, named = TrainConfig(), {**DOT, "head.temperature": 5.0}
    assert base.head.temperature == "auto"
    assert base.with_settings(DOT).head.temperature == 1
    assert TrainConfig.from_dict({"loss": {"name": "dot-regression"}}).head.temperature == 1
    assert TrainConfig.from_dict({"loss": {"name": "dot-regression"}, "head": {"name": "fixed"}}).head.temperature == 1
    assert base.with_settings(named).head.temperature == 5
    assert base.with_settings({"head.temperature": 3.0}).with_settings(DOT).head.temperature == 3
    assert base.with_settings(named).with_settings({"seed": 3}).head.temperature == 5
    (tmp_path / "a.toml").write_text("[head]\ntemperature = 5.0\n")
    assert read_config(tmp_path / "a.toml", DOT).head.temperature == 5
    (tmp_path / "b.toml").write_text("[head]\ndelta = 0.5\n")
    assert read_config(tmp_path / "b.toml", DOT).head == HeadConfig(temperature=1, delta=0.5)


def test_a_run_that_is_written_down_keeps_its_temperature_and_its_digest(tmp_path: Path):
    """A run with dot-regression at tau = 5, as release 0.1 wrote it: in the folder of a run, or by `save`."""
    head = HeadConfig(temperature=5.0, statistics="paper")
    written = TrainConfig(loss=LossConfig(name="dot-regression"), head=head)
    assert written.digest() == "1537b6500bdf4aab"
    written.save(tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == written
    assert read_config(tmp_path / "config.json", {"seed": 0}) == written
    record = written.to_dict()
    del record["head"]["statistics"]  # there was no such setting
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "config": record}))
    (tmp_path / "saved.json").write_text(json.dumps(record))
    for name in ("run.json", "saved.json"):
        assert read_config(tmp_path / name) == written
    assert read_config(tmp_path / "saved.json").digest() == "1537b6500bdf4aab"


def test_the_unconstrained_features_model_has_free_features_unless_others_are_named(tmp_path: Path):
    ufm = {"data.name": "ufm"}
    assert TrainConfig().with_settings(ufm).backbone == BackboneConfig(name="free")
    assert TrainConfig.from_dict({"data": {"name": "ufm"}}).backbone == BackboneConfig(name="free")
    wide = TrainConfig().with_settings({"backbone.dim": 40}).with_settings(ufm)
    assert wide.backbone == BackboneConfig(name="free", dim=40)
    (tmp_path / "a.toml").write_text('[backbone]\nname = "mlp"\n')
    with pytest.raises(InputError, match="'ufm' with the backbone 'free'"):
        read_config(tmp_path / "a.toml", ufm)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "seed: 1", "a file that ends in .toml or .json is needed"),
        ("a.toml", "seed = ", "a.toml: cannot be read: "),
        ("a.json", "{", "a.json: cannot be read: "),
        ("a.json", "[1]", "a.json: a table of settings is needed"),
        ("a.toml", "sed = 1", "a.toml: unknown setting sed"),
        ("a.toml", b"\xff\xfe", "a.toml: cannot be read: "),
        ("a.toml", None, "a.toml: cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / name)


def test_the_feature_dimension_is_the_networks_own_or_the_one_given():
    own = {
        **{"mlp": 64, "free": 512, "convnet": 64, "convnet-flat": 256},
        **{"resnet18": 512, "resnet34": 512, "resnet50": 2048, "vgg13": 512},
    }
    assert {name: BackboneConfig(name=name).feature_dim for name in own} == own
    assert BackboneConfig(name="resnet50", width=16).feature_dim == 512
    assert BackboneConfig(name="resnet50", dim=300).feature_dim == 300


def test_labels_of_runs_are_names_of_folders():
    assert TrainConfig().label == "digits-nearest-seed0"
    data = DataConfig(name="imagefolder:/data/a b/../c")
    assert TrainConfig(data=data, head=HeadConfig(name="fixed"), seed=3).label == "data-a-b-..-c-fixed-seed3"
