"""Every metric draws its value, as torchmetrics asks for, also where it is a dict or a curve."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torchmetrics

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt

from etfopt.errors import InputError, MissingExtraError
from etfopt.metrics import MEASURES, CosineMargin, NeuralCollapse
from tests.tools.metric_cases import SIZES, builders, draw


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@builders
def test_plot_draws_the_value_and_a_curve_of_values(build: Callable[..., torchmetrics.Metric]) -> None:
    metric = build(5, 8)
    steps = [metric(*draw(5, 8, 40, seed=seed)) for seed in range(3)]
    figure, axes = metric.plot()
    assert axes.figure is figure
    assert axes.get_ylabel() == type(metric).__name__
    value = metric.compute()
    drawn = [float(y) for line in axes.lines for y in line.get_ydata()]
    assert drawn == [float(x) for x in (value.values() if isinstance(value, dict) else [value])]
    second, other = plt.subplots()
    assert metric.plot(steps, ax=other) == (second, other)
    assert {len(line.get_ydata()) for line in other.lines} == {3}
    assert metric.plot(steps[0])[1].lines


def test_the_measures_are_named_in_the_legend() -> None:
    metric = NeuralCollapse(**SIZES)
    metric.update(*draw(5, 8, 40))
    _, axes = metric.plot()
    assert tuple(text.get_text() for text in axes.get_legend().get_texts()) == MEASURES


def test_sorted_margins_are_one_curve() -> None:
    metric = CosineMargin(**SIZES)
    metric.update(*draw(5, 8, 40))
    margins = metric.sorted()
    figure, axes = metric.plot(margins)
    assert axes.figure is figure
    (line,) = axes.lines
    assert line.get_ydata().tolist() == margins.tolist()
    assert metric.plot(margins, axes) == (figure, axes)
    with pytest.raises(InputError, match="val holds several curves; draw one at a time"):
        metric.plot([margins, margins])


@builders
def test_an_empty_sequence_is_refused(build: Callable[..., torchmetrics.Metric]) -> None:
    with pytest.raises(InputError, match="val is empty; pass the values"):
        build(5, 8).plot([])


@builders
def test_without_matplotlib_the_pip_command_is_named(
    build: Callable[..., torchmetrics.Metric], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etfopt.errors.find_spec", lambda name: None if name == "matplotlib" else name)
    for value in (None, torch.tensor(0.5)):
        with pytest.raises(MissingExtraError, match=r"matplotlib is not installed; run: pip install 'etfopt\[plots\]'"):
            build(5, 8).plot(value)
    with pytest.raises(MissingExtraError, match=r"pip install 'etfopt\[plots\]'"):
        CosineMargin(**SIZES).plot(torch.zeros(3))
