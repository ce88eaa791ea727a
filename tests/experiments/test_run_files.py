"""The files of a run: strict, of one schema, whole after a crash, and read back as they were written."""

import itertools
import json
import math
import platform
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from etfopt.errors import InputError
from etfopt.experiments.training import _environment as environment_module
from etfopt.experiments.training._environment import environment
from etfopt.experiments.training._means import append_means, read_means
from etfopt.experiments.training._random_states import RandomStates, seeded
from etfopt.experiments.training._records import append_line, config_of, read_lines, write_config, write_json
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.shares import Shares
from etfopt.experiments.training.train import RunResult, train
from etfopt.files import StorageError, write_atomically
from tests.tools.runs import small

SMALL = small()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, digits) -> RunResult:
    return train(SMALL, tmp_path_factory.mktemp("run"), images=digits)


def strict(text: str | bytes) -> dict:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_file_says_its_schema(result: RunResult, tmp_path: Path):
    for name in ("config.json", "environment.json", "history.json"):
        assert strict((result.path / name).read_text())["schema"] == 1
    lines = [strict(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["schema"], line["epoch"]) for line in lines] == [(1, 0), (1, 1), (1, 2)]
    write_json(tmp_path / "file.json", {"value": math.nan})
    assert (tmp_path / "file.json").read_text() == '{\n "schema": 1,\n "value": null\n}\n'


def test_a_run_is_read_back_from_its_folder(result: RunResult):
    again = load_run(result.path)
    for name in ("config", "history", "step_bytes", "finished"):
        assert getattr(again, name) == getattr(result, name)
    np.testing.assert_array_equal(again.class_means, result.class_means)
    assert again.step_ms == pytest.approx(result.step_ms)
    np.testing.assert_array_equal(np.load(result.path / "class_means.npy"), result.class_means[-1])
    assert strict((result.path / "history.json").read_text())["epochs"] == result.history


def test_the_margins_of_both_splits_are_kept_sorted(result: RunResult):
    for split, n in (("train", 1437), ("test", 360)):
        margins = result.margins(split)
        assert margins.shape == (n,)
        assert (np.diff(margins) >= 0).all()
        assert margins.mean() == pytest.approx(result.history[-1][f"{split}_cosine_margin"], abs=1e-14)


def test_every_measure_of_the_method_is_in_the_record(result: RunResult):
    names = {
        *(
            "loss",
            "accuracy",
            "nc1",
            "vci",
            "numerical_rank",
            "nc2",
            "nc2_means",
            "nc3",
            "nc4",
            "ncc_mismatch",
            "cosine_margin",
        ),
        *("equinorm_means", "equinorm_weights", "equinorm_difference"),
        *("etf_distance_means", "etf_distance_weights", "etf_distance_between"),
    }
    for record in result.history:
        assert set(record) == {"epoch", *(f"{split}_{name}" for split in ("train", "test") for name in names)}
        assert all(math.isfinite(value) for value in record.values())


def test_epochs_to_reach_an_accuracy_or_a_margin(tmp_path: Path):
    values = [(0.1, -0.2), (0.99, 0.4), (0.98, 1.0), (1.0, 0.9)]
    history = [{"epoch": e, "train_accuracy": a, "train_cosine_margin": m} for e, (a, m) in enumerate(values)]
    run = RunResult(small(3), history, np.zeros((4, 16, 10)), 1.0, 2e6, tmp_path)
    assert [run.epochs_to(a) for a in (0.05, 0.99, 1.0)] == [0, 1, 3]
    assert [run.epochs_to(m, "train_cosine_margin") for m in (0.3, 1.0, 1.1)] == [1, 2, None]


# --- one file after another ----------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_file_before_and_no_other(tmp_path: Path):
    write_atomically(tmp_path / "file", b"first")
    write_atomically(tmp_path / "file", b"second")
    (tmp_path / ".file.part").mkdir()
    with pytest.raises(StorageError, match=r"file: cannot be written"):
        write_atomically(tmp_path / "file", b"third")
    assert (tmp_path / "file").read_bytes() == b"second"
    with pytest.raises(StorageError, match="No such file"):
        write_atomically(tmp_path / "no" / "file", b"")


def test_a_torn_last_line_is_left_out_and_a_torn_one_before_is_an_error(tmp_path: Path):
    path = tmp_path / "lines"
    append_line(path, {"epoch": 0, "nc1": math.nan, "loss": math.inf})
    append_line(path, {"epoch": 1, "nc1": 0.1})
    text = path.read_text()
    assert [strict(line)["nc1"] for line in text.splitlines()] == [None, 0.1]
    path.write_text(text + text[:20])
    first, second = read_lines(path)
    assert math.isnan(first["nc1"])
    assert second == {"epoch": 1, "nc1": 0.1}
    path.write_text(text[:20] + "\n" + text)
    with pytest.raises(InputError, match="lines: is damaged"):
        read_lines(path)


def test_class_means_grow_by_an_epoch_and_later_ones_are_dropped(tmp_path: Path):
    path, means = tmp_path / "means.npy", np.random.default_rng(0).standard_normal((120, 3, 4))
    for epoch in range(120):  # the number of epochs grows to three digits
        append_means(path, means[epoch], epoch)
    np.testing.assert_array_equal(read_means(path, 120), means)
    append_means(path, -means[7], 7)
    np.testing.assert_array_equal(np.load(path), [*means[:7], -means[7]])
    assert path.stat().st_size == 128 + 8 * 8 * 12
    append_means(path, means[0].T, 0)
    assert np.load(path).shape == (1, 4, 3)


def test_class_means_that_are_not_there_are_missed(tmp_path: Path):
    path = tmp_path / "means.npy"
    append_means(path, np.zeros((3, 4)), 0)
    with pytest.raises(InputError, match=r"holds the class means of 1 epochs; 2 were expected"):
        read_means(path, 2)
    for shape, epoch in (((3, 4), 2), ((4, 3), 1)):
        wanted = rf"holds 1 epochs of shape \(3, 4\); {epoch} of shape {re.escape(str(shape))} were expected"
        with pytest.raises(InputError, match=wanted):
            append_means(path, np.zeros(shape), epoch)
    path.write_bytes(b"rubbish")
    for use in (lambda: read_means(path, 1), lambda: append_means(path, np.zeros((3, 4)), 1)):
        with pytest.raises(InputError, match=r"means\.npy: is damaged"):
            use()


def test_a_configuration_goes_round(tmp_path: Path):
    config = small(head__name="fixed", head__averaging=0.25, seed=2**63)
    write_config(tmp_path, config)
    assert config_of(tmp_path) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is not a file of a run"),
        ('{"head": "nearest"}', "is not a file of a run"),
        ('{"schema": 2, "config": {}}', "written by another version of etfopt; this one reads schema 1"),
        ('{"schema": 1, "config": {"head": "best"}}', "holds no configuration of a run: head = 'best'"),
        ('{"schema": 1, "config": {"colour": 3}}', "holds no configuration of a run: .*colour"),
        ('{"schema": 1, "config": 3}', "holds no configuration of a run"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=rf"config\.json: (was )?{message}"):
        config_of(tmp_path)


# --- surroundings --------------------------------------------------------------------------------------------------


def test_the_environment_names_versions_platform_and_time(result: RunResult):
    (start,) = strict((result.path / "environment.json").read_text())["starts"]
    assert start["torch"] == torch.__version__
    assert start["numpy"] == np.__version__
    assert start["platform"] == f"{platform.system()} {platform.machine()}"
    assert {"etfopt", "python", "platform", "processors", "git", "date", "seed", "precision", "threads"} <= set(start)
    assert start["date"].endswith("+00:00")


def test_the_revision_is_that_of_a_checkout_of_the_package(monkeypatch, tmp_path: Path):
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    package = tmp_path / "etfopt" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(environment_module.etfopt, "__file__", str(package))
    monkeypatch.setattr(environment_module, "_git", environment_module._git.__wrapped__)  # without its cache

    def found() -> dict | None:
        return environment()["git"]

    git("init", "--quiet")
    assert found() is None  # a checkout, but not of the package
    git("add", "."), git("commit", "--quiet", "-m", "first")
    assert found()["dirty"] is False
    assert len(found()["revision"]) == 40
    package.write_text("changed")
    assert found()["dirty"] is True


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.random())  # noqa: NPY002 - what is tested


def test_the_generators_are_seeded_by_process_and_put_back():
    inside = []
    with seeded(0, 0):
        expected = draw()
    with seeded(0, 0):
        for seed, rank in ((1, 0), (1, 0), (1, 1), (2, 0)):
            with seeded(seed, rank):
                inside.append(draw())
        assert draw() == expected
    assert inside[0] == inside[1]
    assert all(len(set(values)) == 3 for values in zip(*inside, strict=True))


def test_an_epoch_goes_on_with_the_generators_where_the_last_one_ended_resumed_or_not():
    trainer, module = pl.Trainer(logger=False, enable_checkpointing=False), pl.LightningModule()
    whole, resumed = RandomStates(), RandomStates()
    with seeded(1, 0):
        whole.on_train_epoch_start(trainer, module)
        first = draw()
        whole.on_train_epoch_end(trainer, module)
        next_one = draw()
        resumed.load_state_dict(whole.state_dict())
        for states in (whole, resumed):
            states.on_train_epoch_start(trainer, module)
            assert draw() == next_one != first
        RandomStates().on_train_epoch_start(trainer, module)
        assert draw() != next_one  # there was no last epoch


def test_the_precision_reaches_the_network(tmp_path: Path, result: RunResult):
    found = train(SMALL, tmp_path, precision="bf16-mixed", accelerator="cpu")
    loss, expected = found.history[0]["train_loss"], result.history[0]["train_loss"]  # of one and the same network
    assert loss != expected
    assert loss == pytest.approx(expected, rel=0.01)


def test_shares_of_a_batch_are_disjoint_and_whole():
    chunks = [list(range(7)), list(range(7, 14)), [14, 15, 16]]
    shares = [list(Shares(chunks, rank, 2, least=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [chunks[0], list(range(7, 17))]
    evaluation = [list(Shares(chunks, rank, 4, least=0)) for rank in range(4)]
    assert [sorted(itertools.chain(*parts)) for parts in zip(*evaluation, strict=True)] == chunks
    assert evaluation[3][2] == []
    with pytest.raises(InputError, match="a batch of 7 samples cannot be shared by 4 processes"):
        list(Shares(chunks, 0, 4, least=2))
