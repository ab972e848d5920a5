"""Objectives: one equation a file. Teacher-free ones first, then distillation."""

from __future__ import annotations

from robustdistill.config import Spec
from robustdistill.objectives.absld import ABSLD
from robustdistill.objectives.adaad import AdaAD
from robustdistill.objectives.adaiad import AdaIAD
from robustdistill.objectives.adr import ADR
from robustdistill.objectives.ard import ARD
from robustdistill.objectives.b_mtard import BMTARD
from robustdistill.objectives.ce import CrossEntropy
from robustdistill.objectives.dgad import DGAD
from robustdistill.objectives.fgsm_rs import FgsmRS
from robustdistill.objectives.iad import IAD
from robustdistill.objectives.igdm import IGDM
from robustdistill.objectives.kd import KD
from robustdistill.objectives.lbgat import LBGAT
from robustdistill.objectives.logit_l1 import LogitL1
from robustdistill.objectives.mart import MART
from robustdistill.objectives.mtard import MTARD
from robustdistill.objectives.n_fgsm import NFGSM
from robustdistill.objectives.peeraid import PeerAiD
from robustdistill.objectives.pgd_at import PgdAT
from robustdistill.objectives.rslad import RSLAD
from robustdistill.objectives.saad import SAAD
from robustdistill.objectives.trades import Trades
from robustdistill.objectives.types import Objective, Parts, Sees, Step, Teacher
from robustdistill.registry import resolve, table

__all__ = ["OBJECTIVES", "Objective", "Parts", "Sees", "Step", "Teacher", "build"]

OBJECTIVES: dict[str, type[Objective]] = table(
    "objective",
    *(CrossEntropy, PgdAT, FgsmRS, NFGSM, Trades, MART, ADR, LBGAT, PeerAiD),
    *(KD, ARD, LogitL1, RSLAD, IAD, AdaAD, AdaIAD, SAAD, DGAD, ABSLD, IGDM, MTARD, BMTARD),
)


def build(spec: Spec, where: str = "objective") -> Objective:
    """The objective that a spec names, such as {"name": "rslad", "weight": 0.5}. Raises BadInput for a bad spec."""
    found, config = resolve("objective", OBJECTIVES, spec, where=where)
    return found(config, where=where)
