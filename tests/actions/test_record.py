from __future__ import annotations

import json
import math
import socket
import time
from pathlib import Path

import pytest
import yaml

from robustdistill import config, journal
from robustdistill.actions import owner, record, stage_news
from robustdistill.actions.mirror import RUN, STAGE, Ending, Mirror, Opening
from robustdistill.actions.record import Recorder, reap
from robustdistill.actions.run_facts import Samples, dataset, stage_params
from robustdistill.errors import ServiceFailed
from robustdistill.services.mlflow_store import Store

DATA_DVC = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n"
PARAMS = """
name: toy
seed: 7
threat: {norm: linf, eps: 0.1}
data: {source: digits}
initial: &learner
  model: {name: small_cnn, size: nano}
  objective: {name: ce}
  training: {epochs: 2, lr: 0.2}
adversaries: {attack: {name: pgd, steps: 20}}
teacher: {<<: *learner, objective: {name: trades, beta: 6}}
student: {<<: *learner, objective: {name: rslad}}
control: {objective: {name: pgd_at}}
judge: {attacks: [{name: fgsm}, {name: pgd, steps: 50}]}
"""


def line(event: str, stage: str = "teacher", *, run: str = "r1", t: float = 1000.0, **fields: object) -> str:
    return json.dumps({"t": t, "run": run, "stage": stage, "event": event, **fields}) + "\n"


JOURNAL = "".join(
    [
        line("start", t=1000.0, device="cpu"),
        line("progress", t=1000.5, done=1, total=2, unit="steps", loss=1.0),
        line("epoch", t=1001.0, epoch=1, epochs=2, step=10, loss=0.9, kl=0.4, val_clean=None, lr=0.1, seconds=1.0),
        line("alarm", t=1001.5, kind="not finite", message="the loss is not finite.", advice="Lower lr."),
        line("epoch", t=1002.0, epoch=2, epochs=2, step=20, loss=math.nan, val_clean=0.8, val_pgd=0.6, lr=0.05),
        line("trained", t=1002.5, sha256="0" * 64, epochs=2, examples=4000, cpu_seconds=1.5),
        line("end", t=1003.0, seconds=3.0),
        line("start", "student", t=1004.0),
        line("failed", "student", t=1005.0, seconds=1.0, error="out of memory"),
        line("start", "score@student", t=1006.0),
        line("start", "judge", run="another", t=1006.0),
    ]
)


@pytest.fixture
def root(work: Path) -> Path:
    (work.parent / "data.dvc").write_text(DATA_DVC)
    complete = config.dump(config.options(config.Params, yaml.safe_load(PARAMS), where="test"))
    (work.parent / "params.yaml").write_text(yaml.safe_dump(complete))
    return work.parent


def opening(root: Path, **changes: object) -> Opening:
    given = {"name": "retrain 1", "model": "toy", "tags": {"robustdistill.reason": "test"}, "params": {"seed": "7"}}
    return Opening(**given, stage_params=stage_params(root), dataset=dataset(root), started=999.0, **changes)


def snapshot(store: Store) -> dict[str, object]:
    """Everything MLflow says of the experiment's runs, by name."""
    found = {}
    for run in store.client.search_runs([store.experiment("toy")]):
        metrics = {
            key: sorted(
                (m.step, m.timestamp, str(m.value)) for m in store.client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
        }
        inputs = [item.dataset.digest for item in run.inputs.dataset_inputs]
        about = (run.info.status, run.info.start_time, run.info.end_time, dict(run.data.params), dict(run.data.tags))
        assert run.info.run_name not in found, "a second run of the same name"
        found[run.info.run_name] = (*about, metrics, inputs)
    return found


def mirrored(store: Store, root: Path, work: Path) -> None:
    copy = Mirror(work, root / "journal.jsonl")
    copy.announce("r1", opening(root))
    copy.send(store)
    copy.conclude(
        "r1", Ending("FAILED", 1010.0, {"test/student/robust": 0.5}, {"robustdistill.outcome": "refused"}), {}
    )
    copy.send(store)


def test_the_journal_becomes_a_run_with_a_child_for_each_stage(store, root, work):
    (root / "journal.jsonl").write_text(JOURNAL)
    mirrored(store, root, work)
    runs = snapshot(store)
    assert set(runs) == {"retrain 1", "teacher", "student", "score@student"}
    status, started, ended, params, tags, metrics, inputs = runs["teacher"]
    assert (status, started, ended) == ("FINISHED", 1_000_000, 1_003_000)
    assert params["model"] == "small_cnn(size=nano)"
    assert params["objective"] == "trades(beta=6)"
    assert (tags["mlflow.parentRunId"], tags[RUN], tags[STAGE]) == (
        store.runs(store.experiment("toy"), tags={"robustdistill.outcome": "refused"})[0].id, "r1", "teacher",
    )  # fmt: skip
    assert tags["alarm.not_finite"] == "the loss is not finite. Lower lr."
    assert metrics["val/pgd"] == [(2, 1_002_000, "0.6")]
    assert metrics["train/loss"] == [(1, 1_001_000, "0.9"), (2, 1_002_000, "nan")]
    assert set(metrics) == {
        "train/loss",
        "train/kl",
        "val/clean",
        "val/pgd",
        "lr",
        "time/epoch_seconds",
        "time/seconds",
        "time/train_cpu_seconds",
        "train/examples",
    }
    assert (runs["student"][0], runs["student"][4]["robustdistill.error"]) == ("FAILED", "out of memory")
    assert runs["score@student"][:3] == ("KILLED", 1_006_000, 1_010_000)  # it never said that it had ended
    assert runs["score@student"][3]["attacks"] == "fgsm, pgd(steps=50)"
    status, _, ended, params, tags, metrics, inputs = runs["retrain 1"]
    assert (status, ended, params) == ("FAILED", 1_010_000, {"seed": "7"})
    assert tags["alarm.not_finite.teacher"]
    assert metrics["test/student/robust"] == [(0, 1_010_000, "0.5")]
    assert inputs == ["0123456789abcdef0123456789abcdef.dir"]


def test_at_the_end_the_stages_hear_of_the_commit_that_holds_their_results(store, root, work):
    """A stage begins before there is one, and before new data are versioned."""
    (root / "journal.jsonl").write_text(JOURNAL)
    mirror = Mirror(work, root / "journal.jsonl")
    start = {"robustdistill.git_commit": "c0", "robustdistill.data_digest": "old", "robustdistill.reason": "test"}
    given = opening(root)
    given.tags.update(start)
    mirror.announce("r1", given)
    mirror.send(store)
    told = {"robustdistill.result_commit": "c1", "robustdistill.git_dirty": "true", "robustdistill.data_digest": "new"}
    mirror.conclude("r1", Ending("FINISHED", 1010.0, {}, start | told | {"robustdistill.outcome": "promoted"}), {})
    mirror.send(store)
    runs = snapshot(store)
    for name in ("retrain 1", "teacher", "student", "score@student"):
        tags = runs[name][4]
        assert tags | start | told == tags, name
    assert "robustdistill.outcome" in runs["retrain 1"][4] and "robustdistill.outcome" not in runs["teacher"][4]


def test_mirroring_twice_changes_nothing(store, root, work):
    (root / "journal.jsonl").write_text(JOURNAL)
    mirrored(store, root, work)
    first = snapshot(store)
    (work / "mirror.json").unlink()
    mirrored(store, root, work)
    assert snapshot(store) == first


@pytest.mark.parametrize(
    ("verb", "done"),
    [
        ("create_run", False),
        ("create_run", True),
        ("log_batch", False),
        ("log_batch", True),
        ("set_terminated", False),
        ("log_inputs", True),
        ("search_runs", False),
        ("log_artifact", True),
    ],
)
def test_a_server_that_goes_away_at_any_moment_only_delays(store, root, work, monkeypatch, verb, done):
    """Some calls fail, before or after they took effect."""
    (root / "journal.jsonl").write_text(JOURNAL)
    report = root / "report.html"
    report.write_text("as it was")
    calls, real = [], getattr(type(store.client), verb)

    def flaky(*args, **kwargs):
        calls.append(verb)
        fails = len(calls) in (1, 3, 6, 10)
        result = real(*args, **kwargs) if done or not fails else None
        if fails:
            raise OSError("gone")
        return result

    copy = Mirror(work, root / "journal.jsonl")
    copy.announce("r1", opening(root))
    copy.conclude(
        "r1",
        Ending("FAILED", 1010.0, {"test/student/robust": 0.5}, {"robustdistill.outcome": "refused"}),
        {"": [report]},
    )
    report.write_text("changed since")
    failures = 0
    with monkeypatch.context() as patch:
        patch.setattr(type(store.client), verb, flaky)
        while copy.entries and failures < 9:
            try:
                copy.send(store)
            except ServiceFailed:
                failures += 1
    assert 0 < failures < 9
    got = snapshot(store)
    parent = copy.parents["r1"]
    assert Path(store.client.download_artifacts(parent, "report.html")).read_text() == "as it was"
    assert not (work / "mirror" / "r1").exists()
    other = work.parent / "other"
    other.mkdir()
    _assert_like_an_undisturbed_one(got, store, root, other)


def _assert_like_an_undisturbed_one(got, store, root, other):
    for run in store.client.search_runs([store.experiment("toy")]):
        store.client.delete_run(run.info.run_id)
    mirrored(store, root, other)
    without_parent = lambda runs: {  # noqa: E731
        name: [dict(item, **{"mlflow.parentRunId": ""}) if isinstance(item, dict) else item for item in run]
        for name, run in runs.items()
    }
    assert without_parent(got) == without_parent(snapshot(store))


def test_what_an_earlier_run_could_not_tell_the_next_one_tells(store, root, work):
    (root / "journal.jsonl").write_text(JOURNAL)
    first = Mirror(work, root / "journal.jsonl")
    first.announce("r1", opening(root))  # and then its process died, with MLflow away all the time
    second = Mirror(work, root / "journal.jsonl")
    second.announce("r2", opening(root))
    second.send(store)
    states = {(run.tags[RUN], run.tags.get(STAGE)): run.status for run in store.runs(store.experiment("toy"))}
    assert states == {
        ("r1", None): "KILLED", ("r1", "teacher"): "FINISHED", ("r1", "student"): "FAILED",
        ("r1", "score@student"): "KILLED", ("r2", None): "RUNNING",
    }  # fmt: skip


def test_a_run_that_goes_on_under_its_id_keeps_its_children(store, root, work):
    (root / "journal.jsonl").write_text(JOURNAL)
    mirrored(store, root, work)
    ids = {run.name: run.id for run in store.runs(store.experiment("toy"))}
    with (root / "journal.jsonl").open("a") as stream:
        stream.write(line("start", "student", t=1020.0) + line("end", "student", t=1021.0, seconds=1.0))
    again = Mirror(work, root / "journal.jsonl")
    again.announce("r1", opening(root))
    again.send(store)
    runs = {run.name: run for run in store.runs(store.experiment("toy"))}
    assert {name: run.id for name, run in runs.items()} == ids
    assert (runs["retrain 1"].status, runs["student"].status) == ("RUNNING", "FINISHED")


def recorder(root: Path, work: Path, run: str = "r1") -> Recorder:
    return Recorder(
        root, run=run, name="retrain", tags={"robustdistill.reason": "test"}, params={"seed": "7"}, description="why",
        work=work, journal=root / "journal.jsonl", model_name="toy",
    )  # fmt: skip


def test_the_recorder_follows_while_the_flow_runs(root, work, monkeypatch):
    monkeypatch.setattr(record, "EVERY_SECONDS", 0.02)
    monkeypatch.setenv(journal.RUN_VARIABLE, "r1")
    report = root / "report.html"
    report.write_text("<html>")
    one = recorder(root, work)
    one.start()
    store = one.store(60)
    journal.Journal(root / "journal.jsonl", "teacher").write("start")
    deadline = time.monotonic() + 20
    while (
        not (children := store.runs(store.experiment("toy"), tags={STAGE: "teacher"})) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert children[0].status == "RUNNING"
    journal.Journal(root / "journal.jsonl", "teacher").write("end", seconds=0.1)
    one.finish("FINISHED", artifacts={"report": [report]}, metrics={"test/student/clean": 0.9}, tags={"a": "b"})
    assert one.errors == []
    run = store.client.get_run(one.parent_id)
    assert (run.info.status, run.data.tags["mlflow.note.content"], run.data.tags["a"]) == ("FINISHED", "why", "b")
    assert run.data.metrics["test/student/clean"] == 0.9
    assert run.data.metrics["system/memory_megabytes"] > 1
    assert [item.path for item in store.client.list_artifacts(one.parent_id, "report")] == ["report/report.html"]
    assert store.client.get_run(children[0].id).info.status == "FINISHED"


def test_an_unreachable_server_stops_nothing_and_is_told_later(root, work, monkeypatch):
    with socket.socket() as closed:  # bound and not listening: refuses at once
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}")
        one = recorder(root, work)
        one.start()
        with pytest.raises(ServiceFailed, match="does not answer"):
            one.store(60)
        with pytest.raises(ServiceFailed, match="not recorded"):
            _ = one.parent_id
        began = time.monotonic()
        one.finish("FINISHED", artifacts={}, metrics={"test/student/clean": 0.9}, tags={})
        assert time.monotonic() - began < 10
        assert len(one.errors) == 1
        assert "secret" not in one.errors[0]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    two = recorder(root, work, "r2")
    two.start()
    store = two.store(60)
    two.finish("FINISHED", artifacts={}, metrics={}, tags={})
    runs = store.client.search_runs([store.experiment("toy")])
    found = {run.data.tags[RUN]: (run.info.status, run.data.metrics.get("test/student/clean")) for run in runs}
    assert found == {"r1": ("FINISHED", 0.9), "r2": ("FINISHED", None)}


def test_reap_ends_only_runs_whose_process_is_gone(store):
    experiment = store.experiment("toy")
    owners = {"gone": "here:1:2", "there": "here:3:4", "mine": owner.here(), "foreign": ""}
    for name, holder in owners.items():
        store.create_run(experiment, name, started=0.0, tags={owner.TAG: holder} if holder else {})
    assert reap(store, "toy", lambda holder: holder != "here:1:2") == ["gone"]
    assert {run.name: run.status for run in store.runs(experiment)} == {
        "gone": "KILLED", "there": "RUNNING", "mine": "RUNNING", "foreign": "RUNNING",
    }  # fmt: skip


def test_a_process_is_not_taken_for_a_later_one_of_its_number():
    host, pid, started = owner.here().rsplit(":", 2)
    assert owner.alive(owner.here())
    assert not owner.alive(f"{host}:{pid}:{int(started) - 1}")
    assert not owner.alive(f"{host}:{2**22 + 1}:{started}")
    assert owner.alive(f"another-{host}:{pid}:1")


def test_samples_that_were_not_sent_are_kept(monkeypatch):
    samples = Samples()
    samples.take()
    first = samples.pending()
    samples.take()
    assert samples.pending() == first  # five seconds have not gone by
    samples._next = 0.0
    samples.take()
    assert [item.key for item in samples.pending()[1:]] == ["system/cpu_percent", "system/memory_megabytes"]
    samples.sent(first)
    assert len(samples.pending()) == 2


def test_a_torn_or_foreign_ledger_is_started_anew(root, work):
    (work / "mirror.json").write_text('{"offset": 3')
    assert Mirror(work, root / "journal.jsonl").entries == {}


def test_figures_of_an_epoch_keep_their_prefixes():
    told = json.loads(line("epoch", epoch=1, loss=1, val_pgd=0.5, lr=1, ok=True, note="text"))
    assert {measure.key for measure in stage_news._epoch(told)} == {"train/loss", "val/pgd", "lr"}
