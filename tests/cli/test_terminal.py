"""Manners at a terminal, and away from one: colours, progress, pipes that close, Ctrl-C."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
from etfopt.cli import _app
from tests.tools.terminal import COLOUR, MAIN, at_a_terminal, command, environment, run, run_forked

STUDY = """
title = "Two heads"
question = "Which?"
seeds = [0, 1]
[base]
training.epochs = {epochs}
backbone.width = 16
backbone.dim = 12
[[variants]]
name = "nearest"
[[variants]]
name = "fixed"
head.name = "fixed"
"""
EPOCH_LINE = r"epoch 1 of 1: loss [\d.]+, accuracy [\d.]+ %, test [\d.]+ %\n"
"""What a pipe gets on standard error of a run of one epoch."""
INTERRUPTED = re.compile(r"interrupted\. .*")  # what erases a bar may stand before it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "means.npy", np.random.default_rng(1).standard_normal((8, 3)))
    return tmp_path


COLOURFUL = (["solve", "nowhere.npy"], ["solve", "--help"], ["solve"])


@pytest.mark.parametrize("arguments", COLOURFUL, ids=" ".join)
def test_a_terminal_has_colours_unless_no_color_is_set(folder: Path, arguments: list[str]) -> None:
    _, coloured = at_a_terminal(*arguments, cwd=folder)
    status, plain = at_a_terminal(*arguments, cwd=folder, NO_COLOR="1")
    assert COLOUR.search(coloured)
    assert plain
    assert not COLOUR.search(plain), plain
    assert status == (0 if "--help" in arguments else 2)


@pytest.mark.parametrize(
    "arguments",
    [
        *COLOURFUL,
        ["solve", "means.npy"],
        ["compare", "--problem", "tight-3x4", "--solver", "procrustes"],
        ["verify", "--claim", "temperature", "--budget", "3"],
        ["train", "--epochs", "1"],
    ],
    ids=" ".join,
)
def test_a_pipe_gets_no_escape_sequence_and_no_progress(folder: Path, arguments: list[str]) -> None:
    if arguments[0] in ("verify", "train"):
        pytest.importorskip("pytorch_lightning")
    done = (run_forked if arguments[0] == "train" else run)(*arguments, cwd=folder)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    if not done.returncode:
        assert done.stdout
        lines = EPOCH_LINE if arguments[0] == "train" else ""
        assert re.fullmatch(lines, done.stderr), done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, str]:
    """What a terminal shows of a command, on standard output and error."""
    out, error = Terminal(), Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", error)
        _app.app(list(arguments), standalone_mode=False)
    return out.getvalue(), error.getvalue()


LONG = {
    "compare": ["compare", "--problem", "tight-3x4", "--solver", "procrustes"],
    "bench": ["bench"],
    "bench node": ["bench", "node"],
    "bench head": ["bench", "head", "--classes", "2", "--batch", "2", "--rounds", "1"],
    "bench loops": ["bench", "loops", "--rows", "1408", "--seeds", "1"],
    "verify": ["verify", "--claim", "temperature", "--budget", "3"],
    "demo": ["demo", "--epochs", "1"],
    "train": ["train", "--epochs", "1", "--set", "backbone.width=16"],
    "study": ["train", "study.toml"],
}


@pytest.mark.parametrize("name", LONG)
def test_progress_is_shown_at_a_terminal_and_not_with_quiet(name: str, folder: Path, monkeypatch) -> None:
    pytest.importorskip("pytorch_lightning")
    from etfopt.bench import node, pipelines, units

    monkeypatch.chdir(folder)
    monkeypatch.setattr(pipelines, "CASES", (pipelines.Case(16, 4, 1),))
    monkeypatch.setattr(units, "SHAPES", ((16, 4),))
    monkeypatch.setattr(node, "SHAPES", ((16, 4), (16, 5)))
    (folder / "study.toml").write_text(STUDY.format(epochs=1))
    out, error = shown(monkeypatch, *LONG[name])
    assert "━" in error
    if name == "train":
        assert "epoch 1 of 1" in error
        assert re.search(r"loss [\d.]+, accuracy [\d.]+ %, test [\d.]+ %", error)
    again = () if name == "verify" else ("--out", "again")
    out, error = shown(monkeypatch, *LONG[name], "--quiet", *again)
    assert error == ""
    assert out
    assert "\x1b[?25l" not in out  # which hides the cursor, as a bar does


def test_a_bar_at_a_terminal_has_no_colour_with_no_color(folder: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    arguments = ("train", "--epochs", "1", "--set", "backbone.width=16")
    status, text = at_a_terminal(*arguments, cwd=folder, forked=True, NO_COLOR="1")
    assert status == 0
    assert "epoch 1 of 1" in text
    assert not COLOUR.search(text)


@pytest.mark.parametrize(
    "arguments", [["solve", "means.npy"], ["doctor"], ["--help"], ["solve", "means.npy", "--json"]]
)
def test_a_pipe_that_is_closed_ends_a_command_quietly(folder: Path, arguments: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)  # as `head` does, but before anything is written
    try:
        done = subprocess.run(
            command(*arguments), cwd=folder, env=environment(), stdout=theirs, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(theirs)
    assert done.stderr == b""


def test_a_terminal_that_lacks_a_character_gets_another(folder: Path) -> None:
    done = run("compare", "--problem", "tight-3x4", "--solver", "procrustes", cwd=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "procrustes" in done.stdout


# (arguments, what the terminal shows when Ctrl-C is typed, what the one line says)
STOPPED = {
    "compare": (
        ["compare", "--seeds", "3"],
        r" [1-9]\d*/\d+",
        r"[1-9]\d* of \d+ cells: kept in runs/compare/compare.json. .*with --overwrite",
    ),
    "bench": (["bench"], r" [1-9]\d*/\d+", r"Nothing was written to runs/bench/"),
    "verify": (["verify"], r" [1-9]/21", r"[1-9] of 21 claims were checked.* etfopt verify .*--claim fading"),
    "demo": (["demo"], r" [1-9]\d*/540", r"Kept: runs/demo/, every finished epoch"),
    "study": (["train", "study.toml"], r" [1-9]\d*/\d+", r"Kept: runs/study/, every finished epoch.*the same command"),
    "train": (["train", "--epochs", "5000"], r"epoch [2-9]", r"Kept: runs/digits-nearest-seed0/, .*train --resume"),
}


TRAINING = ("demo", "study")  # "train" imports everything itself


@pytest.mark.parametrize("name", STOPPED)
def test_ctrl_c_leaves_whole_files_and_one_line(name: str, folder: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    (folder / "study.toml").write_text(STUDY.format(epochs=5000))
    arguments, pattern, words = STOPPED[name]
    status, text = at_a_terminal(*arguments, cwd=folder, interrupt_at=pattern, forked=name in TRAINING, NO_COLOR="1")
    assert_stopped(status, text, words, folder)


def assert_stopped(status: int, text: str, words: str, folder: Path) -> None:
    """See that Ctrl-C ended a command with one line that says so, and left no part of a file."""
    assert status == 130, text
    assert "Traceback" not in text
    assert "Error" not in text
    (line,) = INTERRUPTED.findall(text)
    assert re.search(words, line), line
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("*.jsonl"):
        for row in path.read_text().splitlines():
            json.loads(row)
    assert not [path for path in folder.rglob("*") if ".part" in path.name]


def test_ctrl_c_before_a_command_has_begun_is_silent(folder: Path) -> None:
    inside = "from etfopt import __main__ as program\nimport etfopt.cli\n"
    hang = "def hang():\n    print('begun', flush=True)\n    import time; time.sleep(60)\netfopt.cli.main = hang\n"
    head = MAIN.partition("from etfopt")[0]
    status, text = at_a_terminal("demo", cwd=folder, interrupt_at="begun", main=f"{head}\n{inside}{hang}program.main()")
    assert status == 130
    assert text.replace("^C", "").strip() == "begun"


IN_THE_IMPORTS = """
import os, signal, time
from multiprocessing.process import BaseProcess
start, typed = BaseProcess.start, []
def start_and_type(self):
    start(self)
    if not typed:
        typed.append(True)
        time.sleep(0.4)  # the parent waits, too, and so cannot have taken up a result
        os.killpg(0, signal.SIGINT)
BaseProcess.start = start_and_type
"""
"""Types Ctrl-C while the first process of a command is being started, and imports what it needs for seconds."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--problem", "tight-3x4"], "0 of [0-9]+ cells: nothing was written"),
        (["train", "study.toml", "--jobs", "2"], "Kept: runs/study/, every finished epoch"),
    ],
    ids=["compare", "jobs"],
)
def test_ctrl_c_does_not_reach_the_processes_that_a_command_starts(arguments, words: str, folder: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    if "--jobs" in arguments and (os.cpu_count() or 1) < 2:
        pytest.skip("one processor")
    (folder / "study.toml").write_text(STUDY.format(epochs=5000))
    main = f"{IN_THE_IMPORTS}\n{MAIN}"
    assert_stopped(*at_a_terminal(*arguments, cwd=folder, main=main, forked=True, NO_COLOR="1"), words, folder)
