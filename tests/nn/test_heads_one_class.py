"""Batches of one class teach nothing of it by the rules of the paper's release: a warning says so, once."""

import contextlib
import copy
from collections.abc import Callable

import pytest

from tests.tools.blind import blind

torch = pytest.importorskip("torch")
from torch import nn

from tests.tools.head_cases import (
    LABELS,
    MEANS,
    STATEFUL,
    C,
    D,
    batch,
    paper_fixed,
    paper_means,
    paper_nearest,
    snapshot,
)

TRACKING: dict[str, Callable[..., nn.Module]] = {
    "means": lambda: paper_means(D, C),
    "fixed": lambda: paper_fixed(D, C),
    "nearest": lambda: paper_nearest(D, C),
}
MESSAGE = r"one class only.*centred class mean is exactly zero.*Shuffle.*drop_last=True.*stratify"


@pytest.mark.parametrize("name", TRACKING)
def test_classes_that_are_fed_one_after_the_other_are_warned_of_once(name, rng):
    module = TRACKING[name]()
    features = batch(rng)
    samples = [torch.arange(c, len(LABELS), C) for c in range(C)]
    with pytest.warns(UserWarning, match=MESSAGE) as told:
        _ = [module(features[own], LABELS[own]) for own in samples]
    assert len(told) == 1


CASES = {
    "a last batch of one sample": (1, lambda y: y),
    "one class and ignored samples": (8, lambda y: torch.where(y == 2, y, -100)),
    "of a narrow dtype": (8, lambda y: torch.zeros_like(y, dtype=torch.uint8)),
}


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TRACKING)
def test_a_batch_of_one_class_is_warned_of_where_values_are_looked_at(name, case, unseen, rng):
    n, change = CASES[case]
    module, labels = TRACKING[name](), change(LABELS[:n])

    def step_and_look() -> None:
        with blind() if unseen else contextlib.nullcontext():
            module(batch(rng, n), labels)
        module.eval()

    with pytest.warns(UserWarning, match=MESSAGE) as told:
        step_and_look()
    assert [warning.filename for warning in told] == [__file__]  # the user's line, not one of the package or torch
    module.train()
    step_and_look()


@pytest.mark.parametrize("name", TRACKING)
def test_batches_of_two_classes_of_none_and_of_no_samples_are_not_warned_of(name, rng):
    module = TRACKING[name]()
    for labels in (LABELS % 2, torch.full_like(LABELS, -100), LABELS[:0]):
        module(batch(rng, len(labels)), labels)
        with blind():
            module(batch(rng, len(labels)), labels)
    module.eval()


def test_one_sample_without_a_label_is_warned_of_by_the_fixed_head_and_several_are_not(rng):
    head = paper_fixed(D, C)
    head(batch(rng))
    with pytest.warns(UserWarning, match=MESSAGE):
        head(batch(rng, 1))


@pytest.mark.parametrize("name", TRACKING)
def test_a_warning_that_is_an_error_comes_before_the_state_changes(name, rng):
    module = TRACKING[name]()
    before = snapshot(module)
    with pytest.raises(UserWarning, match=MESSAGE):  # as every warning is in these tests
        module(batch(rng, 1), LABELS[:1])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_head_that_is_reset_warns_again(rng):
    head = paper_nearest(D, C)
    for module in (head, copy.deepcopy(head)):
        for _ in range(2):
            module.reset_parameters()
            with pytest.warns(UserWarning, match=MESSAGE):
                module(batch(rng, 1), LABELS[:1])


@pytest.mark.parametrize("make", [make for make in (*MEANS, *STATEFUL) if "paper" not in make.__name__])
def test_running_statistics_learn_from_a_batch_of_one_class_and_warn_of_nothing(make, rng):
    module = make(D, C)
    for c in (2, 0):
        before = snapshot(module)
        module(batch(rng, 8), torch.full((8,), c))
        moved = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
        assert any(name.endswith("mean") for name in moved)
