"""The training loop: the only one, for every objective.

One step: cut a batch, move it (augment), ask the objective for per-example losses, average, step. One epoch: measure
on validation data, keep the best, look for trouble. All that the next step depends on goes into the checkpoint.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistill import budget, rng
from robustdistill.attacks.types import Batch
from robustdistill.engine import devices
from robustdistill.engine.devices import Compute
from robustdistill.engine.tuner import tuned
from robustdistill.engine.twin import Twin
from robustdistill.errors import BadInput
from robustdistill.models.classifier import Classifier
from robustdistill.objectives.types import TEACHER_LOGITS, Parts, Step
from robustdistill.training import alarms, schedule, teacher_cache
from robustdistill.training.augment import augment
from robustdistill.training.averaging import average_of
from robustdistill.training.awp import worst_weights
from robustdistill.training.checkpoint import Checkpoints, Saved, delete, resumed_plan
from robustdistill.training.feed import Bytes, Feed
from robustdistill.training.identity import identity
from robustdistill.training.job import Job, Result, Tools
from robustdistill.training.optimizer import Optimizer
from robustdistill.training.validation import Accuracy, Validation

PROGRESS_SECONDS = 1.0


def fit(job: Job, tools: Tools) -> Result:
    """Trains job.model, or goes on where a killed run of the same job stopped.

    Checkpoints stay in tools.scratch until the caller has kept the result (`training.forget`).
    Raises BadInput: too few examples, a loss that is not finite, a checkpoint that this machine cannot go on from.
    """
    name = identity(job)
    compute = resumed_plan(tools.scratch, name, tools.compute)
    devices.apply(compute)
    if job.objective.adversarial:
        compute = tuned(compute, job.model.to(compute.device), job.training.batch, tools.journal.note)
    with rng.seeded(job.seed, "fit"), torch.autograd.set_detect_anomaly(tools.debug):
        loop = _Loop(job, tools, compute, name)
        loop.run()
        return loop.result()


def forget(scratch: Path) -> None:
    """Deletes the checkpoints of a training whose result is kept, and what else it kept for itself."""
    delete(scratch)
    teacher_cache.forget(scratch)


class _Loop:
    def __init__(self, job: Job, tools: Tools, compute: Compute, name: str) -> None:
        job.require_examples()
        self.job, self.journal, self.compute = job, tools.journal, compute
        self.device, self.draws = compute.device, rng.Draws(job.seed)
        self.model = job.model.to(self.device).train()
        job.objective.begin(self.model, job.model.spec, job.seed)
        self.objective = job.objective.to(self.device).train()
        for teacher in (job.teacher, job.clean_teacher):
            if teacher is not None:
                teacher.model.to(self.device)
        self.feed = Feed(job.train, job.model.spec, self.device)
        self.stored = self._stored()
        self.steps = _steps(len(self.feed), job.training.batch)
        self.total = self.steps * job.training.epochs
        begun = time.process_time()
        self.answers = teacher_cache.opened(job, self.feed, self.steps, compute, tools.journal, tools.scratch)
        self.cpu = time.process_time() - begun
        self.average = average_of(self.model, job.training, self.total)
        self.optimizer = Optimizer(job.training, [self.model, self.objective])
        self.twin = Twin(self.model) if job.objective.adversarial else None
        self.validation = Validation(
            Feed(job.val, job.model.spec, self.device),
            job.training.select_examples,
            job.threat,
            self.draws.fold("validation"),
            compute,
            robust=job.objective.adversarial,
        )
        self.checkpoints = Checkpoints(tools.scratch, name, compute)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.alarms: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_rank = 0, [-1.0, -1.0]
        self.sums: dict[str, float] = {}  # over the examples of this epoch so far
        self.seconds = self.told = time.monotonic()

    def _stored(self) -> tuple[Bytes, Tensor] | None:
        if self.job.stored is None:
            return None
        x, known = self.job.stored.aligned(self.job.train.id, self.job.train.x)
        return Bytes(x, self.job.model.spec, self.device), torch.from_numpy(known).to(self.device)

    @property
    def selected(self) -> Classifier:
        """What is measured and kept: the averaged weights, or those of the model where there is no average."""
        return self.average.model if self.average else self.model

    def run(self) -> None:
        saved = self.checkpoints.read()
        if saved is not None:
            self._restore(saved)
            self.journal.write("resumed", message=f"goes on at step {self.step} of {self.total}")
        elif self.checkpoints.present:
            self.journal.write("note", message="the checkpoint is damaged or another job's: begun from the start")
        for epoch in range(self.step // self.steps, self.job.training.epochs):
            self._epoch(epoch)
            self._close(epoch)
            self._keep()

    def result(self) -> Result:
        last, best = _copy(self.selected), _copy(self.selected)
        best.load_state_dict(self.best)
        trained = len(self.feed) * self.job.training.epochs
        return Result(best, last, self.best_epoch, self.history, self.alarms, trained, self.cpu)

    def _epoch(self, epoch: int) -> None:
        order = self.draws.at(epoch).permutation(len(self.feed), "order")
        batches = np.array_split(order, self.steps)
        self.seconds = time.monotonic()
        for within in range(self.step % self.steps, self.steps):
            begun = time.process_time()
            self._step(epoch, torch.from_numpy(batches[within]).to(self.device))
            self.cpu += time.process_time() - begun
            self.step += 1
            self._tell()
            if self.step % self.steps:
                self._keep()

    def _step(self, epoch: int, positions: Tensor) -> None:
        job, training = self.job, self.job.training
        rng.seed_step(self.draws, self.step)  # dropout
        threat = schedule.threat_at(training, job.threat, self.step, self.total)
        draws = self.draws.at(epoch)
        batch = self._batch(positions, draws)
        progress = self.step / self.total
        known = Step(self.model, self.twin, job.teacher, batch, threat, draws, progress, job.clean_teacher)
        gamma = schedule.gamma_at(training, self.step, self.total)
        with worst_weights(gamma, self._evaluate, known, self.objective) as (parts, loss):
            self._add(parts)
            self._require_finite("gradient", self.optimizer.backward(loss))
        self.optimizer.update(schedule.learning_rate(training, self.step, self.total), self.step)
        self.objective.after_step(self.model)
        if self.twin:
            self.twin.refresh()
        if self.average:
            self.average.update(self.step)

    def _evaluate(self, step: Step) -> Parts:
        with self.compute.autocast():
            parts: Parts = self.objective(step)
        return parts

    def _batch(self, positions: Tensor, draws: rng.Draws) -> Batch:
        x, y, index = self.feed.take(positions)
        context: dict[str, Tensor] | None = None
        if self.stored is not None and self.job.stored is not None:
            x_adv = self.stored[0].take(positions)
            if self.job.stored.use == "start":
                context = {"start": self._moved(x_adv, index, draws)}
            else:  # the order of an epoch is random, so its first examples are as good as any
                replayed = torch.arange(len(x), device=x.device) < round(self.job.stored.share * len(x))
                chosen = replayed & self.stored[1][positions]
                x = torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), x_adv, x)
        batch = Batch(self._moved(x, index, draws), y, index, context)
        if self.answers is None:
            return batch
        return batch.with_context(**{TEACHER_LOGITS: self.answers.take(positions, index, draws)})

    def _moved(self, x: Tensor, index: Tensor, draws: rng.Draws) -> Tensor:
        return augment(x, index, draws, self.job.training.augment, self.job.model.spec.low)

    def _add(self, parts: Parts) -> None:
        loss = float(parts.loss.detach().mean())
        self._require_finite("loss", loss)
        count = len(parts.loss)
        names, values = list(parts.terms), list(parts.terms.values())
        means = torch.stack([value.detach().float().mean() for value in values]).tolist() if values else []
        for name, value in {"loss": loss, **dict(zip(names, means, strict=True)), "examples": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * count

    def _require_finite(self, what: str, value: float) -> None:
        if np.isfinite(value):
            return
        advice = "lower lr, raise warmup or eps_warmup, or lower clip"
        message = f"the {what} is {value} at step {self.step + 1} of {self.total}"
        self.journal.write("alarm", kind="not finite", message=message, advice=advice)
        raise BadInput(f"training broke down: {message}", where="training", fix=advice)

    def _close(self, epoch: int) -> None:
        """The row of an epoch, its validation, the best so far, alarms, the journal."""
        count = self.sums.pop("examples")
        rate = schedule.learning_rate(self.job.training, self.step - 1, self.total)
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.step, "lr": rate}
        row |= {name: value / count for name, value in self.sums.items()}
        self.sums = {}
        self.history.append(row)
        fgsm = None
        if (epoch + 1) % self.job.training.select_every == 0 or epoch + 1 == self.job.training.epochs:
            accuracy = self._measure()
            row["val_clean"], fgsm = accuracy.clean, accuracy.fgsm
            if accuracy.pgd is not None:
                row["val_pgd"] = accuracy.pgd
            self._keep_best(accuracy, epoch + 1)
        self._alarm(fgsm)
        self._report(row)

    def _measure(self) -> Accuracy:
        self.selected.eval()
        accuracy = self.validation.measure(self.selected)
        self.model.train()
        return accuracy

    def _keep_best(self, accuracy: Accuracy, epoch: int) -> None:
        if list(accuracy.rank) > self.best_rank:
            self.best_rank, self.best_epoch = list(accuracy.rank), epoch
            self.best = {name: tensor.clone() for name, tensor in self.selected.state_dict().items()}

    def _alarm(self, fgsm: float | None) -> None:
        training, known = self.job.training, {alarm["kind"] for alarm in self.alarms}
        rising = self.step <= max(training.warmup, training.eps_warmup) * self.total
        found = alarms.check(
            self.history,
            fgsm,
            classes=self.job.model.spec.classes,
            chance=self.validation.chance,
            examples=self.validation.examples,
            rising=rising,
        )
        for alarm in found:
            if alarm.kind not in known:  # once is enough; the history shows how it went on
                fields = {"kind": alarm.kind, "message": alarm.message, "advice": alarm.advice}
                self.alarms.append({"epoch": self.history[-1]["epoch"], **fields})
                self.journal.write("alarm", **fields)

    def _report(self, row: dict[str, Any]) -> None:
        figures = {"val_clean": None, "val_pgd": None, **row}
        seconds = time.monotonic() - self.seconds
        self.journal.write("epoch", epochs=self.job.training.epochs, seconds=seconds, **figures)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            loss = self.sums["loss"] / self.sums["examples"]
            self.journal.progress(self.step, self.total, "steps", loss=loss)

    def _keep(self) -> None:
        """A checkpoint now and then. Raises OutOfTime where the run's time is over before the training is."""
        stop = budget.spent() and self.step < self.total
        if stop or self.checkpoints.due():
            self._save()
        if stop:
            raise budget.out_of_time(f"stopped at step {self.step} of {self.total}, which is kept")

    def _save(self) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"objective/{name}": tensor for name, tensor in self.objective.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in self.optimizer.state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        if self.average:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.model.state_dict().items()}
        record = {name: getattr(self, name) for name in _RECORD}
        self.checkpoints.write(record, tensors)

    def _restore(self, saved: Saved) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in saved.tensors.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = tensor.to(self.device)
        self.model.load_state_dict(parts["model"])
        self.objective.load_state_dict(parts.get("objective", {}))
        self.optimizer.restore(parts["optimizer"])
        if self.twin:
            self.twin.refresh()
        if self.average:
            self.average.model.load_state_dict(parts["average"])
        self.best = parts.get("best", {})
        for name in _RECORD:
            setattr(self, name, saved.record[name])


# Beside the tensors, what a later step or the result depends on. JSON keeps every float exactly.
_RECORD = ("step", "history", "alarms", "best_epoch", "best_rank", "sums", "cpu")


def _steps(examples: int, batch: int) -> int:
    """Steps of an epoch. Batches differ by at most one example and hold two or more, as batch norm needs."""
    return min(-(-examples // batch), examples // 2)


def _copy(model: Classifier) -> Classifier:
    return copy.deepcopy(model).eval().requires_grad_(False).to("cpu")
