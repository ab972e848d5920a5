"""The exported file: the same answers as the model, and nothing about the machine that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from robustdistill.config import Strict
from robustdistill.errors import BadInput
from robustdistill.models import MODELS, Classifier, ModelSpec, weights
from robustdistill.models import build as build_model
from robustdistill.release.onnx import export

CLASSES, SEEN = ["cat", "dog", "eel"], np.array([7, 8, 7])


class Branching(nn.Module):
    """What tracing cannot see: another function for bright inputs."""

    name = "branching"

    class Config(Strict):
        pass

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(int(np.prod(shape)), classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits if x.mean() > 0.6 else -logits


class Foreign(Branching):
    """An operation that ONNX does not have."""

    name = "foreign"

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(self.linear(x.flatten(1)))


def saved(folder: Path, model: str = "small_cnn", channels: int = 3) -> Path:
    spec = ModelSpec({"name": model}, (channels, 8, 8), 3, 0.0, 1.0, (0.4,) * channels, (0.2,) * channels)
    made: Classifier = build_model(spec, 1, "test")
    folder.mkdir()
    weights.save(made, folder)
    return folder


def inputs(n: int, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("model", ["small_cnn", "preact_resnet", "gru"])
def test_the_file_answers_as_the_model_for_every_batch_size(tmp_path: Path, model: str) -> None:
    folder = saved(tmp_path / "model", model)
    record = export(folder, tmp_path / "out", CLASSES, inputs(5), SEEN)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for n in (1, 2, 7):
        with torch.no_grad():
            wanted = weights.load(tmp_path / "out")(inputs(n)).numpy()
        np.testing.assert_allclose(session.run(["logits"], {"x": inputs(n).numpy()})[0], wanted, atol=1e-4)
    assert 0 <= record["max_logit_difference"] < 1e-4
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == record


def test_the_same_weights_give_the_same_bytes_without_a_trace_of_the_machine(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    shutil.copytree(folder, tmp_path / "elsewhere")
    for source, out in ((folder, "one"), (tmp_path / "elsewhere", "two")):
        export(source, tmp_path / out, CLASSES, inputs(5), SEEN)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    proto = onnx.load(tmp_path / "one" / "model.onnx")
    assert proto.producer_name == proto.producer_version == proto.doc_string == ""
    content = (tmp_path / "one" / "model.onnx").read_bytes()
    assert b".py" not in content and b"/" + b"site-packages" not in content
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def test_export_json_holds_what_the_gate_and_the_runtime_read(tmp_path: Path) -> None:
    record = export(saved(tmp_path / "model"), tmp_path / "out", CLASSES, inputs(5), SEEN)
    assert record["sha256"]["onnx"] == weights.digest(tmp_path / "out" / "model.onnx")
    assert record["sha256"]["safetensors"] == weights.digest(tmp_path / "out" / "model.safetensors")
    assert record["bytes"]["onnx"] == (tmp_path / "out" / "model.onnx").stat().st_size
    assert (record["classes"], record["shape"], record["low"], record["high"]) == (CLASSES, [3, 8, 8], 0.0, 1.0)


@pytest.mark.parametrize(("model", "cause"), [(Branching, "differ"), (Foreign, "cannot be exported")])
def test_what_cannot_be_exported_truly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: type[nn.Module], cause: str
) -> None:
    monkeypatch.setitem(MODELS, model.name, model)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=cause):
        export(saved(tmp_path / "model", model.name), tmp_path / "out", CLASSES, 0.3 + 0.7 * inputs(5), SEEN)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "export.json").exists()


def test_class_names_must_fit(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="2 class names"):
        export(saved(tmp_path / "model"), tmp_path / "out", CLASSES[:2], inputs(2), SEEN)
