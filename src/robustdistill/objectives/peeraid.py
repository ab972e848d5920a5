"""PeerAiD (Jung et al. 2024): a peer P learns, beside the student, to withstand the attacks on the student.

student: L_S = λ1 · CE(S(x'), y) + λ2 · T² · KL(P(x')/T ‖ S(x')/T) + λ3 · T² · KL(S(x)/T ‖ S(x')/T)
peer:    L_P = γ1 · CE(P(x'), y) + γ2 · KL(S(x') ‖ P(x')),
x' maximising KL(P(x) ‖ S(x')) from x + 0.001 N(0, 1).
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.attacks.types import TorchTarget
from robustdistill.config import Spec
from robustdistill.objectives.companion import Accompanied, Companionship
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Parts, Step


class PeerAiD(Companionship):
    """Both losses in one step, each minimised over its own model: what it takes from the other is detached.

    (In the published code L_P's KL reaches the student as well, and each KL is averaged over classes.) T = 5, λ = (0,
    1, 1), γ = (1, 0.1) are those for CIFAR-10; γ2 is 1 for CIFAR-100. The pass over x is left out if λ3 = 0.
    """

    name = "peeraid"
    adversarial = True
    source = "Jung et al. 2024"
    formula = (
        "student: λ1·CE(S(x'), y) + T²·(λ2·KL(P(x')‖S(x')) + λ3·KL(S(x)‖S(x'))); "
        "peer: γ1·CE(P(x'), y) + γ2·KL(S(x')‖P(x')); x' maximises KL(P(x)‖S(x'))"
    )
    cost = "student K+2 forward and backward (K+1 if λ3 = 0); peer 1 forward and backward, 1 forward"
    when = "no strong teacher at hand; the peer costs what the student costs"

    class Config(Accompanied, Adversarial):
        ce_weight: float = Field(default=0.0, ge=0, description="λ1: of CE(S(x'), y)")
        weight: float = Field(default=1.0, ge=0, description="λ2: of the KL from the peer")
        self_weight: float = Field(default=1.0, ge=0, description="λ3: of KL(S(x) ‖ S(x'))")
        temperature: float = Field(default=5.0, gt=0, description="T: of both softmaxes of the student's KL terms")
        peer_ce_weight: float = Field(default=1.0, ge=0, description="γ1: of CE(P(x'), y)")
        peer_weight: float = Field(default=0.1, ge=0, description="γ2: of KL(S(x') ‖ P(x'))")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"},
            description="the inner attack on the student; `kl` moves away from P(x), in evaluation mode",
            validate_default=True,
        )

    def forward(self, step: Step) -> Parts:
        config, y = self.config, step.batch.y
        x_adv = self.adversary(step, reference=TorchTarget(self.companion).logits(step.batch.x))
        clean = step.student(step.batch.x) if config.self_weight > 0 else None
        adversarial = step.student(x_adv)
        peer = self.companion(x_adv)
        from_peer = kl(peer.detach(), adversarial, config.temperature)
        peer_ce = F.cross_entropy(peer, y, reduction="none")
        peer_kl = kl(adversarial.detach(), peer)
        loss = config.weight * from_peer + config.peer_ce_weight * peer_ce + config.peer_weight * peer_kl
        terms = {"kl_peer": from_peer.detach(), "ce_of_peer": peer_ce.detach(), "kl_of_peer": peer_kl.detach()}
        if clean is not None:
            own = kl(clean, adversarial, config.temperature)
            loss, terms["kl_self"] = loss + config.self_weight * own, own.detach()
        if config.ce_weight > 0:
            ce = F.cross_entropy(adversarial, y, reduction="none")
            loss, terms["ce_adv"] = loss + config.ce_weight * ce, ce.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
