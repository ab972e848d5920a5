"""Theirs and ours on equal scenes, and how far apart they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from benchmarks.parity.code import Code
from benchmarks.parity.scene import EPS, Scene, scene, world
from benchmarks.parity.source import Clones, Source
from torch import Tensor

from robustdistill import objectives
from robustdistill.attacks import Batch, Goal, TorchTarget
from robustdistill.config import Spec
from robustdistill.objectives import Objective, Step, Teacher
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel
from robustdistill.training.awp import worst_weights

EPOCH = 2
HEAD = (
    "step", "commit", "x' from", "Δx'", "loss, theirs", "loss, ours", "rel. diff.", "cos ∇x", "max Δ∇x", "cos ∇w",
    "max Δ∇w",
)  # fmt: skip


def last_point(code: Code, theirs: Scene) -> Tensor:
    """x': the last thing besides x that the student was asked about."""
    return theirs.student.points(theirs.x)[-1]


def named(name: str) -> Callable[[Code, Scene], Tensor]:
    """x': what their step calls so."""
    return lambda code, theirs: code.names[name].detach()


@dataclass(frozen=True)
class Way:
    """How our attack is run where theirs runs otherwise. training: batch norm in training mode."""

    label: str
    training: bool = False
    eps: float = EPS
    attack: Spec | None = None


OWN = Way("own attack")
IN_TRAINING_MODE = Way("own attack, training mode", training=True)


@dataclass(frozen=True)
class Case:
    """ours: an objective with the options that make it theirs. theirs: runs their step once, gradient included, and
    returns the loss. ways: our attack as it is, then as theirs is run, if that differs. ready: puts state into our
    objective. awp: γ. progress: of the training. edge: some pixels lie on the edge of the box."""

    name: str
    ours: Spec
    sources: tuple[Source, ...]
    theirs: Callable[[Code, Scene], Tensor]
    found: Callable[[Code, Scene], Tensor] = last_point
    ways: tuple[Way, ...] = (OWN,)
    ready: Callable[[Objective, Scene], None] | None = None
    awp: float = 0.0
    progress: float = 0.5
    edge: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one step. start: where its attack began."""

    loss: float
    start: Tensor
    x_adv: Tensor
    by_input: Tensor
    by_weight: Tensor = field(repr=False)


class Row(NamedTuple):
    """point: where x' is from, one of the case's ways or "theirs", on both sides. moved: the largest |x' − x'| in eps.
    Differences of gradients are the largest in any number, over the largest number."""

    name: str
    commit: str
    point: str
    moved: float
    theirs: float
    ours: float
    loss: float
    input_cosine: float
    input_gap: float
    weight_cosine: float
    weight_gap: float


class InTrainingMode(TorchTarget):
    """A model attacked with the batch's own statistics, as some published attacks do."""

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        x = batch.x.detach().requires_grad_(True)
        return torch.autograd.grad(goal(self.model(x), batch._replace(x=x)).sum(), x)[0]


def compare(case: Case, clones: Clones) -> list[Row]:
    """A row for each way of our attack, and one at their x'. Raises BadInput."""
    with world():
        theirs = run_theirs(case, clones)
    rows = []
    for way in case.ways:
        with world():
            rows.append(_row(case, way.label, theirs, run_ours(case, theirs, way)))
    with world():
        rows.append(_row(case, "theirs", theirs, run_ours(case, theirs)))
    return rows


def run_theirs(case: Case, clones: Clones) -> Outcome:
    code, given = Code(clones, *case.sources), scene(case.edge)
    loss = case.theirs(code, given)
    start, x_adv = given.student.points(given.x)[0], case.found(code, given)
    return _outcome(loss, start, x_adv, given)


def run_ours(case: Case, theirs: Outcome, way: Way | None = None) -> Outcome:
    """way: of our own attack, begun where theirs was; None: no attack, but their x'."""
    spec = case.ours if way is None or way.attack is None else case.ours | way.attack
    given, objective = scene(case.edge), objectives.build(spec)
    objective.begin(given.student, given.spec, 5)
    if case.ready is not None:
        case.ready(objective, given)
    batch = Batch(given.x, given.y, given.index, {"start": theirs.start})
    step = Step(
        given.student, InTrainingMode(given.student) if way and way.training else None, Teacher(given.teacher), batch,
        ThreatModel("linf", way.eps if way else EPS), Draws(8, EPOCH), case.progress, Teacher(given.clean_teacher),
        None if way else theirs.x_adv,
    )  # fmt: skip
    with worst_weights(case.awp, objective, step, objective) as (parts, loss):
        torch.autograd.backward(loss)
    assert parts.x_adv is not None
    return _outcome(loss.detach(), theirs.start, parts.x_adv, given)


def _outcome(loss: Tensor, start: Tensor, x_adv: Tensor, given: Scene) -> Outcome:
    probe = given.student.probe
    trained = [*given.student.net.parameters(), *given.companion.parameters()]
    grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
    assert probe.grad is not None
    return Outcome(float(loss), start, x_adv, probe.grad, torch.cat([grad.flatten() for grad in grads]))


def _row(case: Case, point: str, theirs: Outcome, ours: Outcome) -> Row:
    return Row(
        case.name, case.sources[0].commit[:10], point, float((theirs.x_adv - ours.x_adv).abs().max()) / EPS,
        theirs.loss, ours.loss, abs(theirs.loss - ours.loss) / abs(theirs.loss),
        *_gap(theirs.by_input, ours.by_input), *_gap(theirs.by_weight, ours.by_weight),
    )  # fmt: skip


def _gap(theirs: Tensor, ours: Tensor) -> tuple[float, float]:
    """Cosine, and the largest difference over the largest number of theirs."""
    cosine = torch.nn.functional.cosine_similarity(theirs.flatten(), ours.flatten(), dim=0)
    return float(cosine), float((theirs - ours).abs().max() / theirs.abs().max())


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    return table(HEAD, (tuple(_cells(row)) for row in rows))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """In Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))


def _cells(row: Row) -> Iterator[str]:
    yield from (row.name, row.commit, row.point, _small(row.moved))
    yield from (f"{row.theirs:.6f}", f"{row.ours:.6f}", _small(row.loss))
    yield from (f"{row.input_cosine:.6f}", _small(row.input_gap), f"{row.weight_cosine:.6f}", _small(row.weight_gap))


def _small(value: float) -> str:
    """Less than 1e-9 is the rounding of float64, which differs by machine."""
    return "0" if value < 1e-9 else f"{value:.1g}"
