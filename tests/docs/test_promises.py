"""What docs/promises.md calls stable is there as it was written down, and the versions that it names are those used."""

import json
import re
import tomllib

import pytest

from tests import ROOT

pytest.importorskip("typer")
pytest.importorskip("torchmetrics")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("matplotlib")
pytest.importorskip("pymanopt")
pytest.importorskip("cvxpy")
from tests.tools import promised

WRITTEN = json.loads(promised.FILE.read_text())
PAGE = (ROOT / "docs" / "promises.md").read_text()


def divided(parameters: list[str]) -> tuple[list[str], set[str]]:
    """Return the parameters that have a place, and those after an asterisk."""
    end = next((i for i, text in enumerate(parameters) if text.startswith("*")), len(parameters))
    return parameters[:end], {text for text in parameters[end:] if text != "*"}


def calls_still_work(old: list[str], new: list[str]) -> bool:
    """Whether every call that fitted the old parameters fits the new ones and means the same."""
    (places, words), (now, named) = divided(old), divided(new)
    fresh = {*now[len(places) :], *named} - words
    return now[: len(places)] == places and words <= {*now, *named} and all("=" in x or x[0] == "*" for x in fresh)


@pytest.mark.parametrize(
    ("old", "new", "works"),
    [
        (["H", "delta=0"], ["H", "delta=0", "frame=None"], True),
        (["H", "delta=0"], ["H", "delta=0", "*", "frame=None"], True),
        (["H", "*", "frame=None"], ["H", "frame=None"], True),
        (["H", "delta=0"], ["H", "delta=1"], False),
        (["H", "delta=0"], ["H"], False),
        (["H", "delta=0"], ["H", "*", "delta=0"], False),
        (["H"], ["H", "frame"], False),
        (["H"], ["H", "*", "frame"], False),
        (["H", "*", "frame=None"], ["H", "*", "frames=None"], False),
    ],
)
def test_a_call_that_no_longer_works_is_seen(old: list[str], new: list[str], works: bool) -> None:
    assert calls_still_work(old, new) is works


def test_names_of_the_reference_and_their_arguments_and_defaults_stay() -> None:
    now = promised.names()
    lost = [f"{name}.{one}" for name, own in WRITTEN["names"].items() for one in own if one not in now.get(name, {})]
    assert lost == []
    for name, own in WRITTEN["names"].items():
        for one, parameters in own.items():
            assert calls_still_work(parameters, now[name][one]), f"{name}.{one}: {parameters} became {now[name][one]}"


def test_commands_and_options_stay() -> None:
    now = promised.options()
    for command, options in WRITTEN["options"].items():
        assert set(options) <= set(now.get(command, [])), command


@pytest.mark.parametrize("command", promised.SHOWN)
def test_keys_of_json_stay(command: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert promised.keys(command) <= promised.printed(command).keys()


def test_the_states_of_heads_and_metrics_stay() -> None:
    assert promised.states() == WRITTEN["states"]


def test_the_oldest_versions_on_the_page_are_those_that_the_package_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = " ".join(
        [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    )
    (python,) = re.findall(r"\| Python \| ([\d.]+);", PAGE)
    assert project["requires-python"] == f">={python}"
    oldest = dict(re.findall(r"(numpy|scipy|torch|cvxpy)>=([\d.]+)", required))
    numpy, scipy = re.findall(r"\| NumPy, SciPy \| ([\d.]+), ([\d.]+) \(oldest\)", PAGE)[0]
    (torch,) = re.findall(r"\| PyTorch \| ([\d.]+) \(oldest\)", PAGE)
    (cvxpy,) = re.findall(r"\| CVXPY \| ([\d.]+) ", PAGE)
    contributing = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    newest = re.findall(r"`make newest` resolved to PyTorch ([\d.]+), NumPy ([\d.]+), SciPy ([\d.]+)", contributing)
    upper = re.findall(r"\(oldest\) to ([\d.]+)(?:, ([\d.]+))?", PAGE)
    assert [re.sub(r"\.\d+$", "", version) for version in newest[0]] == [one for row in upper for one in row if one]
    shown = {"numpy": numpy.removesuffix(".0"), "scipy": scipy.removesuffix(".0"), "torch": torch, "cvxpy": cvxpy}
    assert shown == oldest
