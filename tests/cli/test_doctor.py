"""`etfopt doctor`: what it reports of a sound installation, and of one that is broken."""

import json

import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

from etfopt.cli import _app, doctor  # noqa: F401 - after the skip; the import makes the command
from etfopt.cli import _diagnosis as diagnosis
from tests.tools.promised import keys


def run(*arguments: str):
    return CliRunner().invoke(_app.app, ["doctor", *arguments])


def test_a_sound_installation_passes_and_says_with_what() -> None:
    pytest.importorskip("torch")
    done = run("--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert keys("doctor") <= report.keys()
    assert [check["passed"] for check in report["checks"]] == [True] * len(report["checks"])
    assert len(report["checks"]) == 2 + len(report["devices"])
    assert report["platform"]["numpy"]
    assert {"riemannian", "convex", "torch", "cli"} <= {extra["extra"] for extra in report["extras"]}
    for word in ("numpy", "relative gap", "pymanopt", "passed"):
        assert word in run("--all").output


def test_a_sound_installation_fits_a_screen_and_so_does_a_bare_one(monkeypatch) -> None:
    monkeypatch.setattr(_app.console, "_width", 80)
    found = run()
    assert found.output.startswith(f"All {2 + len(diagnosis.devices())} checks passed.")
    monkeypatch.setattr(diagnosis, "version_of", lambda _name: "")  # no extra is whole
    bare = run()
    assert bare.output.count("missing") == len({extra.extra for extra in diagnosis.extras()})
    for lines in (found.output.splitlines(), bare.output.splitlines()):
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80


def test_a_wrong_gradient_fails_and_sets_the_exit_status(monkeypatch) -> None:
    right = diagnosis.nearest_etf_vjp

    def wrong(*arguments):
        gradient = right(*arguments)
        return gradient._replace(H=2 * gradient.H)

    monkeypatch.setattr(diagnosis, "nearest_etf_vjp", wrong)
    done = run()
    assert done.exit_code == 1
    assert "failed" in done.output
    assert [check.passed for check in diagnosis.checks()][:2] == [True, False]


def test_what_breaks_is_reported_and_the_rest_goes_on(monkeypatch) -> None:
    def broken(_module):
        raise OSError("libsomething.so[7]: cannot open")

    monkeypatch.setattr(diagnosis, "import_module", broken)
    assert diagnosis.devices() == ["torch does not load: OSError: libsomething.so[7]: cannot open"]
    found = diagnosis.checks()
    assert [check.passed for check in found] == [True, True, False]
    assert "libsomething.so[7]" in found[-1].broken
    assert run().exit_code == 1


def test_without_torch_the_core_is_checked_and_the_extra_is_missing(monkeypatch) -> None:
    version = diagnosis.metadata.version

    def without(name):
        if name == "torch":
            raise diagnosis.metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(diagnosis.metadata, "version", without)
    assert diagnosis.devices() == []
    assert len(diagnosis.checks()) == 2
    assert {extra.installed for extra in diagnosis.extras() if extra.requirement.startswith("torch>")} == {""}
    done = run()
    assert done.exit_code == 0
    assert "missing" in done.output
