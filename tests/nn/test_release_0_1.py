"""States that release 0.1 wrote: ``release_0_1.pt`` holds them, what they were trained on, and what they gave there."""

import functools
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")
from etfopt import metrics
from etfopt.errors import InputError
from etfopt.nn import ClassMeans, FixedETFHead, LearnedHead, NearestETFHead, PaperClassMeans

C, D = 4, 6
OLD = torch.load(Path(__file__).with_name("release_0_1.pt"), weights_only=True)
SIZES = {"num_classes": C, "dim": D}
paper = functools.partial(NearestETFHead, statistics="paper")

HEADS = {
    "nearest": paper,
    "nearest with a frame": functools.partial(paper, frame=OLD["frame"]),
    "nearest, frozen": functools.partial(paper, freeze_after=2, shrinkage=0.5),
    "fixed": functools.partial(FixedETFHead, statistics="paper"),
    "learned": functools.partial(LearnedHead, temperature=5.0),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_release_0_1_has_the_same_logits(name: str) -> None:
    head = HEADS[name](**SIZES)
    head.load_state_dict(OLD["states"][name])
    torch.testing.assert_close(head.eval()(OLD["features"][2]), OLD["found"][name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_trained_anew_as_in_release_0_1_has_its_logits(name: str) -> None:
    head = HEADS[name](**SIZES)
    if name == "learned":  # its rows are drawn
        head.load_state_dict(OLD["states"][name])
    for features in OLD["features"][:2]:
        head(features, OLD["labels"])
    torch.testing.assert_close(head.eval()(OLD["features"][2]), OLD["found"][name], rtol=0, atol=1e-5)


def test_class_means_of_release_0_1_go_on_as_those_of_the_paper() -> None:
    means = PaperClassMeans(**SIZES)
    means.load_state_dict(OLD["states"]["class means"])
    torch.testing.assert_close(means(OLD["features"][2], OLD["labels"]), OLD["found"]["class means"])


@pytest.mark.parametrize("name", ["CosineMargin", "NumericalRank", "NearestMeanMismatch"])
def test_a_metric_of_release_0_1_has_the_same_value_and_goes_on(name: str) -> None:
    loaded, anew = (getattr(metrics, name)(**SIZES) for _ in range(2))
    loaded.persistent(mode=True)
    loaded.load_state_dict(OLD["states"][name])
    for features in OLD["features"][:2]:
        anew.update(features, OLD["labels"], OLD["weight"])
    for metric in (loaded, anew):
        assert float(metric.compute()) == pytest.approx(float(OLD["found"][name]), rel=1e-6)
        metric.update(OLD["features"][2], OLD["labels"], OLD["weight"])
    assert torch.equal(loaded.compute(), anew.compute())


def test_measures_of_release_0_1_are_those_of_today() -> None:
    metric = metrics.NeuralCollapse(**SIZES)
    for features in OLD["features"][:2]:
        metric.update(features, OLD["labels"], OLD["weight"])
    found = {key: float(value) for key, value in metric.compute().items()}
    assert set(found) - set(OLD["found"]["NeuralCollapse"]) == {"nc2_means"}
    assert {key: found[key] for key in OLD["found"]["NeuralCollapse"]} == pytest.approx(OLD["found"]["NeuralCollapse"])


RUNNING = r"it is of statistics='paper' \(release 0\.1\): build the head with statistics='paper'"
MEASURES = r"class_sums is of release 0\.1, whose states are not read: measure again"
REFUSED = {
    "nearest": (NearestETFHead, InputError, RUNNING),
    "fixed": (FixedETFHead, InputError, RUNNING),
    "class means": (ClassMeans, InputError, "PaperClassMeans"),
    "NeuralCollapse": (metrics.NeuralCollapse, RuntimeError, MEASURES),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_from_release_0_1_is_refused_by_name(name: str) -> None:
    make, error, message = REFUSED[name]
    module = make(**SIZES)
    if name == "NeuralCollapse":
        module.persistent(mode=True)
    before = {key: torch.as_tensor(value).clone() for key, value in module.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(error, match=message):
            module.load_state_dict(OLD["states"][name], strict=strict)
    assert before
    for key, value in module.state_dict().items():
        torch.testing.assert_close(torch.as_tensor(value), before[key], rtol=0, atol=0, equal_nan=True)
