"""The stored adversarial examples of another model, as an attack that needs no access to this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.attacks.ball import ball
from robustdistill.errors import BadInput
from robustdistill.inputs.pixels import to_unit
from robustdistill.judge.sample import Sample
from robustdistill.threat import ThreatModel, require_same

_FIX = "make the adversarial set again: dvc repro adversaries"


class Stored(NamedTuple):
    """x_adv: float32 [N, *shape], x where there is none. known [N]: where there is one."""

    x_adv: Tensor
    known: NDArray[np.bool_]
    source_sha256: str


def stored(folder: Path, sample: Sample, threat: ThreatModel) -> Stored:
    """The examples of `sample` in the test part of an adversarial set.

    Raises BadInput if the set is damaged, of another threat model, or about other inputs than the sample.
    """
    manifest = _manifest(folder)
    require_same(threat, ThreatModel.from_json(manifest["threat"]), what="the model and the adversarial set")
    try:
        arrays = [np.load(folder / f"test_{part}.npy", mmap_mode="r", allow_pickle=False) for part in ("x_adv", "id")]
    except (OSError, ValueError, EOFError) as error:
        raise BadInput("the adversarial set is incomplete or damaged", where=str(folder), fix=_FIX) from error
    pixels, ids = arrays[0], np.asarray(arrays[1])
    if pixels.shape != (len(ids), *sample.x.shape[1:]) or pixels.dtype != np.uint8:
        raise BadInput("the adversarial set is of inputs of another shape", where=str(folder), fix=_FIX)
    order = np.argsort(ids)
    at = np.searchsorted(ids[order], sample.ids).clip(max=max(0, len(ids) - 1))
    known = ids[order][at] == sample.ids if len(ids) else np.zeros(len(sample), dtype=bool)
    x_adv = sample.x.clone()
    mask = torch.from_numpy(known).to(x_adv.device)
    x_adv[mask] = torch.from_numpy(to_unit(pixels[order[at[known]]], threat.low, threat.high)).to(x_adv.device)
    if not bool(ball(threat).contains(x_adv, sample.x).all()):
        raise BadInput("stored examples lie outside the threat model", where=str(folder), fix=_FIX)
    return Stored(x_adv, known, str(manifest["source_sha256"]))


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = manifest["threat"], manifest["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("this is not an adversarial set", where=str(path), fix=_FIX) from error
    return manifest
