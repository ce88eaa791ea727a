"""etfopt train --resume, called in this process: what it takes up, what it refuses, what it says."""

import json
import logging
import signal
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from typer.testing import CliRunner

from etfopt import cli
from etfopt.cli import app
from etfopt.errors import ConvergenceError, EtfoptError, InputError, MissingExtraError
from etfopt.experiments.training.train import train
from etfopt.files import StorageError
from tests.tools.promised import keys
from tests.tools.runs import small
from tests.tools.terminal import run_forked


def call(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments), "--quiet"])


def refused(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def test_a_stopped_run_is_resumed_and_a_finished_one_left_alone(tmp_path: Path) -> None:
    train(small(), tmp_path)
    (tmp_path / "checkpoints" / "epoch-0002.ckpt").write_bytes(b"")
    said = refused("--resume", tmp_path)
    assert "epoch-0002.ckpt: is damaged" in said
    assert "use --from-epoch 1" in said
    done = call("--resume", tmp_path, "--from-epoch", 1)
    assert done.exit_code == 0, done.output
    assert f"Written to {tmp_path}/" in done.stdout
    assert "cosine margin" in done.stdout
    assert "numerical_rank" not in done.stdout
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]
    done = call("--resume", tmp_path)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path} is finished, 2 of 2 epochs: nothing was done" in done.stderr
    assert "numerical_rank" in call("--resume", tmp_path, "--all").stdout
    said = refused("--resume", tmp_path, "--epochs", 3)
    assert "this run is planned for 2 epochs" in said
    found = json.loads(call("--resume", tmp_path, "--json").stdout)
    assert (found["epochs"], found["trained"], found["measures"]["epoch"]) == (2, 0, 2)
    assert found["config"]["training"]["epochs"] == 2


def test_a_run_is_continued_to_more_epochs_and_a_pipe_gets_a_line_for_each(tmp_path: Path) -> None:
    arguments = ("--out", tmp_path, "--schedule", "constant", "--set", "backbone.width=16")
    done = call(*arguments, "--epochs", 1)
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["train", "--resume", str(tmp_path), "--epochs", "3", "--json", "--verbose"])
    logging.getLogger("etfopt").setLevel(logging.NOTSET)
    assert (found := json.loads(done.stdout))["trained"] == 2
    assert keys("train") <= found.keys()
    told = [line for line in done.stderr.splitlines() if " etfopt." not in line]
    assert [line.partition(":")[0] for line in told] == ["epoch 2 of 3", "epoch 3 of 3"]
    assert f"etfopt.experiments.training.train: {tmp_path}: TrainConfig(" in done.stderr
    assert "epochs 2 to 3" in done.stderr


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "nowhere: holds no run: there is no config.json in it; name the folder of a run" in refused(
        "--resume", nowhere
    )
    assert "--batch-size has no meaning with --resume" in refused("--resume", nowhere, "--batch-size", 128)
    assert "from_epoch = 3 has no meaning without --resume" in refused("--from-epoch", 3)
    assert not nowhere.exists()


def test_a_run_that_diverges_is_a_failure_and_does_not_advise_to_resume_it(tmp_path: Path) -> None:
    """It would diverge again, whether an epoch was finished or not; what was typed is no mistake, so not status 2."""
    arguments = ["train", "--set", "optimizer.learning_rate=1e30", "--set", "backbone.width=16", "--quiet"]
    done = run_forked(*arguments, "--out", str(tmp_path / "run"), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"Kept: {tmp_path}/run/; no epoch was finished. A resumed run would diverge again: train with" in done.stderr
    assert "Lower optimizer.learning_rate = 1e+30" in done.stderr
    assert "--resume" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a"), 2),
        (MissingExtraError("a"), 2),
        (ConvergenceError("a"), 1),
        (StorageError("a"), 1),
        (EtfoptError("a"), 1),
    ],
)
def test_the_exit_status_tells_a_mistake_from_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: EtfoptError, status: int
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().err == "error: a\n"


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(128 + signal.SIGTERM), 143)])
def test_a_stop_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, status: int
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr("etfopt.experiments.training.train.train", stopped)
    result = call("--out", tmp_path)
    assert result.exit_code == status
    assert f"interrupted. Nothing was written to {tmp_path}/. To start again: the same command" in result.stderr
    (tmp_path / "config.json").touch()  # a run that has begun has one
    result = call("--out", tmp_path)
    assert result.exit_code == status
    assert f"interrupted. Kept: {tmp_path}/; no epoch was finished" in result.stderr
    assert f"To go on: etfopt train --resume {tmp_path}" in result.stderr
