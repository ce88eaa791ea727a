"""Settings chosen for every variant on a validation split, which is a part of the training split."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from etfopt.cli import app
from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.data.selection import for_validation, selected
from etfopt.experiments.settings import DataConfig, TrainConfig
from etfopt.experiments.studies._tried import at_edges
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.runs import run_study
from etfopt.experiments.studies.tuning import Tried, best, chosen, tried, tune
from tests.tools.runs import SMALL

RATES = [0.05, 1e30]
PLAN = {
    **{
        "title": "Two heads",
        "question": "Which, each at its best?",
        "seeds": [0],
        "base": {**SMALL, "training.epochs": 2},
    },
    "variants": [{"name": "learned", "head.name": "learned"}, {"name": "nearest"}],
    "tuning": {
        "seeds": [7],
        "validation": 0.25,
        "base": {"training.epochs": 1},
        "grid": {"optimizer.learning_rate": RATES},
    },
}
FILE = """
title = "Two heads"
question = "Which, each at its best?"
seeds = [0]
base = {training.epochs = 2, training.batch_size = 256, backbone = {width = 16, dim = 12}}
variants = [{name = "learned", head.name = "learned"}, {name = "nearest"}]
[tuning]
seeds = [7]
validation = 0.25
base.training.epochs = 1
grid.optimizer.learning_rate = [0.05, 1e30]
"""


# --- the validation split ------------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 3), max_size=60).map(lambda more: [*range(4), *range(4), *more]),
    share=st.sampled_from([0.01, 0.2, 0.5, 0.9]),
    subset=st.sampled_from([None, 2]),
    seed=st.integers(0, 5),
)
def test_the_split_halves_what_a_run_would_train_on_class_by_class(labels, share, subset, seed):
    y = torch.tensor(labels)
    plain = DataConfig(subset=subset, seed=seed)
    config = DataConfig(subset=subset, seed=seed, validation=share)
    whole, left, held = selected(y, 4, plain), selected(y, 4, config), for_validation(y, 4, config)
    assert sorted([*left.indices.tolist(), *held.indices.tolist()]) == whole.indices.tolist()
    assert torch.equal(held.labels, y[held.indices])
    all_counts, counts = (torch.bincount(part.labels, minlength=4).tolist() for part in (whole, held))
    assert counts == [min(max(1, round(share * n)), n - 1) for n in all_counts]
    # what is done to the training split leaves the judges alone
    worse = config.model_copy(update={"imbalance": "exp", "imbalance_factor": 0.1, "label_noise": 0.5})
    assert torch.equal(for_validation(y, 4, worse).indices, held.indices)
    assert set(selected(y, 4, worse).indices.tolist()) <= set(left.indices.tolist())


def test_a_class_of_one_sample_has_none_to_hold_out():
    with pytest.raises(InputError, match=r"data.validation = 0.2: class 1 of 'digits' has 1 for training"):
        selected(torch.tensor([0, 0, 1]), 2, DataConfig(validation=0.2))
    with pytest.raises(InputError, match="'ufm' has no images to hold out"):
        DataConfig(name="ufm", validation=0.2)


def test_the_test_split_cannot_influence_the_choice(tmp_path: Path):
    """Two data sets that differ in their test split alone give the same validation accuracies, to the last bit."""
    found, settled = [], []
    for wrong in (False, True):
        data = {"data.name": "tests.tools.runs:blobs", "data.options.wrong": wrong}
        base = {**PLAN["base"], **data, "training.epochs": 1}
        tuning = {"seeds": [7], "grid": {"optimizer.learning_rate": [0.001, 0.1]}}
        study = parse_study({**PLAN, "base": base, "variants": [{"name": "nearest"}], "tuning": tuning}, "two")
        settled.append(tune(study, tmp_path / str(wrong)))
        found.append([t.accuracies for t in tried(tmp_path / str(wrong))])
    assert found[0] == found[1]
    (rate,) = {s.variants[0].config.optimizer.learning_rate for s in settled}
    assert rate in tuning["grid"]["optimizer.learning_rate"]
    # the two sets do differ, for a run that is no tuning
    assert not torch.equal(*(load_images(s.variants[0].config.data).test.labels for s in settled))


# --- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "winner"),
    [
        ([(0.5, 0.6), (0.7, 0.7), (0.7, 0.6)], 1),
        ([(0.5, 0.7), (0.6, 0.6), (0.2, 0.2)], 0),  # equal means: the first, whatever rounding says
        ([(0.1 + 0.2, 0.3), (0.3, 0.3)], 0),
        ([(0.3, 0.3), (0.1 + 0.2, 0.3)], 0),
        ([(None, 0.9), (0.2, 0.2)], 1),
        ([(0.0, 0.0), (None, None)], 0),
    ],
)
def test_the_best_mean_wins_and_the_first_of_equals(accuracies: list, winner: int):
    tries = [Tried("a", str(i), TrainConfig(), {}, dict(enumerate(values))) for i, values in enumerate(accuracies)]
    assert best(tries).values == str(winner)


def test_a_variant_that_always_diverges_is_an_error():
    with pytest.raises(ConvergenceError, match="variant 'a' diverged with every combination"):
        best([Tried("a", "x=1", TrainConfig(), {}, {0: None, 1: 0.5})])


@pytest.mark.parametrize(
    ("values", "taken", "said"),
    [
        ([0.1, 0.2, 0.4], 0.4, ["a (optimizer.learning_rate = 0.4)"]),
        ([0.4, 0.1, 0.2], 0.1, ["a (optimizer.learning_rate = 0.1)"]),
        ([0.4, 0.1, 0.2], 0.2, []),
        ([0.1, 0.2], 0.2, []),  # of two numbers each is an end
    ],
)
def test_a_choice_at_an_end_of_the_values_is_said(values: list[float], taken: float, said: list[str]):
    name = "optimizer.learning_rate"
    plan = {key: value for key, value in PLAN.items() if key != "tuning"}
    study = parse_study({**plan, "variants": [{"name": "a", name: taken}]}, "s")
    tries = [Tried("a", f"{name}={x}", TrainConfig(), {name: x}, {7: 0.5}) for x in values]
    assert at_edges(study, tries) == said


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_study_with_tuning_plans_every_combination_for_every_variant():
    study = parse_study(PLAN, "two")
    plan = study.tuning
    assert plan is not None
    assert [(v.head, v.cell) for v in plan.variants[:2]] == [
        ("learned", f"optimizer.learning_rate={rate}") for rate in RATES
    ]
    assert len(plan.runs()) == 2 * 2
    assert {(run.config.data.validation, run.config.training.epochs) for run in plan.runs()} == {(0.25, 1)}
    assert all(v.config.data.validation is None for v in study.variants)
    with pytest.raises(InputError, match="study 'two': its settings are still to be tuned"):
        study.runs()
    assert Study.from_dict(study.to_dict()).runs()  # what is written beside runs has nothing left to tune
    assert parse_study({**PLAN, "tuning": {"seeds": [3], "grid": PLAN["tuning"]["grid"]}}, "two").tuning.seeds == (3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning": 3}, "tuning must be a table of seeds, validation, base, grid"),
        ({"tuning": {**PLAN["tuning"], "epochs": 3}}, "tuning must be a table of seeds, validation, base, grid"),
        ({"tuning": {"seeds": [7]}}, "tuning.grid is empty"),
        ({"tuning": {**PLAN["tuning"], "seeds": []}}, "tuning.seeds must be a non-empty list"),
        ({"tuning": {**PLAN["tuning"], "seeds": [7, 0]}}, "tuning.seeds: 0 is a seed of the study; take others"),
        ({"tuning": {**PLAN["tuning"], "validation": 0}}, "data.validation must be finite and above 0"),
        (
            {"tuning": {**PLAN["tuning"], "grid": {"head.name": ["fixed"]}}},
            "tuning: head.name is set by the study",
        ),
        ({"tuning": {**PLAN["tuning"], "grid": {"seed": [1]}}}, "tuning: seed is set by the study already"),
        ({"tuning": {**PLAN["tuning"], "grid": {"head.delta": [-1.0]}}}, "variant 'learned, head.delta=-1.0'"),
        (
            {"tuning": {**PLAN["tuning"], "base": {"optimizer.learning_rate": 1.0}}},
            "tuning: optimizer.learning_rate is",
        ),
        ({"tuning": {**PLAN["tuning"], "base": {"data.validation": 0.1}}}, "data.validation is set by the tuning"),
        ({"base": {"data.validation": 0.1}}, "data.validation is set by the tuning"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_refused(change: dict, message: str):
    with pytest.raises(InputError, match=message):
        parse_study({**PLAN, **change}, "two")


# --- the command ---------------------------------------------------------------------------------------------------


def test_one_command_tunes_trains_and_reports_and_goes_on_where_it_was(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two.toml").write_text(FILE)
    study = parse_study(PLAN, "two")
    run_study(study.tuning, tmp_path / "runs/two/tuning")  # as a killed command leaves it, but for one run
    shutil.rmtree("runs/two/tuning/nearest-optimizer.learning_rate=0.05-seed7")
    with pytest.raises(InputError, match=r"1 of 4 runs that choose settings are not finished, such as nearest-opt"):
        chosen(study, tmp_path / "runs/two")
    listed = CliRunner().invoke(app, ["train", "two.toml", "--dry-run"])
    assert "2 runs of the study follow, with the settings that these 4 choose" in listed.stdout
    done = CliRunner().invoke(app, ["train", "two.toml", "--quiet"])
    assert done.exit_code == 0, done.output
    assert "4 runs: 1 trained now, 1 finished before, 2 failed. Written to runs/two/tuning/" in done.stdout
    assert "2 runs: 2 trained now" in done.stdout

    numbers = json.loads(Path("runs/two/report/report.json").read_text())
    assert [v["config"]["optimizer"]["learning_rate"] for v in numbers["study"]["variants"]] == [0.05] * 2
    assert all("validation" not in v["config"]["data"] for v in numbers["study"]["variants"])
    rows = {(t["variant"], t["values"]): t for t in numbers["tuning"]}
    assert [key for key, t in rows.items() if t["chosen"]] == [
        (name, "optimizer.learning_rate=0.05") for name in ("learned", "nearest")
    ]
    assert rows["nearest", "optimizer.learning_rate=1e+30"]["validation"] == {"7": None}
    page = Path("runs/two/report/report.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| nearest |") and "**" in line)
    shown = rows["nearest", "optimizer.learning_rate=0.05"]["validation"]["7"]
    assert f"| **{100 * shown:.2f} %** |" in row
    assert row.endswith("| diverged |")
    assert "These runs had training.epochs = 1. The chosen one" in page
    assert [v["config"]["training"]["epochs"] for v in numbers["study"]["variants"]] == [2] * 2
    assert "25 % of every class of the training split" in page
    again = CliRunner().invoke(app, ["train", "two.toml"])
    assert "4 runs: 0 trained now" in again.stdout
    assert "2 runs: 0 trained now, 2 finished before" in again.stdout
    assert "2 of 2" in CliRunner().invoke(app, ["train", "two.toml", "--dry-run"]).stdout
