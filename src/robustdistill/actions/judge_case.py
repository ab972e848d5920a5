"""What `robustdistill judge` was asked for, and all that the answer depends on: model, images, threat, attacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustdistill.config import Judge, Params, Spec
from robustdistill.errors import BadInput
from robustdistill.threat import ThreatModel
from robustdistill.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from robustdistill.actions.judge_target import Open
    from robustdistill.data.examples import Examples
    from robustdistill.engine.devices import Compute
    from robustdistill.judge.subject import Subject

Attacks = Literal["standard", "rand", "quick"]
OWN: list[Spec] = [{"name": "fgsm"}, {"name": "pgd", "steps": 20}, {"name": "pgd", "steps": 40, "goal": "margin"}]
HARDER, MOST_STEPS = 2, 200
LEAST = 20  # examples that a protocol asks for at least; fewer data are judged all the same


@dataclass(frozen=True)
class Request:
    """What was asked for. data, threat: default, those of the workspace. n: examples, default all.

    surrogate: other targets, whose adversarial examples are replayed. again: also what was judged already. harder: a
    seed of the attacks alone, which take twice the steps then; the examples stay the same.
    """

    target: str
    data: Path | None = None
    threat: str | None = None
    config: Path | None = None
    twin: str | None = None
    surrogate: tuple[str, ...] = ()
    n: int | None = None
    seed: int | None = None
    attacks: Attacks | None = None
    device: str | None = None
    out: Path | None = None
    again: bool = False
    harder: int | None = None

    @property
    def as_workspace(self) -> bool:
        """Whether the workspace's own data and threat model are meant."""
        return self.data is None and self.threat is None


@dataclass(frozen=True)
class Case:
    """Everything that a judgement depends on."""

    subject: Subject
    examples: Examples
    threat: ThreatModel
    protocol: Judge
    seed: int
    attack_seed: int
    adversaries: Path | None
    surrogates: dict[str, nn.Module]


def prepare(workspace: Workspace | None, request: Request, compute: Compute, downloads: Path) -> Case:
    """Finds the model and the data and holds them against each other, before anything is attacked. Raises BadInput."""
    from robustdistill.actions.judge_target import Place, find
    from robustdistill.data.examples import read
    from robustdistill.judge import require_fit

    params = _params(workspace, request)
    prepared = workspace.artifacts / "prepare" if workspace and request.data is None else None
    place = Place(workspace, downloads, compute, request.config)
    if request.threat:
        ThreatModel.parse(request.threat, where="--threat")  # a slip is told before anything is opened
    open_subject = find(request.target, place, request.twin)
    open_others = {target: find(target, place) for target in request.surrogate}
    for path in [prepared, workspace.artifacts / "adversaries"] if workspace and request.as_workspace else []:
        if path and not path.exists():
            raise BadInput("there is nothing to judge with yet", where=str(path), fix="run the flow first")
    source = request.data or prepared
    assert source is not None  # _params has seen to it
    examples = read(source)
    with named(request.target):
        subject = open_subject(examples)
    require_fit(subject, request.target, shape=examples.shape, names=examples.names, bounds=examples.bounds)
    _check_labels(examples, subject, source)
    seed = request.seed
    if seed is None:
        seed = params.seed if params and request.data is None else 0
    return Case(
        subject,
        examples,
        _threat(params, request, subject),
        _protocol(params, request, len(examples)),
        seed,
        seed if request.harder is None else request.harder,
        workspace.artifacts / "adversaries" if workspace and request.as_workspace else None,
        _surrogates(workspace, request, subject, compute) | _named(open_others, examples, subject),
    )


@contextmanager
def named(target: str) -> Iterator[None]:
    """Puts the target's name before the place of what is wrong with it: a line in its code need not say whose it is."""
    try:
        yield
    except BadInput as error:
        where = error.where if target in error.where else ", ".join(filter(None, [target, error.where]))
        raise BadInput(error.cause, where=where, fix=error.fix) from error


def _params(workspace: Workspace | None, request: Request) -> Params | None:
    if request.data is not None and request.threat is not None:
        return None
    if workspace is None:
        lacking = " and ".join(
            name for name, value in (("--data", request.data), ("--threat", request.threat)) if value is None
        )
        raise BadInput(
            f"{lacking} must be given, since this is not a workspace that could say",
            fix="--data FILE.npz --threat linf:8/255, or name a workspace with --workspace DIR",
        )
    return workspace.params()


def _threat(params: Params | None, request: Request, subject: Subject) -> ThreatModel:
    if request.threat is not None:
        return ThreatModel.parse(request.threat, subject.low, subject.high, where="--threat")
    assert params is not None
    return params.threat.model(subject.low, subject.high)


def _protocol(params: Params | None, request: Request, count: int) -> Judge:
    """The workspace's own for its own data, else that of a promotion, on all examples."""
    if params is not None and request.data is None:
        judge = params.judge
    else:
        judge = Judge(attacks=OWN, examples=max(LEAST, count))
    changes: dict[str, Any] = {}
    if request.n is not None:
        changes["examples"] = request.n
    if request.attacks is not None:
        changes["autoattack"] = "none" if request.attacks == "quick" else request.attacks
    if request.harder is not None:
        changes["attacks"] = harder(judge.attacks)
    return judge.model_copy(update=changes)


def harder(own: list[Spec]) -> list[Spec]:
    """The attacks with HARDER times the steps of each, up to MOST_STEPS: what a judgement costs stays bounded."""
    from robustdistill import attacks

    found = []
    for spec in own:
        steps = getattr(attacks.build(spec, "judge.attacks").config, "steps", None)
        found.append(spec if steps is None else spec | {"steps": max(steps, min(HARDER * steps, MOST_STEPS))})
    return found


def _surrogates(
    workspace: Workspace | None, request: Request, subject: Subject, compute: Compute
) -> dict[str, nn.Module]:
    """The workspace's models of the same task, for a subject that gives no gradients."""
    from robustdistill.attacks import Access
    from robustdistill.judge.subject import Subject as Judged

    if workspace is None or request.data is not None or subject.access == Access.GRADIENT:
        return {}
    found: dict[str, nn.Module] = {}
    for folder in sorted(path.parent for path in (workspace.artifacts / "export").glob("*/export.json")):
        other = Judged.open(folder, compute)
        if (other.shape, other.names) == (subject.shape, subject.names):
            found[folder.name] = other.model
    return found


def _named(others: dict[str, Open], examples: Examples, subject: Subject) -> dict[str, nn.Module]:
    """The models of --surrogate, by plain and different names. Raises BadInput for one that nothing can be made on."""
    from robustdistill.actions.judge_target import short_name
    from robustdistill.attacks import Access
    from robustdistill.judge import require_fit

    found: dict[str, nn.Module] = {}
    for number, (target, opened) in enumerate(others.items(), 1):
        other = opened(examples)
        require_fit(other, target, shape=subject.shape, names=subject.names, bounds=(subject.low, subject.high))
        if other.access < Access.GRADIENT:
            raise BadInput("examples are made with gradients, which this gives none of", where=f"--surrogate {target}")
        found[f"{number}-{short_name(target)}"] = other.model
    return found


def _check_labels(examples: Examples, subject: Subject, source: Path) -> None:
    if int(examples.y.max()) >= subject.classes:
        raise BadInput(
            f"label {int(examples.y.max())} is none of the model's {subject.classes} classes",
            where=str(source),
            fix="labels are counted from 0; judge a model on the data it was made for",
        )
