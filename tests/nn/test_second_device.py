"""What a GPU asks of the bridge, on a device that is none (`second_device.py`): one device, few waits, late errors.

It shows that nothing is made on another device or brought to the host unseen; it cannot show a GPU's own arithmetic.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

torch = pytest.importorskip("torch")
backends = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(backends, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this version of PyTorch has no devices written in Python", allow_module_level=True)

import etfopt

METHODS = ("auto", "svd", "gram", "newton-schulz")
HEADS = ("LearnedHead", "FixedETFHead", *(f"NearestETFHead {method}" for method in METHODS))


@pytest.fixture(scope="module")
def found() -> dict:
    folders = [str(Path(etfopt.__file__).parents[1]), str(ROOT)]
    script = f"import sys; sys.path[:0] = {folders!r}; from tests.tools import second_device; second_device.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def of(found: dict, first: str) -> dict[str, dict]:
    """Return the cases of a method, or of a head, by name."""
    chosen = {name: case for name, case in found["cases"].items() if name == first or name.startswith(f"{first} ")}
    assert chosen
    return chosen


def test_the_device_refuses_what_a_gpu_refuses_and_notes_what_a_gpu_is_waited_for(found):
    assert "two devices" in found["mixed"]
    assert set(found["looked"]) == {"_local_scalar_dense", "_to_copy", "tolist", "_linalg_svd"}


@pytest.mark.parametrize("first", [*METHODS, *HEADS, "hold"])
def test_values_and_derivatives_are_those_of_the_cpu(found, first):
    errors = {name: max(case["errors"]) for name, case in of(found, first).items()}
    assert all(error < 1e-10 for error in errors.values()), errors  # sums in another order; near collapse U bends fast


def test_products_alone_never_wait(found):
    assert {wait for case in of(found, "newton-schulz").values() for wait in case["waits"]} == set()


LOOKS = {"_local_scalar_dense", "tolist"}
WAITS = {"svd": {"_linalg_svd"}, "gram": {"_linalg_eigh", *LOOKS}}
"""A decomposition waits in any case; "gram" then looks whether it may be trusted, and else takes the SVD."""


@pytest.mark.parametrize("method", WAITS)
def test_decompositions_wait_for_themselves_and_a_look_at_what_they_found(found, method):
    for name, case in of(found, method).items():
        masked = (
            {"_linalg_svd"} if name == "gram weights" else set()
        )  # without some classes A has several null directions
        assert WAITS[method] - LOOKS | masked <= set(case["waits"]) <= WAITS[method] | masked, name


def test_the_default_looks_at_few_values_and_decomposes_nothing(found):
    for name, case in of(found, "auto").items():
        assert len(case["waits"]) <= (4 if "70" in name else 2), name
        assert "linalg" not in "".join(case["waits"]), name


@pytest.mark.parametrize("method", METHODS)
def test_held_classes_wait_for_one_small_decomposition_more(found, method):
    waits, plain = (found["cases"][name]["waits"] for name in (f"hold {method}", f"{method} weights"))
    if method == "gram":  # which takes the SVD for the plain problem, and not for the smaller one
        assert waits.count("_linalg_svd") == 1
        assert len(waits) <= len(plain) + 1
    else:
        assert sorted(waits) == sorted([*plain, "_linalg_svd"])


@pytest.mark.parametrize("name", HEADS)
def test_a_step_of_training_waits_as_its_method_does(found, name):
    method = name.partition(" ")[2]
    waits = found["cases"][name]["waits"]
    if method == "auto":
        assert waits == ["_local_scalar_dense"] * 2  # one in each of the two steps
    else:
        assert set(waits) == WAITS.get(method, set())


@pytest.mark.parametrize("name", HEADS[1:])
def test_a_spoilt_batch_is_told_of_late_and_changes_nothing(found, name):
    case = found["cases"][name]
    assert "1 batch(es) could not be used" in case["late"]
    assert case["kept"]
