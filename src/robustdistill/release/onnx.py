"""A model as one ONNX file: data only, weights inside, any batch size, the same bytes for the same weights.

PyTorch's tracing exporter is used: for these networks it gives the same numbers as the newer one, folds batch norm as
well, and takes 0.3 s instead of 10 s. Tracing cannot see control flow that depends on data, so the file is run against
the model on real inputs before it counts.
"""

from __future__ import annotations

import io
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.data.files import write_json, write_npy
from robustdistill.errors import BadInput, RobustDistillError
from robustdistill.judge.served import session
from robustdistill.judge.subject import FILES
from robustdistill.models import parameters, weights
from robustdistill.models.classifier import Classifier

OPSET = 18
TOLERANCE = 1e-3  # of logits, relative to the largest one if that is above 1
INPUT, OUTPUT = "x", "logits"


def export(
    folder: Path,
    out: Path,
    classes: list[str],
    examples: Tensor,
    trained_on: NDArray[np.int64],
    unknown: tuple[str, ...] = (),
    *,
    resize: bool = False,
) -> dict[str, Any]:
    """Writes model.onnx, the weights, trained_on.npy and export.json into `out`; returns what export.json holds.

    folder: holds model.safetensors and model.json. examples: real inputs [B, *shape], for the comparison. trained_on:
    content ids of what the model and those it comes from were trained or selected on: no later comparison may use them.
    unknown: names of those it comes from of which nobody recorded that. resize: whether images of any size were
    scaled to the model's, so that those it is asked about are, too; recorded only where it is so.
    Raises BadInput if the model cannot be exported or the file answers differently.
    """
    model = weights.load(folder)
    if len(classes) != model.spec.classes:
        raise BadInput(f"{len(classes)} class names for a model of {model.spec.classes} classes", where=str(folder))
    out.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "model.json"):
        _copy(folder / name, out / name)
    path = out / "model.onnx"
    _write(path, to_onnx(model))
    write_npy(out / FILES["trained_on"], np.unique(trained_on))
    record = {
        "format": 1,
        "sha256": {kind: weights.digest(out / name) for kind, name in FILES.items()},
        "bytes": {name: (out / f"model.{name}").stat().st_size for name in ("onnx", "safetensors")},
        "parameters": parameters(model),
        "opset": OPSET,
        "classes": classes,
        "unknown": list(unknown),
        "shape": list(model.spec.shape),
        "low": model.spec.low,
        "high": model.spec.high,
        "max_logit_difference": round(compare(model, path, examples), 9),
        **({"resize": True} if resize else {}),
    }
    write_json(out / "export.json", record)
    return record


def to_onnx(model: Classifier) -> bytes:
    """The ONNX file of a classifier, input `x` [batch, *shape] float32, output `logits` [batch, C]."""
    x = torch.full((2, *model.spec.shape), (model.spec.low + model.spec.high) / 2)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's age, and about shapes that are constants here
            torch.onnx.export(
                model.to("cpu").eval(),
                (x,),
                buffer,  # type: ignore[arg-type]  # the tracing exporter takes a stream
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
                opset_version=OPSET,
            )
    except Exception as error:  # the exporter raises whatever the traced code does
        raise BadInput(
            f"the model cannot be exported to ONNX: {error}",
            where=str(model.spec.model.get("name")),
            fix="use operations that ONNX has; the initial, teacher, student and control are all exported",
        ) from error
    return _stripped(buffer.getvalue())


def compare(model: Classifier, path: Path, examples: Tensor) -> float:
    """The largest difference of logits between the file and the model, one example at a time and all at once.

    Raises BadInput above TOLERANCE.
    """
    with torch.no_grad():
        wanted = model(examples).numpy()
    served = session(path, 1)
    whole = served.run([OUTPUT], {INPUT: examples.numpy()})[0]
    single = served.run([OUTPUT], {INPUT: examples[:1].numpy()})[0]
    gap = float(max(np.abs(whole - wanted).max(), np.abs(single - wanted[:1]).max()))
    if not gap <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise BadInput(
            f"the exported file gives logits that differ from the model's by {gap:.3g}",
            where=str(path),
            fix="avoid control flow that depends on the values of the input; tracing cannot see it",
        )
    return gap


def _stripped(content: bytes) -> bytes:
    """Without what tells about the machine or the toolchain: doc strings hold file names of the exporting machine."""
    model = onnx.load_from_string(content)
    model.producer_name, model.producer_version, model.doc_string = "", "", ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model)
    stripped: bytes = model.SerializeToString(deterministic=True)
    if len(stripped) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise RobustDistillError("models of 2 GiB and more cannot be exported as one file")
    return stripped


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, part)
    part.replace(target)
