"""Labels by a block around the call of the network, and training forwards that count nowhere."""

import copy
import pickle

import numpy as np
import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import ClassMeans, NearestETFHead
from tests.tools.head_cases import HEADS, LABELS, STATEFUL, C, D, batch, same, snapshot


def network(make: type[nn.Module], **options: object) -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, D), make(D, C, **options))


SOFT = 0.9 * nn.functional.one_hot(LABELS, C) + 0.1 / C


@pytest.mark.parametrize("labels", [LABELS, SOFT, LABELS.reshape(4, 6)], ids=["indices", "probabilities", "tokens"])
@pytest.mark.parametrize("make", HEADS)
def test_labels_of_a_block_are_those_of_the_call(make, labels, rng):
    model = network(make)
    twin, x = copy.deepcopy(model), batch(rng)
    x = x if len(labels) == len(x) else x.reshape(*labels.shape, D)
    with model[1].labels(labels):
        logits = model(x)
    assert torch.equal(logits, twin[1](twin[0](x), labels))
    assert same(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("make", HEADS)
def test_a_block_leaves_nothing_behind_after_an_exception_and_in_copies(make, rng):
    model = network(make)
    head, keys = model[1], set(model.state_dict())
    with pytest.raises(KeyError), head.labels(LABELS):  # labels that nobody took: the first error is the one to see
        raise KeyError
    with head.labels(LABELS):
        assert set(model.state_dict()) == keys
        copies = [copy.deepcopy(head), pickle.loads(pickle.dumps(head))]
        head(batch(rng))
    for other in (head, *copies):
        with other.labels(LABELS):  # no block is open
            other(batch(rng))


@pytest.mark.parametrize("make", HEADS)
def test_misuse_of_a_block_is_refused_before_the_state_changes(make, rng):
    head, x = make(D, C), batch(rng)
    head(x, LABELS)
    before = snapshot(head)
    with pytest.raises(InputError, match="labels must be a torch tensor; got list"), head.labels([0, 1]):
        pass
    with (
        pytest.raises(InputError, match=r"inside a labels\(\) block of the same head"),
        head.labels(LABELS),
        head.labels(LABELS),
    ):
        pass
    with pytest.raises(InputError, match="passed to the head, and labels"), head.labels(LABELS):
        head(x, LABELS)
    with pytest.raises(InputError, match="no training forward of the head took"), head.labels(LABELS):
        copy.deepcopy(head).eval()(x)
    with pytest.raises(InputError, match=r"labels has shape \(24,\); it must be \(23,\)"), head.labels(LABELS):
        head(x[1:])
    assert same(head.state_dict(), before)


@pytest.mark.parametrize("make", HEADS)
def test_a_second_training_forward_in_a_block_is_refused(make, rng):
    head, x = make(D, C), batch(rng)
    with head.labels(LABELS):
        head(x)
        before = snapshot(head)
        with pytest.raises(InputError, match="the batch would count twice"):
            head(x)
    assert same(head.state_dict(), before)


@pytest.mark.parametrize("make", HEADS)
def test_in_evaluation_a_block_changes_nothing(make, rng):
    head, x = make(D, C), batch(rng)
    head(x, LABELS)
    expected, before = head.eval()(x), snapshot(head)
    with head.labels(LABELS):
        assert torch.equal(head(x), expected)
        assert torch.equal(head(x, LABELS), expected)
    assert same(head.state_dict(), before)


def test_no_labels_are_as_no_block(rng):
    head = NearestETFHead(D, C)
    with head.labels(None), pytest.raises(InputError, match="labels are required in training"):
        head(batch(rng))
    with head.labels(None):
        head(batch(rng), LABELS)


def test_heads_of_one_network_have_blocks_of_their_own(rng):
    first, second, x = NearestETFHead(D, C), NearestETFHead(D, 3), batch(rng)
    with first.labels(LABELS), second.labels(LABELS % 3):
        first(x)
        second(x)
    assert first.means.steps == second.means.steps == 1


@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it meets on the way
@pytest.mark.parametrize("what", ["backbone", "network"])
@pytest.mark.parametrize("make", HEADS)
def test_a_compiled_network_takes_the_labels_of_every_block(make, what, rng):
    torch.compiler.reset()
    model = network(make)
    twin = copy.deepcopy(model)
    if what == "backbone":
        model[0] = torch.compile(model[0], backend="eager", fullgraph=True)
    step = torch.compile(model, backend="eager") if what == "network" else model
    for shift in range(3):
        x, y = batch(rng), LABELS.roll(shift)
        with model[1].labels(y):
            logits = step(x)
        torch.testing.assert_close(logits, twin[1](twin[0](x), y), rtol=0, atol=1e-6)
    assert same(model[1].state_dict(), twin[1].state_dict())
    torch.compiler.reset()


@pytest.mark.parametrize("make", HEADS)
def test_an_uncounted_forward_gives_the_logits_of_a_counted_one_and_restores_the_state(make, rng):
    model = network(make)
    with torch.no_grad():
        model[1](model[0](batch(rng)), LABELS)
    before, x = snapshot(model[1]), batch(rng)
    with model[1].labels(LABELS):
        with model[1].uncounted():
            rehearsed = model(x)
            rehearsed.sum().backward()
        assert same(model[1].state_dict(), before)
        assert torch.equal(model(x), rehearsed)


@pytest.mark.parametrize("make", STATEFUL)
def test_an_uncounted_forward_that_fails_restores_the_state(make, rng):
    head = make(D, C)
    before = snapshot(head)
    with pytest.raises(InputError, match="labels has shape"), head.uncounted():
        head(head(batch(rng), LABELS)[:, :1].expand(24, D), LABELS[1:])
    assert same(head.state_dict(), before)
    assert head.training


@pytest.mark.parametrize("make", [*STATEFUL, "means"])
def test_a_replica_of_data_parallel_is_refused_in_training_and_works_in_evaluation(make, rng):
    module = ClassMeans(num_classes=C, dim=D) if make == "means" else make(D, C)
    module(batch(rng), LABELS)
    with pytest.raises(InputError, match=r"replicated by torch\.nn.DataParallel in training"):
        module._replicate_for_data_parallel()
    module.eval()._replicate_for_data_parallel()


def test_the_labels_of_a_whole_batch_go_to_no_replica():
    head = network(HEADS[0])[1]
    head._replicate_for_data_parallel()  # of a learned head, whose training has no state
    with head.labels(LABELS):
        with pytest.raises(InputError, match="DataParallel splits the batch"):
            head._replicate_for_data_parallel()
        head(torch.from_numpy(np.ones((24, D), dtype=np.float32)))
