"""What is judged, loaded by a process of its own, which is asked about attacked images before any others.

    python -m robustdistill.actions.judge_anew JSON INPUTS LOGITS

JSON: target, config, twin and compute, as `robustdistill judge` found them. INPUTS, LOGITS: see judge.anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.judge.anew import Anew

if TYPE_CHECKING:
    from robustdistill.actions.judge_target import Place


def command(target: str, place: Place, twin: str | None = None) -> Anew:
    """How to load `target`: weights, ONNX or own code. (An export holds no code, and its score must be the stage's.)"""
    config = str(place.config) if place.config else None
    asked = {"target": target, "config": config, "twin": twin, "compute": place.compute.to_json()}
    return Anew((sys.executable, "-m", __name__, json.dumps(asked)))


def main(asked: dict[str, Any], inputs: Path, logits: Path) -> None:
    import numpy as np
    import torch

    from robustdistill.actions.judge_target import Place, find
    from robustdistill.data.examples import Examples
    from robustdistill.engine.devices import Compute, apply

    compute = Compute(**asked["compute"])
    apply(compute)
    with np.load(inputs, allow_pickle=False) as found:
        first, then = found["first"], found["then"]
    nobody = np.zeros(len(first), dtype=np.int64)  # labels do not matter
    place = Place(None, logits.parent, compute, Path(asked["config"]) if asked["config"] else None)
    subject = find(asked["target"], place, asked["twin"])(Examples(first, nobody, np.arange(len(first))))
    answers = [subject.logits(torch.from_numpy(x).to(compute.device)).cpu().numpy() for x in (first, then)]
    np.savez(logits, first=answers[0], then=answers[1])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
