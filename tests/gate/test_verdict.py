"""The decision, rule by rule, and what must hold for any evidence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from evidences import evidence, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdistill.errors import BadInput
from robustdistill.gate import statistics
from robustdistill.gate.qualify import qualify
from robustdistill.gate.rules import STUDENT_RULES
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import Rule, Verdict, verdict

COSTS = {"parameters": 9_000.0, "megabytes": 0.1, "latency_ms": 0.4}


def flags(n: int, right: int) -> list[bool]:
    return [True] * right + [False] * (n - right)


def decide(candidate: Evidence, control: Evidence | None = None, measured: Any = COSTS, **changes: Any) -> Verdict:
    references = changes.pop("references", {})
    return verdict(policy(**changes), candidate, control, references, measured)


def line(found: Verdict, name: str) -> Rule:
    (rule,) = [rule for rule in found.rules if rule.rule == name]
    return rule


def with_card(found: Evidence, **changes: Any) -> Evidence:
    return Evidence({**found.card, **changes}, found.ids, found.labels, found.predictions, found.outcomes)


def test_first_run_is_held_to_floors_only() -> None:
    found = decide(evidence(flags(100, 50)), evidence(flags(100, 40)))
    assert found.verdict == "pass"
    assert tuple(rule.rule for rule in found.rules) == STUDENT_RULES
    skipped = {rule.rule for rule in found.rules if rule.status == "not_applicable"}
    assert skipped == set(STUDENT_RULES) - {"health", "clean", "robust", "worst_class", "gain"}


@pytest.mark.parametrize(
    ("floors", "failing"),
    [
        ({"clean": 0.9, "robust": 0.5, "worst_class": 0.4}, set()),
        ({"clean": 0.91, "robust": 0.5}, {"clean"}),
        ({"clean": 0.9, "robust": 0.501}, {"robust"}),
        ({"clean": 0.9, "robust": 0.5, "worst_class": 0.51}, {"worst_class"}),
    ],
)
def test_floors(floors: dict[str, float], failing: set[str]) -> None:
    candidate = evidence(flags(300, 150), flags(300, 270))
    found = decide(candidate, student=floors)
    assert {rule.rule for rule in found.rules if rule.status == "fail"} == failing
    assert found.verdict == ("fail" if failing else "pass")


def test_a_class_without_examples_does_not_reach_a_floor() -> None:
    candidate = evidence(flags(90, 90))
    rows = [*candidate.card["per_class"], {"class": "unseen", "n": 0, "clean": None, "robust": None}]
    found = decide(with_card(candidate, per_class=rows), student={"clean": 0.5, "robust": 0.3, "worst_class": 0.1})
    assert line(found, "worst_class").status == "fail"
    assert "'unseen'" in line(found, "worst_class").sentence


@pytest.mark.parametrize(
    ("limits", "costs", "status"),
    [
        ({"latency_ms": 0.4}, COSTS, "pass"),
        ({"latency_ms": 0.39}, COSTS, "fail"),
        ({"latency_ms": 1.0}, {}, "fail"),
        ({"latency_ms": 1.0}, {"latency_ms": float("nan")}, "fail"),
        ({}, {}, "not_applicable"),
    ],
)
def test_costs(limits: dict[str, float], costs: dict[str, float], status: str) -> None:
    assert line(decide(evidence(flags(90, 90)), None, costs, costs=limits), "latency_ms").status == status


HEALTH = [
    ([], "fail"),
    ([{"name": "a", "ok": False, "level": "error", "sentence": "masked"}], "fail"),
    ([{"name": "a", "ok": False, "level": "unheard of", "sentence": "masked"}], "fail"),
    ([{"name": "a", "ok": "yes", "level": "error", "sentence": "masked"}], "fail"),
    ([{"name": "a", "ok": False, "level": "warning", "sentence": "masked"}], "pass"),
]


@pytest.mark.parametrize(("checks", "status"), HEALTH)
def test_health_comes_first(checks: list[dict[str, Any]], status: str) -> None:
    candidate = with_card(evidence(flags(90, 9)), health=checks)  # below the floor, too
    found = decide(candidate)
    assert line(found, "health").status == status
    assert found.verdict == ("unhealthy" if status == "fail" else "fail")


def test_an_evaluation_without_gradients_shows_no_robustness() -> None:
    candidate = evidence(flags(90, 90))
    subject = {**candidate.card["subject"], "access": "scores"}
    assert decide(with_card(candidate, subject=subject)).verdict == "unhealthy"


@pytest.mark.parametrize(
    ("champion", "candidate", "status"),
    [(1000, 1000, "pass"), (1000, 1100, "pass"), (1000, 985, "pass"), (1000, 965, "fail"), (1000, 500, "fail")],
)
def test_no_worse_than_the_champion_by_more_than_the_margin(champion: int, candidate: int, status: str) -> None:
    found = decide(
        evidence(flags(2000, candidate)), references={"champion": evidence(flags(2000, champion), sha="champion")}
    )
    rule = line(found, "champion_robust")
    assert rule.status == status
    assert rule.demand == -0.02
    assert f"{(candidate - champion) / 20:+.1f} points" in rule.sentence
    assert "95 % interval" in rule.sentence
    assert line(found, "champion_clean").status == "pass"
    assert found.verdict == status


def test_a_sample_too_small_for_the_margin_is_named() -> None:
    same = evidence(flags(60, 40), sha="champion")
    rule = line(decide(evidence(flags(60, 40)), references={"champion": same}), "champion_robust")
    assert rule.status == "fail"
    assert "sample of 60 is too small" in rule.sentence
    strict = decide(evidence(flags(60, 40)), references={"champion": same}, champion={"clean": 0.1, "robust": 0.0})
    assert "proven improvement" in line(strict, "champion_robust").sentence


def test_the_champion_itself_is_no_worse_than_itself() -> None:
    champion = evidence(flags(60, 40))
    assert decide(champion, references={"champion": champion}).verdict == "pass"


def test_margins_cannot_creep() -> None:
    """Each step within the champion's margin, together beyond the best one's."""
    champion, best = evidence(flags(2000, 1000), sha="champion"), evidence(flags(2000, 1080), sha="best")
    found = decide(evidence(flags(2000, 990)), references={"champion": champion, "best": best})
    assert line(found, "champion_robust").status == "pass"
    assert line(found, "best_robust").status == "fail"


def test_evidence_of_different_attacks_is_refused() -> None:
    champion = evidence(flags(90, 60), sha="champion")
    more = Evidence(
        champion.card, champion.ids, champion.labels, champion.predictions,
        {**champion.outcomes, "autoattack": champion.outcomes["pgd"]},
    )  # fmt: skip
    with pytest.raises(BadInput, match="different attacks"):
        decide(evidence(flags(90, 60)), references={"champion": more})


@pytest.mark.parametrize(
    ("student", "control", "answer"),
    [(700, 500, "yes"), (500, 700, "no"), (503, 500, "undecided"), (500, 500, "undecided"), (500, None, "undecided")],
)
@pytest.mark.parametrize("asked", ["inform", "block"])
def test_gain(student: int, control: int | None, answer: str, asked: str) -> None:
    other = None if control is None else evidence(flags(1000, control), sha="control")
    found = decide(evidence(flags(1000, student)), other, gain=asked)
    assert found.gain is not None
    assert found.gain.answer == answer
    expected = "informs" if asked == "inform" else "pass" if answer == "yes" else "fail"
    assert line(found, "gain").status == expected
    assert line(found, "gain").sentence.startswith(f"{answer}: {found.gain.sentence}")
    assert found.verdict == ("fail" if expected == "fail" else "pass")


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (700, "with its teacher the student is 20.0 points more robust than without one (95 % interval +17."),
        (300, "with its teacher the student is 20.0 points less robust than without one (95 % interval -22."),
        (503, "with its teacher the student is 0.3 points more robust than without one, which may be chance (95 %"),
        (500, "with its teacher the student is as robust as without one, which may be chance (95 % interval -0.4 to"),
    ],
)
def test_gain_is_said_in_plain_words(student: int, words: str) -> None:
    gain = decide(evidence(flags(1000, student)), evidence(flags(1000, 500), sha="control")).gain
    assert gain is not None and gain.sentence.startswith(words)


def waiver(rule: str) -> dict[str, str]:
    return {"rule": rule, "by": "the owner", "why": "known"}


def test_a_waiver_is_shown_and_passes() -> None:
    found = decide(evidence(flags(90, 9)), waivers=[waiver("robust"), waiver("worst_class"), waiver("clean")])
    assert found.verdict == "pass"
    assert (line(found, "robust").status, line(found, "robust").by) == ("waived", "the owner")
    assert line(found, "clean").status == "pass"


def test_an_untrusted_evaluation_cannot_be_waived() -> None:
    with pytest.raises(BadInput, match="health"):
        decide(evidence(flags(90, 90)), waivers=[waiver("health")])


def test_an_unknown_waiver_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="robust") as caught:
        decide(evidence(flags(90, 90)), waivers=[waiver("robus")])
    assert "did you mean 'robust'" in str(caught.value)
    with pytest.raises(BadInput, match="reference"):
        decide(evidence(flags(90, 90)), references={"champoin": evidence(flags(90, 90))})


def test_a_person_decides_only_on_what_passed() -> None:
    assert decide(evidence(flags(90, 90)), promote="person").verdict == "challenger"
    assert decide(evidence(flags(90, 1)), promote="person").verdict == "fail"


def test_the_policy_digest_follows_the_policy() -> None:
    one, two = decide(evidence(flags(90, 90))), decide(evidence(flags(90, 90)), gain="block")
    assert len({one.policy_sha256, two.policy_sha256}) == 2
    assert one.policy_sha256 == decide(evidence(flags(90, 1))).policy_sha256


def test_json_is_plain_and_complete() -> None:
    record = decide(evidence(flags(90, 90)), evidence(flags(90, 30))).to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == {"verdict", "policy_sha256", "rules", "gain", "candidate"}
    assert set(record["rules"][0]) == {"rule", "status", "value", "demand", "sentence", "by", "why", "paired"}
    assert set(record["gain"]) == {"answer", "difference", "lower", "upper", "sentence", "paired"}


def test_paired_figures_stand_beside_the_decision() -> None:
    champion = evidence(flags(1000, 600), sha="champion")
    found = decide(evidence(flags(1000, 630)), evidence(flags(1000, 600), sha="c"), references={"champion": champion})
    for paired in (line(found, "champion_robust").paired, found.gain.paired if found.gain else None):
        assert paired is not None
        assert (paired.n, paired.discordant, paired.difference) == (1000, (30, 0), 0.03)
        assert paired.tango == statistics.tango(30, 0, 1000)
        assert paired.bootstrap == statistics.bootstrap(30, 0, 1000)
        assert paired.mcnemar == pytest.approx(2 * 0.5**30)
    assert found.gain is not None and "McNemar p = 1.9e-09" in found.gain.sentence


def test_a_close_call_between_the_two_intervals_is_said() -> None:
    """5 lost of 200: Tango's lower bound is −5.7 points, the bootstrap's −5."""
    margins = {"clean": 0.1, "robust": 0.052}
    champion = evidence(flags(200, 100), sha="champion")
    rule = line(
        decide(evidence(flags(200, 95)), references={"champion": champion}, champion=margins), "champion_robust"
    )
    assert rule.paired is not None and rule.paired.tango.lower < -0.052 < rule.paired.bootstrap.lower
    assert rule.status == "fail" and "a close call: the bootstrap's interval" in rule.sentence


@pytest.mark.parametrize(("right", "expected"), [(80, "pass"), (10, "fail")])
def test_qualify(right: int, expected: str) -> None:
    found = qualify(policy(promote="person"), evidence(flags(90, right)))
    assert found.verdict == expected
    assert [rule.rule for rule in found.rules] == ["health", "teacher_clean", "teacher_robust", "teacher_worst_class"]
    assert qualify(policy(), with_card(evidence(flags(90, right)), health=[])).verdict == "unhealthy"


def test_a_teachers_waiver_counts_for_the_teacher_only() -> None:
    waived = policy(waivers=[waiver("teacher_robust")])
    assert qualify(waived, evidence(flags(90, 10))).verdict == "pass"
    assert verdict(waived, evidence(flags(90, 10)), None, {}, COSTS).verdict == "fail"


# Properties

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=6, max_size=60)
ORDER = {"fail": 0, "pass": 1}


def models(rows: list[tuple[bool, bool, bool, bool]]) -> tuple[Evidence, Evidence]:
    """(candidate, other) from rows of candidate robust, candidate clean, other robust, other clean."""
    ours, clean, theirs, right = (list(column) for column in zip(*rows, strict=True))
    return evidence(ours, clean), evidence(theirs, right, sha="other")


SETTINGS = {
    "student": {"clean": 0.4, "robust": 0.2, "worst_class": 0.1},
    "champion": {"clean": 0.1, "robust": 0.1},
    "best": {"clean": 0.2, "robust": 0.2},
    "gain": "block",
}


@settings(max_examples=60, deadline=None)
@given(OUTCOMES, st.data())
def test_improving_the_candidate_never_turns_pass_into_fail(rows: list[Any], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(rows) - 1))
    better = [(True, True, *row[2:]) if at == position else row for at, row in enumerate(rows)]
    results = []
    for version in (rows, better):
        ours, theirs = models(version)
        found = decide(ours, theirs, references={"champion": theirs, "best": theirs}, **SETTINGS)
        results.append({rule.rule: ORDER[rule.status] for rule in found.rules if rule.status in ORDER})
    assert all(results[1][rule] >= results[0][rule] for rule in results[0])


@settings(max_examples=40, deadline=None)
@given(OUTCOMES, st.sets(st.sampled_from(STUDENT_RULES[1:])), st.sampled_from(STUDENT_RULES[1:]))
def test_one_more_waiver_never_makes_it_worse(rows: list[Any], some: set[str], more: str) -> None:
    ours, theirs = models(rows)
    order = {"unhealthy": 0, "fail": 1, "pass": 2}
    found = [
        decide(ours, theirs, references={"champion": theirs}, waivers=[waiver(name) for name in names], **SETTINGS)
        for names in (sorted(some), sorted(some | {more}))
    ]
    assert order[found[1].verdict] >= order[found[0].verdict]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1.0))
def test_equal_outcomes_are_never_worse_given_enough_examples(seed: int, share: float) -> None:
    n = 200  # z²/(n + z²) is 1.9 points, below the margin of 2
    right = [(seed + 7919 * at) % 1000 < 1000 * share for at in range(n)]
    found = decide(evidence(right), references={"champion": evidence(right, sha="other")})
    assert line(found, "champion_robust").status == line(found, "champion_clean").status == "pass"


@settings(max_examples=40, deadline=None)
@given(OUTCOMES, st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(rows: list[Any], shuffle: Any) -> None:
    ours, theirs = models(rows)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    first = decide(ours, theirs, references={"best": theirs}, **SETTINGS)
    second = decide(ours.at(np.array(order)), theirs, references={"best": theirs}, **SETTINGS)
    assert first.to_json() == second.to_json()


@settings(max_examples=40, deadline=None)
@given(OUTCOMES)
def test_the_gain_changes_sign_when_the_models_change_places(rows: list[Any]) -> None:
    ours, theirs = models(rows)
    gain, back = decide(ours, theirs).gain, decide(theirs, ours).gain
    assert gain is not None
    assert back is not None
    assert back.difference == pytest.approx(-float(gain.difference or 0))
    assert {gain.answer, back.answer} in ({"yes", "no"}, {"undecided"})
