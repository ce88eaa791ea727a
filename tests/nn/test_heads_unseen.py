"""Batches whose values nobody may look at: the same steps, bad ones reported late, and no wait."""

import pytest

from etfopt import InputError, simplex_etf
from tests.tools.blind import blind

torch = pytest.importorskip("torch")

from etfopt.nn import FixedETFHead, NearestETFHead
from etfopt.nn._running import RunningMeans
from tests.tools.head_cases import LABELS, MEANS, STATEFUL, C, D, batch, same, snapshot


def spoiled(features: torch.Tensor, labels: torch.Tensor, kind: str) -> tuple:
    if kind == "NaN":
        return features.index_fill(0, torch.tensor([3]), torch.nan), labels
    return features, labels.index_fill(0, torch.tensor([3]), C if kind == "large" else -1)


@pytest.mark.parametrize("kind", ["NaN", "large", "negative"])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_an_unseen_bad_batch_changes_no_bit_and_is_reported_where_values_are_looked_at(make, steps, kind, rng):
    module = make(D, C)
    if kind != "NaN" and isinstance(module, RunningMeans):
        module = NearestETFHead(D, C)
    with blind():
        for _ in range(steps):
            module(batch(rng), LABELS)
        before = snapshot(module)
        for _ in range(2):
            logits = module(*spoiled(batch(rng), LABELS, kind))
            kept = {name: value.clone() for name, value in module.named_buffers() if name in before}
            assert same(kept, before)
            if steps == 0 and not isinstance(module, FixedETFHead):
                break  # the second would look, see below
    if not isinstance(module, RunningMeans):
        assert logits[[0, 1, 2, 4]].isfinite().all()
    with pytest.raises(InputError, match=r"[12] batch\(es\) could not be used"):
        {0: module.eval, 1: module.state_dict, 3: getattr(module, "solution", module.train)}[steps]()
    assert same(module.eval().state_dict(), before)  # said once
    good = batch(rng)
    assert module.train()(good, LABELS).isfinite().all()


def test_a_bad_first_batch_is_reported_by_the_second_which_looks_in_any_case(rng):
    head, fresh, good = NearestETFHead(D, C), NearestETFHead(D, C), batch(rng)
    with blind():
        head(good * torch.nan, LABELS)
        with pytest.raises(InputError, match=r"1 batch\(es\) could not be used"):
            head(good, LABELS)
        head(good, LABELS)
        fresh(good, LABELS)
    assert same(head.state_dict(), fresh.state_dict())


@pytest.mark.parametrize("options", [{"memory": 1e-3}, {"statistics": "paper", "averaging": 1.0}])
def test_what_products_give_up_on_unseen_leaves_the_classifier_as_it_was_and_is_reported(options, rng):
    frame = torch.from_numpy(simplex_etf(C, reduced=True)).float()  # without the direction that delta alone supports
    head, looking = (
        NearestETFHead(D, C, method=method, delta=1e-7, frame=frame, **options) for method in ("newton-schulz", "gram")
    )
    signs = torch.tensor([1.0, -1.0, -1.0, -1.0])[LABELS]
    one_direction = torch.outer(signs, batch(rng, 1)[0])  # means of rank one
    with blind():
        head(batch(rng), LABELS)
        before = {name: value.clone() for name, value in head.named_buffers() if name in ("U", "prox", "bias")}
        logits = head(one_direction, LABELS)
        assert logits.isnan().all()  # of the batch itself nothing wrong goes on, and nothing silent
        assert looking(one_direction, LABELS).isfinite().all()  # it waits in any case, and takes the SVD
        assert all(torch.equal(value, head.get_buffer(name)) for name, value in before.items())
    with pytest.raises(InputError, match=r"1 batch\(es\) could not be used.*choose method='auto'"):
        head.eval()
    with pytest.warns(UserWarning, match="have rank 1, and the frame has rank 3"):
        head.eval()
    assert head(batch(rng)).isfinite().all()


def test_unseen_steps_are_counted_for_the_schedule(rng):
    seen, unseen = (NearestETFHead(D, C, freeze_after=4, solve_every=2) for _ in range(2))
    for _ in range(6):
        features = batch(rng)
        seen(features, LABELS)
        with blind():
            unseen(features, LABELS)
        torch.testing.assert_close(unseen.weight, seen.weight, rtol=0, atol=1e-5)
    other = NearestETFHead(D, C, freeze_after=4, solve_every=2)
    other.load_state_dict(unseen.state_dict())
    with blind():
        other(features, LABELS)
    assert torch.equal(other.U, unseen.U)


def test_a_reported_bad_batch_does_not_shift_the_schedule(rng):
    head, fresh = (NearestETFHead(D, C, solve_every=2) for _ in range(2))
    batches = [batch(rng) for _ in range(5)]
    for step, features in enumerate(batches):
        with blind():
            head(features, LABELS)
            fresh(features, LABELS)
            if step == 2:
                head(features * torch.nan, LABELS)
                with pytest.raises(InputError, match="could not be used"):
                    head.eval()
                head.train()
    assert same(head.state_dict(), fresh.state_dict())
