"""``etfopt frame``: what it prints and saves, and what it refuses before anything is written."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from etfopt import InputError
from etfopt._options import CONFIDENCE, frame_temperature
from etfopt.cli._frame_tables import facts, frame_table
from etfopt.cli.framing import frame
from etfopt.frames import best_frame, orthoplex, polygon, seli
from tests.cli.test_tables import line, lines
from tests.tools import terminal

run = partial(terminal.run, COLUMNS="200", NO_COLOR="1", PYTHONWARNINGS="default")


def test_a_frame_is_printed_and_saved(tmp_path: Path) -> None:
    done = run("frame", "--dim", "512", "--classes", "1000", "--out", "frame.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("orthoplex", "largest cosine", "Rankin, for d <= 998", "proven", "488 orthogonal", "wrote frame.npy"):
        assert word in done.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "frame.npy"), orthoplex(512, 1000).F)


def test_unequal_counts_give_a_pair_as_json_and_npz(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "counts.csv", [[50, 20, 5]], fmt="%d", delimiter=",")
    words = ("frame", "--dim", "8", "--counts", "counts.csv", "--no-margin", "--out", "pair.npz", "--json")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    known, pair = json.loads(done.stdout), seli([50, 20, 5])
    assert (known["name"], known["C"], known["d"], known["r"]) == ("seli", 3, 8, 2)
    assert known["F_W"]["largest_cosine"] == pair.F_W.largest_cosine
    assert known["F_H"]["proven"] is False
    assert known["temperature"] == frame_temperature(3, 1 - pair.logit_gap)
    assert known["reason"] == best_frame(8, 3, [50, 20, 5]).reason
    with np.load(tmp_path / "pair.npz") as saved:
        np.testing.assert_array_equal(saved["F_H"], pair.F_H.F)
        np.testing.assert_array_equal(saved["F_W"], pair.F_W.F)


def test_the_table_has_the_numbers_of_the_frame() -> None:
    known = facts(polygon(5), 2, margin=False)
    assert line(frame_table(known), "largest cosine")[1] == "0.3090169944"
    assert line(frame_table(known), "lower bound")[1:] == ["0.3090169944", "Rankin, for d <= 2"]
    assert line(frame_table(known), "optimal")[1] == "proven"
    assert line(frame_table(known), "temperature")[1:] == [
        "6.868",
        f"gives each class at least {CONFIDENCE} at collapse",
    ]
    assert not any("rho" in text for text in lines(frame_table(known)))
    margin = line(frame_table(facts(polygon(5), 2, margin=True)), "rho")
    assert margin[1] == "0.690983"
    assert margin[2].startswith("one-vs-rest margin, to ")
    # a frame that was made for fewer dimensions says that its bound is for those
    assert line(frame_table(facts(polygon(5), 4, margin=False)), "lower bound")[2] == "Rankin, for d <= 2 only"
    pair = frame_table(facts(seli([9, 1]), 2, margin=False))
    assert line(pair, "optimal")[1:3] == ["proven", "proven"]


def test_an_archive_keeps_the_bounds_and_a_file_that_is_there_is_kept_unless_asked(tmp_path: Path, capsys) -> None:
    path = tmp_path / "frame.npz"
    frame(dim=3, classes=5, margin=False, out=path)
    with np.load(path) as saved:
        assert set(saved) == {"F", "largest_cosine", "lower_bound"}
        assert saved["lower_bound"] == 0
    with pytest.raises(InputError, match=r"frame.npz: is there already; .* --overwrite"):
        frame(dim=3, classes=6, out=path)
    frame(dim=3, classes=6, margin=False, out=path, overwrite=True)
    with np.load(path) as saved:
        assert saved["F"].shape == (3, 6)
    assert capsys.readouterr().out.count("frame.npz") == 2


def test_a_code_is_computed_once_and_is_not_called_optimal(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("ETFOPT_CACHE", str(tmp_path))
    for _ in range(2):
        frame(dim=3, classes=7, starts=1, as_json=True)
    first, second = capsys.readouterr().out.split("}\n", 1)
    assert first + "}\n" == second
    known = json.loads(second)
    assert known["largest_cosine"] == pytest.approx(0.2101383127306, abs=1e-8)
    assert (known["proven"], known["bound_dimension"]) == (False, 3)
    assert known["rho"] == pytest.approx(1 - known["largest_cosine"], abs=0.1)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0, "classes": 4}, "d must be an integer of at least 1; got 0"),
        ({"dim": 4, "classes": 1}, "C must be an integer of at least 2; got 1"),
        ({"dim": 1, "classes": 3}, "d = 1 has room for 2 different unit vectors; got C = 3; use d >= 2"),
        ({"dim": 4}, "--classes is missing; pass --classes, or --counts"),
        ({"dim": 4, "counts": "3,x"}, "--counts '3,x' is no list of numbers; write numbers separated by commas"),
        ({"dim": 4, "counts": "3,0"}, "counts must be above 0; class 1 has 0"),
        ({"dim": 4, "counts": "3,nan"}, "counts holds 1 value"),
        ({"dim": 4, "classes": 3, "counts": "3,1"}, "counts has 2 entries for C = 3 classes"),
        ({"dim": 4, "counts": "there.npy"}, "there.npy: cannot be read"),
        ({"dim": 4, "counts": "square.npy"}, r"square.npy: holds an array of shape \(2, 2\)"),
        ({"dim": 4, "classes": 3, "out": Path("frame.txt")}, r"frame.txt: a frame is saved as .npy or .npz"),
        ({"dim": 4, "classes": 3, "out": Path("no/frame.npy")}, "its folder is not there"),
        ({"dim": 4, "counts": "3,1", "out": Path("pair.npy")}, "the frame is a pair, F_H and F_W; .* .npz"),
    ],
)
def test_bad_input_writes_nothing(options, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("square.npy", np.eye(2))
    with pytest.raises(InputError, match=message):
        frame(**options)
    assert [path.name for path in tmp_path.iterdir()] == ["square.npy"]
