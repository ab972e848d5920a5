"""The numeric plan: from the environment, and what is said of a wrong one."""

from __future__ import annotations

import pytest
import torch

from robustdistill.engine import devices
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "cpu")
    monkeypatch.setenv(devices.THREADS_VARIABLE, "3")
    assert devices.choose() == Compute("cpu", 3, "float32")


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (16, 8)])
def test_half_of_the_cores_otherwise(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int) -> None:
    monkeypatch.delenv(devices.THREADS_VARIABLE, raising=False)
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "cpu")
    monkeypatch.setattr(devices, "cores", lambda: cores)
    assert devices.choose().threads == threads


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (devices.THREADS_VARIABLE, "many"),
        (devices.THREADS_VARIABLE, "0"),
        (devices.THREADS_VARIABLE, "-1"),
        (devices.DEVICE_VARIABLE, "warp"),
        (devices.DEVICE_VARIABLE, "meta"),
        (devices.DEVICE_VARIABLE, "cuda:77"),
    ],
)
def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "cpu")
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInput) as caught:
        devices.choose()
    assert caught.value.where == variable


def test_apply_sets_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        devices.apply(Compute("cpu", 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_float32_autocast_changes_nothing() -> None:
    with Compute("cpu", 1).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with Compute("cpu", 1, "bfloat16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
