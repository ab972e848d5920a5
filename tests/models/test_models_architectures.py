"""Every architecture: shapes, sizes, determinism of first weights, options, export-friendly pooling."""

from __future__ import annotations

import pytest
import torch

from robustdistill.errors import BadInput
from robustdistill.models import MODELS, ModelSpec, build, parameters
from robustdistill.models.small_cnn import grid_pool


def spec(model: dict, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> ModelSpec:
    channels = shape[0]
    return ModelSpec(model, shape, classes, 0.0, 1.0, (0.4,) * channels, (0.3,) * channels)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_any_architecture_takes_small_images_of_any_channels(name: str) -> None:
    model = build(spec({"name": name}, (2, 8, 9), 3), 0, "test").eval()
    logits = model(torch.rand(2, 2, 8, 9))
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("size", "least", "most"), [("nano", 9e3, 11e3), ("micro", 23e3, 27e3), ("tiny", 225e3, 255e3)]
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 65, 33)])
def test_a_size_is_about_the_same_on_every_input(size: str, least: float, most: float, shape: tuple[int, ...]) -> None:
    model = build(spec({"name": "small_cnn", "size": size}, shape), 0, "test")
    assert least < parameters(model) < most
    assert model.eval()(torch.rand(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("edge", [4, 5, 6, 7, 8, 9, 15, 28])
def test_grid_pool_is_adaptive_pooling_that_misses_no_pixel(edge: int) -> None:
    x = torch.rand(1, 1, edge, 2 * edge, requires_grad=True)
    pooled = grid_pool([edge, 2 * edge])(x)
    assert pooled.shape == (1, 1, 4, 4)
    pooled.sum().backward()
    assert (x.grad > 0).all()
    if edge % 4 == 0:
        torch.testing.assert_close(pooled, torch.nn.functional.adaptive_avg_pool2d(x, 4))


def test_first_weights_are_a_function_of_seed_and_purpose() -> None:
    one, same, other, purpose = (
        build(spec({"name": "small_cnn", "size": "nano"}), seed, role).net.head.weight
        for seed, role in ((0, "student"), (0, "student"), (1, "student"), (0, "teacher"))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, purpose)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build(spec({"name": "small_cnn"}), 3, "test")
    assert torch.equal(before, torch.get_rng_state())


def test_normalisation_is_a_layer() -> None:
    plain = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 10, 0.0, 1.0, (0.0,), (1.0,))
    scaled = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 10, 0.0, 1.0, (0.4,), (0.3,))
    x = torch.rand(3, 1, 8, 8)
    one, other = build(plain, 0, "test").eval(), build(scaled, 0, "test").eval()
    torch.testing.assert_close(one((x - 0.4) / 0.3), other(x))
    assert set(one.state_dict()) == set(other.state_dict())
    assert not any(name.startswith(("mean", "std")) for name in one.state_dict())


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ({"name": "smal_cnn"}, (1, 8, 8), "smal_cnn"),
        ({"name": "small_cnn", "sise": "nano"}, (1, 8, 8), "sise"),
        ({"name": "small_cnn"}, (1, 7, 8), "8 x 8"),
        ({"name": "small_cnn"}, (12,), "images"),
        ({"name": "gru"}, (12,), "images"),
        ({"name": "gru", "hidden": 2}, (1, 8, 8), "hidden"),
        ({"name": "preact_resnet", "width": 10**6}, (1, 8, 8), "width"),
    ],
)
def test_what_cannot_be_built_is_said(model: dict, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build(spec(model, shape), 0, "test")


def test_the_gru_is_the_one_of_torch() -> None:
    model = build(spec({"name": "gru", "hidden": 6}, (2, 5, 7)), 0, "test").double()
    reference = torch.nn.GRU(2 * 7, 6, batch_first=True).double()
    theirs = (reference.weight_ih_l0, reference.bias_ih_l0, reference.weight_hh_l0, reference.bias_hh_l0)
    ours = (*model.net.rows.parameters(), *model.net.state.parameters())
    with torch.no_grad():
        for one, other in zip(theirs, ours, strict=True):
            one.copy_(other)
    x = torch.rand(3, 2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = ((x - 0.4) / 0.3).permute(0, 2, 1, 3).reshape(3, 5, 14)
    torch.testing.assert_close(model(x), model.net.head(reference(rows)[1][0]), rtol=1e-6, atol=1e-6)


def test_the_gru_has_an_input_gradient_in_evaluation_mode_and_reads_every_row() -> None:
    model = build(spec({"name": "gru"}), 0, "test").eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (grad,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert (grad.abs().sum(dim=3) > 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 1},
        {"classes": True},
        {"classes": "10"},
        {"classes": 3.7},
        {"shape": []},
        {"shape": "188"},
        {"shape": [1, "8", 8]},
        {"shape": [1, 8, 10**6]},
        {"std": [0.0]},
        {"std": [True]},
        {"mean": [float("nan")]},
        {"mean": [0.1, 0.2]},
        {"mean": 0.1},
        {"low": 1.0},
        {"low": "0"},
        {"model": 3},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_its_key(change: dict) -> None:
    record = spec({"name": "small_cnn"}).to_json()
    with pytest.raises(BadInput) as caught:
        ModelSpec.from_json(record | change)
    assert f"'{next(iter(change))}" in caught.value.cause and '"classes": 10' in caught.value.fix


def test_a_spec_survives_json() -> None:
    given = spec({"name": "small_cnn", "size": "nano"})
    assert ModelSpec.from_json(given.to_json()) == given
    with pytest.raises(BadInput, match="extra"):
        ModelSpec.from_json(given.to_json() | {"extra": 1})
    with pytest.raises(BadInput, match="std"):
        ModelSpec.from_json({key: value for key, value in given.to_json().items() if key != "std"})
