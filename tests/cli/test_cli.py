"""The command line, run as a user runs it: a process, its output and its exit status."""

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from etfopt.__main__ import main
from tests.tools import terminal
from tests.tools.promised import keys

PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONWARNINGS": "default"}
run, run_forked = partial(terminal.run, **PLAIN), partial(terminal.run_forked, **PLAIN)
MEANS = np.random.default_rng(1).standard_normal((8, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "means.npy", MEANS)
    return tmp_path


def test_solve_prints_a_certified_answer(folder: Path) -> None:
    done = run("solve", "means.npy", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("certified: within 1e-16 of the optimum (relative gap)\n")
    for word in ("distance", "relative gap", "ETF", "unique", "Procrustes"):
        assert word in done.stdout
    for alarm in ("not unique", "margin"):  # the frame ignores a direction of U, and the ETF is unique
        assert alarm not in done.stdout


def test_solve_saves_what_it_prints(folder: Path) -> None:
    done = run("solve", "means.npy", "--out", "nearest.npz", "--json", cwd=folder)
    facts = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["distance_bound"] is None  # infinite
    assert facts["converged"] is True
    assert facts["relative_gap"] < 1e-14
    with np.load(folder / "nearest.npz") as saved:
        assert saved["weight"].shape == (3, 8)
        assert facts["distance"] == saved["distance"]


def test_rows_of_classes_are_transposed_on_request(folder: Path) -> None:
    np.savetxt(folder / "rows.csv", MEANS.T, delimiter=",", fmt="%.17g")
    here = json.loads(run("solve", "means.npy", "--json", cwd=folder).stdout)
    there = json.loads(run("solve", "rows.csv", "--transpose", "--json", cwd=folder).stdout)
    assert here["objective"] == there["objective"]


def test_the_reduced_frame_and_a_prox_reach_the_problem(folder: Path) -> None:
    np.save(folder / "square.npy", MEANS[:2])
    done = run("solve", "square.npy", "--reduced", "--json", cwd=folder)
    assert json.loads(done.stdout)["unique"] is True
    np.save(folder / "prox.npy", np.eye(8, 3))
    done = run("solve", "means.npy", "--prox", "prox.npy", "--delta", "0.1", "--json", cwd=folder)
    assert json.loads(done.stdout)["unique"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["solve"], "Missing argument"),
        (["bench", "nodes"], "nodes"),
        (["bench", "--largest", "3"], "largest must be an integer of at least 10"),
        (["train", "--epoch", "3"], "No such option: --epoch"),
        (["train", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["solve", "nowhere.npy"], "nowhere.npy: cannot be read: No such file"),
        (["solve", "means.npy", "--delta", "1"], "delta = 1.0 needs a proximal point"),
        (["solve", "means.npy", "--transpose"], "means.npy: H has shape (3, 8): d = 3 features are fewer"),
        (["solve", "means.npy", "--transpose"], "use --transpose"),
        (["solve", "means.npy", "--key", "H"], "the key 'H' has no meaning"),
        (["compare", "--problem", "hard"], "problem = 'hard' is not known; choose a family (random, collapsed,"),
        (["compare", "--means", "nowhere.npy"], "nowhere.npy: cannot be read: No such file"),
        (["compare", "--out", "means.npy"], "means.npy: cannot be used as a folder"),
        (["solve", "means.npy", "--delta", "-1"], "error: --delta must be finite and at least 0; got -1"),
        (["bench", "node", "--method", "qr"], "method = 'qr' is not known; choose one of: auto, svd, gram"),
        (["bench", "node", "--device", "abacus"], "device = 'abacus' cannot be used"),
        (["bench", "head", "--classes", "1"], "classes must be an integer of at least 2; got 1"),
        (["bench", "head", "--batch", "0"], "batch must be an integer of at least 2; got 0"),
        (["bench", "head", "--rounds", "0"], "rounds must be an integer of at least 1; got 0"),
        (["bench", "loops", "--seeds", "0"], "seeds must be an integer of at least 1; got 0"),
        (["bench", "loops", "--epochs-scale", "0"], "epochs_scale must be"),
        (["bench", "loops", "--rows", "1411"], "rows = '1411' is not known; choose one of: 1408, 1409"),
        (["demo", "--epochs", "0"], "epochs must be an integer of at least 1; got 0"),
        (["demo", "--out", "means.npy"], "means.npy: cannot be used as a folder: it is a file; choose another with --"),
        (["train", "--dim", "8"], "dim = 8 is smaller than the r = 9 rows of the frame; set backbone.dim to at least"),
        (["train", "--precision", "8"], "Invalid value for '--precision'"),
        (["train", "--devices", "0"], "devices must be an integer of at least 1; got 0"),
        (["train", "--backbone", "custom"], "backbone.name = 'custom' needs backbone.dim"),
        (["train", "--averaging", "median"], "head.averaging = 'median' is not known; choose one of: paper"),
        (["train", "--temperature", "nan"], "head.temperature must be finite and above 0"),
        (["train", "--set", "optimizer.momentum"], "--set 'optimizer.momentum' is no assignment"),
    ],
)
def test_bad_input_is_one_message_and_nothing_else(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process: test_cli_help.py and test_terminal.py see that a process ends with such a message."""
    before = sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["etfopt", *arguments])
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    out, error = capfd.readouterr()
    assert ended.value.code == 2
    assert message in re.sub(r"\s+", " ", error)
    assert "Traceback" not in error
    assert not out
    assert sorted(folder.iterdir()) == before


def test_train_writes_its_run_and_says_where(folder: Path) -> None:
    done = run("train", "--head", "nearest", "--epochs", "2", "--out", "here", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Written to here/" in done.stdout
    assert {p.name for p in (folder / "here").iterdir()} >= {"config.json", "history.json", "class_means.npy"}
    done = run("solve", "here/class_means.npy", "--json", cwd=folder)
    assert json.loads(done.stdout)["etf_unique"] is True


def test_demo_writes_table_and_figures(folder: Path) -> None:
    done = run_forked("demo", "--epochs", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for word in ("learned", "fixed", "nearest", "NC3", "certified: within"):
        assert word in done.stdout
    report = folder / "runs" / "demo" / "report"
    for name in ("curves-1.png", "cosines.png"):
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    assert set(json.loads((report / "report.json").read_text())["spreads"]) == {"learned", "fixed", "nearest"}


def test_compare_tabulates_every_pair_and_says_where_the_rest_is(folder: Path) -> None:
    arguments = ["compare", "--problem", "tight-3x4", "--means", "means.npy", "--seeds", "2", "--out", "here"]
    done = run(*arguments, "--solver", "procrustes", "--solver", "trust-region", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for words in (
        "tight-3x4: d = 3, C = 4, r = 3",
        "means: d = 8, C = 3",
        "1 of 1",
        "of 2",
        "wrote here/compare.json",
        "All problems",
    ):
        assert words in done.stdout
    for name in ("convergence.png", "profiles.png"):
        assert (folder / "here" / name).read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((folder / "here" / "compare.json").read_text())["rows"]) == 6


def test_compare_goes_on_without_the_solvers_that_are_not_installed(folder: Path) -> None:
    code = (
        "import sys\nsys.modules['pymanopt'] = sys.modules['cvxpy'] = None\n"
        "from etfopt.cli import main\nif __name__ == '__main__':\n    main()\n"
    )
    (folder / "without.py").write_text(code)  # a file, which the processes of the solvers import again
    command = [sys.executable, "without.py", "compare", "--problem", "tight-3x4", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert keys("compare") <= document.keys()
    assert {row["status"] for row in document["rows"]} == {"certified"}
    assert all(row["solver"].startswith("procrustes") for row in document["rows"])
    assert len(document["settings"]["left_out"]) == 7
    assert "pip install 'etfopt[riemannian]'" in document["settings"]["left_out"][0]


def test_bench_node_and_head_write_their_numbers(folder: Path) -> None:
    done = run_forked("bench", "head", "--classes", "3", "--batch", "2", "--rounds", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "runs" / "bench-head" / "bench.json").read_text())
    assert keys("bench head") <= json.loads(done.stdout).keys()
    assert next(row["head"] for row in json.loads(done.stdout)["rows"]) == "learned"
    assert [row["C"] for row in json.loads(done.stdout)["statistics"]] == [10, 100, 10]


def test_bench_loops_writes_the_accuracy_of_every_seed(folder: Path) -> None:
    done = run_forked(
        "bench", "loops", "--rows", "1408", "--seeds", "2", "--epochs-scale", "0.25", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "runs" / "bench-loops" / "bench.json").read_text())
    assert keys("bench loops") <= document.keys()
    assert {"torch", "threads", "seeds"} <= document["conditions"].keys()
    assert all(row["loop"] == "1408" and len(row["accuracies"]) == 2 for row in document["rows"])


def test_a_terminated_run_does_not_look_like_a_success(folder: Path) -> None:
    command = terminal.command("train", "--epochs", "100000", "--quiet", "--out", "run")
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            metrics = folder / "run" / "metrics.jsonl"
            for _ in range(600):
                if metrics.exists() and metrics.stat().st_size:
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            _, words = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 143, words
    assert "Traceback" not in words
    assert "interrupted. Kept: run/" in words
    assert "To go on: etfopt train --resume run" in words
    assert json.loads((folder / "run" / "history.json").read_text())["epochs"]
