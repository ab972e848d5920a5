"""Weights on disk: exact, hashed, never trusted; and teachers trained elsewhere."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, build, weights

SPEC = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 10, 0.0, 1.0, (0.3,), (0.4,))


@pytest.fixture
def model() -> Classifier:
    return build(SPEC, 0, "test").eval()


def test_saved_and_loaded_are_bit_equal(model: Classifier, tmp_path: Path) -> None:
    sha256 = weights.save(model, tmp_path)
    assert sha256 == weights.digest(tmp_path / "model.safetensors")
    loaded = weights.load(tmp_path)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(model(x), loaded(x))
    assert loaded.spec == SPEC
    assert not loaded.training


def test_the_same_model_gives_the_same_bytes(model: Classifier, tmp_path: Path) -> None:
    weights.save(model, tmp_path, "one")
    weights.save(build(SPEC, 0, "test").to(memory_format=torch.contiguous_format), tmp_path, "two")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".safetensors", ".safetensors"]


def _flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _edit(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | changes))


def _rewrite(folder: Path, tensors: dict[str, torch.Tensor] | bytes) -> None:
    """Weights of an attacker, with the description made to agree."""
    path = folder / "model.safetensors"
    if isinstance(tensors, bytes):
        path.write_bytes(tensors)
    else:
        safetensors.torch.save_file(tensors, path)
    _edit(folder, sha256=weights.digest(path))


HARM = {
    "bit": _flip_a_bit,
    "truncated": lambda folder: _rewrite(folder, (folder / "model.safetensors").read_bytes()[:-100]),
    "pickle": lambda folder: _rewrite(folder, pickle.dumps({"a": 1})),
    "huge header": lambda folder: _rewrite(folder, (2**60).to_bytes(8, "little") + b"{}"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no description": lambda folder: (folder / "model.json").unlink(),
    "not json": lambda folder: (folder / "model.json").write_text("{"),
    "deep json": lambda folder: (folder / "model.json").write_text("[" * 10**5),
    "other format": lambda folder: _edit(folder, format=99),
    "other architecture": lambda folder: _edit(folder, spec=SPEC.to_json() | {"model": {"name": "preact_resnet"}}),
    "other classes": lambda folder: _edit(folder, spec=SPEC.to_json() | {"classes": 11}),
    "missing tensor": lambda folder: _rewrite(folder, {"net.head.bias": torch.zeros(10)}),
    "not finite": lambda folder: _rewrite(
        folder, {key: value * float("nan") for key, value in _floats(folder).items()} | _counts(folder)
    ),
}


def _floats(folder: Path) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    return {key: value for key, value in tensors.items() if value.is_floating_point()}


def _counts(folder: Path) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    return {key: value for key, value in tensors.items() if not value.is_floating_point()}


@pytest.mark.parametrize("harm", sorted(HARM))
def test_what_is_damaged_or_hostile_is_refused_with_a_sentence(model: Classifier, tmp_path: Path, harm: str) -> None:
    weights.save(model, tmp_path)
    HARM[harm](tmp_path)
    with pytest.raises(BadInput) as caught:
        weights.load(tmp_path)
    assert str(tmp_path) in caught.value.where and caught.value.fix


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.module."])
@pytest.mark.parametrize("ours", [True, False])
def test_a_foreign_teacher_is_read_with_its_own_normalisation(
    model: Classifier, tmp_path: Path, prefix: str, ours: bool
) -> None:
    state = model.state_dict() if ours else model.net.state_dict()
    safetensors.torch.save_file({prefix + key: value.contiguous() for key, value in state.items()}, tmp_path / "w.st")
    record = {**SPEC.to_json(), "architecture": SPEC.model, "mean": [0.1], "std": [0.9]}
    del record["model"]
    (tmp_path / "w.json").write_text(json.dumps(record))
    foreign = weights.load_foreign(tmp_path / "w.st", tmp_path / "w.json")
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(foreign(x), model.net((x - 0.1) / 0.9))
    assert not foreign.training


def test_torchvisions_own_names_fit_our_residual_network(tmp_path: Path) -> None:
    spec = ModelSpec({"name": "resnet18"}, (3, 8, 8), 4, 0.0, 1.0, (0.5,) * 3, (0.2,) * 3)
    body = build(spec, 1, "test").net.body
    state = {key: value.contiguous() for key, value in body.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps({**spec.to_json(), "model": "resnet18"}))
    loaded = weights.load_foreign(tmp_path / "w.safetensors", tmp_path / "w.json")
    assert torch.equal(loaded.net.body.fc.weight, body.fc.weight)


def test_foreign_weights_that_do_not_fit_are_named(model: Classifier, tmp_path: Path) -> None:
    safetensors.torch.save_file({"module.fc.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps(SPEC.to_json()))
    with pytest.raises(BadInput, match=r"small_cnn.*net\.features"):
        weights.load_foreign(tmp_path / "w.safetensors", tmp_path / "w.json")


FOREIGN = {
    "mistyped": (lambda record: record | {"classes": True}, "'classes' must be a whole number, is true"),
    "lacking": (lambda record: {key: record[key] for key in record if key != "std"}, "missing key 'std'"),
    "of an unknown model": (lambda record: record | {"model": {"name": "smal_cnn"}}, "unknown model 'smal_cnn'"),
    "of an unknown option": (lambda record: record | {"model": {"name": "small_cnn", "sise": 1}}, "key 'sise'"),
    "with two names": (lambda record: record | {"architecture": "gru"}, "'architecture' and 'model'"),
}


@pytest.mark.parametrize("fault", sorted(FOREIGN))
def test_a_fault_in_a_description_names_its_file_key_and_fix(model: Classifier, tmp_path: Path, fault: str) -> None:
    edit, cause = FOREIGN[fault]
    weights.save(model, tmp_path, "w")
    (tmp_path / "other.json").write_text(json.dumps(edit(SPEC.to_json())))
    with pytest.raises(BadInput, match=cause) as caught:
        weights.load_file(tmp_path / "w.safetensors", tmp_path / "other.json")
    assert caught.value.where.startswith(str(tmp_path / "other.json")) and caught.value.fix


def test_a_key_that_is_given_twice_is_refused(model: Classifier, tmp_path: Path) -> None:
    weights.save(model, tmp_path, "w")
    (tmp_path / "other.json").write_text(json.dumps(SPEC.to_json())[:-1] + ', "classes": 3}')
    with pytest.raises(BadInput, match="'classes' is given twice"):
        weights.load_file(tmp_path / "w.safetensors", tmp_path / "other.json")


def test_a_description_of_ours_may_lie_elsewhere(model: Classifier, tmp_path: Path) -> None:
    weights.save(model, tmp_path, "w")
    (tmp_path / "w.json").rename(tmp_path / "other.json")
    assert weights.load_file(tmp_path / "w.safetensors", tmp_path / "other.json").spec == SPEC


def test_missing_weights_are_named_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file") as caught:
        weights.load_file(tmp_path / "none.safetensors")
    assert caught.value.where == str(tmp_path / "none.safetensors") and ".safetensors file" in caught.value.fix
