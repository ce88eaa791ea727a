"""Bad input is refused before any state changes."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor

from etfopt.errors import InputError, MissingExtraError
from etfopt.metrics import CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import builders, draw, same, states


def poke(tensor: Tensor, value: float) -> Tensor:
    poked = tensor.clone()
    poked.view(-1)[3] = value
    return poked


BAD: dict[str, tuple[str, Callable[[Tensor], object], str]] = {
    "features: array": ("features", lambda x: x.numpy(), "features must be a torch tensor; got ndarray"),
    "features: 0-D": ("features", lambda x: x[0, 0], r"features has shape \(\); it must be \(\.\.\., 8\)"),
    "features: narrow": ("features", lambda x: x[:, :7], r"features has shape \(20, 7\); it must be \(n, 8\)"),
    "features: maps": ("features", lambda x: x[:, :, None], r"shape \(20, 8, 1\).*pass features.movedim\(1, -1\)"),
    "features: one": ("features", lambda x: x[0], r"labels has shape \(20,\); it must be \(\): one class index"),
    "features: tokens": ("features", lambda x: x.view(4, 5, 8), r"labels has shape \(20,\); it must be \(4, 5\)"),
    "features: integers": ("features", lambda x: x.long(), "features has dtype torch.int64; .*float"),
    "features: complex": ("features", lambda x: x + 1j, "features has dtype torch.complex64"),
    "features: NaN": ("features", lambda x: poke(x, math.nan), r"features holds 1 value.* at \(0, 3\): nan.*Remove"),
    "features: inf": ("features", lambda x: poke(x, -math.inf), "features holds 1 value.*-inf"),
    "features: inf in half": ("features", lambda x: poke(x.half(), math.inf), r"features holds 1 value.*: inf"),
    "features: huge": ("features", lambda x: poke(x.double(), 1e101), r"features holds 1 value.*1e\+101; .*rescale"),
    "features: sparse": ("features", lambda x: x.to_sparse(), "features has layout torch.sparse_coo; pass .*dense"),
    "labels: list": ("labels", lambda y: y.tolist(), "labels must be a torch tensor; got list"),
    "labels: short": ("labels", lambda y: y[1:], r"labels has shape \(19,\); it must be \(20,\)"),
    "labels: one-hot": (
        "labels",
        lambda y: torch.eye(5)[y].long(),
        r"labels has shape \(20, 5\); .*labels.argmax\(dim=1\)",
    ),
    "labels: floats": ("labels", lambda y: y.float(), "labels has dtype torch.float32; .*integers"),
    "labels: bools": ("labels", lambda y: y > 0, "labels has dtype torch.bool"),
    "labels: C": ("labels", lambda y: poke(y, 5), r"labels holds 5 at position 3; it must lie in \[0, 5\)"),
    "labels: -1": ("labels", lambda y: poke(y, -1), "labels holds -1 at position 3.*ignore samples by -100"),
    "labels: probabilities": (
        "labels",
        lambda y: torch.full((len(y), 5), 0.2),
        r"soft labels: pass labels.argmax\(dim=1\)",
    ),
    "weight: None": ("weight", lambda w: None, "bias is given without weight; pass the weight"),  # noqa: ARG005 - a cell
    "weight: transposed": ("weight", lambda w: w.T, r"weight has shape \(8, 5\); it must be \(5, 8\)"),
    "weight: integers": ("weight", lambda w: w.int(), "weight has dtype torch.int32"),
    "weight: NaN": ("weight", lambda w: poke(w, math.nan), r"weight holds 1 value.* at \(0, 3\): nan"),
    "bias: column": ("bias", lambda b: b[:, None], r"bias has shape \(5, 1\); it must be \(5,\)"),
    "bias: integers": ("bias", lambda b: b.long(), "bias has dtype torch.int64"),
    "bias: inf": ("bias", lambda b: poke(b, math.inf), r"bias holds 1 value.* at \(3,\): inf"),
}


@builders
@pytest.mark.parametrize(("name", "spoil", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_before_any_state_changes(
    build: Callable[..., torchmetrics.Metric], name: str, spoil: Callable[[Tensor], object], message: str
) -> None:
    good = dict(zip(("features", "labels", "weight", "bias"), draw(5, 8, 20), strict=True))
    metric = build(5, 8)
    metric.update(**good)
    before = states(metric)
    with pytest.raises(InputError, match=message):
        metric.update(**(good | {name: spoil(good[name])}))
    assert all(same(value, before[key]) for key, value in metric.metric_state.items())


@builders
def test_a_batch_that_forward_refuses_changes_nothing(build: Callable[..., torchmetrics.Metric]) -> None:
    features, labels, weight, bias = draw(5, 8, 20)
    metric = build(5, 8, compute_on_cpu=True)
    metric(features, labels, weight, bias)
    before, settings = states(metric), {key: x for key, x in vars(metric).items() if isinstance(x, (bool, int))}
    with pytest.raises(InputError, match="features holds 1 value"):
        metric(poke(features, math.nan), labels, weight, bias)
    assert all(same(value, before[key]) for key, value in metric.metric_state.items())
    assert settings == {key: x for key, x in vars(metric).items() if isinstance(x, (bool, int))}


@pytest.mark.parametrize("metric", [NeuralCollapse, CosineMargin, NearestMeanMismatch, NumericalRank])
def test_bad_sizes_are_refused(metric: Callable[..., torchmetrics.Metric]) -> None:
    for C in (1, 0, 3.0, True, "3"):
        with pytest.raises(InputError, match="num_classes must be"):
            metric(num_classes=C, dim=4)
    for d in (0, -1, 4.0, True, None):
        with pytest.raises(InputError, match="dim must be"):
            metric(num_classes=3, dim=d)
    with pytest.raises(TypeError, match=rf"write {metric.__name__}\(num_classes=\.\.\., dim=\.\.\.\)"):
        metric(3, 4)
    assert metric(num_classes=np.int64(3), dim=np.int64(4)).dim == 4


def test_a_bad_global_mean_is_refused() -> None:
    for mean in (torch.zeros(3), torch.zeros(1, 4), torch.zeros(4).long(), torch.full((4,), math.nan), [0.0] * 4):
        with pytest.raises(InputError, match="global_mean"):
            CosineMargin(num_classes=3, dim=4, global_mean=mean)


def test_bad_class_means_are_refused() -> None:
    holes = torch.zeros(3, 4)
    holes[1, 2] = math.nan
    for means in (torch.zeros(4, 3), torch.zeros(3, 4).long(), torch.full((3, 4), math.nan), holes, [[0.0] * 4] * 3):
        with pytest.raises(InputError, match="class_means"):
            NearestMeanMismatch(num_classes=3, dim=4, class_means=means)


def test_sorted_margins_are_refused_where_they_were_not_kept() -> None:
    metric = CosineMargin(num_classes=3, dim=4, global_mean=torch.zeros(4))
    with pytest.raises(InputError, match=r"sorted\(\) needs every margin.*keep_margins=True"):
        metric.sorted()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etfopt.errors.find_spec", lambda name: None if name == "torchmetrics" else name)
    monkeypatch.delitem(sys.modules, "etfopt.metrics")
    with pytest.raises(MissingExtraError, match=r"torchmetrics is not installed; run: pip install 'etfopt\[metrics\]'"):
        __import__("etfopt.metrics")
