"""The lines of a verdict by name. A policy may set one aside, so it is asked early whether it names one that exists."""

from __future__ import annotations

from robustdistill.config import Policy
from robustdistill.errors import unknown

REFERENCES = ("champion", "best")
COSTS = {"parameters": "parameters", "megabytes": "MB of exported file", "latency_ms": "ms for one example"}
FLOORS = ("clean", "robust", "worst_class")
STUDENT_RULES = ("health", *FLOORS, *COSTS, *(f"{r}_{m}" for r in REFERENCES for m in ("clean", "robust")), "gain")
TEACHER_RULES = ("health", *(f"teacher_{floor}" for floor in FLOORS))


def require_known(policy: Policy) -> Policy:
    """The policy, if each of its waivers names a rule that may be waived. Raises BadInput."""
    choices = {*STUDENT_RULES, *TEACHER_RULES} - {"health"}  # what cannot be trusted cannot be waived either
    for waiver in policy.waivers:
        if waiver.rule not in choices:
            raise unknown("rule in a waiver", waiver.rule, choices, where="policy.yaml: waivers")
    return policy
