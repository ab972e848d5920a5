"""The loop: it learns, selects, reports, uses stored examples, stops on numbers that are not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from training_bench import Bench, make_job, tempting, toy

from robustdistill.errors import BadInput
from robustdistill.objectives import OBJECTIVES
from robustdistill.objectives.types import Parts
from robustdistill.rng import Draws
from robustdistill.training import Job, fit, loop, measured
from robustdistill.training.stored import Stored


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ("ce", "ce"),
        ("pgd_at", "ce_adv"),
        ("trades", "ce"),
        ("rslad", "kl_adv"),
        ("adaad", "kl_adv"),
        ("saad", "kl_adv"),
    ],
)
def test_every_kind_of_objective_runs(bench: Bench, job: Callable[..., Job], objective: str, terms: str) -> None:
    spec = {"name": objective} | ({} if objective == "ce" else {"attack": {"name": "pgd", "steps": 2}})
    given = job(spec, teacher=OBJECTIVES[objective].needs_teacher, epochs=3)
    result = fit(given, bench)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert [row["step"] for row in result.history] == [6, 12, 18]
    assert terms in result.history[0]
    assert ("val_pgd" in result.history[0]) == (objective != "ce")
    assert len(bench.events("epoch")) == 3
    assert not result.best.training


def test_it_learns_what_can_be_learnt(bench: Bench) -> None:
    result = fit(make_job(n=200, epochs=4), bench)
    assert result.best_row["val_clean"] > 0.95
    assert result.best_row["val_pgd"] > 0.8
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]


@pytest.mark.parametrize(
    ("objective", "training"),
    [
        ({"name": "pgd_at"}, {}),
        ({"name": "pgd_at", "label_smoothing": 0.1}, {}),
        ({"name": "trades"}, {}),
        ({"name": "fgsm_rs"}, {}),
        ({"name": "n_fgsm"}, {}),
        ({"name": "mart"}, {}),
        ({"name": "trades"}, {"awp": 0.005, "ema": 0.9}),
        ({"name": "n_fgsm"}, {"awp": 0.01, "awp_warmup": 0.2, "swa": 0.6}),
    ],
)
def test_each_way_to_harden_a_model_hardens_it(
    bench: Bench, objective: dict[str, Any], training: dict[str, Any]
) -> None:
    assert robust_of(bench, objective, training) > 0.8


def test_plain_training_falls_for_the_faint_feature(bench: Bench) -> None:
    """Else the test above would show nothing."""
    assert robust_of(bench, {"name": "ce"}, {}) < 0.1


def robust_of(bench: Bench, objective: dict[str, Any], training: dict[str, Any]) -> float:
    """Accuracy under PGD after a short training on data where the best that can be had is 6 of 7."""
    given = make_job(objective, epochs=8, lr=0.05, select_every=8, **training)
    given = dataclasses.replace(given, train=tempting(210), val=tempting(84, seed=1))
    last = fit(given, bench).last
    robust: float = measured(last, given.val, given.threat, 84, 3, bench.compute).best_row["val_pgd"]
    return robust


def test_the_mean_of_the_last_weights_is_what_is_validated_and_kept(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots: list[dict[str, torch.Tensor]] = []
    step, measure = loop._Loop._step, loop.Validation.measure
    validated: list[torch.nn.Module] = []

    def watch(self: Any, *args: Any) -> None:
        step(self, *args)
        snapshots.append({name: tensor.clone() for name, tensor in state(self.model).items()})

    monkeypatch.setattr(loop._Loop, "_step", watch)
    monkeypatch.setattr(
        loop.Validation, "measure", lambda self, model: validated.append(loop._copy(model)) or measure(self, model)
    )
    result = fit(job(epochs=3, swa=0.5), bench)
    assert len(snapshots) == 18
    for name, tensor in state(validated[0]).items():
        assert torch.equal(tensor, snapshots[5][name])  # no average yet
    for name, tensor in state(result.last).items():
        if tensor.is_floating_point():
            mean = torch.stack([snapshot[name].double() for snapshot in snapshots[9:]]).mean(0)
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-6)
    assert same(validated[-1], result.last)


def test_equal_jobs_end_bit_equal_and_the_seed_matters(bench: Bench, job: Callable[..., Job]) -> None:
    one, again, other = (
        fit(dataclasses.replace(job(), seed=seed), dataclasses.replace(bench, scratch=bench.scratch / str(n)))
        for n, seed in enumerate((3, 3, 4))
    )
    assert same(one.last, again.last)
    assert one.history == again.history
    assert not same(one.last, other.last)


def test_the_best_epoch_is_that_of_the_highest_robust_accuracy(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([(0.5, 0.4), (0.6, 0.5), (0.9, 0.5), (0.99, 0.3)])
    seen: list[torch.nn.Module] = []

    def measure(self: Any, model: Any) -> Any:
        seen.append(loop._copy(model))
        clean, pgd = next(figures)
        return loop.Accuracy(clean, clean - 0.05, pgd)

    monkeypatch.setattr(loop.Validation, "measure", measure)
    result = fit(job(epochs=4, ema=0.5), bench)
    assert result.best_epoch == 3  # as robust as epoch 2, and better on clean examples
    assert same(result.best, seen[2])
    assert same(result.last, seen[3])
    assert not same(result.best, result.last)


def test_validation_every_other_epoch_and_at_the_end(bench: Bench, job: Callable[..., Job]) -> None:
    result = fit(job({"name": "ce"}, epochs=5, select_every=2), bench)
    assert ["val_clean" in row for row in result.history] == [False, True, False, True, True]


def test_every_example_is_seen_once_in_an_epoch(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    taken = loop._Loop._batch

    def watch(self: Any, positions: Any, draws: Any) -> Any:
        batch = taken(self, positions, draws)
        batches.append(batch.index.tolist())
        return batch

    monkeypatch.setattr(loop._Loop, "_batch", watch)
    fit(job({"name": "ce"}, n=33, epochs=2, batch=16), bench)
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(33))
    assert first != second
    assert [len(batch) for batch in batches[:3]] == [11, 11, 11]


@pytest.mark.parametrize(
    ("examples", "batch", "steps"), [(2, 2, 1), (3, 2, 1), (5, 2, 2), (128, 128, 1), (129, 128, 2)]
)
def test_no_batch_is_too_small_for_batch_norm(examples: int, batch: int, steps: int) -> None:
    assert loop._steps(examples, batch) == steps
    assert examples // steps >= 2


def broken(self: Any, step: Any) -> Parts:
    logits = step.student(step.batch.x)
    return Parts(logits.sum(1) * float("nan"), {}, logits.detach(), None)


def test_a_loss_that_is_not_finite_stops_with_advice(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = job()
    monkeypatch.setattr(type(given.objective), "forward", broken)
    with pytest.raises(BadInput, match=r"the loss is nan at step 1 of 12") as caught:
        fit(given, bench)
    assert "lower lr" in caught.value.fix
    assert [event["kind"] for event in bench.events("alarm")] == ["not finite"]


def test_divergence_keeps_the_checkpoint_before_it(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Checkpoints, "due", lambda self: True)
    given = job()
    forward, calls = type(given.objective).forward, iter(range(100))
    monkeypatch.setattr(
        type(given.objective), "forward", lambda self, step: (forward if next(calls) < 3 else broken)(self, step)
    )
    with pytest.raises(BadInput, match="step 4"):
        fit(given, bench)
    saved = loop.Checkpoints(bench.scratch, loop.identity(job()), bench.compute).read()
    assert saved is not None
    assert saved.record["step"] == 3
    assert all(torch.isfinite(tensor.float()).all() for tensor in saved.tensors.values())


def test_alarms_are_told_once_with_advice(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Validation, "measure", lambda self, model: loop.Accuracy(0.9, 0.95, 0.1))
    result = fit(job(epochs=3), bench)
    assert [(alarm["kind"], alarm["epoch"]) for alarm in result.alarms] == [("catastrophic overfitting", 1)]
    (event,) = bench.events("alarm")
    assert event["advice"] == result.alarms[0]["advice"]


def test_too_few_examples_are_refused(bench: Bench, job: Callable[..., Job]) -> None:
    with pytest.raises(BadInput, match="too few"):
        fit(job(n=1), bench)


@pytest.mark.parametrize("use", ["start", "replay"])
def test_stored_examples_join_the_batches(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, use: Any
) -> None:
    data = toy(90)
    stored = Stored((255 - data.x)[::2], data.id[::2], use, share=0.5)
    given = dataclasses.replace(job(augment=["flip"], epochs=1), stored=stored)
    seen: list[Any] = []
    taken = loop._Loop._batch
    monkeypatch.setattr(loop._Loop, "_batch", lambda self, *args: seen.append(taken(self, *args)) or seen[-1])
    fit(given, bench)
    batch = seen[0]
    clean = torch.from_numpy(data.x[batch.index.numpy()]).float() / 255
    moved = loop.augment(clean, batch.index, Draws(given.seed), ["flip"], 0.0)
    even = batch.index % 2 == 0
    there = batch.context["start"] if use == "start" else batch.x
    replaced = (there - (1 - moved)).abs().amax((1, 2, 3)) < 1e-5
    chosen = even if use == "start" else even & (torch.arange(len(even)) < round(0.5 * len(even)))
    assert chosen.any()
    assert torch.equal(replaced, chosen)
    if use == "start":
        torch.testing.assert_close(batch.x, moved)
    else:
        torch.testing.assert_close(batch.x[~chosen], moved[~chosen])


def test_the_teacher_is_bit_equal_after(bench: Bench, job: Callable[..., Job]) -> None:
    given = job({"name": "rslad", "attack": {"name": "pgd", "steps": 2}}, teacher=True)
    assert given.teacher is not None
    before = {name: tensor.clone() for name, tensor in state(given.teacher.model).items()}
    fit(given, bench)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(given.teacher.model).items())


def test_progress_and_epochs_are_in_the_journal(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    fit(job(), bench)
    steps = [(event["done"], event["total"], event["unit"]) for event in bench.events("progress")]
    assert steps == [(step, 12, "steps") for step in range(1, 13)]
    epoch = bench.events("epoch")[-1]
    assert {"epoch", "epochs", "step", "loss", "val_clean", "val_pgd", "lr", "seconds"} <= set(epoch)
    assert np.isfinite(epoch["val_pgd"])
