"""`etfopt verify`: what it prints, what its exit status says, and what it does where there is no theory/."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
typer = pytest.importorskip("typer")
from typer.testing import CliRunner

import etfopt
from etfopt import EtfoptError, InputError
from etfopt.cli import verifying
from etfopt.cli._app import app
from etfopt.cli.verifying import find_registry
from theory import registry
from theory.registry import Claim, Part, Residual, gather


def verify(*arguments: str):
    return CliRunner().invoke(app, ["verify", *arguments])


@pytest.fixture
def broken(monkeypatch):
    """A registry whose one claim fails for every other seed, by NaN or by being too large."""

    def _odd(rng):
        value = float(rng.uniform(0, 2))
        yield Residual(0.5, 1.0, "always fine")
        yield Residual(value, 1.0, "at most one")

    parts = (Part(_odd),)
    claim = Claim("odd", "Odd", "s", "a", "p", "u", "r", parts, lambda rng, budget: gather(rng, budget, parts))
    monkeypatch.setattr(registry, "CLAIMS", ("odd",))
    monkeypatch.setattr(registry, "load", {"odd": claim}.__getitem__)


def test_the_table_names_the_claim_its_cases_and_the_verdict() -> None:
    done = verify("--claim", "simplex", "--budget", "20")
    assert done.exit_code == 0, done.output
    assert "1 claim, 20 cases" in done.output
    assert "simplex" in done.output
    assert "holds" in done.output


def test_json_carries_all_that_the_table_shows_and_the_seed() -> None:
    done = verify("--claim", "simplex", "--budget", "20", "--json", "--seed", "4")
    found = json.loads(done.stdout)
    assert (found["seed"], found["budget"]) == (4, 20)
    (row,) = found["claims"]
    assert row["claim"] == "simplex"
    assert row["cases"] == 20
    assert row["holds"] is True
    assert row["worst"] <= row["tolerance"]
    again = verify("--claim", "simplex", "--case", f"{row['part']}:{row['seed']}")
    assert again.exit_code == 0
    assert f"{row['worst']:.3e}" in again.output
    case = json.loads(verify("--claim", "simplex", "--case", f"{row['part']}:{row['seed']}", "--json").stdout)
    assert row["worst"] in [residual["value"] for residual in case["residuals"]]


@pytest.mark.usefixtures("broken")
def test_a_counterexample_is_shown_can_be_seen_again_and_sets_the_exit_status() -> None:
    done = verify("--budget", "40")
    assert done.exit_code == 1
    assert "fails" in done.output
    command = done.output.split("again with: etfopt verify ")[1].split()
    again = verify(*command)
    assert again.exit_code == 1
    assert "at most one" in again.output
    assert "always fine" in again.output
    row = json.loads(verify("--budget", "40", "--json").stdout)["claims"][0]
    assert row["holds"] is False
    assert math.isfinite(row["worst"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--claim", "nonsense"), "'nonsense' is not known; choose one of: .*temperature"),
        (("--budget", "0"), "budget"),
        (("--seed", "-1"), "seed"),
        (("--case", "lower_bound:3"), "one --claim beside it"),
        (("--claim", "temperature", "--case", "3"), "PART:SEED"),
        (("--claim", "temperature", "--case", "lower_bound:x"), "PART:SEED"),
        (("--claim", "temperature", "--case", "nowhere:3"), "no part 'nowhere'; choose one of: lower_bound"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["verify", *arguments], catch_exceptions=False)


def test_an_installed_package_says_that_it_has_no_theory_and_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(etfopt, "__file__", str(tmp_path / "site-packages" / "etfopt" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the installed package does not have it.*source distribution.*--theory"):
        find_registry(None)
    with pytest.raises(InputError, match="elsewhere: not a folder"):
        find_registry(tmp_path / "elsewhere")
    assert find_registry(Path(registry.__file__).parent) is registry


def test_a_checkout_that_is_the_working_directory_will_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(etfopt, "__file__", str(tmp_path / "site-packages" / "etfopt" / "__init__.py"))
    monkeypatch.chdir(Path(registry.__file__).parents[1])
    assert find_registry(None) is registry


def test_a_missing_extra_gives_the_pip_line(monkeypatch) -> None:
    monkeypatch.setattr("etfopt.errors.find_spec", lambda name: None if name == "mpmath" else object())
    with pytest.raises(EtfoptError, match=r"pip install 'etfopt\[theory\]'"):
        verifying.find_registry(None)
