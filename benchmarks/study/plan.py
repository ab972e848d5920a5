"""What is compared: methods, sizes, budgets, and in which order, the most informative first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robustdistill.config import Spec

Kind = Literal["control", "free", "distilled", "few"]
SIZES = {"nano": 60.0, "micro": 80.0, "tiny": 120.0}  # of small_cnn: seconds of attack and update
SCREEN_SEEDS, CONFIRM_SEEDS = (0,), (1, 2, 3, 4, 5)
CONTROL, FEW_CONTROL = "pgd_at", "few_labels"
CONFIRMED = 4  # methods beside the controls, at each size
CONTROLS = ("pgd_at", "label_smoothing", "shuffled_classes")  # confirmed whatever the screen says of them
WITHHELD = {"held_back": 0.9}
# Start and goal stay each method's own. After two steps of attack a student without a teacher masks its gradients.
ATTACK: Spec = {"steps": 4, "step": 0.4}

# name -> members of the one teacher: architecture, and seconds of each
TEACHERS: dict[str, tuple[list[Spec], float]] = {
    "tiny": ([{"name": "small_cnn", "size": "tiny"}], 600.0),
    "tiny3": ([{"name": "small_cnn", "size": "tiny"}] * 3, 600.0),
    "wide": ([{"name": "preact_resnet", "width": 16, "stride": 2}], 1500.0),
    "wide2": ([{"name": "preact_resnet", "width": 16, "stride": 2}] * 2, 1500.0),
}
NATURAL = 60.0  # seconds of the undefended teacher's training


@dataclass(frozen=True)
class Method:
    """One row of the table. tier: lower ones run first. training: changes to the recipe's. labels: where the labels
    come from: the data, the teacher ("teacher") or the same student's FEW_CONTROL ("self")."""

    name: str
    objective: Spec
    kind: Kind
    tier: int
    about: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "data"
    teacher_time: bool = False

    @property
    def control(self) -> str:
        return FEW_CONTROL if self.kind == "few" else CONTROL


@dataclass(frozen=True)
class Run:
    """One training of the study and its judgement. role: member and natural are teachers, student is what is judged."""

    role: Literal["member", "teacher", "natural", "student"]
    size: str
    method: str
    seed: int
    stage: str

    @property
    def key(self) -> str:
        return f"{self.role}-{self.size}-{self.method}-{self.seed}"


NATURAL_RUN = Run("natural", "tiny", "ce", 0, "teacher")


def _under(name: str, **options: Any) -> Spec:
    return {"name": name, "attack": ATTACK, **options}


_SHARP = {"teacher_temperature": 0.6}
_RSLAD = _under("rslad", adversarial_share=1.0, **_SHARP)
_WRONG = {"when_wrong": "down_weight"}


def _methods() -> Iterator[Method]:
    at = _under("pgd_at")
    yield Method("pgd_at", at, "control", 0, "no teacher")
    yield Method("rslad_sharp_adv", _RSLAD, "distilled", 1, "T 0.6, all weight under attack")
    yield Method("ard_sharp", _under("ard", **_SHARP), "distilled", 1, "T 0.6")
    yield Method("rslad", _under("rslad"), "distilled", 1, "as published")
    yield Method("ard", _under("ard"), "distilled", 1, "as published, T 1")
    yield Method("rslad_mixed", {**_RSLAD, "label_share": 0.3}, "distilled", 1, "as rslad_sharp_adv, 0.3 label")
    yield Method("ard_mixed", _under("ard", label_share=0.3, **_SHARP), "distilled", 1, "as ard_sharp, 0.3 label")
    yield Method("late", {"name": "late", "first": at, "then": _RSLAD}, "distilled", 1, "pgd_at, last third distilled")
    yield Method("label_smoothing", _under("pgd_at", label_smoothing=0.1), "control", 2, "pgd_at, 0.1")
    yield Method("shuffled_classes", {"name": "shuffled", "base": _RSLAD, "how": "classes"}, "control", 2,
                 "rslad_sharp_adv; the teacher's logits but the largest permuted, for each example")  # fmt: skip
    yield Method("shuffled_examples", {"name": "shuffled", "base": _RSLAD, "how": "examples"}, "control", 2,
                 "rslad_sharp_adv; answers permuted among the examples of a class in the batch")  # fmt: skip
    yield Method("adr", _under("adr"), "control", 2, "the student's own moving average as teacher")
    yield Method("rslad_doubted", {**_RSLAD, **_WRONG}, "distilled", 2, "as rslad_sharp_adv, half where T errs")
    yield Method("rslad_swapped", {**_RSLAD, "when_wrong": "swap"}, "distilled", 2, "as rslad_sharp_adv, T corrected")
    yield Method("rslad_sharp", _under("rslad", **_SHARP), "distilled", 2, "T 0.6")
    yield Method("rslad_live", {**_RSLAD, "teacher_cache": "never"}, "distilled", 3, "rslad_sharp_adv, not cached")
    for name in ("trades", "mart"):
        yield Method(name, _under(name), "free", 3)
    yield Method("n_fgsm", {"name": "n_fgsm"}, "free", 3)
    for name in ("lbgat", "peeraid"):
        yield Method(name, _under(name), "free", 4, "a companion trained along")
    for name in ("iad", "saad", "adaad", "adaiad", "dgad", "absld", "logit_l1"):
        yield Method(name, _under(name), "distilled", 3 if name in ("iad", "saad", "adaad") else 4)
    yield Method("igdm_ard", {"name": "igdm", "base": _under("ard")}, "distilled", 4)
    for name in ("mtard", "b_mtard"):
        yield Method(name, _under(name), "distilled", 4, "a second, undefended teacher")
    yield Method("kd", {"name": "kd"}, "distilled", 5, "no attack in training")
    yield Method(FEW_CONTROL, at, "few", 5, "a tenth of the labels, the other examples left out", WITHHELD)
    yield Method("few_self", at, "few", 5, "the others labelled by few_labels' own model", WITHHELD, "self")
    yield Method("few_teacher", at, "few", 5, "the others labelled by the teacher", WITHHELD, "teacher")
    yield Method("few_rslad", _RSLAD, "few", 5, "likewise, and distilled", WITHHELD, "teacher")
    yield Method("teacher_time", at, "control", 6, "pgd_at with the teacher's seconds as well", teacher_time=True)


METHODS = {method.name: method for method in _methods()}


def teachers(name: str) -> list[Run]:
    """What has to be there before the first student."""
    members = [Run("member", name, "pgd_at", number, "teacher") for number in range(len(TEACHERS[name][0]))]
    return [*members, Run("teacher", name, "validation", 0, "teacher"), NATURAL_RUN]


def screen(sizes: Sequence[str], methods: Sequence[str]) -> list[Run]:
    """Every method once at each size: tier by tier, small students first."""
    chosen = sorted((METHODS[name] for name in methods), key=lambda method: method.tier)
    tiers = sorted({method.tier for method in chosen})
    return [
        Run("student", size, method.name, seed, "screen")
        for tier in tiers
        for size in sizes
        for method in chosen
        if method.tier == tier
        for seed in SCREEN_SEEDS
    ]


def confirm(teacher: str, selected: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[Run]:
    """The selected methods of each size, seed by seed: after each seed the comparison is whole. The teacher last."""
    students = [
        Run("student", size, name, seed, "confirm")
        for seed in seeds
        for size, names in selected.items()
        for name in names
    ]
    return [*students, Run("teacher", teacher, "test", 0, "confirm")]
