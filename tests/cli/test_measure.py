"""`etfopt measure`: saved features give what the metrics give, and errors name file, key and shape."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer")
torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")
from typer.testing import CliRunner

from etfopt.cli import app
from etfopt.metrics import CosineMargin, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import draw

C, D, N = 4, 6, 90
FEATURES, LABELS, WEIGHT, BIAS = (x.numpy() for x in draw(C, D, N, dtype=torch.float64))
HIDDEN = FEATURES[:, :3].astype(np.float32)
TOKENS, TAGS = FEATURES.reshape(30, 3, D), LABELS.reshape(30, 3)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    everything = {"features": FEATURES, "labels": LABELS, "weight": WEIGHT, "bias": BIAS}
    for name, array in {**everything, "hidden": HIDDEN, "tokens": TOKENS, "tags": TAGS}.items():
        np.save(f"{name}.npy", array)
    np.savez("all.npz", **everything)
    np.savez("more.npz", **everything, logits=FEATURES @ WEIGHT.T)
    np.savez("long.npz", **{name: x if name == "labels" else x.astype(np.longdouble) for name, x in everything.items()})
    np.savez_compressed("layers.npz", early=HIDDEN, late=np.asfortranarray(FEATURES), labels=LABELS, weight=WEIGHT)


def measured(*arguments: str) -> dict[str, dict[str, float]]:
    done = CliRunner().invoke(app, ["measure", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    return {
        layer["layer"]: {key: math.nan if x is None else x for key, x in layer["measures"].items()}
        for layer in document["layers"]
    }


def expected(features: np.ndarray, labels: np.ndarray, *classifier: np.ndarray, kind: type = NeuralCollapse) -> Any:
    metric = kind(num_classes=C, dim=features.shape[-1])
    metric.update(*(torch.from_numpy(x) for x in (features, labels, *classifier)))
    value = metric.compute()
    values = value if isinstance(value, dict) else {kind.__name__: value}
    return pytest.approx({key: float(x) for key, x in values.items()}, rel=1e-9, abs=1e-12, nan_ok=True)


WHOLE, EARLY, LATE = (FEATURES, LABELS, WEIGHT, BIAS), (HIDDEN, LABELS), (FEATURES, LABELS)
FOUND = {  # arguments, and what each layer is measured by
    "one file": (["all.npz"], {"all": WHOLE}),
    "small batches": (["all.npz", "--batch-size", "7"], {"all": WHOLE}),
    "files of their own": (
        ["features.npy", "--labels", "labels.npy", "--weight", "weight.npy", "--bias", "bias.npy"], {"features": WHOLE}
    ),
    "a weight from elsewhere has no bias from here": (["all.npz", "--weight", "weight.npy"], {"all": WHOLE[:3]}),
    "layers of two files": (
        ["hidden.npy", "features.npy", "--labels", "labels.npy"], {"hidden": EARLY, "features": LATE}
    ),
    "layers of one file": (["layers.npz", "--classifier-of", "late"], {"early": EARLY, "late": WHOLE[:3]}),
    "one of them": (["layers.npz", "--key", "late", "--classifier-of", "late"], {"late": WHOLE[:3]}),
    "one whose classifier is that of another": (
        ["layers.npz", "--key", "early", "--classifier-of", "late"], {"early": EARLY}
    ),
    "features beside other arrays": (["more.npz", "--key", "features"], {"more": WHOLE}),
    "long doubles": (["long.npz"], {"long": WHOLE}),
    "keys of several files": (
        ["all.npz", "layers.npz", "--classifier-of", "all"],
        {"all": WHOLE, "layers:early": EARLY, "layers:late": LATE},
    ),
    "tokens": (["tokens.npy", "--labels", "tags.npy"], {"tokens": (TOKENS, TAGS)}),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "layers"), FOUND.values(), ids=FOUND.keys())
def test_layers_of_files_have_the_values_of_the_metric(arguments, layers):
    found = measured(*arguments)
    assert list(found) == list(layers)
    for name, data in layers.items():
        assert found[name] == expected(*data), name


def test_other_metrics_ignored_samples_and_more_classes():
    names = ["--measures", "rank", "--measures", "etfopt.metrics:CosineMargin"]
    found = measured("all.npz", *names)["all"]
    assert {"NumericalRank": found["NumericalRank"]} == expected(*LATE, kind=NumericalRank)
    assert {"CosineMargin": found["CosineMargin"]} == expected(*WHOLE, kind=CosineMargin)
    few = measured("all.npz", "--measures", "nc1", "--measures", "cdnv", "--measures", "ncc")["all"]
    assert set(few) == {"nc1", "cdnv", "NCCAgreement"}
    assert few["NCCAgreement"] == pytest.approx(1 - measured("all.npz", "--measures", "mismatch")["all"].popitem()[1])
    kept = LABELS > 0
    marked = np.where(kept, LABELS, 99)
    np.save("marked.npy", marked)
    found = measured("features.npy", "--labels", "marked.npy", "--ignore-index", "99", "--classes", "4")["features"]
    assert found == expected(FEATURES[kept], LABELS[kept])
    few, more = (measured("features.npy", "--labels", "labels.npy", "--classes", n)["features"] for n in ("4", "9"))
    assert more["nc1"] == pytest.approx(few["nc1"] * C / 9)


def test_the_table_has_a_column_a_layer_and_the_file_what_json_prints():
    run = ["measure", "layers.npz", "--classifier-of", "late", "--out", "found.json"]
    done = CliRunner().invoke(app, run, catch_exceptions=False)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines()]
    table = {cells[0]: cells[1:] for cells in lines if cells}
    document = json.loads(Path("found.json").read_text())
    assert table["shape"] == ["90 x 3", "90 x 6"]
    assert [float(cell) for cell in table["nc1"]] == pytest.approx(
        [layer["measures"]["nc1"] for layer in document["layers"]], rel=1e-3
    )
    assert table["nc2"][0] == "-"
    assert [layer["classifier"] for layer in document["layers"]] == [False, True]
    assert document["layers"][1]["features"] == "layers.npz: late"
    CliRunner().invoke(app, run, catch_exceptions=False)  # an earlier measurement is replaced
    Path("found.json").write_text("{}")
    assert "not of an earlier measurement" in refused(*run[1:])


def test_classes_without_samples_are_told_of():
    np.save("void.npy", np.where(LABELS == 2, 255, LABELS))
    run = ["measure", "features.npy", "--labels", "void.npy", "--measures", "nc1"]
    told = [CliRunner().invoke(app, [*run, *more]).output for more in ([], ["--ignore-index", "255"], ["--json"])]
    assert "252 of the 256 classes have no samples; name a label to be ignored" in " ".join(told[0].split())
    assert "1 of the 4 classes have no samples" in " ".join(told[1].split())
    assert "no samples" not in told[2]
    assert "no samples" not in CliRunner().invoke(app, ["measure", "all.npz", "--measures", "nc1"]).output


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["measure", *arguments])
    assert done.exception is not None, done.output
    return str(done.exception)


REFUSED = {
    "no labels": (["features.npy"], "features.npy: holds no labels; save them"),
    "other labels": (
        ["features.npy", "--labels", "tags.npy"],
        "features.npy: has shape (90, 6), and tags.npy has shape (30, 3), not (90,); save a label for each row",
    ),
    "maps": (["tokens.npy", "--labels", "one.npy"], "not (30, 3); average over the positions first"),
    "labels that are floats": (["features.npy", "--labels", "floats.npy"], "floats.npy: has dtype float64; save class"),
    "a label out of range": (
        ["features.npy", "--labels", "labels.npy", "--classes", "3"], "features.npy, whose labels: labels holds 3 at"
    ),
    "features that are labels": (["labels.npy", "--labels", "labels.npy"], "labels.npy: has shape (90,) and dtype"),
    "an unknown key": (["layers.npz", "--key", "middle"], "--key 'middle' is in no file; the files hold 'early'"),
    "an unknown metric": (["all.npz", "--measures", "nc9"], "'nc9' is not known; did you mean 'ncc'? choose a metric"),
    "whose classifier": (["layers.npz"], "the weight may belong to early or late; name the layer that it multiplies"),
    "whose classifier, of one that is left out": (
        ["layers.npz", "--key", "early"], "may belong to early or late; name"
    ),
    "a measure of a frame": (["all.npz", "--measures", "frame_distance_means"], "needs a frame, which this command"),
    "a label that is a time": (["features.npy", "--labels", "times.npy"], "the largest label is 1700000000, so that"),
    "no such layer": (["layers.npz", "--classifier-of", "last"], "'last' is no layer with a classifier; choose one of"),
    "a weight of another width": (
        ["hidden.npy", "--labels", "labels.npy", "--weight", "weight.npy"], "from row 0 on: weight has shape (4, 6)"
    ),
    "a bias alone": (["features.npy", "--labels", "labels.npy", "--bias", "bias.npy"], "pass --weight too"),
    "a margin without a classifier": (
        ["features.npy", "--labels", "labels.npy", "--measures", "margin"], "from row 0 on: weight is missing"
    ),
    "a value that is not finite": (["bad.npz", "--batch-size", "20"], "bad.npz: features, from row 40 on: features"),
    "a class only": (["features.npy", "--labels", "zeros.npy"], "the largest label is 0, so that there would be 1"),
    "no features": (["no.npz"], "no.npz: holds no features; save them under the key 'features'"),
    "rows": (["all.npz", "--batch-size", "0"], "batch_size must be an integer of at least 1"),
    "a file that is not there": (["nowhere.npy", "--labels", "labels.npy"], "nowhere.npy: cannot be read: No such"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_measured_is_named(arguments, message):
    np.save("one.npy", LABELS[:30])
    np.save("floats.npy", LABELS.astype(float))
    np.save("times.npy", LABELS + 1_700_000_000 - LABELS.max())
    np.save("zeros.npy", np.zeros(90, dtype=int))
    np.savez("no.npz", labels=LABELS)
    bad = FEATURES.copy()
    bad[50, 2] = np.nan
    np.savez("bad.npz", features=bad, labels=LABELS)
    assert message in refused(*arguments)
