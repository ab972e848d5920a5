"""What a registered version holds, and the proof that it is sound.

A version is an MLflow ONNX model (data only: no pickle, no code of ours) and an export folder at once: the weights and
their config ride along for white-box attacks, and a smoke test says what the model answered when it was registered.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import BadInput, RobustDistillError, ServiceFailed
from robustdistill.runtime.reading import require_reading

HASHED = {"onnx": "model.onnx", "safetensors": "model.safetensors", "trained_on": "trained_on.npy"}  # by export.json
EXPORT_FILES = (*HASHED.values(), "model.json", "export.json")
SMOKE_FILE = "smoke.json"
REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime")
WARM_CALLS, LATENCY_CALLS, LATENCY_SECONDS = 20, 200, 2.0  # calls before, calls timed at most, seconds at most
TOLERANCE = 1e-4  # other processors and thread counts sum in another order

Array = npt.NDArray[np.float32]


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_whole(folder: Path, error: type[RobustDistillError] = BadInput) -> dict[str, Any]:
    """The folder's export.json, after its files were compared with the hashes in it. Raises `error`."""
    lacking = [name for name in EXPORT_FILES if not (folder / name).is_file()]
    if lacking:
        raise error(f"this is not an exported model: it lacks {', '.join(lacking)}", where=str(folder))
    try:
        record: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        told = {name: record["sha256"][kind] for kind, name in HASHED.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as fault:
        raise error("not the description of an exported model", where=str(folder / "export.json")) from fault
    for name, sha in told.items():
        if digest(folder / name) != sha:
            raise error("the file is not the one that was exported: its sha256 differs", where=str(folder / name))
    return record


def example(record: Mapping[str, Any]) -> Array:
    """Two inputs [2, *shape] that sweep the input's range, one upwards and one downwards."""
    ramp = np.linspace(record["low"], record["high"], int(np.prod(record["shape"])), dtype=np.float32)
    return np.stack([ramp, ramp[::-1]]).reshape(2, *record["shape"])


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(path: Path, x: Array) -> Array:
    """What ONNX Runtime makes of x: [B, classes]. Raises ServiceFailed if it cannot run the file."""
    try:
        session = _session(path)
        answer = session.run(None, {session.get_inputs()[0].name: x})[0]
    except Exception as error:  # ONNX Runtime has a dozen exception types without a common base
        raise ServiceFailed(f"ONNX Runtime cannot run the model: {str(error)[:200]}", where=str(path)) from error
    return np.asarray(answer, dtype=np.float32)


def latency(export: Path) -> float:
    """Median time, in ms, of ONNX Runtime's answer to one example on one thread of this machine, now."""
    x = example(require_whole(export))[:1]
    session = _session(export / "model.onnx")
    feed, taken = {session.get_inputs()[0].name: x}, []
    ends = time.perf_counter() + LATENCY_SECONDS
    for number in range(WARM_CALLS + LATENCY_CALLS):
        began = time.perf_counter()
        session.run(None, feed)
        if number >= WARM_CALLS:
            taken.append(1e3 * (time.perf_counter() - began))
        if taken and began > ends:
            break
    return float(np.median(taken))


def write(export: Path, scorecard: Path, into: Path, *, model_id: str, run: str, location: str) -> Path:
    """An MLflow model in the new folder `into`, made of an export folder and its scorecard; returns `into`."""
    import mlflow.onnx
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    record = require_whole(export)
    x = example(record)
    answer = logits(export / "model.onnx", x)
    proto = onnx.load(str(export / "model.onnx"))  # loaded anew for each call: save_model empties what it is given
    classes = (-1, len(record["classes"]))
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *record["shape"]))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), classes, name=proto.graph.output[0].name)]),
    )
    mlflow.onnx.save_model(
        proto,
        str(into),
        mlflow_model=Model(artifact_path=location, model_uuid=model_id, model_id=model_id, run_id=run),
        signature=signature,
        input_example=x,
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    for name in EXPORT_FILES:  # model.onnx too, so that its hash stays the one that was judged
        shutil.copyfile(export / name, into / name)
    shutil.copyfile(scorecard, into / "scorecard.json")
    text = json.dumps({"logits": answer.tolist()}, indent=2, sort_keys=True) + "\n"
    (into / SMOKE_FILE).write_text(text, encoding="utf-8")
    return into


def _smoke(folder: Path, record: Mapping[str, Any]) -> tuple[Array, Array]:
    """The example of this model, and what it answered when it was registered."""
    try:
        smoke = json.loads((folder / SMOKE_FILE).read_text(encoding="utf-8"))
        return example(record), np.asarray(smoke["logits"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceFailed("the version's smoke test is missing or broken", where=str(folder / SMOKE_FILE)) from error


def smoke_test(folder: Path, sha256: str, read: str | None = None) -> None:
    """Raises ServiceFailed unless the folder holds model `sha256`, whole, and it answers as when it was registered.

    read: the registered hash of class names, input range and scaling, if there is one; BadInput if they differ.
    """
    record = require_whole(folder, ServiceFailed)
    if record["sha256"]["onnx"] != sha256:
        raise ServiceFailed("the registry gave another model than the one asked for", where=str(folder))
    require_reading(record, read, folder / "export.json")
    x, expected = _smoke(folder, record)
    _require_equal(logits(folder / "model.onnx", x), expected, folder)


def served_test(folder: Path) -> None:
    """As `smoke_test`, through MLflow's own loader: what a server would do. Raises ServiceFailed."""
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    x, expected = _smoke(folder, require_whole(folder, ServiceFailed))
    try:
        answer = mlflow.pyfunc.load_model(str(folder)).predict(x)
    except MlflowException as error:
        raise ServiceFailed(f"MLflow cannot serve the model: {str(error)[:200]}", where=str(folder)) from error
    _require_equal(next(iter(answer.values())), expected, folder)


def _require_equal(answer: Array, expected: Array, folder: Path) -> None:
    if answer.shape != expected.shape or not np.isfinite(answer).all():
        raise ServiceFailed("the model's answer has the wrong shape or is not finite", where=str(folder))
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(answer - expected).max())
    if difference > TOLERANCE * scale:
        raise ServiceFailed(
            f"the model no longer answers as it did: logits differ by {difference:.2g}", where=str(folder)
        )
