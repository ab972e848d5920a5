"""The configuration of a workspace: params.yaml (what changes a model) and policy.yaml (what is demanded of one).

Both are complete on disk: recipes are sparse, `init` expands them, and a missing key is an error, so that what a run
used can be read. Options of a method, attack or model are checked by that class's own Config (`options`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from robustdistill import mistakes, strict_yaml
from robustdistill.errors import BadInput
from robustdistill.strict_yaml import Lines
from robustdistill.threat import ThreatModel, fraction, parse_eps


class Strict(BaseModel):
    """Frozen, strictly typed, unknown keys refused; the base of every config of the project."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Spec = dict[str, Any]  # {"name": "rslad", ...options}: resolved by the package that owns the name

COMPLETE = "a workspace's files are complete; take the line from the recipe (`robustdistill init --help`)"

NAME = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")


class Threat(Strict):
    norm: Literal["linf", "l2"] = Field(description="how the size of a change is measured")
    eps: float | str = Field(description='the largest change, in the units of the input: 0.1 or "8/255"')

    @field_validator("eps")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        try:
            parse_eps(value)
        except BadInput as error:
            raise ValueError(error.cause) from error
        return value

    def model(self, low: float, high: float) -> ThreatModel:
        """The threat model for inputs in [low, high] (the bounds stand in prepare's manifest)."""
        eps = parse_eps(self.eps)
        if self.norm == "linf" and eps > high - low:
            raise BadInput(
                f"eps {self.eps} is larger than the whole range [{low:g}, {high:g}] of the input",
                where="params.yaml: threat.eps",
                fix='give it in units of the input, such as "8/255" for pixels in [0, 1]',
            )
        return ThreatModel(self.norm, eps, low, high, fraction(self.eps))


class Data(Strict):
    source: str = Field(description="where `init` takes the raw data from; see `robustdistill init --help`")
    module: str | None = Field(default=None, description="own source: `my_package.sources:load`, imported if set")
    resize: int | None = Field(default=None, ge=4, le=1024, description="edge in pixels every image is resized to")
    val: float = Field(
        default=0.15,
        gt=0,
        lt=0.5,
        description="share of the training data that selects checkpoints; 10 a class at least",
    )
    test: float = Field(
        default=0.2, gt=0, lt=0.5, description="share for the judge if the data has no test set; 10 a class at least"
    )
    limit: int | None = Field(default=None, ge=20, description="use at most this many training examples (for trials)")


class Training(Strict):
    epochs: int = Field(ge=1, description="passes over the training data")
    batch: int = Field(default=128, ge=2, description="examples in a step")
    optimizer: Literal["sgd", "adam"] = Field(default="sgd", description="sgd (Nesterov) or adam (decoupled decay)")
    lr: float = Field(gt=0, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=5e-4, ge=0, description="on weight matrices and filters")
    schedule: Literal["cosine", "one_cycle"] = Field(default="one_cycle", description="one_cycle: linear down to 0")
    warmup: float = Field(default=0.15, ge=0, lt=1, description="share of all steps in which lr rises from 0")
    eps_warmup: float = Field(default=0.0, ge=0, le=1, description="share of all steps in which eps rises from 0")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps none")
    swa: float | None = Field(
        default=None, ge=0, lt=1, description="instead of ema: plain mean of the weights after this share of all steps"
    )
    awp: float = Field(
        default=0.0, ge=0, lt=1, description="worst-case change of each weight tensor, as a share of its norm; 0: none"
    )
    awp_warmup: float = Field(default=0.0, ge=0, le=1, description="share of all steps before awp begins")
    clip: float = Field(default=5.0, gt=0, description="largest gradient norm")
    augment: list[Literal["shift", "flip"]] = Field(default=[], description="shift by up to 1/14 of the edge; mirror")
    held_back: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the labels withheld; a teacher gives its own, else they are left out",
    )
    select_every: int = Field(default=1, ge=1, description="epochs between robust evaluations on validation data")
    select_examples: int = Field(default=512, ge=1, description="validation examples in each of them")

    @field_validator("swa")
    @classmethod
    def _one_average(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("ema"):
            raise ValueError("only one average is kept; set ema to 0, or swa to null")
        return value


class Learner(Strict):
    model: Spec = Field(description="architecture and its options")
    objective: Spec = Field(description="what is minimised and its options")
    training: Training


class Teacher(Learner):
    source: Literal["train", "file", "registry"] = Field(default="train", description="file, registry: `teacher use`")
    warm_start: Literal["none", "champion", "pinned"] = Field(
        default="none",
        description="first weights when training anew: drawn, the champion's teacher, or of `teacher use --start`",
    )
    adversaries: Literal["none", "start", "replay"] = Field(
        default="none", description="start: attacks begin at the stored set; replay: stored examples join each batch"
    )
    replay_share: float = Field(default=0.25, gt=0, lt=1, description="share of a batch that is replayed")


class Control(Strict):
    objective: Spec = Field(description="teacher-free objective; model and training are the student's")


class Adversaries(Strict):
    attack: Spec = Field(description="attack that makes the stored set from the initial model")


class Judge(Strict):
    examples: int = Field(default=1000, ge=20, description="test examples judged (all, if fewer)")
    attacks: list[Spec] = Field(description="own attacks, cheap ones first")
    autoattack: Literal["standard", "rand", "none"] = Field(default="standard", description="the last word")
    chunk: int = Field(default=250, ge=1, description="examples attacked at a time; part of the protocol")
    curve: list[float] = Field(default=[0.25, 0.5, 1.0, 1.5, 2.0], description="multiples of eps for the curve")
    curve_examples: int = Field(default=200, ge=10, description="test examples in each point of the curve")


class Params(Strict):
    """params.yaml: everything that changes a model. What is learnt from data stands in prepare's manifest instead."""

    name: str = NAME
    seed: int = Field(ge=0, lt=2**63, description="of every random draw")
    threat: Threat
    data: Data
    initial: Learner
    adversaries: Adversaries
    teacher: Teacher
    student: Learner
    control: Control
    judge: Judge


class Floors(Strict):
    clean: float = Field(ge=0, le=1, description="least clean accuracy")
    robust: float = Field(ge=0, le=1, description="least robust accuracy")
    worst_class: float = Field(default=0.0, ge=0, le=1, description="least robust accuracy of any class")


class Margins(Strict):
    clean: float = Field(ge=0, le=1, description="tolerated loss of clean accuracy against a reference")
    robust: float = Field(ge=0, le=1, description="tolerated loss of robust accuracy against a reference")


class Costs(Strict):
    parameters: int | None = Field(default=None, gt=0, description="most parameters")
    megabytes: float | None = Field(default=None, gt=0, description="largest exported file")
    latency_ms: float | None = Field(default=None, gt=0, description="slowest median answer to one example")


class Waiver(Strict):
    rule: str = Field(description="the rule that need not hold, as the verdict names it")
    by: str = Field(min_length=1, pattern=r"\S", description="who answers for it")
    why: str = Field(min_length=1, pattern=r"\S", description="the reason")


class Policy(Strict):
    """policy.yaml: what is demanded of a model. Changing it decides anew and retrains nothing."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
    teacher: Floors = Field(description="a teacher below these is not distilled")
    student: Floors = Field(description="a student below these is not promoted")
    champion: Margins = Field(description="against today's champion, judged again on the same examples")
    best: Margins = Field(description="against the best version ever, so that margins cannot creep downwards")
    costs: Costs = Costs()
    gain: Literal["inform", "block"] = Field(default="inform", description="must the student beat its control?")
    promote: Literal["auto", "promoter", "person"] = Field(
        default="auto", description="person: alias `challenger`, then wait; promoter: left to who has the rights"
    )
    waivers: list[Waiver] = Field(default=[], description="rules set aside, each with a name and a reason")


Model = TypeVar("Model", bound=BaseModel)


def options(model: type[Model], given: Mapping[str, Any], *, where: str, lines: Lines | None = None) -> Model:
    """Checks a mapping against a config class. lines: of its keys, where it stands in a file.

    Raises BadInput that names each key that is wrong, its fault and, for an unknown one, the nearest name.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise mistakes.refusal(mistakes.found(error, model, given, lines or {}), where) from error


def _missing(full: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in full.items():
        if key not in given:
            yield f"{prefix}{key}"
        elif isinstance(value, dict) and isinstance(given[key], dict):
            yield from _missing(value, given[key], f"{prefix}{key}.")


def load(model: type[Model], path: Path) -> Model:
    """A complete params.yaml or policy.yaml. Raises BadInput for unknown, mistyped, out-of-range or missing keys."""
    content, lines = strict_yaml.read(path)
    config = options(model, content, where=str(path), lines=lines)
    lacking = [mistakes.missing(key, lines, COMPLETE) for key in _missing(dump(config), content)]
    if lacking:
        raise mistakes.refusal(lacking, str(path))
    return config


def dump(config: BaseModel) -> dict[str, Any]:
    """The config as plain data, defaults included: what is written to disk, hashed and logged."""
    return config.model_dump(mode="json")
