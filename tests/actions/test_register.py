from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelStatus

from robustdistill.actions.package import EXPORT_FILES, digest
from robustdistill.actions.register import Registered, register
from robustdistill.errors import BadInput, ServiceFailed

WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "robustdistill"):
            raise ImportError(name + " is not to be imported here")

sys.meta_path.insert(0, Blocker())
import numpy as np
import mlflow.pyfunc

model = mlflow.pyfunc.load_model("models:/toy-candidates@served")
answer = model.predict(np.ones((2, 1, 2, 3), np.float32))
assert "torch" not in sys.modules
try:
    model.predict(np.ones((2, 6), np.float32))
except mlflow.exceptions.MlflowException:
    print("ANSWER", [round(float(v), 3) for v in answer["logits"][0]])
"""


@pytest.fixture
def run(store):
    return store.create_run(store.experiment("toy"), "retrain", started=0.0, tags={})


def registering(store, run, export, score, **changes):
    given = {"parent_run": run, "tags": {"robustdistill.data_digest": "d1"}, "description": "card"} | changes
    return register(store, "toy", export=export, scorecard=score, **given)


def test_a_version_is_an_export_folder_with_its_lineage(store, run, make_student, tmp_path):
    export, score = make_student(1.0, robust=0.61, clean=0.92)
    made = registering(store, run, export, score / "scorecard.json")
    assert made == Registered("toy-candidates", 1, True, digest(export / "model.onnx"))
    version = store.registry.version("toy-candidates", 1)
    assert version.run == run
    assert version.description == "card"
    assert version.tags["robustdistill.sha256"] == made.sha256
    assert (version.tags["robustdistill.robust"], version.tags["robustdistill.clean"]) == ("0.6100", "0.9200")
    assert version.tags["robustdistill.data_digest"] == "d1"
    files = store.registry.download("toy-candidates", 1, tmp_path / "back")
    for name in EXPORT_FILES:
        assert (files / name).read_bytes() == (export / name).read_bytes()
    requirements = (files / "requirements.txt").read_text()
    assert "onnxruntime==" in requirements
    assert "torch" not in requirements
    assert not list(files.rglob("*.pkl"))


def test_an_unchanged_student_makes_no_new_version(store, run, make_student):
    first = registering(store, run, *make_student(1.0, robust=0.5))
    registering(store, run, *make_student(2.0))
    again = registering(store, run, *make_student(1.0, robust=0.7))
    assert again == Registered("toy-candidates", 1, False, first.sha256)
    assert [version.number for version in store.registry.versions("toy-candidates")] == [2, 1]
    assert store.registry.version("toy-candidates", 1).tags["robustdistill.robust"] == "0.7000"


def test_other_class_names_make_another_version(store, run, make_student):
    """A renamed class leaves the weights as they are."""
    first = registering(store, run, *make_student(1.0))
    renamed = registering(store, run, *make_student(1.0, classes=["cat", "wolf", "eel"]))
    assert renamed == Registered("toy-candidates", 2, True, first.sha256)
    assert registering(store, run, *make_student(1.0)) == Registered("toy-candidates", 1, False, first.sha256)
    one, two = (store.registry.version("toy-candidates", number).tags for number in (1, 2))
    assert one["robustdistill.config_sha256"] != two["robustdistill.config_sha256"]
    store.client.delete_model_version_tag("toy-candidates", "2", "robustdistill.config_sha256")  # as an older one
    assert registering(store, run, *make_student(1.0, classes=["cat", "wolf", "eel"])).version == 2
    assert "robustdistill.config_sha256" not in store.registry.version("toy-candidates", 2).tags  # its files decide


def test_mlflow_serves_it_in_a_process_without_torch(store, run, work, make_student):
    registering(store, run, *make_student())
    store.registry.point("toy-candidates", "served", 1)
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_TORCH], capture_output=True, text=True, env=environment, cwd=work
    )
    # column sums of arange(18).reshape(6, 3) / 18, and the bias
    assert "ANSWER [2.6, 3.033, 3.467]" in done.stdout, done.stderr[-2000:]


def _spoil_onnx(export: Path, score: Path) -> None:
    (export / "model.onnx").write_bytes((export / "model.onnx").read_bytes() + b" ")


def _lose_weights(export: Path, score: Path) -> None:
    (export / "model.safetensors").unlink()


def _empty_description(export: Path, score: Path) -> None:
    (export / "export.json").write_text("[]")


def _score_of_another(export: Path, score: Path) -> None:
    card = json.loads((score / "scorecard.json").read_text())
    (score / "scorecard.json").write_text(json.dumps(card | {"subject": {"onnx_sha256": "0" * 64}}))


def _no_scorecard(export: Path, score: Path) -> None:
    (score / "scorecard.json").write_text('{"clean": 3}')


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_spoil_onnx, "sha256 differs"),
        (_lose_weights, "lacks model.safetensors"),
        (_empty_description, "not the description"),
        (_score_of_another, "of another model"),
        (_no_scorecard, "not a scorecard"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(store, run, make_student, spoil, sentence):
    export, score = make_student()
    spoil(export, score)
    with pytest.raises(BadInput, match=sentence):
        registering(store, run, export, score)
    assert store.registry.versions("toy-candidates") == []


def test_an_upload_that_changes_the_model_makes_no_version(store, run, make_student, monkeypatch):
    upload = type(store.client).log_model_artifacts

    def lossy(client, model_id, folder):
        path = Path(folder) / "model.onnx"
        path.write_bytes(path.read_bytes()[:-4])
        upload(client, model_id, folder)

    monkeypatch.setattr(type(store.client), "log_model_artifacts", lossy)
    with pytest.raises(ServiceFailed, match="sha256 differs"):
        registering(store, run, *make_student())
    assert store.registry.versions("toy-candidates") == []


def test_an_interrupted_upload_is_marked_as_failed(store, run, make_student, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(store.client), "log_model_artifacts", full)
    with pytest.raises(ServiceFailed, match="no space left"):
        registering(store, run, *make_student())
    (model,) = store.client.search_logged_models([store.experiment("toy")])
    assert model.status == LoggedModelStatus.FAILED
