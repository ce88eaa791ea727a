"""Class indices: every integer dtype means what int64 means, and what is no class index is refused with its remedy."""

import copy
import warnings

import pytest

from tests.tools.blind import blind

torch = pytest.importorskip("torch")
from etfopt import InputError
from etfopt._torch import require_labels
from tests.tools.head_cases import HEADS, MEANS
from tests.tools.head_cases import STATEFUL as WITH_STATE

STATEFUL = (*WITH_STATE, *MEANS)


def build(make, d: int, C: int) -> torch.nn.Module:
    """By a temperature for so many classes."""
    return make(d, C) if make in MEANS else make(d, C, temperature="auto")


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64]


def batch(n: int, d: int) -> torch.Tensor:
    return torch.linspace(-1, 2, n * d).mul(7).sin().reshape(n, d)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("C", [3, 100, 200, 256, 300])
@pytest.mark.parametrize("make", STATEFUL)
def test_labels_of_every_integer_dtype_give_the_state_of_int64(make, C, dtype):
    labels = (torch.arange(40) * 7) % min(C, torch.iinfo(dtype).max + 1)
    narrow, wide = build(make, C, C), build(make, C, C)
    if dtype.is_signed:
        labels[3] = -100
    features = batch(40, C)
    assert torch.equal(narrow(features, labels.to(dtype)), wide(features, labels))
    for name, value in wide.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], value), name


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.uint32])
@pytest.mark.parametrize("make", STATEFUL)
def test_label_156_of_100_classes_is_refused_in_every_dtype(make, dtype, unseen):
    module, labels = build(make, 100, 100), torch.full((4,), 156).to(dtype)
    before = copy.deepcopy(module.state_dict())
    if unseen:
        with blind():
            module(batch(4, 100), labels)
        with pytest.raises(InputError, match="labels outside"):
            module.eval()
    else:
        with pytest.raises(InputError, match=r"labels holds 156 at position 0; it must lie in \[0, 100\)"):
            module(batch(4, 100), labels)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("make", STATEFUL)
def test_the_ignored_label_cast_to_uint64_is_no_class_and_is_not_ignored(make):
    labels = torch.tensor([0, 1, 2, -100]).to(torch.uint64)
    with pytest.raises(InputError, match="labels holds 18446744073709551516 at position 3"):
        make(4, 3)(batch(4, 4), labels)


@pytest.mark.parametrize("value", [2**63, 2**70, -(2**63) - 1])
@pytest.mark.parametrize("make", HEADS)
def test_an_ignored_label_that_no_label_can_have_is_refused(make, value):
    with pytest.raises(InputError, match="ignore_index must be an integer"):
        make(4, 3, ignore_index=value)


Y = torch.tensor([0, 1, 2, 0])
ONE_HOT = torch.eye(3)[Y]
INDICES = {
    "one-hot": (ONE_HOT.long(), r"shape \(4, 3\).*look one-hot: pass labels\.argmax\(dim=1\)"),
    "one-hot in float": (ONE_HOT, r"look one-hot: pass labels\.argmax\(dim=1\)"),
    "one-hot in bool": (ONE_HOT > 0, r"look one-hot: pass labels\.long\(\)\.argmax\(dim=1\)"),
    "soft": (0.9 * ONE_HOT + 0.1 / 3, r"look like soft labels.*pass labels\.argmax\(dim=1\) here"),
    "soft in half precision": ((0.9 * ONE_HOT + 0.1 / 3).bfloat16(), r"look like soft labels"),
    "several classes": (torch.tensor([[1, 1, 0]] * 4), r"several classes a sample, which is not supported"),
}
"""What is refused where class indices alone are taken, as by the metrics."""
NO_TARGET = {
    "a column": (Y[:, None], r"shape \(4, 1\).*a column: pass labels\.squeeze\(1\)"),
    "whole floats": (Y.float(), r"dtype torch\.float32.*labels\.long\(\)"),
    "fractions": (Y + 0.5, r"Some are fractions"),
    "booleans": (Y > 0, r"dtype torch\.bool.*labels\.long\(\)"),
    "several classes": (torch.tensor([[1, 1, 0]] * 4), r"row 0 is no probability.*between 0 and 1 and sum to 2"),
    "one-hot of other classes": (torch.eye(5)[Y], r"shape \(4, 5\).*look one-hot"),
    "complex": (ONE_HOT + 0j, r"labels has dtype torch\.complex64.*pass real, dense probabilities"),
    "sparse": (ONE_HOT.to_sparse(), r"labels has .*torch\.sparse_coo; pass real, dense probabilities"),
}
CASES = INDICES | NO_TARGET


@pytest.mark.parametrize("case", INDICES)
def test_what_is_no_class_index_is_refused_with_the_right_remedy(case):
    labels, message = INDICES[case]
    with pytest.raises(InputError, match=message):
        require_labels(labels, 4, 3)


@pytest.mark.parametrize("case", NO_TARGET)
@pytest.mark.parametrize("make", [*HEADS, *MEANS])
def test_what_is_no_target_is_refused_with_the_right_remedy(make, case):
    labels, message = NO_TARGET[case]
    with pytest.raises(InputError, match=message):
        make(4, 3)(batch(4, 4), labels)


@pytest.mark.parametrize("case", ["one-hot", "one-hot in float", "one-hot in bool", "soft", "a column", "whole floats"])
def test_the_remedy_gives_the_labels_that_were_meant(case):
    labels, message = CASES[case]
    with pytest.raises(InputError, match=message) as caught:
        require_labels(labels, 4, 3)
    remedy = next(words for words in REMEDIES if words in str(caught.value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(eval(remedy, {"labels": labels}), Y)


REMEDIES = ("labels.long().argmax(dim=1)", "labels.argmax(dim=1)", "labels.squeeze(1)", "labels.long()")
