"""Is the teacher worth distilling? Decided before money is spent on a student, since a student of a weak or
non-robust teacher ends below plain adversarial training."""

from __future__ import annotations

from dataclasses import replace

from robustdistill.config import Policy
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import Verdict, conclude, floors, health, summarise


def qualify(policy: Policy, teacher: Evidence) -> Verdict:
    """Rules health, teacher_clean, teacher_robust, teacher_worst_class. `promote: person` concerns students only.

    Raises BadInput for an unknown waiver.
    """
    rules = [health(teacher), *floors(policy.teacher, teacher, policy.confidence, "teacher_")]
    outcome = conclude(policy, rules, None, summarise("teacher", teacher))
    return replace(outcome, verdict="pass") if outcome.verdict == "challenger" else outcome
