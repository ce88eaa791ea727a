"""The heat map of layers and epochs shows the values of the results that it is given."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.colors import LogNorm, Normalize

from etfopt.errors import InputError
from etfopt.plotting import draw_layers, layer_values

RESULTS = [
    {"conv": {"nc1": 2.0, "vci": 0.5}, "fc": {"nc1": 0.5, "vci": -0.1}},
    {"conv": {"nc1": 1.0, "vci": 0.4}, "fc": {"nc1": 1e-12, "vci": math.nan}, "late": {"nc1": 3.0}},
]
NC1 = [[2.0, 1.0], [0.5, 1e-12], [math.nan, 3.0]]


def image(axes):
    (found,) = axes.images
    return found


def test_results_become_a_table_of_layers_and_epochs():
    names, values = layer_values(RESULTS, "nc1")
    assert names == ["conv", "fc", "late"]
    np.testing.assert_array_equal(values, NC1)
    document = {"classes": 3, "layers": [{"layer": "fc", "measures": {"nc1": None}}]}  # as etfopt measure --json prints
    names, values = layer_values([document, {"fc": {"nc1": 1.5}}], "nc1")
    assert names == ["fc"]
    np.testing.assert_array_equal(values, [[math.nan, 1.5]])


def test_the_metrics_of_layers_are_drawn_as_they_are_computed():
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchmetrics")
    from etfopt.metrics import LayerMeasures

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    layers = LayerMeasures(model, ["0", "1"], num_classes=3, classifier="2")
    results = [layers.measure([(torch.randn(30, 4), torch.arange(30) % 3)]) for _ in range(2)]
    axes = draw_layers(results, "nc1")
    expected = [[float(result[name]["nc1"]) for result in results] for name in ("0", "1", "2")]
    np.testing.assert_allclose(image(axes).get_array(), expected)


def test_the_picture_has_a_row_a_layer_a_column_an_epoch_and_the_values():
    axes = draw_layers(RESULTS, "nc1", epochs=[1, 50])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "fc", "late"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "50"]
    assert axes.yaxis_inverted()  # the first layer at the top
    assert isinstance(image(axes).norm, LogNorm)
    shown = image(axes).get_array()
    np.testing.assert_array_equal(shown.mask, np.isnan(NC1))
    np.testing.assert_array_equal(shown.filled(math.nan), np.maximum(NC1, 1e-8))
    assert [text.get_text() for text in axes.texts] == ["2", "1", "0.5", "1e-12", "3"]


def test_a_linear_scale_takes_negative_values_and_a_logarithmic_one_does_not():
    axes = draw_layers(RESULTS, "vci", log=False)
    norm = image(axes).norm
    assert type(norm) is Normalize
    assert (norm.vmin, norm.vmax) == (-0.1, 0.5)
    with pytest.raises(InputError, match="vci has negative values, which have no logarithm; pass log=False"):
        draw_layers(RESULTS, "vci")


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_equal_and_missing_values_are_drawn(value, log):
    axes = draw_layers([{"fc": {"nc1": value}}] * 2, "nc1", log=log)
    axes.figure.canvas.draw()
    norm = image(axes).norm
    assert norm.vmin < norm.vmax


def test_many_epochs_are_labelled_sparsely_and_without_values():
    axes = draw_layers(RESULTS * 20, "nc1")
    assert len(axes.get_xticklabels()) <= 12
    assert not axes.texts
    assert draw_layers(RESULTS, "nc1", axes=axes) is axes


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="measure = 'nc9' is in none of the results; choose one of: nc1, vci"):
        draw_layers(RESULTS, "nc9")
    with pytest.raises(InputError, match=r"measure = 'nc1' is in none .*choose one of: \(none\)"):
        draw_layers([], "nc1")
    with pytest.raises(InputError, match="epochs has 1 entries, and there are 2 results"):
        draw_layers(RESULTS, "nc1", epochs=[1])
