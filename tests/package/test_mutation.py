"""The table of mutants cannot rot, and the script that runs it believes neither silence nor noise without a reason."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.tools import mutation

MUTANTS = mutation.table()
names = [f"{mutant.file}: {mutant.what}" for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=names)
def test_a_mutant_changes_one_place_and_is_still_python(mutant):
    changed = mutant.applied(mutation.ROOT)
    before = ast.dump(ast.parse((mutation.ROOT / mutant.file).read_text(encoding="utf-8")))
    assert ast.dump(ast.parse(changed)) != before  # a comment is no change


@pytest.mark.parametrize("catcher", sorted({catcher for mutant in MUTANTS for catcher in mutant.caught_by}))
def test_what_should_notice_exists(catcher):
    if catcher.startswith("theory:"):
        assert (mutation.ROOT / "theory" / f"{catcher.removeprefix('theory:')}.py").exists()
        return
    path, _, test = catcher.partition("::")
    assert not test or re.search(rf"^def {test.partition('[')[0]}\b", (mutation.ROOT / path).read_text(), re.MULTILINE)
    assert (mutation.ROOT / path).exists()


def test_there_are_enough_of_them_and_each_is_told_apart():
    assert len(MUTANTS) > 100  # docs/promises.md says so
    assert [name for name, count in Counter(names).items() if count > 1] == []


# --- the script ---------------------------------------------------------------------------------------------------

TABLE = """
[[mutant]]
file = "etfopt/half.py"
what = "WHAT"
old = "x / 2"
new = "NEW"
caught_by = ["CAUGHT_BY"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree of one function and its test, which fails for wrong values and hangs for half of zero."""
    for name, text in {
        "etfopt/__init__.py": "",
        "etfopt/half.py": "def half(x):\n    return x / 2\n",
        "tests/test_half.py": "from etfopt.half import half\n\n\ndef test_half():\n    assert half(4) == 2\n",
        "tests/test_wrong.py": "def test_that_never_holds():\n    assert False\n",
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['-ra']\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def verdict(project: Path, new: str, caught_by: str = "tests/test_half.py") -> tuple[int, dict]:
    folder = project / "tests" / "mutants"
    folder.mkdir(exist_ok=True)
    text = TABLE.replace("WHAT", "half").replace("NEW", new).replace("CAUGHT_BY", caught_by)
    (folder / "all.toml").write_text(text)
    status = mutation.main(["--limit", "60", "--json", str(project / "found.json")], project)
    return status, json.loads((project / "found.json").read_text())[0]


def test_a_wrong_value_is_caught_by_name_and_the_tree_is_as_it_was(project):
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    status, found = verdict(project, "x / 3")
    assert (status, found["verdict"], found["by"]) == (0, "caught", "test_half.py::test_half")
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def by_value(_catchers: list[str], root: Path, _limit: float) -> tuple[str, str]:
    found: dict = {}
    exec((root / "etfopt" / "half.py").read_text(), found)  # the module as the mutant left it
    return ("silent", "") if found["half"](4) == 2 else ("caught", "by value")


def test_a_survivor_fails_the_run(project, monkeypatch):
    monkeypatch.setattr(mutation, "check", by_value)
    status, found = verdict(project, "x * 0.5")
    assert (status, found["verdict"]) == (1, "survived")


def test_a_check_that_fails_or_does_not_exist_before_anything_is_broken_stops_the_run(project):
    with pytest.raises(SystemExit, match=r"test_wrong.py: caught on the untouched tree"):
        verdict(project, "x / 3", caught_by="tests/test_wrong.py")
    with pytest.raises(SystemExit, match=r"unusable on the untouched tree"):
        verdict(project, "x / 3", caught_by="tests/test_half.py::test_gone")


def test_a_text_that_is_gone_is_named(project):
    (project / "etfopt" / "half.py").write_text("def half(x):\n    return 0.5 * x\n")
    with pytest.raises(ValueError, match=r"occurs 0 times and not once: 'x / 2'"):
        verdict(project, "x / 3")


def test_what_hangs_has_been_noticed(project):
    (project / "tests" / "test_half.py").write_text(
        "import time\nfrom etfopt.half import half\n\n\ndef test_half():\n    time.sleep(600 * (half(4) != 2))\n"
    )
    mutant = mutation.Mutant("etfopt/half.py", "half", "x / 2", "x / 3", ("tests/test_half.py",))
    outcome = mutation.judged(mutant, project, limit=8.0)
    assert (outcome.verdict, outcome.good) == ("timeout", True)
