from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services.mlflow_address import Address, configure_environment
from robustdistill.services.mlflow_store import Measure, Store

OPEN = """
import sys
from pathlib import Path
from robustdistill.services.mlflow_store import Store

assert "mlflow" not in sys.modules, "imported before it was asked for"
store = Store.open(None, Path(sys.argv[1]))
experiment = store.experiment("toy")
store.create_run(experiment, sys.argv[2], started=1.0, tags={})
print([run.name for run in store.runs(experiment)])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store on a database that two processes have found fresh at the same moment."""
    work = tmp_path_factory.mktemp("work")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(work), name], cwd=work, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert not [error for _, error in answers if error.strip()], "MLflow talks on stderr"
    return Store.open(f"sqlite:///{work / 'mlflow.db'}", work)


@pytest.fixture
def run(store):
    return store.create_run(store.experiment("toy"), "a run", started=1.5, tags={"kind": "test"})


def test_two_processes_may_find_a_fresh_database_at_once(store):
    assert {found.name for found in store.runs(store.experiment("toy"))} >= {"first", "second"}
    assert not (store.address.database.parent / "mlruns").exists()


def test_an_experiment_is_made_once_and_outlives_its_deletion(store):
    first = store.experiment("another")
    store.client.delete_experiment(first)
    assert store.experiment("another") == first


def test_an_experiment_says_what_it_holds_and_the_empty_one_too(store):
    tags = store.client.get_experiment(store.experiment("told")).tags
    assert "flow run of the model told" in tags["mlflow.note.content"]
    assert "empty" in store.client.get_experiment("0").tags["mlflow.note.content"]


def test_more_than_a_batch_holds_is_written_whole_and_twice_is_once(store, run):
    metrics = [Measure("loss", step / 7, 1000.0 + step, step) for step in range(1900)] + [
        Measure("nan", float("nan"), 1.0)
    ]
    params, tags = {f"p{n}": str(n) for n in range(150)}, {f"t{n}": "x" * 9000 for n in range(150)}
    for _ in range(2):
        store.log(run, metrics=metrics, params=params, tags=tags)
    told = store.client.get_run(run)
    assert len(store.client.get_metric_history(run, "loss")) == 1900
    assert len(store.client.get_metric_history(run, "nan")) == 1
    assert told.data.params == params
    assert len(told.data.tags["t149"]) == 5000
    assert told.info.start_time == 1500


def test_runs_are_found_by_tags_and_status(store, run):
    experiment = store.experiment("toy")
    child = store.create_run(experiment, "child", started=2.0, tags={"robustdistill.run": "it's 1"}, parent=run)
    with pytest.raises(BadInput, match="quote"):
        store.runs(experiment, tags={"robustdistill.run": "it's 1"})
    assert store.client.get_run(child).data.tags["mlflow.parentRunId"] == run
    found = store.runs(experiment, tags={"mlflow.parentRunId": run}, status="RUNNING")
    assert [item.id for item in found] == [child]
    store.status(child, "FAILED", ended=3.0)
    assert store.runs(experiment, tags={"mlflow.parentRunId": run}, status="RUNNING") == []
    assert store.client.get_run(child).info.end_time == 3000


def test_a_data_digest_of_dvc_just_fits(store, run):
    digest = "0123456789abcdef0123456789abcdef.dir"
    for _ in range(2):
        store.log_dataset(run, name="data", digest=digest, source="data.dvc")
    (used,) = store.client.get_run(run).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("data", digest, "training")
    with pytest.raises(BadInput, match="36"):
        store.log_dataset(run, name="data", digest=digest + "x", source="data.dvc")


def test_files_lie_beside_the_database(store, run, tmp_path):
    (tmp_path / "report.html").write_text("<html>")
    store.log_files(run, {"": [tmp_path / "report.html"], "a/b": [tmp_path / "report.html"]})
    assert len(list(store.files.rglob("report.html"))) == 2


def test_what_mlflow_refuses_is_a_sentence(store):
    with pytest.raises(ServiceFailed, match="MLflow: ") as caught:
        store.log("0" * 32, tags={"a": "b"})
    assert "\n" not in caught.value.cause


def test_aliases_tags_and_versions(store, run, tmp_path):
    registry = store.registry
    assert (registry.aliases("nobody"), registry.tags("nobody"), registry.versions("nobody")) == ({}, {}, [])
    for _ in range(2):
        registry.ensure("toy")
    for number in range(1, 12):
        assert registry.create("toy", str(tmp_path), run=run, tags={"n": str(number)}).number == number
    assert [version.number for version in registry.versions("toy")] == list(range(11, 0, -1))
    registry.point("toy", "champion", 10)
    registry.point("toy", "champion", 11)
    assert registry.aliases("toy") == {"champion": 11}
    for _ in range(2):
        registry.point("toy", "champion", None)
        registry.tag_model("toy", "intent", None)
    registry.tag_model("toy", "intent", "x")
    registry.tag("toy", 3, {"n": "three"})
    assert (registry.aliases("toy"), registry.tags("toy")) == ({}, {"intent": "x"})
    assert registry.version("toy", 3).tags == {"n": "three"}
    with pytest.raises(BadInput, match="toy has no version 99"):
        registry.version("toy", 99)


def test_an_unreachable_server_is_told_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(ServiceFailed, match="does not answer") as caught:
            Store.open(f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}", tmp_path)
    assert time.monotonic() - began < 6
    assert "secret" not in str(caught.value)
    assert "***@127.0.0.1" in str(caught.value)


def test_something_that_is_no_mlflow_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(ServiceFailed, match="MLflow: ") as caught:
            Store.open(f"http://me:secret@127.0.0.1:{mute.getsockname()[1]}", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file:./mlruns", "./mlruns", "mlruns", "databricks"])
def test_stores_without_a_registry_are_refused(uri, tmp_path):
    with pytest.raises(BadInput, match="database or a server"):
        Address.find(uri, tmp_path)


def test_where_records_go(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Address.find(None, tmp_path).database == tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert Address.find(None, tmp_path).uri == "http://127.0.0.1:5000"
    assert Address.find("postgresql+psycopg2://h/db", tmp_path).scheme == "postgresql"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:pass-word@host:5000/base", "http://***@host:5000/base"),
        ("postgresql://me:pass-word@host/db?sslpassword=other-word", "postgresql://***@host/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_secrets_are_never_shown(uri, shown, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-word")
    address = Address(uri)
    assert address.shown == shown
    text = address.redact(f"at {uri}: 'pass-word' is wrong for me:pass-word, other-word, token-word")
    for secret in ("pass-word", "other-word", "token-word"):
        assert secret not in repr(address)
        if secret in uri or secret == "token-word":
            assert secret not in text


def test_telemetry_and_pickles_are_off_whatever_was_set(monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "1")  # which MLflow does not take for a yes
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    configure_environment()
    names = (
        "DO_NOT_TRACK",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
        "MLFLOW_MODEL_CATALOG_URI",
    )
    assert [os.environ[name] for name in names] == ["true", "true", "false", ""]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_nothing_of_mlflow_is_imported_before_it_is_opened():
    modules = "robustdistill.services.mlflow_store, robustdistill.actions.record, robustdistill.actions.promote"
    code = f"import sys, {modules}; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("password", ["pass-word@more", "pass/word", "a@b/c@d"])
def test_an_odd_password_is_not_shown_either(password):
    assert Address(f"postgresql://me:{password}@host/db").shown == "postgresql://***@host/db"


def test_an_address_that_cannot_be_read_is_refused_without_its_password(tmp_path):
    with pytest.raises(BadInput, match="not an address") as caught:
        Address.find("postgresql://me:pass/word@h/db", tmp_path)
    assert "pass/word" not in str(caught.value)
