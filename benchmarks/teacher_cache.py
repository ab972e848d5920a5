"""What it saves to ask the teacher about each example once: training steps per second, cached against live.

    python -m benchmarks.teacher_cache

RSLAD, nano student, tiny teacher, 28 x 28 grey images, the Fashion-MNIST recipe's batch and attack. Both sides train
in turn, in this process, on one thread; seconds are of this process on the CPU (of the wall on a GPU). The figure of a
side is the median over its epochs, without the first of a training and the last, which holds the validation. Filling
the cache counts in `seconds_of_a_training`. Images are noise: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics

from benchmarks.rounds import Noise, clock_of, noise, train

from robustdistill import models, objectives
from robustdistill.config import Training
from robustdistill.engine.devices import Compute, require_device
from robustdistill.models import ModelSpec
from robustdistill.objectives.types import Teacher
from robustdistill.threat import ThreatModel
from robustdistill.training import Job, teacher_cache

BATCH = 128
SHAPE = (1, 28, 28)


def job(data: Noise, teacher: Teacher, spec: ModelSpec, epochs: int, *, cache: str, steps: int, flip: bool) -> Job:
    attack = {"name": "pgd", "steps": steps, "step": 0.4}
    return Job(
        model=models.build(spec, 0, "student"),
        objective=objectives.build({"name": "rslad", "attack": attack, "teacher_cache": cache}),
        train=data,
        val=noise(16, SHAPE),
        threat=ThreatModel("linf", 0.1),
        training=Training(
            epochs=epochs, lr=0.1, batch=BATCH, ema=0.995, select_every=epochs, augment=["flip"] if flip else []
        ),
        seed=0,
        teacher=teacher,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each side")
    parser.add_argument("--epochs", type=int, default=4, help="of each training; the first and the last do not count")
    parser.add_argument("--steps", type=int, default=20, help="training steps in an epoch")
    parser.add_argument("--attack-steps", type=int, default=4, help="of the inner attack")
    parser.add_argument("--flip", action="store_true", help="mirror the images, two answers an example")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    compute = Compute(require_device(given.device), 1)
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, SHAPE, 10, 0.0, 1.0, (0.5,), (0.3,))
    large = ModelSpec({"name": "small_cnn", "size": "tiny"}, SHAPE, 10, 0.0, 1.0, (0.5,), (0.3,))
    teacher = Teacher(models.build(large, 1, "teacher"))
    data = noise(BATCH * given.steps, SHAPE)
    clock = clock_of(given.device)
    seconds: dict[str, list[float]] = {"never": [], "auto": []}
    whole: dict[str, list[float]] = {"never": [], "auto": []}
    for turn, cache in [(turn, cache) for turn in range(given.rounds) for cache in seconds]:
        options = {"cache": cache, "steps": given.attack_steps, "flip": given.flip}
        timed = train(job(data, teacher, spec, given.epochs, **options), compute, clock)
        assert (teacher_cache.TABLE in timed.files) == (cache == "auto"), turn
        whole[cache].append(timed.whole)
        seconds[cache] += timed.epochs
    rate = {cache: given.steps / statistics.median(values) for cache, values in seconds.items()}
    found = {
        "steps_per_second": {"live": round(rate["never"], 2), "cached": round(rate["auto"], 2)},
        "ratio": round(rate["auto"] / rate["never"], 3),
        "seconds_of_a_training": {
            "live": round(statistics.median(whole["never"]), 2),
            "cached, filling included": round(statistics.median(whole["auto"]), 2),
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
