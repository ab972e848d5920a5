"""Attacks: one file each, geometry in `ball`, what is driven up in `goals`, the seam to models in `types`."""

from __future__ import annotations

from robustdistill.attacks.apgd import APGD
from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball
from robustdistill.attacks.fab import FAB
from robustdistill.attacks.fgsm import FGSM
from robustdistill.attacks.pgd import PGD
from robustdistill.attacks.square import Square
from robustdistill.attacks.suite import Own
from robustdistill.attacks.types import Access, Batch, Goal, Target, TorchTarget, attack_mode, select
from robustdistill.config import Spec
from robustdistill.registry import resolve, table

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "FGSM",
    "PGD",
    "Access",
    "Attack",
    "Ball",
    "Batch",
    "Goal",
    "Own",
    "Square",
    "Target",
    "TorchTarget",
    "attack_mode",
    "build",
    "select",
]

ATTACKS: dict[str, type[Attack]] = table("attack", FGSM, PGD, APGD, FAB, Square, Own)


def build(spec: Spec, where: str = "attack") -> Attack:
    """The attack that a spec names, such as {"name": "pgd", "steps": 20}. Raises BadInput (see registry.resolve)."""
    found, config = resolve("attack", ATTACKS, spec, where=where)
    return found(config)
