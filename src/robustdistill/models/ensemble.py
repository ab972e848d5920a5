"""Several classifiers that answer as one: the mean of their probabilities. Made of finished teachers (`average`), it is
one teacher for everything downstream: scored, exported and distilled like any other.

Probabilities are averaged and not logits, because a student that is distilled from their mean p̄ is distilled from all
of them: mean_i KL(p_i ‖ q) = KL(p̄ ‖ q) + a term without q. Nor can a member with large logits outvote the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Spec, Strict
from robustdistill.errors import BadInput
from robustdistill.models.classifier import Classifier
from robustdistill.models.spec import ModelSpec
from robustdistill.registry import resolve

MOST = 64
EACH = "one number for each channel, deviations above 0"


class Member(Strict):
    """One of the averaged models. Its normalisation comes on top of the ensemble's own."""

    model: Spec = Field(description="architecture and its options")
    mean: list[float] = Field(
        default=[], description="normalisation of its own, a number for each channel; [] has none"
    )
    std: list[float] = Field(default=[], description="its deviations, likewise")
    sha256: str | None = Field(default=None, description="of the weights file it came from; null if trained together")


class Ensemble(nn.Module):
    """z = log mean_i softmax(z_i) + mean_i log Σ_k exp z_ik.

    The second term, equal for all classes, gives equal members their own logits back, for whoever matches logits.
    Trained from drawn weights it is trained as one model.
    """

    name = "ensemble"

    class Config(Strict):
        members: list[Member] = Field(
            default=[Member(model={"name": "small_cnn"}), Member(model={"name": "small_cnn"})],
            min_length=1,
            max_length=MOST,
            description="the models whose probabilities are averaged",
        )

    means: Tensor
    stds: Tensor

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.members = nn.ModuleList([_net(member, shape, classes) for member in config.members])
        for name, neutral in (("mean", 0.0), ("std", 1.0)):
            rows = [getattr(member, name) or [neutral] * shape[0] for member in config.members]
            self.register_buffer(f"{name}s", torch.tensor(rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        view = (len(self.members), 1, -1, *[1] * (x.dim() - 2))
        means, stds = self.means.view(view), self.stds.view(view)
        each = [net((x - mean) / std) for net, mean, std in zip(self.members, means, stds, strict=True)]
        logits = torch.stack(each)  # [M, B, C]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        totals = logits.logsumexp(dim=2, keepdim=True)
        return (logits - totals).logsumexp(dim=0) - math.log(len(each)) + totals.mean(dim=0)


def average(models: Sequence[tuple[Classifier, str]]) -> Classifier:
    """Finished models, each with the SHA-256 of its weights, as one in eval mode; their weights are copied.

    Raises BadInput where they are not made for the same inputs and classes.
    """
    from robustdistill.models import build

    first = models[0][0].spec
    for model, _ in models[1:]:
        _require_same(model.spec, first)
    members = [
        {"model": model.spec.model, "mean": list(model.spec.mean), "std": list(model.spec.std), "sha256": sha256}
        for model, sha256 in models
    ]
    channels = first.shape[0]
    spec = replace(
        first, model={"name": Ensemble.name, "members": members}, mean=(0.0,) * channels, std=(1.0,) * channels
    )
    ensemble = build(spec, 0, "average")
    assert isinstance(ensemble.net, Ensemble)
    for net, (model, _) in zip(ensemble.net.members, models, strict=True):
        net.load_state_dict(model.net.state_dict())
    return ensemble.eval()


def _net(member: Member, shape: tuple[int, ...], classes: int) -> nn.Module:
    from robustdistill.models import MODELS  # here, because that table holds Ensemble

    if member.model.get("name") == Ensemble.name:
        raise BadInput("an ensemble is no member of another", where="model.members", fix="name its members instead")
    for name in ("mean", "std"):
        given = getattr(member, name)
        if len(given) not in (0, shape[0]) or (name == "std" and min(given, default=1.0) <= 0):
            raise BadInput(f"{name} is {given} for {shape[0]} channels", where="model.members", fix=EACH)
    kind, config = resolve("model", MODELS, member.model, where="model.members")
    return kind(config, shape, classes)


def _require_same(theirs: ModelSpec, first: ModelSpec) -> None:
    for what in ("shape", "classes", "low", "high"):
        if getattr(theirs, what) != getattr(first, what):
            raise BadInput(
                f"models of {what} {getattr(first, what)} and {getattr(theirs, what)} cannot be averaged",
                fix="average models made for the same data",
            )
