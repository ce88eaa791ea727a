"""Backbones: the published numbers of parameters, the dimensions promised, and any module of one's own."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from etfopt.errors import InputError
from etfopt.experiments.data.images import Images, Labelled, Split
from etfopt.experiments.networks import backbones
from etfopt.experiments.networks.backbones import build_backbone, convnet, mlp, resnet18, resnet50, vgg13
from etfopt.experiments.settings import BackboneConfig
from etfopt.experiments.settings.names import known_dim


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def images(channels: int = 3, side: int = 32, n: int = 4) -> Images:
    pixels = torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0))
    samples = Labelled(pixels.to(torch.uint8), torch.arange(n) % 2)
    split = Split(samples, torch.full((channels,), 127.0), torch.full((channels,), 60.0))
    return Images(split, split, 2)


def built(data: Images, module: nn.Module | None = None, **settings) -> nn.Module:
    return build_backbone(BackboneConfig(**settings), data.train.tensors[0], len(data.train), module)


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [("resnet18", 11_689_512, 512), ("resnet34", 21_797_672, 512), ("resnet50", 25_557_032, 2048)],
)
def test_residual_networks_have_the_published_numbers_of_parameters(name: str, published: int, features: int):
    with torch.device("meta"):
        made = getattr(backbones, name)(3, stem="imagenet", affine=True)
    assert count(made) == published - (features * 1000 + 1000)


def test_vgg_has_the_parameters_of_its_ten_convolutions():
    widths = [3, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    weights = sum(9 * inside * outside for inside, outside in pairwise(widths))
    with torch.device("meta"):
        assert count(vgg13(affine=False)) == weights == 9_402_048
        # torchvision counts a bias for each convolution besides: 9,410,880 - 2,944
        assert count(vgg13(affine=True)) == weights + 2 * sum(widths[1:]) == 9_407_936


def test_plain_normalisation_has_no_parameters_and_no_layer_has_a_bias():
    with torch.device("meta"):
        for make in (resnet18, resnet50, vgg13, convnet):
            assert not [name for name, p in make(affine=False).named_parameters() if p.ndim < 2]
            assert [name for name, p in make(affine=True).named_parameters() if p.ndim < 2]
        assert all(p.ndim == 2 for p in mlp((1, 8, 8), 32, 16).parameters())


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["mlp", "convnet", "convnet-flat", "resnet18", "resnet34", "resnet50", "vgg13"])
def test_features_have_the_dimension_promised(name: str, stem: str):
    data = images(1, 128 if (name, stem) == ("vgg13", "imagenet") else 32)
    for settings in ({}, {"dim": 9}):
        module = built(data, name=name, stem=stem, width=4, **settings)
        assert module(data.train.tensors[0]).shape == (4, settings.get("dim") or known_dim(name, 4))


def test_an_average_over_places_bounds_the_rank_of_the_features_and_no_average_does_not():
    torch.manual_seed(0)
    pixels = torch.randn(40, 1, 28, 28)
    averaged = built(images(1, 28), name="convnet", width=8, dim=32)
    flat = built(images(1, 28), name="convnet-flat", width=8, dim=32)
    assert torch.linalg.matrix_rank(averaged(pixels)) <= 8
    assert torch.linalg.matrix_rank(flat(pixels)) > 24
    assert backbones.flat_convnet((1, 30, 50), 4, 16)(torch.randn(2, 1, 30, 50)).shape == (2, 16)


def test_a_dimension_that_is_the_networks_own_adds_no_layer():
    own, same, other = (count(built(images(), name="convnet", width=8, dim=dim)) for dim in (None, 8, 9))
    assert own == same == other - 8 * 9


def test_the_imagenet_stem_reduces_four_times():
    x = torch.zeros(1, 3, 64, 64)
    shapes = [tuple(resnet18(width=4, stem=stem)[:-2](x).shape) for stem in ("cifar", "imagenet")]
    assert shapes == [(1, 32, 8, 8), (1, 32, 2, 2)]


def test_a_width_of_half_quarters_the_inner_weights():
    with torch.device("meta"):
        inner = [count(resnet18(width=width, affine=False)[2:]) for width in (64, 32)]
    assert inner[0] == 4 * inner[1]


def test_free_features_are_one_row_a_sample():
    split = Split(Labelled(torch.arange(50), torch.arange(50) % 2))
    module = built(Images(split, split, 2), name="free", dim=1000)
    features = module(torch.tensor([3, 3, 7]))
    assert features.shape == (3, 1000)
    assert torch.equal(features[0], features[1])
    features[0].sum().backward()
    assert module.table.grad.any(dim=1).nonzero().flatten().tolist() == [3]
    assert float((module.table.detach() ** 2).sum(dim=1).mean()) == pytest.approx(1, abs=0.05)


def test_a_backbone_is_drawn_from_the_seed():
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(torch.cat([p.flatten() for p in built(images(), name="convnet").parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("name", "stem", "side", "least"),
    [
        *[("resnet18", "cifar", 7, 8), ("resnet50", "imagenet", 31, 32)],
        *[("vgg13", "cifar", 31, 32), ("vgg13", "imagenet", 127, 128)],
    ],
)
def test_images_that_are_too_small_are_refused(name: str, stem: str, side: int, least: int):
    with pytest.raises(InputError, match=rf"needs images of {least} x {least} pixels and more; got {side} x {side}"):
        built(images(3, side), name=name, stem=stem, width=2)
    x = images(3, least)
    assert built(x, name=name, stem=stem, width=2)(x.train.tensors[0]).isfinite().all()


class Mean(nn.Module):
    """Nine numbers an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)).repeat(1, 3)


def test_a_module_of_ones_own_plugs_in_and_is_checked():
    module = Mean()
    assert built(images(), module, name="custom", dim=9) is module
    assert module.training
    for given, settings, message in (
        (module, {"name": "custom", "dim": 10}, r"features of 4 images are \(4, 9\); \(4, 10\) by backbone.dim = 10"),
        (None, {"name": "custom", "dim": 9}, "'custom' needs a module"),
        (module, {}, "'mlp' does not go with a module"),
    ):
        with pytest.raises(InputError, match=message):
            built(images(), given, **settings)
