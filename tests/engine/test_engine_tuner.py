"""The choice of the number format: measured, remembered, overridden; and what bfloat16 must not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustdistill.attacks.types import Batch
from robustdistill.engine import tuner
from robustdistill.engine.devices import AUTO, Compute
from robustdistill.engine.tuner import Choice, measured, tuned
from robustdistill.engine.twin import Twin
from robustdistill.models import Classifier, ModelSpec, build
from robustdistill.rng import Draws

OPEN = Compute("cpu", 1, AUTO)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def told() -> list[str]:
    return []


def model(size: str = "nano") -> Classifier:
    return build(ModelSpec({"name": "small_cnn", "size": size}, (1, 8, 8), 10, 0.0, 1.0, (0.3,), (0.4,)), 0, "tuner")


def slow_in(precision: str, monkeypatch: pytest.MonkeyPatch, times: float = 2.0) -> list[str]:
    """Makes one format that many times as slow; returns the list of what was timed."""
    timed: list[str] = []

    def seconds(_twin: Twin, _batch: Batch, compute: Compute) -> float:
        timed.append(compute.precision)
        return times if compute.precision == precision else 1.0

    monkeypatch.setattr(tuner, "_seconds", seconds)
    return timed


@pytest.mark.parametrize(
    ("slow", "times", "chosen"),
    [("float32", 2.0, "bfloat16"), ("bfloat16", 5.0, "float32"), ("float32", 1.1, "float32")],
)
def test_the_clearly_faster_one_is_chosen_and_remembered(
    slow: str, times: float, chosen: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = slow_in(slow, monkeypatch, times)
    assert tuned(OPEN, model(), 16, told.append).precision == chosen
    assert timed
    timed.clear()
    assert tuned(OPEN, model(), 16, told.append).precision == chosen
    assert not timed
    tuned(OPEN, model("micro"), 16, told.append)  # another model is measured itself
    assert timed
    assert told[0] == told[1]
    assert told[0].startswith(f"trains in {chosen}: ")


def test_a_given_format_is_not_questioned(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    timed = slow_in("float32", monkeypatch)
    for precision in ("float32", "bfloat16"):
        compute = Compute("cpu", 1, precision)
        assert tuned(compute, model(), 16, told.append) == compute
    assert not timed


@pytest.mark.parametrize("text", ["{", "[]", '{"KEY": {"precision": "int4", "gain": 1}}', '{"KEY": 3}'])
def test_a_damaged_memory_costs_a_measurement(text: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    timed = slow_in("float32", monkeypatch)
    tuner.memory().parent.mkdir(parents=True)
    tuner.memory().write_text(text.replace("KEY", tuner._key(OPEN, model(), 16)), encoding="utf-8")
    assert tuned(OPEN, model(), 16, told.append).precision == "bfloat16"
    assert timed
    assert tuner._remembered(tuner._key(OPEN, model(), 16)) == Choice("bfloat16", 2.0)


def test_a_home_that_is_closed_stops_nothing(told: list[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    slow_in("float32", monkeypatch)
    (home / "robustdistill").write_text("a file where the folder should be", encoding="utf-8")
    assert tuned(OPEN, model(), 16, told.append).precision == "bfloat16"


def test_the_measurement_is_real_and_leaves_the_model_alone() -> None:
    net = model()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    choice = measured(OPEN, net, 16)
    assert choice.gain > 0
    assert choice.precision == ("bfloat16" if choice.gain >= tuner.CLEARLY else "float32")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_gradient_in_bfloat16_points_the_same_way() -> None:
    twin, index = Twin(model().eval()), torch.arange(32)
    batch = Batch(Draws(0).uniform(torch.empty(32, 1, 8, 8), index, "x"), index % 10, index)
    exact = twin.gradient(batch, tuner._goal)
    with Compute("cpu", 1, "bfloat16").autocast():
        rough, logits = twin.gradient(batch, tuner._goal), twin.logits(batch.x)
    assert (rough.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0) > 0.99
    assert (exact.sign() == rough.sign()).float().mean() > 0.9
