"""The judge beside published figures: models of RobustBench, CIFAR-10's test set, L-inf 8/255, AutoAttack standard.

    python benchmarks/anchors.py Carmon2019Unlabeled Carmon2019Unlabeled.safetensors --data ~/data --out FOLDER

Weights are RobustBench's, as safetensors. This project reads no pickles, so a .pt file is converted in your own shell:

    python -c 'import sys, torch, safetensors.torch as s; s.save_file({k: v.contiguous().clone() for k, v in (
    lambda w: w.get("state_dict", w))(torch.load(sys.argv[1], "cpu", weights_only=True)).items()}, sys.argv[2]
    )' IN.pt OUT.safetensors

--data: torchvision's data root (holds cifar-10-batches-py). Meant for a machine with a GPU. Finished pieces are kept in
FOLDER, so a run that was stopped goes on; FOLDER/NAME.json is the result.

**Not yet run with published weights.** Until it has been, all that is known is that our own suite agrees with
pyautoattack on models of ours (suite_agreement.py).

All 10,000 images: exit code 0 if clean and robust accuracy are within 0.1 points of the published ones, else 1. Fewer
(--n): no anchor, since the sample decides the last digits; exit code 1 only if a published figure lies outside the
95 % interval. 2: bad input.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill import models
from robustdistill.config import Judge
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Split
from robustdistill.engine.devices import apply, choose
from robustdistill.errors import BadInput, RobustDistillError
from robustdistill.journal import Journal
from robustdistill.judge import evaluate
from robustdistill.judge.sample import draw
from robustdistill.judge.subject import Subject
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.models.preact_resnet import Block, PreActResNet
from robustdistill.stages.tools import Tools
from robustdistill.threat import ThreatModel, parse_eps

SHAPE, CLASSES, IMAGES = (3, 32, 32), 10, 10_000
TOLERANCE = 0.1  # points
WRAPPERS = ("module.", "model.")


class WideResNet(PreActResNet):
    """WRN-depth-width (Zagoruyko and Komodakis 2016): three stages of (depth − 4) / 6 blocks, a stem of 16 channels."""

    def __init__(self, depth: int, width: int) -> None:
        nn.Module.__init__(self)
        self.stem = nn.Conv2d(SHAPE[0], 16, 3, 1, 1, bias=False)
        blocks, before = [], 16
        for stage, channels in enumerate((16 * width, 32 * width, 64 * width)):
            for position in range((depth - 4) // 6):
                blocks.append(Block(before, channels, 2 if stage > 0 and position == 0 else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, CLASSES)


class Architecture(NamedTuple):
    """make: the net. rename: a published name of a weight to that of ours, None for one that the net never uses."""

    make: Callable[[], nn.Module]
    rename: Callable[[str], str | None]


def wide(depth: int, width: int) -> Architecture:
    """Weights of TRADES' WideResNet. Some files hold `sub_block1`, which no forward pass goes through."""
    stage = (depth - 4) // 6

    def rename(name: str) -> str | None:
        inside = re.fullmatch(r"block([123])\.layer\.(\d+)\.(.+)", name)
        if inside is None:
            return (
                None
                if name.startswith("sub_block1.")
                else _swapped(name, {"conv1": "stem", "bn1": "norm", "fc": "head"})
            )
        number = stage * (int(inside[1]) - 1) + int(inside[2])
        own = _swapped(inside[3], {"bn1": "norm1", "bn2": "norm2", "convShortcut": "project"})
        return f"blocks.{number}.{own}"

    return Architecture(lambda: WideResNet(depth, width), rename)


def _swapped(name: str, by: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return by.get(first, first) + dot + rest


def _resnet18() -> nn.Module:
    spec = ModelSpec({"name": "resnet18"}, SHAPE, CLASSES, 0.0, 1.0, (0.0,) * 3, (1.0,) * 3)
    return models.build(spec, 0, "anchor").net


RESNET18 = Architecture(
    _resnet18, lambda name: "body." + name.replace("shortcut.", "downsample.").replace("linear.", "fc.")
)


class Anchor(NamedTuple):
    """clean, robust: published, in percent. mean, std: what the model does to its input first."""

    architecture: Architecture
    clean: float
    robust: float
    eps: str = "8/255"
    mean: float = 0.0
    std: float = 1.0


# RobustBench at commit 78fcc9e, model_info/cifar10/Linf/NAME.json: clean_acc, autoattack_acc, eps.
ANCHORS = {
    "Sehwag2021Proxy_R18": Anchor(RESNET18, 84.59, 55.54),
    "Addepalli2022Efficient_RN18": Anchor(RESNET18, 85.71, 52.48),
    "Addepalli2021Towards_RN18": Anchor(RESNET18, 80.24, 51.06),
    "Carmon2019Unlabeled": Anchor(wide(28, 10), 89.69, 59.53),
    "Wang2020Improving": Anchor(wide(28, 10), 87.50, 56.29),
    "Hendrycks2019Using": Anchor(wide(28, 10), 87.11, 54.92, mean=0.5, std=0.5),
    "Zhang2019Theoretically": Anchor(wide(34, 10), 84.92, 53.08, eps="0.031"),
}


def load(name: str, path: Path) -> Classifier:
    """The anchor with the weights of a safetensors file, in eval mode. Raises BadInput if they are not its own."""
    anchor = ANCHORS[name]
    found = {}
    for theirs, tensor in weights.read_tensors(path).items():
        ours = anchor.architecture.rename(_bare(theirs))
        if ours is not None:
            found[ours] = tensor
    net = anchor.architecture.make()
    wanted = net.state_dict()
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    found = counters | found  # not in every file, and not used in eval mode
    fault = _misfit(wanted, found)
    if fault:
        raise BadInput(f"these are not the weights of {name}: {fault}", where=str(path))
    net.load_state_dict(found)
    spec = ModelSpec({"name": name}, SHAPE, CLASSES, 0.0, 1.0, (anchor.mean,) * 3, (anchor.std,) * 3)
    return Classifier(spec, net).eval()


def _bare(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    differ = sorted(set(wanted) ^ set(found))
    if differ:
        return f"{differ[0]} is {'missing' if differ[0] in wanted else 'unknown'}, and {len(differ) - 1} more"
    shapes = (key for key, value in wanted.items() if value.shape != found[key].shape)
    wrong = next(shapes, None)
    return None if wrong is None else f"{wrong} has shape {tuple(found[wrong].shape)}, not {tuple(wanted[wrong].shape)}"


def images(root: Path) -> Split:
    """CIFAR-10's test set. Raises BadInput."""
    from torchvision import datasets

    try:
        found = datasets.CIFAR10(root, train=False, download=False)
    except (OSError, RuntimeError) as error:
        fix = "--data: torchvision's data root (holds cifar-10-batches-py)"
        raise BadInput("CIFAR-10 is not there, or is damaged", where=str(root), fix=fix) from error
    x = np.ascontiguousarray(np.moveaxis(found.data, -1, 1))
    return Split("test", x, np.array(found.targets, dtype=np.int64), np.arange(len(x)), 0.0, 1.0)


def compare(name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """Measured beside published. holds: see the exit codes."""
    published = {"clean": ANCHORS[name].clean, "robust": ANCHORS[name].robust}
    n, rows, holds = card["sample"]["n"], {}, True
    for key, figure in published.items():
        measured, low, high = (round(100 * card[key][part], 3) for part in ("accuracy", "lower", "upper"))
        off = measured - figure
        holds &= abs(off) <= TOLERANCE + 1e-9 if n == IMAGES else low <= figure <= high
        rows[key] = {"published": figure, "measured": measured, "off": round(off, 3), "interval": [low, high]}
    return {"model": name, "images": n, "anchor": n == IMAGES, "holds": holds, **rows}


def run(arguments: Any) -> dict[str, Any]:
    compute = choose()
    apply(compute)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # verdicts are float32's
    subject = Subject.of_classifier(
        load(arguments.name, arguments.weights), weights.digest(arguments.weights), compute.device
    )
    sample = draw(images(arguments.data), arguments.n, 0, compute.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tools = Tools(compute, Journal(arguments.out / "journal.jsonl", "anchors"), arguments.out / "pieces")
    protocol = Judge(attacks=[], autoattack="standard", chunk=arguments.chunk, curve=[1.0], curve_examples=10)
    threat = ThreatModel("linf", parse_eps(ANCHORS[arguments.name].eps))
    card = evaluate(subject, sample, threat, protocol, tools).card
    result = {**compare(arguments.name, card), "device": compute.device, "weights": subject.about["sha256"]}
    write_json(arguments.out / f"{arguments.name}.json", result | {"card": card})
    return result


def arguments_of(given: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(ANCHORS), help="as RobustBench calls it")
    parser.add_argument("weights", type=Path, help="its weights, as safetensors")
    parser.add_argument("--data", type=Path, required=True, help="torchvision's data root")
    parser.add_argument("--out", type=Path, required=True, help="folder of pieces and result")
    parser.add_argument("--n", type=int, default=IMAGES, help="test images")
    parser.add_argument("--chunk", type=int, default=250, help="images attacked at a time")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    try:
        result = run(arguments_of(given))
    except RobustDistillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result, indent=1))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
