"""The model card: what a version is, in short markdown for its description in the registry. Figures, how they were
measured, what was decided, and where the model must not be trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from robustdistill.errors import BadInput
from robustdistill.inputs import shown
from robustdistill.threat import ThreatModel

SIGNS = {"pass": "✔", "fail": "✘", "waived": "~"}
DECISIONS = {
    "pass": "passed the gate",
    "fail": "did not pass the gate",
    "challenger": "passed the gate and waits for a person",
    "unhealthy": "its evaluation cannot be trusted",
}


def model_card(scorecard: Mapping[str, Any], verdict: Mapping[str, Any] | None, facts: Mapping[str, str]) -> str:
    """scorecard: scorecard.json. verdict: `Verdict.to_json()` or None. facts: lineage, shown as a list in that order.

    Raises BadInput if the scorecard lacks what a card must say.
    """
    try:
        parts = [*_summary(scorecard), *_figures(scorecard), *_limits(scorecard)]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"the scorecard lacks or garbles a field: {error!r}", fix="judge the model again") from error
    parts += _decision(verdict) if verdict else []
    parts += ["", "### Where it comes from", "", *(f"- {plain(key)}: {plain(value)}" for key, value in facts.items())]
    return "\n".join(line.rstrip() for line in parts).rstrip() + "\n"


def plain(text: object) -> str:
    """Text that markdown and HTML leave as it is: names of classes, attacks and people may hold anything."""
    return re.sub(r"([\\`*_\[\]<>|#&!~])", r"\\\1", shown(str(text)))


def _summary(scorecard: Mapping[str, Any]) -> Iterator[str]:
    subject, robust = scorecard["subject"], scorecard["robust"]
    yield f"**Robust accuracy {_pct(robust['accuracy'])}**, clean accuracy {_pct(scorecard['clean']['accuracy'])}, "
    yield f"{int(subject['parameters']):,} parameters, {plain(subject.get('architecture', 'unnamed architecture'))}."
    yield ""
    yield f"Threat model: {ThreatModel.from_json(dict(scorecard['threat'])).describe()}."


def _figures(scorecard: Mapping[str, Any]) -> Iterator[str]:
    sample = scorecard["sample"]
    yield from ("", "### Measured", "", "| attack | accuracy | 95 % interval |", "|---|---|---|")
    rows = [("none", scorecard["clean"]), *((attack["name"], attack) for attack in scorecard["attacks"])]
    for name, figure in [*rows, ("worst case", scorecard["robust"])]:
        interval = f"{_pct(figure['lower'])} to {_pct(figure['upper'])}" if "lower" in figure else "–"
        yield f"| {plain(name)} | {_pct(figure['accuracy'])} | {interval} |"
    yield ""
    yield f"On {int(sample['n']):,} {plain(sample['split'])} examples, sample `{_code(sample['digest'])}`. "
    weakest = min(scorecard["per_class"], key=lambda row: row["robust"] or 0.0)
    yield f"Weakest class: {plain(weakest['class'])} with {_pct(weakest['robust'] or 0.0)} robust accuracy."


def _limits(scorecard: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "### Limits", "")
    yield "- Robustness is shown for this threat model and these attacks, not beyond."
    for item in scorecard["health"]:
        if item["ok"] is not True:
            yield f"- {plain(item['level'])}: {plain(item['sentence'])}"


def _decision(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"### Gate: {DECISIONS.get(verdict['verdict'], plain(verdict['verdict']))}", "")
    for rule in verdict["rules"]:
        if rule["status"] not in ("informs", "not_applicable"):
            waived = f" (waived by {plain(rule['by'])}: {plain(rule['why'])})" if rule.get("by") else ""
            yield f"- {SIGNS.get(rule['status'], '?')} {plain(rule['rule'])}: {plain(rule['sentence'])}{waived}"
    if verdict.get("gain"):
        gain = verdict["gain"]
        yield f"- gain over the teacher-free control: **{plain(gain['answer'])}**, {plain(gain['sentence'])}"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"


def _code(text: object) -> str:
    return shown(str(text)).replace("`", "'")
