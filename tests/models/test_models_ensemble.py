"""Several models as one: what it answers, that it is a model like any other, and what cannot be averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, build, weights
from robustdistill.models.ensemble import average
from robustdistill.release.onnx import compare, to_onnx
from robustdistill.rng import Draws

SPEC = ModelSpec({"name": "small_cnn", "size": "nano"}, (2, 8, 8), 3, 0.0, 1.0, (0.3, 0.5), (0.4, 0.2))
OTHERS = [
    SPEC,
    replace(SPEC, mean=(0.1, 0.7), std=(1.0, 0.3)),
    replace(SPEC, model={"name": "gru", "hidden": 8}),
]
X = Draws(0).uniform(torch.empty(5, 2, 8, 8), torch.arange(5), "x")


def members(specs: list[ModelSpec] = OTHERS, sharpness: float = 8.0) -> list[tuple[Classifier, str]]:
    """Finished, with opinions, and with batch-norm statistics of their own."""
    found = []
    for seed, spec in enumerate(specs):
        model = build(spec, seed, "member").train()
        model(X)
        with torch.no_grad():
            model.net.head.weight *= sharpness
        found.append((model.eval(), f"{seed:064x}"))
    return found


def test_it_answers_with_the_mean_of_the_probabilities() -> None:
    """Each member under its own normalisation and architecture."""
    models = members()
    with torch.no_grad():
        got = average(models)(X)
        each = [model(X).double() for model, _ in models]
    p = sum(z.softmax(1) for z in each) / 3
    torch.testing.assert_close(got.double().softmax(1), p, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        got.double(), p.log() + sum(z.logsumexp(1) for z in each)[:, None] / 3, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(got.softmax(1), (sum(each) / 3).float().softmax(1), atol=1e-3)  # logits' mean is another


def test_equal_members_are_the_model_itself() -> None:
    (model, sha256), *_ = members()
    for count in (1, 2, 5):
        torch.testing.assert_close(average([(model, sha256)] * count)(X), model(X), rtol=1e-5, atol=1e-5)


def test_distilling_from_it_is_distilling_from_all() -> None:
    """mean_i KL(p_i ‖ q) and KL(p̄ ‖ q) have one gradient in q."""
    from robustdistill.objectives.kl import kl

    models = members()
    student = torch.zeros(5, 3, requires_grad=True)
    with torch.no_grad():
        each, mean = [model(X) for model, _ in models], average(models)(X)
    (all_of_them,) = torch.autograd.grad(sum(kl(z, student) for z in each).sum() / 3, student)
    (as_one,) = torch.autograd.grad(kl(mean, student).sum(), student)
    torch.testing.assert_close(as_one, all_of_them, rtol=1e-4, atol=1e-6)


def test_the_gradient_reaches_the_input_through_every_member() -> None:
    models = members(sharpness=1.0)
    x = X.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(average(models)(x)[:, 1].sum(), x)
    assert (grad.abs().sum((1, 2, 3)) > 0).all()
    step = 1e-3 * grad.sign()
    ensemble = average(models).double()
    with torch.no_grad():
        rise = ensemble((X + step).double())[:, 1] - ensemble((X - step).double())[:, 1]
    torch.testing.assert_close(rise.float(), 2 * (step * grad).sum((1, 2, 3)), rtol=0.05, atol=1e-4)
    parts = [torch.autograd.grad(average(models[:k] + models[k + 1 :])(x)[:, 1].sum(), x)[0] for k in range(3)]
    assert all(not torch.allclose(part, grad, rtol=1e-2, atol=1e-6) for part in parts)


def test_it_is_saved_loaded_and_describes_what_went_into_it(tmp_path: Path) -> None:
    models = members()
    ensemble = average(models)
    sha256 = weights.save(ensemble, tmp_path)
    assert weights.save(average(models), tmp_path, "again") == sha256
    loaded = weights.load(tmp_path)
    assert torch.equal(loaded(X), ensemble(X))
    assert [member["sha256"] for member in loaded.spec.model["members"]] == [sha for _, sha in models]
    assert loaded.spec.architecture == "ensemble (members=small_cnn + small_cnn + gru)"
    before = [parameter.clone() for model, _ in models for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
    after = [parameter for model, _ in models for parameter in model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("sharpness", [1.0, 200.0])
def test_it_is_exported(tmp_path: Path, sharpness: float) -> None:
    ensemble = average(members(sharpness=sharpness))
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(ensemble))
    with torch.no_grad():
        largest = float(ensemble(X).abs().max())
    assert compare(ensemble, path, X) < 1e-3 * max(1.0, largest)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"x": X[:1].numpy()})
    assert np.isfinite(logits).all()


def test_members_that_are_sure_give_numbers() -> None:
    """Logits of thousands, opposed: no −inf, and the probabilities are a half each."""
    (one, _), *_ = members([SPEC])
    other = build(SPEC, 0, "member").eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        for model, favourite in ((one, 0), (other, 1)):
            model.net.head.weight.zero_()
            model.net.head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(favourite), 3) * 5e3)
    logits = average([(one, "0" * 64), (other, "1" * 64)])(X)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits.softmax(1)[0], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("change", "said"), [({"classes": 4}, "classes"), ({"shape": (2, 9, 9)}, "shape"), ({"high": 255.0}, "high")]
)
def test_models_of_other_data_are_not_averaged(change: dict, said: str) -> None:
    models = members([SPEC, replace(SPEC, **change)]) if "shape" not in change else [
        (build(spec, 0, "member"), "") for spec in (SPEC, replace(SPEC, **change))
    ]  # fmt: skip
    with pytest.raises(BadInput, match=f"{said}.*cannot be averaged"):
        average(models)


NANO = {"name": "small_cnn", "size": "nano"}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([], "members"),
        ([{"model": {"name": "ensemble"}}], "no member"),
        ([{"model": NANO, "mean": [0.5]}], "2 channels"),
        ([{"model": NANO, "std": [0.5, 0.0]}], "2 channels"),
        ([{"model": {"name": "small_cn"}}], "small_cn"),
        ([{"modle": NANO}], "modle"),
    ],
)
def test_what_is_no_ensemble_is_a_sentence(listed: list, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build(replace(SPEC, model={"name": "ensemble", "members": listed}), 0, "test")


def test_drawn_weights_differ_between_members() -> None:
    first, second = build(replace(SPEC, model={"name": "ensemble"}), 0, "test").net.members
    assert not torch.equal(first.head.weight, second.head.weight)
