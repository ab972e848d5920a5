"""The zoo: what its masks do, what an outcome is called, which models the table is of, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustdistill.rng import Draws

CHECKOUT = Path(__file__).parents[2]
SIZE = (6, 1, 8, 8)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


def pictures() -> Tensor:
    return Draws(3).uniform(torch.empty(SIZE), torch.arange(SIZE[0]), "test")


class Linear(nn.Module):
    """Ten fixed directions, 40 times."""

    def forward(self, x: Tensor) -> Tensor:
        weight = Draws(4).normal(torch.empty(10, 64), torch.arange(10), "test")
        return 40 * x.flatten(1) @ weight.T


@pytest.mark.parametrize("name", ["noise", "dropout", "resize"])
def test_a_disturbance_depends_on_its_index_alone_and_keeps_the_gradient(name: str) -> None:
    from benchmarks.zoo.disturb import DISTURB

    x, index = pictures().requires_grad_(True), torch.arange(6)
    found = DISTURB[name](Draws(0), x, index)
    assert found.shape == x.shape and torch.equal(found, DISTURB[name](Draws(0), x, index))
    torch.testing.assert_close(DISTURB[name](Draws(0), x[2:4], index[2:4]), found[2:4])  # whoever else is there
    assert not torch.allclose(found, DISTURB[name](Draws(0), x, index + 6))
    assert float(torch.autograd.grad(found.sum(), x)[0].abs().sum()) > 0


def test_resizing_shrinks_a_white_image_to_a_box_inside_black() -> None:
    from benchmarks.zoo.disturb import SMALLEST, resize

    found = resize(Draws(0), torch.ones(200, 1, 8, 8), torch.arange(200))
    area = found.mean((1, 2, 3))
    assert SMALLEST**2 - 0.02 <= float(area.min()) < 0.35 and 0.8 < float(area.max()) <= 1.0 + 1e-6


def test_noise_of_a_counter_is_foreseen_and_noise_of_the_input_is_the_same_twice() -> None:
    from benchmarks.zoo.adaptive import KNOWN, Foreseen
    from benchmarks.zoo.masks import RANDOM, Mask

    x, counted, hashed = pictures(), Mask(Linear(), RANDOM["noise"][1]), Mask(Linear(), RANDOM["noise-by-hash"][1])
    foreseen = Foreseen(Mask(Linear(), RANDOM["noise"][1]))
    once = foreseen(x)
    assert torch.equal(once, foreseen(x)) and not torch.equal(counted(x), counted(x))
    counted.asked = KNOWN - 1
    assert torch.equal(once, counted(x))
    assert torch.equal(hashed(x), hashed(x))
    assert float((hashed(x + 1e-4) - hashed(x)).abs().max()) > 10


def test_the_forms_of_a_detector_suspect_the_same_inputs() -> None:
    from benchmarks.zoo.masks import DETECTORS, Mask, suspected

    x, net = pictures(), Linear()
    found = suspected(net, x)
    assert 0 < int(found.sum()) < len(x)
    by_nan, by_class, silent = (Mask(net, how)(x) for how, _ in DETECTORS.values())
    assert torch.equal(by_nan.isnan().all(1), found) and torch.equal(by_nan[~found], net(x)[~found])
    assert torch.equal(by_class.argmax(1) == 10, found) and bool(by_class.isfinite().all())
    assert torch.equal(silent, net(x)[~found])


def test_softened_training_is_cross_entropy_at_the_temperature() -> None:
    from benchmarks.zoo.nets import Softened

    from robustdistill.attacks.types import Batch
    from robustdistill.objectives.types import Step, Teacher
    from robustdistill.threat import ThreatModel

    x, y, net = pictures(), torch.arange(6), Linear()
    step = Step(net, None, None, Batch(x, y, y), ThreatModel("linf", 0.1), Draws(0))
    log = (net(x).double() / 100).log_softmax(1)
    torch.testing.assert_close(Softened()(step).loss.double(), -100 * log[y, y], rtol=1e-4, atol=1e-4)

    class Turned(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flip(1)

    taught = Step(net, None, Teacher(Turned()), Batch(x, y, y), ThreatModel("linf", 0.1), Draws(0))
    q = (net(x).double().flip(1) / 100).softmax(1)
    torch.testing.assert_close(Softened()(taught).loss.double(), -100 * (q * log).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"kind": "scale", "moved": 1}, "corrected"),
        ({"kind": "scale", "moved": 2}, "**not corrected**: 2 verdicts differ"),
        ({"kind": "scale", "moved": 0, "failed": ["smooth"]}, "refused"),
        ({"kind": "overfitted", "one_step": 0.9}, "true and low; FGSM claims 90.0%"),
        ({"kind": "overfitted", "judged": 0.4}, "**passed, overclaimed**"),
        ({"kind": "mask"}, "not refused, and not overclaimed: the judge's own figure is as low"),
        ({"kind": "mask", "judged": 0.4}, "**passed, wrongly**"),
        ({"kind": "mask", "failed": ["smooth"]}, "refused"),
        ({"kind": "random", "failed": ["smooth"], "adaptive": 0.85}, "refused; overclaims too little for it to be due"),
        ({"kind": "random", "adaptive": 0.85}, "passed; overclaims too little to be refused"),
        ({"kind": "detector"}, "abstaining counts as wrong"),
        ({"kind": "detector", "refused": "no answer", "judged": None}, "refused before any attack"),
    ],
)
def test_outcomes_have_names(part: dict[str, Any], said: str) -> None:
    from benchmarks.zoo.table import outcome

    assert outcome({"n": 100, "claimed": 0.9, "adaptive": 0.2, "judged": 0.2, "failed": [], **part}) == said


def test_false_alarms_have_the_bound_of_clopper_and_pearson() -> None:
    """None of 20: 1 − 0.05^(1/20) = 13.9 %. All of 3: 100 %."""
    from benchmarks.zoo.table import false_alarms

    good = {"model": "plain-1", "failed": []}
    assert "0 of 20 refused, at most 13.9% with 95 % confidence." in false_alarms([good] * 20)
    said = false_alarms([{"model": "plain-1", "failed": ["smooth"]}] * 3)
    assert "3 of 3 refused, at most 100.0%" in said and "plain-1 (smooth)" in said


def test_the_committed_table_is_of_the_whole_zoo_and_of_other_seeds_than_the_thresholds() -> None:
    from benchmarks.zoo.animals import animals
    from benchmarks.zoo.table import OVERCLAIM, RESULTS

    results = {part["model"]: part for part in json.loads(RESULTS.read_text(encoding="utf-8"))}
    if all(part["quick"] for part in results.values()):
        pytest.skip("the committed results are of the reduced protocol")
    seeds = sorted({int(name.rpartition("-")[2]) for name in results})
    assert not {11, 12} & set(seeds) and list(results) == [animal.name for animal in animals(seeds)]
    assert all(part["n"] >= 200 and not part["quick"] for part in results.values())
    assert sum(part["kind"] == "honest" for part in results.values()) >= 20
    for part in results.values():  # what overclaims too little is to be made stronger, or to leave the zoo
        if part["kind"] in ("mask", "random", "detector"):
            assert part["claimed"] - part["adaptive"] >= OVERCLAIM, part["model"]


def test_a_run_goes_on_and_refuses_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.zoo import __main__ as zoo

    given = SimpleNamespace(out=tmp_path, seeds=[7], only=["plain-7"], n=30, epochs=1, quick=True)
    (first,) = zoo.run(given)
    assert (
        first["kind"] == "honest" and 0 <= first["judged"] <= 1 and "1 of 26 models are done" in capsys.readouterr().out
    )
    monkeypatch.setattr(zoo, "measured", lambda *_: pytest.fail("done already"))
    assert zoo.run(given) == [first]
    (kept,) = json.loads((tmp_path / "results.json").read_text())
    assert kept == {key: value for key, value in first.items() if key != "standing"}
    given.n = 31
    with pytest.raises(SystemExit, match="other settings"):
        zoo.run(given)
