"""Trained networks in the formats of others: safetensors keeps the state, ONNX Runtime returns the logits."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead, UnitFeatures
from tests.tools.head_cases import same
from tests.tools.loop_cases import HEADS, batches, images, network, trained

CASES = [(LearnedHead, "network"), (NearestETFHead, "network"), (FixedETFHead, "layer"), (NearestETFHead, "layer")]


@pytest.mark.parametrize("make", HEADS)
def test_safetensors_bring_the_state_back_to_the_bit(make, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors comes with the extra integrations")
    model, fresh = trained(network(make), batches(1)), network(make)
    safetensors.save_model(model, tmp_path / "model.safetensors")
    assert safetensors.load_model(fresh, tmp_path / "model.safetensors") == (set(), [])
    assert same(fresh.state_dict(), model.state_dict())
    x, y = images(24)
    assert torch.equal(fresh.eval()(x), model.eval()(x))
    torch.testing.assert_close(fresh.train()[1](fresh[0](x), y), model.train()[1](model[0](x), y), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")  # exporters warn of what they meet on the way
@pytest.mark.parametrize(("make", "what"), CASES)
def test_onnx_runtime_returns_the_logits(make, what, tmp_path):
    """Of the network in evaluation as it is, and of the plain layers that stand for its head."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra integrations")
    pytest.importorskip("onnxscript", reason="onnxscript comes with the extra integrations")
    model, (x, _) = trained(network(make), batches(1)).eval(), images(24)
    head = model[1]
    exported = nn.Sequential(model[0], UnitFeatures(head.temperature), head.linear()) if what == "layer" else model
    sizes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    torch.onnx.export(exported, (x[:5],), tmp_path / "model.onnx", dynamo=True, verbose=False, **sizes)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=0, atol=2e-5)
