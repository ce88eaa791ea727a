"""Which layers names mean, and batches that are refused before anything changes."""

import re
import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from etfopt.errors import InputError
from etfopt.metrics import CosineMargin, LayerMeasures, NeuralCollapse, NumericalRank
from tests.tools.layer_cases import C, Returns, X, Y, alone, data, floats, hooks, mlp, same

# --- names and calls ------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        self.relu = nn.ReLU()
        self.alias = self.relu
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.relu(block(x))
        return x


NAMES = {
    "a name": ("blocks.1", ["blocks.1"]),
    "a pattern": ("blocks.*", ["blocks.0", "blocks.1"]),
    "a star stays within a part": ("*", ["blocks", "relu", "unused"]),
    "a regular expression": (re.compile(r".*\.[01]"), ["blocks.0", "blocks.1"]),
    "the order of the list": (["relu", "blocks.0"], ["relu", "blocks.0"]),
    "a module with two names": ("alias", ["alias"]),
}


@pytest.mark.parametrize(("layers", "expected"), NAMES.values(), ids=NAMES.keys())
def test_names_and_patterns_find_layers(layers, expected):
    assert list(LayerMeasures(Twice(), layers, num_classes=C)._layers) == expected


@pytest.mark.parametrize(
    ("calls", "names", "of"),
    [("first", ["relu"], [0]), ("last", ["relu"], [1]), ("each", ["relu[0]", "relu[1]"], [0, 1])],
)
def test_a_layer_that_is_called_twice_is_measured_as_asked(calls, names, of):
    torch.manual_seed(0)
    model, (x, y) = Twice(), data()
    outputs = [model.relu(model.blocks[0](x))]
    outputs.append(model.relu(model.blocks[1](outputs[0])))
    measures = LayerMeasures(model, "relu", num_classes=C, calls=calls)
    with measures.labels(y):
        model(x)
    assert list(measures.compute()) == names
    for name, i in zip(names, of, strict=True):
        same(measures.compute()[name], alone(outputs[i], y))


REFUSED = {
    "an unknown name": (Twice, {"layers": "block.1"}, "'block.1', and the model has no such module; did you mean 'bl"),
    "a pattern without a match": (Twice, {"layers": "stage*"}, "'stage.*it has 'blocks', 'blocks.0'"),
    "no name": (Twice, {"layers": [3]}, "layers holds 3; pass names"),
    "nothing": (Twice, {}, "layers is empty and there is no classifier"),
    "one module twice": (Twice, {"layers": ["relu", "alias"]}, "'relu' and 'alias', which are one module"),
    "an unknown pool": (mlp, {"layers": "0", "pool": "max"}, "pool = 'max' is not known; choose one of: auto"),
    "unknown channels": (mlp, {"layers": "0", "channels": "1"}, "channels = '1' is not known"),
    "unknown calls": (mlp, {"layers": "0", "calls": "all"}, "calls = 'all' is not known"),
    "a classifier of another kind": (mlp, {"classifier": "1"}, "classifier = '1' is a ReLU; name an nn.Linear"),
    "a classifier of other classes": (mlp, {"classifier": "0"}, "classifier = '0' has 8 classes, and num_classes is 3"),
    "a classifier among layers": (mlp, {"layers": "5", "classifier": "5"}, "layers and classifier both name '5'"),
    "a class as label to ignore": (mlp, {"layers": "0", "ignore_index": 2}, "ignore_index must be an integer outside"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_meant_is_refused(model, options, message):
    with pytest.raises(InputError, match=message):
        LayerMeasures(model(), **{"num_classes": C, **options})


# --- batches that are refused ---------------------------------------------------------------------------------------


def forward(model: nn.Module, x: Tensor) -> None:
    model(x)


def twice(model: nn.Module, x: Tensor) -> None:
    model(x)
    model(x)


BATCHES = {
    "soft labels": (torch.full((40, C), 1 / 3), X, forward, r"look like soft labels: pass labels.argmax\(dim=1\)"),
    "one-hot labels": (nn.functional.one_hot(Y), X, forward, r"They look one-hot: pass labels.argmax"),
    "labels that are floats": (Y.double(), X, forward, "labels has dtype torch.float64; pass class indices"),
    "labels that are a list": ([0, 1], X, forward, "labels must be a torch tensor"),
    "one label": (torch.tensor(1), X, forward, "labels has shape"),
    "a label out of range": (Y + 1, X, forward, "labels holds 3 at position 2"),
    "fewer labels": (Y[:20], X, forward, r"layer '0', whose features have shape \(40, 8\): labels has shape \(20,\)"),
    "no forward": (Y, X, lambda *_: None, "layers '0', '4', '5' were not called .*; call the model inside the block"),
    "two forwards": (Y, X, twice, "layer '0' was called 2 times inside labels"),
    "only a part": (Y, X, lambda model, x: model[:3](x), "layers '4', '5' were not called .*; leave out layers"),
    "a value that is not finite": (Y, X * torch.inf, forward, r"layer '0', whose .*: features holds 320 value"),
}


@pytest.mark.parametrize(("labels", "x", "run", "message"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_that_is_refused_changes_nothing(labels, x, run, message):
    model = mlp().eval()
    measures = LayerMeasures(model, ["0", "4"], num_classes=C, classifier="5")
    with measures.labels(Y):
        model(X)
    before = measures.compute()
    with pytest.raises(InputError, match=message), measures.labels(labels):
        run(model, x)
    assert hooks(model) == 0
    after = measures.compute()
    for name, values in before.items():
        same(after[name], floats(values), 0)
        assert all(metric.update_count == 1 for metric in measures[name].values())
    with measures.labels(Y):  # and the next batch is taken
        model(X)


def test_a_classifier_that_is_not_finite_is_refused_before_any_layer_is_updated():
    model = mlp()
    measures = LayerMeasures(model, ["0"], num_classes=C, classifier="5")
    nn.init.constant_(model[5].bias, torch.nan)
    with pytest.raises(InputError, match=r"layer '5', .*: bias holds 3"), measures.labels(Y):
        model(X)
    assert measures.dims == {}


def test_a_metric_that_lacks_a_classifier_is_refused_before_any_other_keeps_the_batch():
    model = mlp()
    measures = LayerMeasures(model, ["0", "4"], num_classes=C, metrics=[NumericalRank, CosineMargin], classifier="5")
    with pytest.raises(InputError, match="layer '0': weight is missing, and CosineMargin measures"), measures.labels(Y):
        model(X)
    assert measures.dims == {}
    with pytest.raises(InputError, match="nothing has been measured"):
        measures.compute()


def test_two_metrics_of_one_class_are_refused_with_the_way_out():
    kinds = {key: partial(NeuralCollapse, measures=[key]) for key in ("nc1", "vci")}
    model = mlp().eval()
    measures = LayerMeasures(model, "0", num_classes=C, metrics=list(kinds.values()))
    with pytest.raises(InputError, match=r"both named NeuralCollapse; pass a function .* with a name for each"):
        measures.measure([(X, Y)])

    def both(**sizes: int) -> MetricCollection:
        return MetricCollection({name: kind(**sizes) for name, kind in kinds.items()})

    found = LayerMeasures(model, "0", num_classes=C, metrics=both).measure([(X, Y)])
    assert found["0"].keys() == {"nc1", "vci"}


@pytest.mark.parametrize("fast", [False, True])
def test_an_encoder_with_padding_is_measured_or_the_nested_tensors_of_its_fast_path_are_refused(fast):
    """Nested tensors have no shape, and PyTorch chooses them for an encoder in evaluation mode."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=fast
    )
    padding = torch.zeros(10, 4, dtype=torch.bool)
    padding[:5, 3:] = True
    labels = Y.view(10, 4).masked_fill(padding, -100)
    measures = LayerMeasures(encoder, "layers.*", num_classes=C)
    batch = {"src": torch.randn(10, 4, 8), "src_key_padding_mask": padding, "labels": labels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that nested tensors are a prototype
        if fast:
            with pytest.raises(InputError, match=r"layer 'layers\.0': the output is a nested tensor, which .*; call"):
                measures.measure([batch])
        else:
            assert measures.measure([batch]).keys() == {"layers.0", "layers.1"}


def test_outputs_that_hold_no_features_are_refused():
    cases = [
        (lambda x: (x.sum(), None), {}, "layer '0': the output has shape"),
        (lambda _: ("no", 3), {}, "layer '0': the output is a tuple without a tensor; pass output="),
        (lambda x: x.long(), {}, "the output has dtype torch.int64"),
        (lambda x: x, {"output": lambda x: x.tolist()}, "the output must be a torch tensor; got list"),
        (lambda x: x[:, None], {"pool": lambda f: f}, r"pool returned \(40, 1, 5\); it must return"),
    ]
    for make, options, message in cases:
        model = nn.Sequential(Returns(make))
        measures = LayerMeasures(model, "0", num_classes=C, **options)
        with pytest.raises(InputError, match=message), measures.labels(Y):
            model(X)
        assert hooks(model) == 0


OPEN = {  # the network, its input, and the layer whose channels may be either axis
    "an activation among one-dimensional convolutions": ([nn.Conv1d(4, 4, 1), nn.ReLU()], (40, 4, 6), "1"),
    "convolutions and layer norms in one block": (
        [nn.Sequential(nn.Conv2d(4, 4, 1), nn.LayerNorm(3))], (40, 4, 2, 3), "0"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("modules", "shape", "layer"), OPEN.values(), ids=OPEN.keys())
def test_channels_that_may_be_either_axis_are_asked_for(modules, shape, layer):
    model = nn.Sequential(*modules)
    measures, message = LayerMeasures(model, layer, num_classes=C), f"layer '{layer}': .* pass channels='first' or"
    with pytest.raises(InputError, match=message), measures.labels(Y):
        model(torch.randn(shape))
    for channels, d in (("first", 4), ("last", shape[-1])):
        measures = LayerMeasures(model, layer, num_classes=C, channels=channels)
        with measures.labels(Y):
            model(torch.randn(shape))
        assert measures.dims == {layer: d}


def test_a_width_that_changes_is_refused():
    model = nn.Sequential(Returns(lambda x: x))
    measures = LayerMeasures(model, "0", num_classes=C)
    with measures.labels(Y):
        model(X)
    with pytest.raises(InputError, match=r"layer '0', .*: features have width 4, and had 5"), measures.labels(Y):
        model(X[:, 1:])
    measures.reset()
    with measures.labels(Y):
        model(X[:, 1:])
    assert measures.dims == {"0": 4}


def test_an_error_of_the_model_is_passed_on_and_blocks_do_not_nest():
    model = mlp()
    measures = LayerMeasures(model, "0", num_classes=C)
    with pytest.raises(RuntimeError), measures.labels(Y):
        model(X[:, 1:])
    assert hooks(model) == 0
    with measures.labels(Y):
        with pytest.raises(InputError, match="inside a labels"), measures.labels(Y):
            model(X)
        model(X)
    with pytest.raises(InputError, match="nothing has been measured"):
        LayerMeasures(model, "0", num_classes=C).compute()
    with pytest.raises(InputError, match="layer '1' has not been measured; choose one of: '0'"):
        measures["1"]


def test_a_metric_that_needs_a_classifier_names_the_layer_without_one():
    model = mlp()
    measures = LayerMeasures(model, "0", num_classes=C, metrics=CosineMargin)
    with pytest.raises(InputError, match="layer '0': weight is missing, and CosineMargin"), measures.labels(Y):
        model(X)


def test_a_network_that_skips_hooks_is_refused():
    model = mlp().eval()
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    for network in (compiled, torch.jit.trace(model, X)):
        measures = LayerMeasures(network, ["0"], num_classes=C)
        with pytest.raises(InputError, match=r"A compiled or scripted network skips hooks"), measures.labels(Y):
            network(X)
    measures = LayerMeasures(compiled, ["0"], num_classes=C)  # names are those of the plain module
    with measures.labels(Y):
        model(X)
    assert measures.dims == {"0": 8}


def test_others_are_merged_only_where_they_fit():
    model = mlp().eval()
    measures, other = (
        LayerMeasures(model, "0", num_classes=C),
        LayerMeasures(model, "0", num_classes=C, metrics=NumericalRank),
    )
    for each in (measures, other):
        with each.labels(Y):
            model(X)
    with pytest.raises(InputError, match=r"for layer '0' it has .* NumericalRank, and this object .* NeuralCollapse"):
        measures.merge_state(other)
