"""The flows on PostgreSQL and S3, with a worker of prefect.yaml: the tests go on, each where the one before stopped.

`make test-services` runs them; nothing is skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import psutil
import pytest
import scenario
from server_stack import Stack

from robustdistill.actions.data import tree_digest
from robustdistill.errors import ServiceFailed, ServiceRefused
from robustdistill.services import dvc_cli, dvc_remote, git_cli, s3_records
from robustdistill.services.mlflow_store import Store
from robustdistill.stages.catalog import STAGES

pytestmark = [pytest.mark.services, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    found = Stack()
    try:
        scenario.make(found.workspace, "--remote", found.remote, "--endpoint", found.endpoint)
        found.start()
        yield found
    finally:
        found.end()


def _ask(stack: Stack, database: str, query: str, *, role: str | None = None) -> list[tuple[Any, ...]]:
    """Rows of a query, asked by the database's own role, or by another."""
    import psycopg2  # of requirements/server.txt, which `make test` does not install

    own = stack.exports("postgres", role or database)
    connection = psycopg2.connect(
        host=own["PGHOST"], port=own["PGPORT"], user=own["PGUSER"], password=own["PGPASSWORD"], dbname=database
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def _champion(stack: Stack) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.exports("mlflow", "reader").items():
            patch.setenv(name, value)
        return Store.open(None, Path("unused")).registry.aliases("digits")["champion"]


def _bytes(root: Path) -> dict[str, str]:
    """Digest of data/ and of every stage's result, computed from the files."""
    return {path: tree_digest(root / path) for path in ("data", *(stage.out for stage in STAGES.values()))}


def test_a_trainers_worker_retrains_and_a_promoters_promotes(stack: Stack) -> None:
    """From raw data: runs and registry in PostgreSQL, files in S3, data and results in the bucket of their own, the
    promotion's record in a locked one."""
    run = stack.run("retrain/digits")
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed"), stack.log.read_text()
    assert "waits for the promoter (these credentials may not move it)" in run["state"]["message"]
    moved = stack.handed_over()
    assert (moved["state"]["type"], moved["state"]["name"]) == ("COMPLETED", "Completed"), stack.log.read_text()
    assert scenario.read(stack.workspace, ".work", "summary.json")["outcome"] == "promoted"
    assert not (stack.workspace / ".work" / "mlflow.db").exists()

    states = _ask(stack, "mlflow", "select status, count(*) from runs group by status")
    assert states == [("FINISHED", 2 + len(STAGES))]
    versions = dict(_ask(stack, "mlflow", "select name, count(*) from model_versions group by name"))
    assert versions == {"digits": 1, "digits-candidates": 1}
    assert _ask(stack, "mlflow", "select alias, version from registered_model_aliases where name = 'digits'") == [
        ("champion", 1)
    ]
    assert _ask(stack, "prefect", f"select state_type from flow_run where id = '{run['id']}'") == [("COMPLETED",)]

    kept = {item.key: item for item in stack.bucket("mlflow").objects.all()}
    [params] = [item for key, item in kept.items() if key.endswith("/workspace/params.yaml")]
    assert params.get()["Body"].read() == (stack.workspace / "params.yaml").read_bytes()
    assert any(key.endswith(".onnx") for key in kept) and any(key.endswith(".html") for key in kept)
    pushed = {item.key for item in stack.bucket("robustdistill").objects.all()}
    for name, digest in {**scenario.hashes(stack.workspace), "data": str(dvc_cli.digest(stack.workspace))}.items():
        assert f"digits/files/md5/{digest[:2]}/{digest[2:]}" in pushed, name


def test_the_record_of_a_promotion_is_kept_and_locked(stack: Stack) -> None:
    """Of the one promotion, one object, which neither the promoter nor the owner of the bucket can delete."""
    [item] = stack.bucket("records", "reader").objects.all()
    assert re.fullmatch(r"digits/\d{8}T\d{6}Z-[0-9a-f]{64}\.json", item.key)
    told = json.loads(item.get()["Body"].read())
    assert (told["kind"], told["version"], told["by"]) == ("promotion", 1, "the promoter's worker")
    assert json.loads(told["record"])["verdict"]["verdict"] == "pass"
    assert not list((stack.workspace / ".work" / "records").rglob("*.json"))
    [version] = stack.bucket("records", "owner").object_versions.all()
    for user in ("promoter", "owner"):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            stack.bucket("records", user).Object(item.key).Version(version.id).delete()


def test_a_lock_of_its_own_goes_with_a_record(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put twice: with If-None-Match or without, the key names the content."""
    for name, value in stack.client().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ROBUSTDISTILL_RECORDS", "s3://records/tried")
    monkeypatch.setenv("ROBUSTDISTILL_RECORDS_LOCK", "GOVERNANCE 2")
    for _ in range(2):
        s3_records.Records.named().put("digits/x.json", b"{}")
    kept = stack.bucket("records", "promoter").Object("tried/digits/x.json")
    assert kept.object_lock_mode == "GOVERNANCE" and kept.get()["Body"].read() == b"{}"
    monkeypatch.setenv("ROBUSTDISTILL_RECORDS", "s3://robustdistill/tried")  # a bucket without a lock
    with pytest.raises(ServiceFailed):
        s3_records.Records.named().put("digits/x.json", b"{}")


def test_a_trainer_by_hand_hands_over_too(stack: Stack) -> None:
    """An unchanged student that is champion stays; a trainer may not roll back."""
    result = scenario.flow("retrain", stack.workspace, extra=stack.client(role="trainer"))
    assert result["outcome"] == "unchanged" and scenario.ran(result) == set()
    words = ("--rollback", "--by", "a test", "--why", "tried")
    error = scenario.flow("promote", stack.workspace, *words, expect=2, extra=stack.client(role="trainer"))["error"]
    assert "no earlier champion" in error["cause"]
    assert _champion(stack) == 1


def test_a_clone_on_another_machine_has_the_same_bytes_and_retrains_nothing(stack: Stack) -> None:
    clone = stack.place / "second" / "digits"
    git_cli.git(stack.place, "clone", "--quiet", str(stack.workspace), str(clone))
    assert not (clone / "data").exists() and not (clone / ".dvc" / "cache").exists()
    result = scenario.flow("retrain", clone, extra=stack.client("second"))
    assert result["outcome"] == "unchanged" and scenario.ran(result) == set()
    assert _bytes(clone) == _bytes(stack.workspace)
    assert git_cli.head(clone) == git_cli.head(stack.workspace)
    assert _champion(stack) == 1


def test_each_service_lets_in_only_its_own(stack: Stack) -> None:
    import psycopg2

    for role, database in (
        ("mlflow", "prefect"),
        ("prefect", "mlflow"),
        ("mlflow", "mlflow_auth"),
        ("mlflow", "postgres"),
    ):
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            _ask(stack, database, "select 1", role=role)
    for bucket, user in (("mlflow", "robustdistill"), ("robustdistill", "mlflow")):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            list(stack.bucket(bucket, user).objects.all())
    for port in stack.ports.values():
        for line in psutil.net_connections("tcp"):
            if line.status == psutil.CONN_LISTEN and str(line.laddr.port) == port:
                assert line.laddr.ip == "127.0.0.1"


def test_the_worker_knows_no_database_and_not_mlflows_bucket(stack: Stack) -> None:
    workers = {process for process in stack.family() if "worker start" in " ".join(process.cmdline())}
    told = {"promoter" in " ".join(process.cmdline()): "\n".join(process.environ().values()) for process in workers}
    assert told.keys() == {False, True}
    roles = {False: "trainer", True: "promoter"}
    foreign = [("postgres", name) for name in ("mlflow", "mlflow_auth", "prefect", "admin")]
    foreign += [("s3", name) for name in ("mlflow", "robustdistill", "owner")] + [("mlflow", "admin")]
    for kind, known in told.items():
        for service in ("s3", "mlflow"):
            assert all(secret in known for secret in _passwords(stack.exports(service, roles[kind])))
            assert not any(secret in known for secret in _passwords(stack.exports(service, roles[not kind])))
        for service, name in foreign:
            for secret in _passwords(stack.exports(service, name)):
                assert secret not in known
    for process in stack.family():  # a command line can be read by everybody
        for secret in _secrets(stack).values():
            assert secret not in " ".join(process.cmdline())


def _passwords(exports: dict[str, str]) -> list[str]:
    kinds = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")
    return [exports[key] for key in kinds if key in exports]


def test_refused_credentials_are_said_and_the_next_run_pushes(stack: Stack) -> None:
    scenario.edit(stack.workspace / "policy.yaml", {"student.robust": 0.001})  # something to commit and to push
    wrong = stack.client() | {"AWS_SECRET_ACCESS_KEY": "wrong-but-secret-7d1a"}
    error = scenario.flow("retrain", stack.workspace, expect=4, extra=wrong)["error"]
    assert "refuses these credentials" in error["cause"] and "AWS_SECRET_ACCESS_KEY" in error["fix"]
    assert error["where"] == f"{stack.remote} at {stack.endpoint}" and "next run pushes" in error["fix"]
    assert "wrong-but-secret" not in json.dumps(error)
    owed = stack.workspace / ".work" / "not-pushed"
    assert owed.exists()
    assert scenario.ran(scenario.flow("retrain", stack.workspace, extra=stack.client())) == set()
    assert not owed.exists()


@pytest.mark.parametrize(
    ("url", "words"), [("s3://nowhere/x", "bucket of the DVC remote does not exist"), ("s3://mlflow/x", "refuses")]
)
def test_a_bucket_that_is_missing_or_somebody_elses_is_said(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    root = stack.place / "second" / "digits"
    for key, value in stack.client("second").items():
        monkeypatch.setenv(key, value)
    dvc_cli.dvc(root, "remote", "modify", "--local", "local", "url", url)
    try:
        with pytest.raises(ServiceRefused, match=words) as caught:
            dvc_remote.push(root)
        assert caught.value.exit_code == 4 and url in caught.value.where and caught.value.fix
    finally:
        dvc_cli.dvc(root, "remote", "modify", "--local", "local", "url", stack.remote)


def test_with_s3_down_the_work_is_kept_and_the_next_run_pushes_it(stack: Stack) -> None:
    before = scenario.hashes(stack.workspace)
    scenario.edit(stack.workspace / "params.yaml", {"control.objective.label_smoothing": 0.1})
    stack.script("s3", "stop")
    error = scenario.flow("retrain", stack.workspace, expect=4, extra=stack.client())["error"]
    assert "does not answer" in error["cause"] and stack.endpoint in error["where"]
    assert "next run pushes" in error["fix"]
    made = scenario.hashes(stack.workspace)
    assert {name for name in made if made[name] != before[name]} >= {"control", "export@control", "score@control"}
    assert _bytes(stack.workspace)["artifacts/control"] == made["control"]
    assert git_cli.git(stack.workspace, "status", "--porcelain") == ""  # committed all the same
    assert _champion(stack) == 1

    stack.script("s3", "start")
    result = scenario.flow("retrain", stack.workspace, extra=stack.client())
    assert scenario.ran(result) == set() and scenario.hashes(stack.workspace) == made
    pushed = {item.key for item in stack.bucket("robustdistill").objects.all()}
    assert f"digits/files/md5/{made['control'][:2]}/{made['control'][2:]}" in pushed
    assert _ask(stack, "mlflow", "select count(*) from runs where status = 'RUNNING'") == [(0,)]
    params = [item.key for item in stack.bucket("mlflow").objects.all() if item.key.endswith("/workspace/params.yaml")]
    parents = _ask(stack, "mlflow", "select count(*) from tags where key = 'robustdistill.reason'")[0][0]
    assert len(params) >= 5 and parents >= len(params)  # the files of the run whose end S3 missed have come, too


def _secrets(stack: Stack) -> dict[str, str]:
    """Every password and key there is, by where it lies."""
    found: dict[str, str] = {}
    for path in [*(stack.place / "stack").glob("*/secrets/*"), *(stack.place / "stack" / "s3" / "keys").iterdir()]:
        text = path.read_text()
        words = [line.partition("key = ")[2] for line in text.splitlines()] if "[" in text else text.split()[-1:]
        found |= {f"{path.name} {number}": word for number, word in enumerate(words) if word}
    return found


def _produced(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """All that is kept or written: both databases, both buckets, both workspaces with their history, all logs."""
    admin = scenario.environment(stack.exports("postgres", "admin"))
    for database in ("mlflow", "mlflow_auth", "prefect"):
        dump = subprocess.run(["pg_dump", database], env=admin, capture_output=True, check=True)
        yield f"database {database}", dump.stdout
    for name, user in (("mlflow", "mlflow"), ("robustdistill", "reader"), ("records", "reader")):
        for item in stack.bucket(name, user).objects.all():
            yield f"s3://{name}/{item.key}", item.get()["Body"].read()
    for machine in ("first", "second"):
        yield f"history of {machine}", git_cli.git(stack.place / machine / "digits", "log", "--patch", "--all").encode()
    closed = ("secrets", "keys", "mon", "osd", "data")  # the services' own; of PostgreSQL's only the log is read
    roots = [stack.place / name for name in ("first", "second", "stack.log")]
    own = [path for path in (stack.place / "stack").glob("*/*") if path.name not in closed]
    for root in (*roots, *own, stack.place / "stack" / "postgres" / "data" / "server.log"):
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()


def test_no_secret_is_kept_anywhere(stack: Stack) -> None:
    secrets = _secrets(stack)
    assert len(secrets) >= 18
    read, told = 0, set()
    for place, content in _produced(stack):
        read += 1
        told |= {place} if b"nightly schedule" in content else set()
        for name, secret in secrets.items():
            assert secret.encode() not in content, f"{name} stands in {place}"
    assert read > 200 and {"database mlflow", "database prefect"} <= told  # what is there is found


def test_what_the_stack_started_ends_with_it(stack: Stack) -> None:
    family = stack.family()
    names = " ".join(process.name() for process in family)
    assert all(name in names for name in ("postgres", "radosgw", "ceph-osd", "ceph-mon", "python"))
    assert stack.process is not None
    stack.process.terminate()
    stack.process.wait(120)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
