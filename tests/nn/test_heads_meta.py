"""Modules that are built on the meta device and materialised later, and `reset_parameters`."""

import copy
import pickle
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from etfopt import InputError, simplex_etf
from etfopt.frames import seli
from tests.tools.blind import blind

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import ClassMeans, FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.head_cases import (
    LABELS,
    STATEFUL,
    C,
    D,
    batch,
    paper_fixed,
    paper_means,
    paper_nearest,
    same,
    snapshot,
)

REDUCED = torch.tensor(simplex_etf(C, reduced=True), dtype=torch.float32)
MODULES: dict[str, Callable[[], nn.Module]] = {
    "means": lambda: ClassMeans(num_classes=C, dim=D),
    "means, paper": lambda: paper_means(D, C),
    "fixed, paper": lambda: paper_fixed(D, C),
    "nearest, paper": lambda: paper_nearest(D, C),
    "fixed": lambda: FixedETFHead(D, C),
    "fixed, random": lambda: FixedETFHead(D, C, generator=torch.Generator("cpu").manual_seed(7)),
    "nearest": lambda: NearestETFHead(D, C),
    "fixed, frame": lambda: FixedETFHead(D, C, frame=REDUCED),
    "nearest, frame": lambda: NearestETFHead(D, C, frame=REDUCED),
    "fixed, places": lambda: FixedETFHead(D, C, capacity=D + 3),
    "nearest, places": lambda: NearestETFHead(D, C, capacity=D + 3),
    "fixed, pair": lambda: FixedETFHead(D, C, frame=seli([9, 5, 2, 1])),
    "nearest, pair": lambda: NearestETFHead(D, C, frame=seli([9, 5, 2, 1]), class_weights="counts"),
}
WITH_LEARNED = MODULES | {"learned": lambda: LearnedHead(D, C)}


@pytest.fixture(autouse=True)
def _filled() -> Iterator[None]:
    """Uninitialised memory is NaN, and the largest integer."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return WITH_LEARNED[name]()


def use(module: nn.Module, rng: np.random.Generator) -> torch.Tensor:
    module(batch(rng), LABELS)
    return module.eval()(batch(rng))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_from_the_meta_device_is_as_new_once_it_is_materialised(name):
    module, fresh = on_meta(name), MODULES[name]()
    assert all(value.is_meta for value in module.buffers())
    module.to_empty(device="cpu")
    assert same(module.state_dict(), fresh.state_dict())
    assert torch.equal(use(module, np.random.default_rng(1)), use(fresh, np.random.default_rng(1)))


def test_the_rows_of_a_learned_head_follow_the_convention_for_parameters():
    head = on_meta("learned").to_empty(device="cpu")
    assert head.rows.isnan().all()  # as of any layer: load a state, or call reset_parameters
    assert not head.bias.any()
    head.reset_parameters()
    torch.testing.assert_close(head.rows.norm(dim=1).detach(), torch.ones(C))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", WITH_LEARNED)
def test_a_module_from_the_meta_device_takes_a_state_by_assignment(name, moved, rng):
    trained, module = WITH_LEARNED[name](), on_meta(name)
    trained(batch(rng), LABELS)
    module.load_state_dict(snapshot(trained), assign=True)
    if moved:
        module.to(torch.float64)
        trained.to(torch.float64)
    assert same(module.state_dict(), trained.state_dict())
    x = batch(rng)
    assert torch.equal(module(x, LABELS), trained(x, LABELS))
    assert torch.equal(module.eval()(x), trained.eval()(x))


def from_pretrained(name: str, state: dict) -> nn.Module:
    """As transformers loads: on the meta device, entry by entry, and empty memory for what is missing."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(D, D), WITH_LEARNED[name]())
    wanted = dict(model.named_parameters()) | dict(model.named_buffers())
    for key, value in wanted.items():
        owner, _, last = key.rpartition(".")
        given = state.get(key, torch.empty_like(value, device="cpu"))
        model.get_submodule(owner).load_state_dict({last: given}, strict=False, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_loading_entry_by_entry_as_transformers_does_gives_the_saved_model(name, rng):
    saved = nn.Sequential(nn.Linear(D, D), WITH_LEARNED[name]())
    saved[1](saved[0](batch(rng)), LABELS)
    loaded, x = from_pretrained(name, snapshot(saved)), batch(rng)
    assert torch.equal(loaded(x), saved.eval()(x))
    assert same(loaded.state_dict(), saved.state_dict())


@pytest.mark.parametrize("name", [name for name in MODULES if "means" not in name])
def test_a_head_that_is_missing_in_the_checkpoint_is_refused_until_it_is_reset(name, rng):
    saved = nn.Linear(D, D)
    loaded = from_pretrained(name, {f"0.{key}": value for key, value in saved.state_dict().items()})
    with pytest.raises(InputError, match=r"U is not near any rotation.*reset_parameters\(\)"):
        loaded(batch(rng))
    loaded[1].reset_parameters()
    assert same(loaded[1].state_dict(), MODULES[name]().state_dict())
    assert loaded(batch(rng)).isfinite().all()


@pytest.mark.parametrize("name", MODULES)
def test_resetting_restores_the_state_of_construction(name, rng):
    module, fresh = MODULES[name](), MODULES[name]()
    for _ in range(3):
        module(batch(rng), LABELS)
    if getattr(module, "frame", None) is not None:
        module.frame.mul_(2)
    with blind():
        module(batch(rng) * torch.nan, LABELS)
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        twin.reset_parameters()
        assert same(twin.eval().state_dict(), fresh.state_dict())
        assert torch.equal(
            use(twin.train(), np.random.default_rng(1)), use(copy.deepcopy(fresh), np.random.default_rng(1))
        )


def test_resetting_draws_the_rotation_of_construction_and_not_from_the_generator():
    generator = torch.Generator().manual_seed(7)
    head = FixedETFHead(D, C, generator=generator)
    other = FixedETFHead(D, C, generator=generator)
    assert not torch.equal(head.U, other.U)
    state = generator.get_state()
    first = head.U.clone()
    head.U.zero_()
    head.reset_parameters()
    assert torch.equal(head.U, first)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("make", STATEFUL)
def test_a_frame_without_values_gives_nan_until_a_state_brings_them(make, rng):
    with torch.device("meta"):
        head = make(D, C, frame=torch.empty(3, C))
    head.to_empty(device="cpu")
    assert head.eval()(batch(rng)).isnan().all()
    trained = make(D, C, frame=REDUCED)
    trained(batch(rng), LABELS)
    head.load_state_dict(trained.state_dict())
    x = batch(rng)
    assert torch.equal(head(x), trained.eval()(x))


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_every_buffer_is_in_the_state(name):
    module = WITH_LEARNED[name]()
    names = {key for key, _ in module.named_buffers()} | {key for key, _ in module.named_parameters()}
    assert names == set(module.state_dict())


def test_what_is_left_to_say_of_bad_batches_goes_with_copies_and_is_in_no_buffer(rng):
    head = NearestETFHead(D, C)
    with blind():
        head(batch(rng), LABELS)
        head(batch(rng) * torch.nan, LABELS)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        with pytest.raises(InputError, match=r"1 batch\(es\) could not be used"):
            twin.double().eval()
    head.load_state_dict(NearestETFHead(D, C).state_dict())
    head.eval()  # a state that was loaded has nothing to say of them
