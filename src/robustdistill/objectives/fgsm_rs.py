"""FGSM-RS, fast adversarial training (Wong, Rice, Kolter 2020): adversarial training with one step of attack.

L = CE(S(x'), y), x' = project(x + δ + 1.25 eps · sign(∇ CE(S(x + δ), y))), δ uniform in the ball.
"""

from __future__ import annotations

from pydantic import Field

from robustdistill.config import Spec
from robustdistill.objectives.pgd_at import PgdAT
from robustdistill.objectives.types import Adversarial


class FgsmRS(PgdAT):
    """As `pgd_at`, with FGSM from a uniform start. Steps much longer than 1.25 eps, or a long training, end in
    catastrophic overfitting (one step then fails where ten succeed): an alarm of the training says so."""

    name = "fgsm_rs"
    source = "Wong, Rice, Kolter 2020"
    formula = "CE(S(x'), y); x' = project(x + δ + 1.25·eps·sign ∇CE(S(x+δ), y)), δ ~ U(ball)"
    cost = "student 2 forward and backward"
    when = "one step of attack must do, in a short training; the alarm of catastrophic overfitting is to be heeded"

    class Config(PgdAT.Config):
        attack: Spec = Field(
            default={"name": "fgsm", "step": 1.25, "start": "uniform", "goal": "ce"},
            description=Adversarial.model_fields["attack"].description,
            validate_default=True,
        )
