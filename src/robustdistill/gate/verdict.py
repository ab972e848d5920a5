"""The decision: may this student be promoted? A pure function of policy, evidence and costs; one line for each rule.

A model is compared with a reference on the same examples: it is no worse than the margin m if the lower bound of
Tango's interval for the paired difference lies above −m; the bootstrap's interval stands beside it as a cross-check.
McNemar's test only says whether two models differ. What was not measured does not hold.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from robustdistill.config import Floors, Margins, Policy, dump
from robustdistill.errors import unknown
from robustdistill.gate import statistics
from robustdistill.gate.rules import COSTS, REFERENCES, require_known
from robustdistill.gate.scorecard import Evidence, Pair, align

Status = Literal["pass", "fail", "waived", "informs", "not_applicable"]
Decision = Literal["pass", "fail", "unhealthy", "challenger"]
Answer = Literal["yes", "no", "undecided"]


@dataclass(frozen=True)
class Paired:
    """Two models on the same n examples: the difference of their accuracies (ours less theirs), in three ways.

    discordant: (right only for ours, right only for theirs). tango decides; bootstrap is its cross-check; mcnemar is
    the p-value of "equally good".
    """

    n: int
    discordant: tuple[int, int]
    difference: float
    tango: statistics.Interval
    bootstrap: statistics.Interval
    mcnemar: float

    @classmethod
    def of(cls, pair: Pair, measure: str, confidence: float) -> Paired:
        """measure: "clean" or "robust"."""
        n, (b, c) = len(pair.ours), pair.discordant(measure)
        intervals = statistics.tango(b, c, n, confidence), statistics.bootstrap(b, c, n, confidence)
        return cls(n, (b, c), (b - c) / n, *intervals, statistics.mcnemar(b, c))


@dataclass(frozen=True)
class Rule:
    """One line of a verdict; one that informs decides nothing. value and demand in the rule's own unit; by and why are
    set where it was waived."""

    rule: str
    status: Status
    sentence: str
    value: float | None = None
    demand: float | None = None
    by: str | None = None
    why: str | None = None
    paired: Paired | None = None


@dataclass(frozen=True)
class Gain:
    """Is the student more robust than the same student without a teacher? Paired, on the same examples."""

    answer: Answer
    sentence: str
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    paired: Paired | None = None


@dataclass(frozen=True)
class Verdict:
    verdict: Decision
    policy_sha256: str
    rules: Sequence[Rule]
    gain: Gain | None
    candidate: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # intervals as lists
        return plain


def verdict(
    policy: Policy,
    candidate: Evidence,
    control: Evidence | None,
    references: Mapping[str, Evidence],
    costs: Mapping[str, float],
) -> Verdict:
    """Decides on a student. references: "champion" and "best", each judged under today's threat model and sample; none
    on a first run. costs: parameters, megabytes, latency_ms, as far as measured.

    Raises BadInput for an unknown waiver or reference, or for evidence that cannot be compared.
    """
    for name in references:
        if name not in REFERENCES:
            raise unknown("reference", name, REFERENCES)
    gain = measure_gain(candidate, control, policy.confidence)
    rules = [health(candidate), *floors(policy.student, candidate, policy.confidence)]
    rules += [_cost(name, getattr(policy.costs, name), _measured(name, costs, candidate)) for name in COSTS]
    for name, margins in (("champion", policy.champion), ("best", policy.best)):
        rules += _no_worse(name, margins, candidate, references.get(name), policy.confidence)
    rules.append(_gain_rule(policy, gain))
    return conclude(policy, rules, gain, summarise("student", candidate))


def conclude(policy: Policy, rules: Sequence[Rule], gain: Gain | None, candidate: Mapping[str, Any]) -> Verdict:
    """Applies the waivers and draws the conclusion from the lines."""
    rules = _waive(policy, rules)
    failed = {rule.rule for rule in rules if rule.status == "fail"}
    decision: Decision = "unhealthy" if "health" in failed else "fail" if failed else "pass"
    if decision == "pass" and policy.promote == "person":
        decision = "challenger"
    return Verdict(decision, policy_sha256(policy), rules, gain, candidate)


def policy_sha256(policy: Policy) -> str:
    """Digest of the whole policy, defaults and waivers included, as canonical JSON."""
    text = json.dumps(dump(policy), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def summarise(role: str, evidence: Evidence) -> dict[str, Any]:
    """What was decided on: weights, threat model, sample and the headline figures."""
    subject = evidence.card["subject"]
    return {
        "role": role,
        "sha256": evidence.sha256,
        "onnx_sha256": subject.get("onnx_sha256"),
        "parameters": subject.get("parameters"),
        "clean": float(evidence.clean.mean()),
        "robust": float(evidence.robust.mean()),
        "n": len(evidence),
        "sample_digest": evidence.card["sample"]["digest"],
        "attacks": list(evidence.attacks),
        "threat": evidence.threat.to_json(),
    }


def health(evidence: Evidence) -> Rule:
    """The evaluation itself must be sound; without checks, or without gradient access, nothing vouches for it."""
    faults = [item.sentence for item in evidence.health if item.failed]
    if not evidence.health:
        faults.append("no health check of the evaluation was recorded")
    if evidence.card["subject"]["access"] != "gradient":
        faults.append("the model was not attacked through its gradient, so its robustness is not shown")
    if faults:
        return Rule("health", "fail", "; ".join(faults))
    warnings = [item.sentence for item in evidence.health if not item.ok]
    noted = f"; warnings: {'; '.join(warnings)}" if warnings else ""
    count = len(evidence.health)
    return Rule("health", "pass", f"{count} health check{'s' * (count > 1)} of the evaluation found no error{noted}")


def floors(demand: Floors, evidence: Evidence, confidence: float, prefix: str = "") -> Iterator[Rule]:
    """Least clean, robust and worst-class accuracy."""
    classes = len(evidence.card["per_class"])
    for measure in ("clean", "robust"):
        flags = getattr(evidence, measure)
        low, high = statistics.wilson(int(flags.sum()), len(flags), confidence)
        what = f"{measure} accuracy {_pct(flags.mean())} ({_level(confidence)} interval {_pct(low)} to {_pct(high)})"
        if low <= 1 / classes:
            what += f", which is not above chance (1 of {classes} classes),"
        yield _floor(f"{prefix}{measure}", float(flags.mean()), getattr(demand, measure), what)
    name, value = evidence.worst_class()
    what = f"the lowest robust accuracy of a class, {_pct(value)} for {name!r},"
    yield _floor(f"{prefix}worst_class", value, demand.worst_class, what)


def _floor(rule: str, value: float, demand: float, what: str) -> Rule:
    holds = value >= demand
    relation = f"{'reaches' if holds else 'is below'} the floor of {_pct(demand)}"
    if demand == 0:
        relation = "meets no demand: the policy sets no floor"
    return Rule(rule, _status(holds), f"{what} {relation}", value, demand)


def _cost(name: str, demand: float | None, value: float | None) -> Rule:
    unit = COSTS[name]
    if demand is None:
        return Rule(name, "not_applicable", f"the policy sets no limit on {unit}", value)
    if value is None or not math.isfinite(value):
        return Rule(name, "fail", f"{unit} were not measured; the limit is {_amount(demand)}", None, demand)
    holds = value <= demand
    relation = "within" if holds else "over"
    return Rule(
        name, _status(holds), f"{_amount(value)} {unit}, {relation} the limit of {_amount(demand)}", value, demand
    )


def _measured(name: str, costs: Mapping[str, float], candidate: Evidence) -> float | None:
    known = candidate.card["subject"].get(name) if name == "parameters" else None
    value = costs.get(name, known)
    return None if value is None else float(value)


def _no_worse(
    name: str, margins: Margins, candidate: Evidence, reference: Evidence | None, confidence: float
) -> Iterator[Rule]:
    """Non-inferiority to one reference: clean and robust."""
    for measure in ("clean", "robust"):
        rule, margin = f"{name}_{measure}", getattr(margins, measure)
        if reference is None:
            yield Rule(rule, "not_applicable", f"there is no {_REFERENCE[name]} to compare with", None, -margin)
        elif reference.sha256 == candidate.sha256:
            yield Rule(rule, "pass", f"the candidate is the {_REFERENCE[name]} itself", 0.0, -margin)
        else:
            yield _margin(rule, measure, margin, candidate, reference, name, confidence)


_REFERENCE = {"champion": "champion", "best": "best earlier version"}


def _margin(
    rule: str, measure: str, margin: float, candidate: Evidence, reference: Evidence, name: str, confidence: float
) -> Rule:
    pair = align(candidate, reference, what=f"the candidate and the {_REFERENCE[name]}")
    found = Paired.of(pair, measure, confidence)
    holds = found.tango.lower > -margin
    sentence = (
        f"{measure} accuracy differs from the {_REFERENCE[name]} by {_points(found.difference)} "
        f"({_level(confidence)} interval {_span(found.tango)}, {found.n} examples); "
        f"a loss beyond the margin of {_points(margin, sign=False)} is {'ruled out' if holds else 'not ruled out'}"
    )
    if (found.bootstrap.lower > -margin) != holds:
        sentence += f"; a close call: the bootstrap's interval is {_span(found.bootstrap)}"
    if not holds:
        sentence += _too_small(*found.discordant, found.n, margin, confidence)
    return Rule(rule, _status(holds), sentence, found.tango.lower, -margin, paired=found)


def _too_small(b: int, c: int, n: int, margin: float, confidence: float) -> str:
    """Says so where even an equally good model would have failed on so few examples."""
    discordance = (b + c) / n
    if statistics.smallest_margin(discordance, n, confidence) < margin:
        return ""
    if margin == 0:
        return "; a margin of 0 asks for a proven improvement"
    needed = statistics.sample_needed(discordance, margin, confidence)
    return f"; the sample of {n} is too small for this margin: about {needed:,} examples are needed (judge.examples)"


def measure_gain(candidate: Evidence, control: Evidence | None, confidence: float) -> Gain:
    """Robust accuracy of the student less that of its teacher-free control, with Tango's interval."""
    if control is None:
        return Gain("undecided", "no teacher-free control was judged, so a gain cannot be claimed")
    found = Paired.of(align(candidate, control, what="the student and its control"), "robust", confidence)
    answer, words = _answer(found.tango, found.difference)
    level, p = _level(confidence), f"McNemar p = {found.mcnemar:.2g}"
    sentence = f"{words} ({level} interval {_span(found.tango)}, {found.n} examples; {p})"
    return Gain(answer, sentence, found.difference, *found.tango, found)


def _answer(interval: statistics.Interval, difference: float) -> tuple[Answer, str]:
    """Yes or no only where the interval lies on one side of 0."""
    size = f"{_points(abs(difference), sign=False)} {'less' if difference < 0 else 'more'} robust than"
    words = f"with its teacher the student is {size if difference else 'as robust as'} without one"
    if interval.lower > 0 or interval.upper < 0:
        return "yes" if interval.lower > 0 else "no", words
    return "undecided", f"{words}, which may be chance"


def _gain_rule(policy: Policy, gain: Gain) -> Rule:
    sentence = f"{gain.answer}: {gain.sentence}"
    if policy.gain == "inform":
        return Rule("gain", "informs", f"{sentence}; policy.yaml asks for no gain (gain: inform)", gain.lower)
    return Rule("gain", _status(gain.answer == "yes"), sentence, gain.lower, 0.0)


def _waive(policy: Policy, rules: Sequence[Rule]) -> list[Rule]:
    waivers = {waiver.rule: waiver for waiver in require_known(policy).waivers}
    return [
        replace(rule, status="waived", by=waivers[rule.rule].by, why=waivers[rule.rule].why)
        if rule.status == "fail" and rule.rule in waivers
        else rule
        for rule in rules
    ]


def _status(holds: bool) -> Status:
    return "pass" if holds else "fail"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"


def _level(confidence: float) -> str:
    return f"{100 * confidence:.4g} %"


def _points(share: float, *, sign: bool = True) -> str:
    """A difference in percentage points."""
    return f"{100 * share:{'+' if sign else ''}.1f} points"


def _span(interval: statistics.Interval) -> str:
    return f"{100 * interval.lower:+.1f} to {_points(interval.upper)}"
