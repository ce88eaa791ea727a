"""Study files: what they mean, and what is refused before anything is trained."""

from pathlib import Path

import pytest

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies._comparisons import pairs
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.plan_file import parse_study, read_study

TWO = {
    "title": "Two heads",
    "question": "Which?",
    "seeds": [0, 3],
    "base": {"training": {"epochs": 2}, "backbone.width": 16},
    "variants": [{"name": "learned, tau 5", "head.name": "learned"}, {"name": "nearest", "head": {"name": "nearest"}}],
}
FIXED = {"head.name": "fixed"}


def test_base_variant_and_grid_make_a_configuration_each():
    study = parse_study({**TWO, "grid": {"data.batches": ["shuffled", "stratified"]}}, "two")
    assert [v.name for v in study.variants] == [
        f"{head}, data.batches={order}"
        for order in ("shuffled", "stratified")
        for head in ("learned, tau 5", "nearest")
    ]
    first, last = study.variants[0], study.variants[-1]
    assert (first.head, first.cell, study.name) == ("learned, tau 5", "data.batches=shuffled", "two")
    wanted = {"training.epochs": 2, "backbone.width": 16}
    for variant, head, order in ((first, "learned", "shuffled"), (last, "nearest", "stratified")):
        chosen = {**wanted, "head.name": head, "data.batches": order}
        assert variant.config == TrainConfig().with_settings(chosen)
    runs = study.runs()
    assert [run.seed for run in runs] == [0] * 4 + [3] * 4
    assert all(run.config.seed == run.seed for run in runs)
    assert runs[-1].folder == "nearest-data.batches=stratified-seed3"
    assert len({run.folder for run in runs}) == 8


def test_a_variant_can_keep_to_a_part_of_the_grid():
    grid = {"backbone.dim": [12, 16], "training.epochs": [1, 2]}
    extra = {"name": "wide", "head.name": "fixed", "only": {"backbone.dim": [16]}}
    study = parse_study({**TWO, "grid": grid, "variants": [{"name": "learned", "head.name": "learned"}, extra]}, "two")
    assert [v.cell for v in study.variants if v.head == "wide"] == [
        f"backbone.dim=16, training.epochs={n}" for n in (1, 2)
    ]
    assert [v.config.backbone.dim for v in study.variants if v.head == "wide"] == [16, 16]
    assert len(study.variants) == 6
    names = {v.name for v in study.variants}
    assert len(pairs(study, ["learned"])) == 2  # the wide ones alone have a learned one beside them, and are not it
    assert pairs(study, ["backbone.dim=12, training.epochs=1"]) == [
        (f"learned, backbone.dim={d}, training.epochs={n}", "learned, backbone.dim=12, training.epochs=1")
        for d, n in ((12, 2), (16, 1), (16, 2))
    ]
    assert {name for pair in pairs(study, ["learned"]) for name in pair} <= names


def test_a_grid_alone_is_a_study_and_none_is_not():
    grid = {**TWO, "variants": [], "grid": {"head": {"name": ["fixed", "nearest"], "temperature": [5, 10]}}}
    names = [v.name for v in parse_study(grid, "g").variants]
    assert names[1] == "head.name=fixed, head.temperature=10"
    assert len(names) == 4
    with pytest.raises(InputError, match="nothing to compare"):
        parse_study({**TWO, "variants": []}, "g")


def test_a_study_survives_being_written_and_read():
    more = {"findings": "None\n\nyet.", "baselines": ["nearest"], "grid": {"data.batches": ["stratified"]}}
    study = parse_study({**TWO, **more}, "two")
    assert Study.from_dict(study.to_dict()) == study


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "unknown key sedes; known are: title"),
        ({"baselines": ["fixed"]}, r"baselines = \['fixed'\] must be a list of variants; known are: 'learned, tau 5'"),
        ({"baselines": "nearest"}, "baselines = 'nearest' must be a list of variants"),
        ({"title": " "}, "title must be a non-empty string"),
        ({"question": 3}, "question must be a non-empty string"),
        ({"seeds": []}, "seeds must be a non-empty list"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 is there twice"),
        ({"seeds": [0, -1]}, r"seeds\[1\] must be an integer of at least 0"),
        ({"base": {"head": "nearest"}}, "variant 'learned, tau 5': unknown setting head; known are"),
        ({"base": {"seed": 3}}, "base: seed is not set here"),
        ({"base": {"head.name": "fixed", "head": {"name": "fixed"}}}, "base: head.name is set twice"),
        ({"base": 3}, "base must be a table"),
        ({"variants": "all"}, r"variants must be tables, each under a line \[\[variants\]\]"),
        ({"variants": [{"head.name": "fixed"}]}, r"variants\[0\]: name must be"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "variant 'a' is there twice"),
        ({"variants": [{"name": "a"}, {"name": "b"}]}, "variants 'a' and 'b' have the same configuration"),
        ({"variants": [{"name": "a b"}, {"name": "A-b", **FIXED}]}, "variants 'a b' and 'A-b' have the same folder"),
        ({"variants": [{"name": "a", "seed": 3}]}, "variant 'a': seed is not set here"),
        (
            {"variants": [{"name": "a", "head.nam": "fixed"}]},
            "variant 'a': unknown setting head.nam; did you mean 'head.name'",
        ),
        ({"variants": [{"name": "a", "head.name": "best"}]}, "variant 'a': head.name = 'best' is not known"),
        ({"variants": [{"name": "a", "backbone.dim": 3}]}, "variant 'a': .*dim = 3 is smaller"),
        ({"grid": {"head.name": ["fixed"]}}, "head.name is set by the variant and by the grid"),
        ({"grid": {"data.batches": "shuffled"}}, "grid: data.batches must be a non-empty list"),
        ({"grid": {"data.batches": ["shuffled", "shuffled"]}}, "grid: data.batches = .* has a value twice"),
        (
            {"variants": [{"name": "a", "only": {"backbone.dim": [12]}}]},
            "variant 'a': only: backbone.dim = 12 is not in",
        ),
        ({"variants": [{"name": "a", "only": 3}]}, "variant 'a': only must be a table"),
        ({"grid": {"seed": [1, 2]}}, "grid: seed is not set here"),
        ({"grid": {"data.batches": ["odd"]}}, "variant 'learned, tau 5, data.batches=odd': data.batches = 'odd'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        parse_study({**TWO, **change}, "two")


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path):
    (tmp_path / "torn.toml").write_text("title = ")
    (tmp_path / "empty.toml").write_text("")
    for name, message in (
        ("study.yaml", "a study is a file that ends in .toml"),
        ("nowhere.toml", "nowhere.toml: cannot be read: No such file"),
        ("torn.toml", "torn.toml: cannot be read: Invalid value"),
        ("empty.toml", "empty.toml: there is nothing to compare"),
    ):
        with pytest.raises(InputError, match=message):
            read_study(tmp_path / name)
