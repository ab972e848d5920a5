"""The chain as a table: what each stage reads, where it writes, which params it depends on.

dvc.yaml says the same in DVC's words; a test holds the two equal. Raise a stage's revision when its behaviour changes:
it is part of the stage's command, so that DVC runs the stage again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustdistill.errors import unknown

MODELS = ("initial", "teacher", "control", "student")
REPLAYED_ON_STUDENT = ("teacher", "control")  # besides the stored set of the initial model


@dataclass(frozen=True)
class Stage:
    """reads: role -> path in the workspace. out: folder it fills. params: top-level keys of params.yaml it uses."""

    name: str
    module: str
    reads: Mapping[str, str]
    out: str
    params: tuple[str, ...]
    revision: int

    @property
    def command(self) -> str:
        return f"robustdistill stage {self.name} --revision {self.revision}"


def _stage(name: str, reads: Mapping[str, str], params: str = "", revision: int = 1) -> Stage:
    kind, _, model = name.partition("@")
    out = f"artifacts/{kind}/{model}" if model else f"artifacts/{kind}"
    return Stage(name, f"robustdistill.stages.{kind}", dict(reads), out, tuple(params.split()), revision)


def _results(*stages: str) -> dict[str, str]:
    return {stage: f"artifacts/{stage}" for stage in stages}


def _export(model: str) -> Stage:
    return _stage(f"export@{model}", {**_results("prepare"), "model": f"artifacts/{model}"}, revision=3)


def _score(model: str) -> Stage:
    """The control is judged without the student; the teacher without both: it qualifies before they are paid for."""
    reads = {**_results("prepare", "adversaries"), "export": f"artifacts/export/{model}"}
    others = REPLAYED_ON_STUDENT if model == "student" else ()
    reads |= {name: f"artifacts/export/{name}" for name in others}
    return _stage(f"score@{model}", reads, "seed threat judge", revision=3)


_ORDER = (
    _stage("prepare", {"data": "data"}, "seed data"),
    _stage("initial", _results("prepare"), "seed threat initial"),
    _stage("adversaries", _results("prepare", "initial"), "seed threat adversaries"),
    _stage(
        "teacher", {**_results("prepare", "adversaries"), "pin": "teacher.pin.json"}, "seed threat teacher", revision=2
    ),
    _export("initial"),
    _export("teacher"),
    _score("initial"),
    _score("teacher"),
    _stage("control", _results("prepare"), "seed threat student.model student.training control"),
    _stage("student", _results("prepare", "initial", "teacher"), "seed threat student", revision=3),
    _export("control"),
    _export("student"),
    _score("control"),
    _score("student"),
)
# Name -> stage, in an order in which they can run; the teacher is judged before the students are paid for.
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _ORDER}


def get(name: str) -> Stage:
    """The stage of that name. Raises BadInput that lists the choices."""
    if name not in STAGES:
        raise unknown("stage", name, STAGES)
    return STAGES[name]


def parents(name: str) -> list[str]:
    """The stages whose results this one reads."""
    wanted = set(get(name).reads.values())
    return [stage.name for stage in STAGES.values() if stage.out in wanted]


def with_descendants(names: Iterable[str]) -> list[str]:
    """These stages and all that read from them, directly or not, in an order in which they can run."""
    found = set(names)
    for name in STAGES:  # one pass is enough: parents come first
        if found.intersection(parents(name)):
            found.add(name)
    return [name for name in STAGES if name in found]
