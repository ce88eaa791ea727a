"""Options that the heads share with other modules of torch, and the order of the sizes."""

import inspect

import pytest

from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from etfopt.nn import ClassMeans, FixedETFHead, LearnedHead, NearestETFHead, collapse_temperature
from tests.tools.head_cases import HEADS, LABELS, MEANS, STATEFUL, C, D, batch, class_of, same, snapshot

MODULES = [*HEADS, *MEANS]


@pytest.mark.parametrize("sizes", [(C, D), (C,)])
def test_sizes_by_position_are_refused_with_the_right_call(sizes):
    with pytest.raises(TypeError, match=r"write ClassMeans\(num_classes=\.\.\., dim=\.\.\.\)"):
        ClassMeans(*sizes)


def test_the_signature_of_a_head_names_every_option():
    assert list(inspect.signature(LearnedHead).parameters) == [
        *("dim", "num_classes", "temperature", "ignore_index", "device", "dtype")
    ]
    assert {"delta", "synchronize", "frame", "temperature", "device"} <= inspect.signature(
        NearestETFHead
    ).parameters.keys()
    with pytest.raises(TypeError, match="sharpness"):
        NearestETFHead(D, C, sharpness=0.9)


@pytest.mark.parametrize("make", MODULES)
def test_a_module_built_on_the_meta_device_is_like_one_moved_there(make):
    built, moved = make(D, C, device="meta"), make(D, C).to("meta")
    assert {k: (v.shape, v.dtype) for k, v in built.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in moved.state_dict().items()
    }
    assert all(value.is_meta for value in built.state_dict().values())


@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_module_built_in_a_dtype_is_like_one_cast_to_it(make, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        built = snapshot(make(D, C, dtype=dtype))
        torch.manual_seed(1)
        assert same(built, snapshot(make(D, C).to(dtype)))


@pytest.mark.parametrize("make", MODULES)
def test_a_dtype_that_is_no_floating_point_is_refused(make):
    with pytest.raises(InputError, match=r"dtype must be a real floating-point dtype; got torch\.int64"):
        make(D, C, dtype=torch.int64)


@pytest.mark.parametrize("make", STATEFUL)
@pytest.mark.parametrize("options", [{"reduced": True}, {"frame": "reduced"}, {"reduced": True, "frame": "simplex"}])
def test_the_reduced_simplex_has_a_name_and_works_where_d_is_one_less(make, options, rng):
    named = make(C - 1, C, dtype=torch.float64, **options)
    given = make(C - 1, C, dtype=torch.float64, frame=torch.tensor(simplex_etf(C, reduced=True)))
    assert same(named.state_dict(), given.state_dict())
    x = batch(rng, dtype=torch.float64)[:, : C - 1]
    assert torch.equal(named(x, LABELS), given(x, LABELS))


@pytest.mark.parametrize("make", STATEFUL)
def test_frames_that_have_no_name_or_two_are_refused(make):
    with pytest.raises(InputError, match=r"frame = 'square' is not known; choose one of: best, "):
        make(D, C, frame="square")
    with pytest.raises(InputError, match="pass one of the two"):
        make(D, C, frame=torch.eye(C), reduced=True)


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_exported_layer_has_the_dtype_of_the_head(make, dtype, rng):
    head, x = make(D, C).to(dtype), batch(rng, dtype=dtype)
    head(x, LABELS)
    for twin in (head, head.to("cpu")):  # a move to a device keeps it
        layer = twin.eval().linear()
        assert layer.weight.dtype == layer.bias.dtype == dtype
        assert torch.equal(layer.weight, twin.weight.to(dtype))
        assert torch.equal(layer.bias, twin.bias.to(dtype))
        # the same numbers may lie in memory otherwise, and some processors round a product otherwise then
        expected = twin(x)
        atol = float(4 * torch.finfo(dtype).eps * expected.abs().max())
        torch.testing.assert_close(layer(twin.normalize(x)), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("make", STATEFUL)
def test_weight_and_bias_cost_one_weight_together(make, monkeypatch):
    head, made = make(D, C), []
    monkeypatch.setattr(class_of(make), "_weight", lambda _, U: made.append(U) or U.new_ones(C, D))
    head.linear()
    assert len(made) == 1


def test_what_runs_a_network_without_labels_is_told_to_leave_the_head_out(rng):
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(D), NearestETFHead(D, C))
    with pytest.raises(InputError, match=r"pass the backbone alone.*update_bn"):
        torch.optim.swa_utils.update_bn([batch(rng)], network)


@pytest.mark.parametrize("make", [NearestETFHead, FixedETFHead, LearnedHead])
def test_the_options_of_release_0_1_still_work_and_say_how_to_write_them(make):
    with pytest.warns(DeprecationWarning, match=rf"{make.__name__}\(confidence=P\) is written temperature=collapse"):
        head = make(8, 3, temperature="auto", confidence=0.9)
    assert head.temperature == collapse_temperature(3, 0.9)
    with pytest.warns(DeprecationWarning, match="process_group=GROUP"):
        assert ClassMeans(num_classes=3, dim=8, process_group=None).ranks is not None
    group = object()
    if make is not LearnedHead:  # it had none
        with pytest.warns(DeprecationWarning, match=rf"{make.__name__}\(process_group=GROUP\) is written synchronize"):
            head = make(8, 3, process_group=group)
        assert any(getattr(module, "ranks", None) and module.ranks.synchronize is group for module in head.modules())
    with pytest.raises(TypeError, match="ClassMeans takes memory= now; averaging= is an option of PaperClassMeans"):
        ClassMeans(num_classes=3, dim=8, averaging="paper")
