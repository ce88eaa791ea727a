"""The command line as a stranger meets it: help with examples that parse, errors that help, completion."""

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
from typer.main import get_command
from typer.testing import CliRunner

from etfopt.cli import app
from tests.tools.terminal import MAIN, command, environment, run

ROOT = get_command(app)


def commands(group=ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the names of every command and group."""
    yield path
    for name, one in getattr(group, "commands", {}).items():
        yield from commands(one, (*path, name))


def found(path: tuple[str, ...]):
    group = ROOT
    for name in path:
        group = group.commands[name]
    return group


def examples(path: tuple[str, ...]) -> list[str]:
    """The commands in the help of a command, without their comments."""
    blocks = re.findall(r"```\n(.*?)```", found(path).help or "", re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


PATHS = list(commands())


def test_all_commands_are_met() -> None:
    assert {path[0] for path in PATHS if path} == {
        *("solve", "frame", "train", "report", "demo", "compare", "verify", "doctor", "bench", "measure")
    }
    assert {("bench", "node"), ("bench", "head"), ("bench", "loops"), ("bench", "peers")} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "etfopt")
def test_every_help_has_examples_that_fit_a_line_and_parse(path: tuple[str, ...]) -> None:
    assert examples(path)
    for line in examples(path):
        assert len(line) <= 74, line
        program, *words = shlex.split(line.partition(">")[0], comments=True)
        assert program == "etfopt"
        assert tuple(words[: len(path)]) == path
        group, rest, context = ROOT, words, None
        while rest and rest[0] in getattr(group, "commands", {}):
            group, rest = group.commands[rest[0]], rest[1:]
        with group.make_context("etfopt", rest, parent=context) as context:  # refuses what it does not know
            assert context.params is not None


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "etfopt")
def test_every_option_says_what_it_is_and_what_it_is_if_not_given(path: tuple[str, ...]) -> None:
    for option in found(path).params:
        text = option.help or ""
        assert len(text) > 5, option.name
        optional = option.default is None and option.param_type_name == "option" and path == ("train",)
        if optional and option.name not in ("config", "settings", "resume", "from_epoch"):
            assert re.search(r"\[.+\]$", text), option.name


def test_the_program_alone_prints_its_help(tmp_path: Path) -> None:
    alone, asked = run(cwd=tmp_path), run("--help", cwd=tmp_path)
    assert asked.returncode == 0
    assert (alone.stdout + alone.stderr).strip() == asked.stdout.strip()
    module = subprocess.run(
        [sys.executable, "-m", "etfopt", "--version"], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert module.stdout == run("--version", cwd=tmp_path).stdout.encode()


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="there is no bash")
def test_the_completion_that_is_shown_works_in_bash(tmp_path: Path) -> None:
    shown = run("--show-completion", cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    script = run("--show-completion", "bash", cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert "complete -o default -F" in script, shown.stderr
    program = tmp_path / "etfopt"
    program.write_text(f'#!/bin/bash\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "completion.sh").write_text(
        f"{script}\nCOMP_WORDS=(etfopt train --head le)\nCOMP_CWORD=3\n_etfopt_completion {program}\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["/bin/bash", "completion.sh"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "learned", done.stderr


WITHOUT_TORCH = """
import sys; sys.argv[0] = 'etfopt'
from etfopt.cli import main
try:
    main()
except SystemExit as done:
    assert (done.code or 0) == STATUS, done.code
assert not {'torch', 'matplotlib', 'pymanopt', 'cvxpy'} & set(sys.modules)
"""


@pytest.mark.parametrize("command", ["", "solve", "frame", "train", "demo", "compare"])
def test_help_comes_without_importing_torch(command: str, tmp_path: Path) -> None:
    done = run(*command.split(), "--help", cwd=tmp_path, main=WITHOUT_TORCH.replace("STATUS", "0"))
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("etfopt ver", ["verify"]),
        ("etfopt bench ", ["node", "head", "loops", "measures", "peers"]),
        ("etfopt solve --tr", ["--transpose"]),
        ("etfopt train --head n", ["nearest"]),
        ("etfopt train --optimizer ada", ["adam", "adamw"]),
        ("etfopt verify --claim gra", ["gradient"]),
        ("etfopt compare --solver clara", ["clarabel"]),
    ],
)
def test_bash_completes_commands_options_and_values_without_importing_torch(line, offered, tmp_path: Path) -> None:
    asked = {"_ETFOPT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    main = MAIN if "verify" in line or "solver" in line else WITHOUT_TORCH.replace("STATUS", "0")
    done = run(cwd=tmp_path, main=main, **asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == offered


EARLY = {
    "train --head best": "head.name = 'best' is not known; choose one of: fixed, learned, nearest",
    "train --head neerest": "head.name = 'neerest' is not known; did you mean 'nearest'? choose one of: fixed",
    "solve file --solver nope": "--solver = 'nope' is not known; choose one of: conjugate-gradient",
    "train --data imagefolder:nowhere": "nowhere: there is no such folder",
    "train --data cats": "data.name = 'cats' is not known; choose one of: digits",
    "train --set optimizer.learning_rate=-1": "optimizer.learning_rate must be finite and above 0",
    "train --set optimizer.speed=1": "unknown setting optimizer.speed; known are: optimizer.name",
    "train --epochs 0": "epochs must be an integer of at least 1; got 0",
    "train --threads 100000": "threads = 100000 is more than",
    "train study.toml --jobs 100000": "jobs = 100000 is more than",
    "train --from-epoch 3": "from_epoch = 3 has no meaning without --resume",
    "train --resume nowhere": "nowhere: holds no run: there is no config.json in it; name the folder of a run",
    "train --config nowhere.toml": "nowhere.toml: cannot be read: No such file",
    "train nowhere.toml": "nowhere.toml: cannot be read: No such file",
    "train --out file": "file: cannot be used as a folder",
    "measure file --measures nc9": "--measures 'nc9' is not known; did you mean 'ncc'? choose a metric",
    "measure file --batch-size 0": "batch_size must be an integer of at least 1",
    "measure file": "file: a file that ends in .npz or .npy or .safetensors is needed",
    "report nowhere": "nowhere: there is no such folder; name the folder of a study or of runs",
}


@pytest.mark.parametrize("line", EARLY)
def test_names_numbers_and_paths_are_refused_without_importing_torch(line: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(*line.split(), cwd=tmp_path, main=WITHOUT_TORCH.replace("STATUS", "2"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: ")
    assert EARLY[line] in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "etfopt")
def test_every_command_prints_json_shows_its_log_and_can_be_quiet(path: tuple[str, ...]) -> None:
    options = {option for parameter in found(path).params for option in parameter.opts}
    assert "--verbose" in options
    if path:
        assert "--json" in options
    if path and path not in (("solve",), ("report",), ("doctor",)):  # which show no progress
        assert "--quiet" in options


@pytest.mark.parametrize("words", ["--verbose solve", "solve --verbose"])
def test_verbose_shows_the_log_on_standard_error_and_leaves_the_output_alone(words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "means.npy", np.eye(5, 3))
    try:
        done = CliRunner().invoke(app, [*words.split(), str(tmp_path / "means.npy"), "--json"])
    finally:
        logging.getLogger("etfopt").setLevel(logging.NOTSET)
    assert re.fullmatch(r"\d\d:\d\d:\d\d etfopt\.solution: NearestETF\(.*\): Procrustes took .*\n", done.stderr)
    assert json.loads(done.stdout)["converged"]
