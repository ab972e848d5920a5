"""A killed training, started again, ends bit-equal to one that was never killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_bench import Bench, make_bench, make_job

from robustdistill import budget
from robustdistill.errors import BadInput, OutOfTime
from robustdistill.models import weights
from robustdistill.training import Job, Result, checkpoint, fit, forget, loop

SCRIPT = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from test_resume import demanding
from training_bench import make_bench

from robustdistill.training import checkpoint, fit

checkpoint.SECONDS, checkpoint.SHARE = 0.0, 1.0  # often, to be killed between any two steps
folder = Path(sys.argv[1])
fit(demanding(name=sys.argv[3]), make_bench(folder))
"""
RESTLESS: dict[str, dict[str, Any]] = {  # so that a state that was lost would show
    "adr": {"decay": 0.8},
    "b_mtard": {"balance_rate": 0.3, "temperature_rate": 0.2},
    "peeraid": {"companion": {"name": "gru", "hidden": 8}},
}
STEPS = 10  # of an epoch: 160 examples, 16 in a batch


def demanding(optimizer: str = "sgd", name: str = "rslad") -> Job:
    """Everything that has state or draws: momentum, average, teacher, attack, augmentation; by name a companion,
    an average of the student's own, weights and temperatures that follow the losses."""
    objective: dict[str, Any] = {"name": name, "attack": {"name": "pgd", "steps": 3}} | RESTLESS.get(name, {})
    moving = {"ema": 0.9, "augment": ["shift", "flip"], "eps_warmup": 0.5, "optimizer": optimizer}
    return make_job(objective, n=160, teacher=True, epochs=4, lr=0.1 if optimizer == "sgd" else 0.01, **moving)


def kept(result: Result, folder: Path) -> list[bytes]:
    weights.save(result.best, folder, "best")
    weights.save(result.last, folder, "last")
    figures = json.dumps([result.history, result.best_epoch, result.alarms])
    return [(folder / f"{stem}.safetensors").read_bytes() for stem in ("best", "last")] + [figures.encode()]


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(Path(__file__).parent), name])


def kill_at(process: subprocess.Popen[bytes], scratch: Path, step: int) -> int:
    """SIGKILL once the checkpoint has passed `step` in the middle of an epoch; returns the step it was killed at."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        index = checkpoint.read_index(scratch)
        reached = 0 if index is None else index["record"]["step"]
        if reached >= step and reached % STEPS:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return int(reached)
        time.sleep(0.002)
    process.kill()
    raise AssertionError("the training ended before it could be killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rslad", "peeraid", "adr", "b_mtard"])
def test_killed_twice_and_bit_equal(tmp_path: Path, name: str) -> None:
    bench = make_bench(tmp_path)
    first = kill_at(start(tmp_path, name), bench.scratch, 6)
    second = kill_at(start(tmp_path, name), bench.scratch, 14)
    assert 6 <= first < second < 4 * STEPS
    resumed = fit(demanding(name=name), bench)
    assert len(bench.events("resumed")) == 2
    whole = fit(demanding(name=name), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


def interrupted(job: Job, bench: Bench, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Runs until step `at`, with a checkpoint at every step, then dies."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    step = loop._Loop._step

    def dying(self: Any, *args: Any) -> None:
        if self.step == at:
            raise KeyboardInterrupt
        step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(job, bench)


@pytest.mark.parametrize("at", [STEPS + 3, 2 * STEPS + 5])
@pytest.mark.parametrize("name", ["trades", "n_fgsm"])
def test_perturbed_weights_and_their_mean_died_and_bit_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    """Before the first of the averaged weights and between them; the perturbation begins with the second epoch."""

    def job() -> Job:
        return make_job({"name": name}, n=160, epochs=3, swa=0.55, awp=0.02, awp_warmup=1 / 3, augment=["shift"])

    interrupted(job(), bench, monkeypatch, at)
    resumed = fit(job(), bench)
    assert len(bench.events("resumed")) == 1
    whole = fit(job(), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


@pytest.mark.parametrize("at", [STEPS + 3, 2 * STEPS])
def test_out_of_time_within_and_between_epochs_and_bit_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The checkpoint is written because the time is over, not because one was due."""
    monkeypatch.setattr(checkpoint, "SECONDS", 1e9)

    def job() -> Job:
        return make_job({"name": "trades"}, n=160, epochs=3, ema=0.9, augment=["shift"])

    asked = iter(range(1, 1000))  # once a step
    with monkeypatch.context() as patch:
        patch.setattr(budget, "spent", lambda: next(asked) >= at)
        with pytest.raises(OutOfTime, match=f"stopped at step {at} of {3 * STEPS}, which is kept"):
            fit(job(), bench)
    resumed = fit(job(), bench)
    assert [event["message"] for event in bench.events("resumed")] == [f"goes on at step {at} of {3 * STEPS}"]
    whole = fit(job(), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


def test_a_training_that_is_done_is_kept_though_the_time_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter(range(1, 1000))
    monkeypatch.setattr(budget, "spent", lambda: next(asked) >= STEPS)
    assert len(fit(make_job(n=160, epochs=1), bench).history) == 1


def test_an_objective_with_state_died_within_an_epoch_and_bit_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class temperatures, and the sums of losses that the next epoch's come from; within another objective at that."""
    base = {"name": "absld", "attack": {"steps": 2}}

    def job() -> Job:
        return make_job({"name": "igdm", "base": base}, n=160, teacher=True, epochs=3)

    interrupted(job(), bench, monkeypatch, STEPS + 3)
    resumed = fit(job(), bench)
    assert len(bench.events("resumed")) == 1
    whole = fit(job(), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("at", [1, STEPS, STEPS + 3, 4 * STEPS - 1])
def test_died_anywhere_and_bit_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, at: int
) -> None:
    interrupted(demanding(optimizer), bench, monkeypatch, at)
    (saved,) = bench.scratch.rglob(checkpoint.INDEX)
    before = json.loads(saved.read_text(encoding="utf-8"))["record"]["cpu"]
    resumed = fit(demanding(optimizer), bench)
    assert (resumed.examples, resumed.cpu_seconds > before > 0) == (4 * 160, True)
    assert [event["message"] for event in bench.events("resumed")] == [f"goes on at step {at} of {4 * STEPS}"]
    whole = fit(demanding(optimizer), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)


@pytest.mark.parametrize("name", ["lbgat", "peeraid", "adr", "mtard", "b_mtard"])
def test_companions_and_state_of_objectives_go_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without what the objective carries, the resumed run would end elsewhere."""
    interrupted(demanding(name=name), bench, monkeypatch, STEPS + 3)
    half = shutil.copytree(bench.scratch, tmp_path / "half")
    resumed_job, whole_job, forgetful = (demanding(name=name) for _ in range(3))
    resumed = fit(resumed_job, bench)
    whole = fit(whole_job, dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)
    ours, theirs = resumed_job.objective.state_dict(), whole_job.objective.state_dict()
    assert ours and all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    monkeypatch.setattr(forgetful.objective, "load_state_dict", lambda tensors: None)
    lost = fit(forgetful, dataclasses.replace(bench, scratch=half))
    assert kept(lost, tmp_path) != kept(whole, tmp_path)


def test_the_plan_of_the_checkpoint_goes_on(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    interrupted(job(), bench, monkeypatch, 4)
    other = dataclasses.replace(bench, compute=dataclasses.replace(bench.compute, threads=2))
    fit(job(), other)
    try:
        assert torch.get_num_threads() == 1
        assert [event["message"] for event in bench.events("resumed")] == ["goes on at step 4 of 12"]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("key", "value", "said"), [("torch", "1.0.0", "torch 1.0.0"), ("device", "cuda", "on cuda")])
def test_a_plan_that_cannot_be_repeated_is_refused(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    plan = checkpoint.plan(bench.compute) | {key: value}
    with monkeypatch.context() as there:
        there.setattr(checkpoint, "plan", lambda _: plan)
        interrupted(job(), bench, monkeypatch, 4)
    with pytest.raises(BadInput, match=said) as caught:
        fit(job(), bench)
    assert "delete" in caught.value.fix


@pytest.mark.parametrize("harm", ["tensors", "index", "a step", "no plan", "lost", "another job"])
def test_a_checkpoint_that_is_no_use_only_costs_time(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    interrupted(job(), bench, monkeypatch, 4)
    (state,), path = bench.scratch.glob("state-*"), bench.scratch / checkpoint.INDEX
    if harm == "tensors":
        state.write_bytes(state.read_bytes()[:-1] + b"?")
    elif harm == "index":
        path.write_text("{")
    elif harm == "a step":
        path.write_text(path.read_text().replace('"step": 4', '"step": -5'))
    elif harm == "no plan":
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "plan"})
        )
    elif harm == "lost":
        state.unlink()
    lr = 0.05 if harm == "another job" else 0.1
    resumed = fit(job(lr=lr), bench)
    assert not bench.events("resumed")
    assert any("begun from the start" in event["message"] for event in bench.events("note"))
    fresh = fit(job(lr=lr), dataclasses.replace(bench, scratch=bench.scratch / "fresh"))
    assert resumed.history == fresh.history


def test_forget_leaves_nothing(bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(job(), bench, monkeypatch, 4)
    (bench.scratch / ".state-5.safetensors.1.part").write_bytes(b"half")
    assert len(list(bench.scratch.iterdir())) == 3
    forget(bench.scratch)
    assert not list(bench.scratch.iterdir())


def test_a_checkpoint_costs_a_small_share(bench: Bench) -> None:
    saving = checkpoint.Checkpoints(bench.scratch, "job", bench.compute)
    saving._seconds, saving._cost = 0.0, 1e9
    assert not saving.due()
    saving._cost = 0.0
    assert saving.due()
