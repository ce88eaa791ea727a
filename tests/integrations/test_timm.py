"""A head behind a network of timm, and timm's average of a model."""

import functools
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", reason="timm comes with the extra timm, and torchvision with it")
from timm.data.mixup import Mixup
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.functional import cross_entropy

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.guides import changed
from tests.tools.loop_cases import HEADS, C, accuracy, batches, network, trained

pytestmark = pytest.mark.filterwarnings("ignore")
# ReLU features; tokens; a hidden layer in front of the classifier
CASES = [("test_resnet", LearnedHead), ("test_resnet", FixedETFHead)]
CASES += [("test_vit", NearestETFHead), ("test_mambaout", NearestETFHead)]


def pictures(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Red, green, blue and dark pictures."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(n) % C
    return torch.randn(n, 3, 32, 32, generator=draw) + 2 * torch.eye(C, 3)[y].reshape(n, 3, 1, 1), y


def model(name: str, make: type[nn.Module]) -> nn.Sequential:
    size = {"img_size": 32} if "vit" in name else {}
    backbone = timm.create_model(name, num_classes=C, pretrained=False, **size)
    backbone.reset_classifier(0)
    return nn.Sequential(backbone, make(backbone.head_hidden_size, C))


def loss_of(net: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with net[1].labels(labels):
        return cross_entropy(net(images), labels)


def fitted(net: nn.Sequential, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """Train a network, and return its accuracy."""
    x, y = pictures()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(10):
        for images, labels in zip(x.split(16), y.split(16), strict=True):
            optimizer.zero_grad()
            loss(images, labels).backward()
            optimizer.step()
    with torch.no_grad():
        return float((net.eval()(x).argmax(dim=1) == y).float().mean())


def test_the_change_of_the_guide_trains():
    guide = changed("timm")
    assert isinstance(guide["model"][1], NearestETFHead)
    assert fitted(guide["model"], guide["loss_of"]) > 0.9


@pytest.mark.parametrize(("name", "make"), CASES)
def test_a_network_of_timm_trains_with_a_head_in_place_of_its_classifier(name, make):
    net = model(name, make)
    assert fitted(net, functools.partial(loss_of, net)) > 0.9


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"exclude_buffers": True}], ids=str)
def test_the_average_of_timm_predicts(options, make):
    net = network(make)
    average = ModelEmaV3(net, decay=0.9, **options)
    trained(net, batches(), lambda: average.update(net))
    assert accuracy(average.module) > 0.95
    if hasattr(net[1], "U"):
        W = average.module[1].weight
        torch.testing.assert_close(W @ W.T, (C * torch.eye(C) - 1) / (C - 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", HEADS)
def test_the_soft_labels_of_mixup_are_taken(make):
    net, (x, y) = model("test_resnet", make), pictures()
    images, labels = Mixup(mixup_alpha=1.0, num_classes=C, label_smoothing=0.1)(x, y)
    assert labels.shape == (len(x), C)
    loss_of(net, images, labels).backward()
    assert all(p.grad is not None for p in net[0].parameters())
