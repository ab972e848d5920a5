"""A disk that fills up under checkpoints: a sentence, the checkpoint before it, and going on when there is room."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_resume import demanding, interrupted, kept
from training_bench import Bench

from robustdistill.actions.stage import as_known
from robustdistill.errors import ServiceFailed
from robustdistill.models.weights import write_tensors
from robustdistill.training import checkpoint, fit


@pytest.mark.parametrize("leave", [0, 8192], ids=["nothing fits", "a part fits"])
def test_training_goes_on_from_the_checkpoint_before_the_disk_was_full(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Callable[[int], Path],
    fill: Callable[..., Path],
    leave: int,
) -> None:
    disk = small_disk(4)
    full = dataclasses.replace(bench, scratch=disk / "scratch")
    interrupted(demanding(), full, monkeypatch, 13)
    before = {path.name: path.read_bytes() for path in full.scratch.iterdir()}
    filler = fill(disk, leave=leave)
    with pytest.raises(OSError, match="No space left") as caught:
        fit(demanding(), full)
    said = as_known(caught.value)
    assert isinstance(said, ServiceFailed) and said.cause == "the disk is full"
    assert said.where.startswith(str(full.scratch)) and "make room" in said.fix
    assert {path.name: path.read_bytes() for path in full.scratch.iterdir()} == before
    filler.unlink()
    resumed = fit(demanding(), full)
    assert [event["message"] for event in bench.events("resumed")] == ["goes on at step 13 of 40"] * 2
    whole = fit(demanding(), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


def test_an_index_that_does_not_fit_leaves_the_old_one(
    bench: Bench, small_disk: Callable[[int], Path], fill: Callable[..., Path]
) -> None:
    disk = small_disk(1)
    saving = checkpoint.Checkpoints(disk / "scratch", "job", bench.compute)
    saving.write({"step": 1}, {"w": torch.ones(3)})
    fill(disk, leave=64 * 1024)
    with pytest.raises(OSError, match="No space left") as caught:
        saving.write({"step": 2, "history": "x" * 2**17}, {"w": torch.zeros(3)})
    assert caught.value.filename == str(disk / "scratch" / checkpoint.INDEX)
    saved = saving.read()
    assert saved is not None and saved.record == {"step": 1} and saved.tensors["w"].sum() == 3


def test_weights_in_a_folder_that_is_not_there_are_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_tensors({"w": torch.ones(1)}, tmp_path / "none" / "w.safetensors")
    assert caught.value.filename == str(tmp_path / "none" / "w.safetensors")
