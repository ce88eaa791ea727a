"""``etfopt solve`` with weights, held classes and frames; `test_cli.py` has the rest."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

import typer

from etfopt import InputError
from etfopt.cli._lists import classes
from etfopt.cli._solution_tables import solution_table
from etfopt.cli.framing import frame
from etfopt.cli.solving import solve
from etfopt.frames import seli
from etfopt.solution import nearest_etf
from tests.cli.test_tables import line
from tests.tools import terminal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("means.npy", np.random.default_rng(1).standard_normal((8, 6)))
    np.savetxt("counts.csv", [[3, 1, 2, 0, 0, 0]], delimiter=",")
    return tmp_path


def facts(capsys: pytest.CaptureFixture[str], **options) -> dict:
    solve(Path("means.npy"), as_json=True, **options)
    return json.loads(capsys.readouterr().out)


def test_weights_and_held_classes_reach_the_problem(folder: Path, capsys) -> None:
    arguments = ["means.npy", "--reduced", "--weights", "3,1,2,0,0,0", "--out", "first.npz"]
    done = terminal.run("solve", *arguments, cwd=folder, COLUMNS="200", NO_COLOR="1")
    assert "not unique" in done.stdout, done.stderr
    assert facts(capsys, reduced=True, weights="counts.csv")["unique"] is False
    held = {"reduced": True, "hold": "0-1,2", "hold_at": Path("first.npz")}
    assert facts(capsys, out=Path("then.npz"), **held)["held"] < 1e-14
    with np.load("first.npz") as before, np.load("then.npz") as after:
        np.testing.assert_allclose(after["etf"][:, :3], before["etf"][:, :3], rtol=0, atol=1e-14)
    with pytest.raises(InputError, match=r"first\.npz: is a file that the problem is read from"):
        solve(Path("means.npy"), out=Path("first.npz"), **held)


@pytest.mark.usefixtures("folder")
def test_a_frame_is_named_or_read_from_a_file(capsys) -> None:
    frame(dim=4, classes=6, margin=False, out=Path("frame.npz"))
    capsys.readouterr()
    saved, named = (facts(capsys, frame=name) for name in ("frame.npz", "polygon"))
    assert saved["converged"]
    assert named["distance"] > saved["distance"]


def test_the_table_says_what_is_held_and_what_the_frame_is(rng) -> None:
    H = rng.standard_normal((5, 4))
    first = nearest_etf(H, reduced=True)
    table = solution_table(nearest_etf(H, reduced=True, hold=[0], hold_at=first.U))
    assert "moved" in line(table, "held")[2]
    assert table.title == "Nearest simplex ETF of 4 classes in 5 dimensions"
    weighted = solution_table(nearest_etf(H, weights=[1, 2, 1, 1]))
    assert [line(weighted, name)[2].startswith("weighted") for name in ("distance", "objective")] == [True, True]
    assert [line(table, name)[2].startswith("weighted") for name in ("distance", "objective")] == [False, False]
    assert solution_table(nearest_etf(H, frame=np.eye(3, 4))).title.startswith("Nearest rotation of the frame")


@pytest.mark.parametrize(
    ("solver", "why"), [("Stub", "the relative gap is"), ("Infeasible", "U is off the manifold by")]
)
@pytest.mark.usefixtures("folder")
def test_an_answer_that_is_not_certified_is_shown_and_not_saved(solver: str, why: str, capsys) -> None:
    options = {"reduced": True, "solver": f"tests.tools.stub_solvers:{solver}", "out": Path("out.npz")}
    with pytest.raises(typer.Exit) as ended:
        solve(Path("means.npy"), **options)
    assert ended.value.exit_code == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"not certified: {why}")
    assert "use --solver procrustes" in said
    assert "out.npz was not written" in said
    assert not Path("out.npz").exists()


@pytest.mark.usefixtures("folder")
def test_a_pair_of_frames_gives_that_of_the_means(capsys) -> None:
    frame(dim=8, counts="6,5,4,3,2,1", margin=False, out=Path("pair.npz"))
    capsys.readouterr()
    found = facts(capsys, frame="pair.npz")
    assert found["distance"] == nearest_etf(np.load("means.npy"), frame=seli([6, 5, 4, 3, 2, 1]).F_H).distance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "procustes"}, "^--solver = 'procustes' is not known; did you mean 'procrustes'"),
        ({"weights": "1,2"}, r"^--weights has shape \(2,\); it must be \(6,\), one number a class"),
        ({"weights": "1,-2,0,1,1,1"}, "^--weights holds negative values, the first of class 1: -2"),
        ({"weights": "1;2"}, "^--weights '1;2' is no list of numbers; write numbers separated by commas, as 1,1,2,0"),
        ({"weights": "gone.npy"}, r"^gone\.npy: cannot be read"),
        ({"weights": "means.npy"}, r"^means\.npy: holds an array of shape \(8, 6\); save one number for each class"),
        ({"hold": "0"}, r"^--hold = \[0\] needs a point to hold at; give --hold-at, a file that etfopt solve --out"),
        ({"hold": "2-0"}, "^--hold '2-0' is no list of classes; write numbers from 0 on and ranges.*as 0,3,5-9"),
        ({"hold": "0,9", "hold_at": Path("means.npy")}, "^--hold names class 9"),
        ({"hold": "0", "hold_at": Path("means.npy")}, r"^means\.npy: hold_at is not on the manifold"),
        ({"hold_at": Path("means.npy")}, r"^means\.npy: hold_at is given without hold"),
        ({"frame": "cube"}, "^--frame = 'cube' is not known; choose one of: best, code"),
        ({"frame": "counts.npy"}, r"^counts\.npy: cannot be read"),
        ({"frame": "reduced", "reduced": True}, "^reduced = True names a frame, and frame is given too"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_names_the_option(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(Path("means.npy"), out=Path("out.npz"), **options)
    assert not Path("out.npz").exists()


def test_classes_are_numbers_and_ranges() -> None:
    assert classes("0, 3,5-7 ,9", "hold") == [0, 3, 5, 6, 7, 9]
    for text in ("", "a", "-1", "1,,2", "1.5", "3-", "0-99999999999"):
        with pytest.raises(InputError, match="is no list of classes"):
            classes(text, "hold")
