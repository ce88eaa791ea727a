"""Layers of a network measured in one pass: the values are those of each metric alone, whatever the loop."""

import copy
import pickle
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric

from etfopt.errors import InputError
from etfopt.metrics import CosineMargin, LayerMeasures, NeuralCollapse, NumericalRank
from etfopt.nn import LearnedHead
from tests.tools.layer_cases import C, Returns, X, Y, alone, data, floats, hooks, mlp, same

# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
def test_every_layer_has_the_values_of_a_metric_of_its_own(in_place):
    model, (x, y) = mlp(in_place).eval(), data()
    measures = LayerMeasures(model, ["0", "4"], num_classes=C, classifier="5")
    for images, labels in zip(x.split(7), y.split(7), strict=True):
        with torch.no_grad(), measures.labels(labels):
            model(images)
    first, last = model[0](x), model[:5](x)
    assert measures.dims == {"0": 8, "4": 6, "5": 6}
    values = measures.compute()
    same(values["0"], alone(first, y))  # the ReLU behind it overwrites its output
    same(values["4"], alone(last, y))
    same(values["5"], alone(last, y, weight=model[5].weight, bias=model[5].bias))
    assert measures.flat("val/").keys() >= {"val/0/nc1", "val/5/nc3"}
    assert hooks(model) == 0


@seed(0)
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 2**16), st.booleans())
def test_no_split_of_the_samples_matters_and_ignored_ones_count_nowhere(sizes, draw, merged):
    # in float32, a product of another number of rows rounds otherwise on some processors, and vci takes the rounding of
    # features that lie in a subspace, as those of layer 0 do, for variance
    model, g = mlp().eval().double(), torch.Generator().manual_seed(draw)
    x, y = torch.randn(sum(sizes), 5, generator=g).double(), torch.randint(-1, C, (sum(sizes),), generator=g)
    x[y == -1] = torch.nan
    whole = LayerMeasures(model, ["0", "4"], num_classes=C, ignore_index=-1)
    parts = [LayerMeasures(model, ["0", "4"], num_classes=C, ignore_index=-1) for _ in sizes]
    for i, (images, labels) in enumerate(zip(x.split(sizes), y.split(sizes), strict=True)):
        with parts[i if merged else 0].labels(labels):
            model(images)
    for part in parts[1:] if merged else []:
        parts[0].merge_state(part)
    with whole.labels(y):
        model(x)
    kept = y >= 0
    found, values = parts[0].compute(), whole.compute()
    for name in ("0", "4"):
        same(found[name], floats(values[name]))
        same(values[name], alone(model[: int(name) + 1](x[kept]), y[kept]))


def test_a_head_is_measured_by_what_it_multiplies():
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(5, 6), LearnedHead(6, C)).eval(), data()
    measures = LayerMeasures(model, num_classes=C, classifier="1")
    with measures.labels(y):
        model(x)
    head = model[1]
    same(measures.compute()["1"], alone(head.normalize(model[0](x)), y, weight=head.weight, bias=head.bias))


def test_several_metrics_and_two_collectors_around_one_forward():
    model, (x, y) = mlp().eval(), data()
    hidden = LayerMeasures(model, ["0", "1"], num_classes=C, metrics=[NeuralCollapse, NumericalRank])
    last = LayerMeasures(
        model, num_classes=C, classifier="5", metrics=lambda **sizes: MetricCollection([CosineMargin(**sizes)])
    )
    with hidden.labels(y), last.labels(y):
        model(x)
    rank = NumericalRank(num_classes=C, dim=8)
    rank.update(model[0](x).detach(), y)
    assert float(hidden.compute()["0"]["NumericalRank"]) == pytest.approx(float(rank.compute()))
    assert set(last.compute()["5"]) == {"CosineMargin"}
    assert hidden["0"]["NeuralCollapse"].class_means().shape == (8, C)


MAPS = torch.randn(12, 4, 3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
TOKENS = MAPS.flatten(2).movedim(1, -1)  # (12, 6, 4)
ONE, EACH = torch.arange(12) % C, torch.arange(72).view(12, 3, 2) % C
POOLED, PIXELS = MAPS.mean(dim=(2, 3)), MAPS.movedim(1, -1)


def layer_norm(shape: int) -> nn.Module:
    return nn.LayerNorm(shape, elementwise_affine=False, dtype=torch.float64)


IDENTITY_1D = nn.AvgPool1d(1)
SHAPES = {  # the layer, its input, labels, options; features and labels that it must be measured by
    "maps are averaged": (Returns(lambda x: x), MAPS, ONE, {}, POOLED, ONE),
    "pixels with labels": (Returns(lambda x: x), MAPS, EACH, {}, PIXELS, EACH),
    "pixels of one label": (
        Returns(lambda x: x), MAPS, ONE, {"pool": "each"}, PIXELS, ONE[:, None, None].expand(12, 3, 2)
    ),
    "maps, channels last": (Returns(lambda x: x), PIXELS, ONE, {"channels": "last"}, POOLED, ONE),
    "pixels, channels last by the labels": (Returns(lambda x: x), PIXELS, EACH, {}, PIXELS, EACH),
    "a layer norm has the channels last": (
        layer_norm(4), PIXELS, ONE, {}, layer_norm(4)(PIXELS).mean(dim=(1, 2)), ONE
    ),
    "tokens are averaged": (Returns(lambda x: x), TOKENS, ONE, {}, TOKENS.mean(dim=1), ONE),
    "tokens with labels": (Returns(lambda x: x), TOKENS, EACH.flatten(1), {}, TOKENS, EACH.flatten(1)),
    "the first token": (Returns(lambda x: x), TOKENS, ONE, {"pool": lambda x: x[:, 0]}, TOKENS[:, 0], ONE),
    "a sequence of channels": (IDENTITY_1D, MAPS.flatten(2), ONE, {}, POOLED, ONE),
    "a block of one-dimensional convolutions": (
        nn.Sequential(IDENTITY_1D, nn.Identity()), MAPS.flatten(2), ONE, {}, POOLED, ONE
    ),
    "a block of linear layers on maps": (
        nn.Sequential(layer_norm(4), nn.Identity()), PIXELS, ONE, {}, layer_norm(4)(PIXELS).mean(dim=(1, 2)), ONE
    ),
    "channels first": (Returns(lambda x: x), MAPS.flatten(2), ONE, {"channels": "first"}, POOLED, ONE),
    "a tuple": (Returns(lambda x: (None, x, x.sum())), POOLED, ONE, {}, POOLED, ONE),
    "a mapping": (Returns(lambda x: {"hidden": x, "other": x + 1}), POOLED, ONE, {}, POOLED, ONE),
    "a function of the output": (
        Returns(lambda x: SimpleNamespace(hidden=x)), POOLED, ONE, {"output": lambda out: out.hidden}, POOLED, ONE
    ),
    "half precision is averaged in single": (
        Returns(lambda x: x), MAPS.half(), ONE, {}, MAPS.half().float().mean(dim=(2, 3)), ONE
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES.keys())
def test_outputs_of_every_shape_become_samples(case):
    layer, x, labels, options, features, expected = case
    model = nn.Sequential(layer)
    measures = LayerMeasures(model, ["0"], num_classes=C, **options)
    with measures.labels(labels):
        model(x)
    assert measures.dims == {"0": 4}
    same(measures.compute()["0"], alone(features, expected), 1e-12)


# --- loops ----------------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    x: Tensor


def test_a_loader_is_measured_in_evaluation_mode_and_modes_come_back():
    model = mlp()
    model[4].eval()
    modes = [module.training for module in model.modules()]
    measures = LayerMeasures(model, "4", num_classes=C)
    loaders = {
        "pairs": list(zip(X.split(16), Y.split(16), strict=True)),
        "arguments": [((X,), Y)],
        "a named tuple": [(Inputs(X), Y)],
        "keywords": [{"input": X, "labels": Y}],
    }
    for loader in loaders.values():
        values = measures.measure(loader)  # what came before is forgotten
        same(values["4"], alone(model.eval()[:5](X), Y))
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    with pytest.raises(InputError, match="the loader yields a tuple"):
        measures.measure([(X, Y, Y)])
    assert [module.training for module in model.modules()] == modes
    same(measures.measure([(X, Y, Y)], unpack=lambda batch: batch[:2])["4"], alone(model.eval()[:5](X), Y))


def test_training_mode_gradients_and_inference_mode():
    model = mlp()
    measures = LayerMeasures(model, ["0", "2"], num_classes=C, classifier="5")
    with torch.inference_mode(), measures.labels(Y):
        model(X)
    with measures.labels(Y):
        loss = nn.functional.cross_entropy(model(X), Y)
    loss.backward()
    assert model[0].weight.grad is not None
    values = measures.compute()
    assert not values["5"]["nc3"].requires_grad
    same(values["0"], alone(model[0](torch.cat([X, X])), torch.cat([Y, Y])))


def test_copies_and_pickles_go_on_from_where_they_were_made():
    model = mlp().eval()
    measures = LayerMeasures(model, ["0"], num_classes=C, metrics=partial(NeuralCollapse, ignore_index=-1))
    with measures.labels(Y):
        model(X)
    for twin in (copy.deepcopy(measures), pickle.loads(pickle.dumps(measures))):
        with twin.labels(Y.flip(0)):
            twin.model(X)
        same(twin.compute()["0"], alone(model[0](torch.cat([X, X])), torch.cat([Y, Y.flip(0)])))
    same(measures.compute()["0"], alone(model[0](X), Y))


def test_metrics_of_others_take_features_and_labels():
    class MeanNorm(MeanMetric):
        def __init__(self, num_classes: int, dim: int) -> None:  # noqa: ARG002 - as metrics of layers are made
            super().__init__()

        def update(self, features: Tensor, labels: Tensor) -> None:  # noqa: ARG002 - as metrics of layers are called
            super().update(features.norm(dim=1))

    model = mlp().eval()
    measures = LayerMeasures(model, "0", num_classes=C, classifier="5", metrics=MeanNorm)
    with measures.labels(Y):
        model(X)
    assert float(measures.compute()["0"]["MeanNorm"]) == pytest.approx(float(model[0](X).detach().norm(dim=1).mean()))
