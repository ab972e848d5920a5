"""N-FGSM (de Jorge et al. 2022): strong noise, one step, and no way back into the ball.

L = CE(S(x'), y), x' = box(z + α eps · sign(∇ CE(S(z), y))), z = box(x + η), η ~ U(−k eps, k eps), k = 2, α = 1.
x' may lie up to (k + α) eps from x; clipping it to eps is what makes FGSM-RS overfit, the paper finds.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from robustdistill import attacks
from robustdistill.attacks.ball import ball
from robustdistill.objectives.pgd_at import PgdAT
from robustdistill.objectives.smoothing import Smoothed
from robustdistill.objectives.types import Step


class NFGSM(PgdAT):
    """An attack never leaves its threat, so this one is FGSM in a threat of (k + α) eps, begun at the noise: there
    the projection has only the box left to do. In L2 the noise is uniform in the ball of k eps and the step goes along
    the gradient. A given start replaces x + η."""

    name = "n_fgsm"
    source = "de Jorge et al. 2022"
    formula = "CE(S(x'), y); x' = box(z + eps·sign ∇CE(S(z), y)), z = box(x + U(−2·eps, 2·eps))"
    cost = "student 2 forward and backward"
    when = "one step of attack must do; safer than fgsm_rs against catastrophic overfitting"

    class Config(Smoothed):
        noise: float = Field(
            default=2.0, gt=0, description="k: reach of the noise, in eps; the paper takes 2, 3 if eps is large"
        )
        step: float = Field(default=1.0, gt=0, description="α: length of the step, in eps")

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.attack = attacks.build({"name": "fgsm", "step": config.step / (config.noise + config.step)}, where)

    def adversary(self, step: Step, reference: Tensor | None = None) -> Tensor:
        """x' [B, *shape] in the box, up to (k + α) eps from x."""
        return super().adversary(self._widened(step) if step.x_adv is None else step, reference)

    def _widened(self, step: Step) -> Step:
        batch, config = step.batch, self.config
        noisy, given = ball(step.threat.scaled(config.noise)), batch.get("start")
        if given is None:
            start = noisy.start(batch.x, step.draws, "n_fgsm", batch.index)
        else:
            start = noisy.project(given, batch.x)
        threat = step.threat.scaled(config.noise + config.step)
        return replace(step, threat=threat, batch=batch.with_context(start=start))
