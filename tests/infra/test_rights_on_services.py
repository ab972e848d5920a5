"""infra/rights on real PostgreSQL and S3: who may enter a database, who may write a bucket, what a lock holds."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import local_services
import pytest
import tools
from botocore.exceptions import ClientError

pytestmark = pytest.mark.services
RIGHTS = tools.INFRA / "rights"
Run = Callable[..., str]


def _run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RIGHTS / script)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def database() -> Iterator[Run]:
    """sql(role, database, text) -> the first value, or the error."""
    psycopg2 = __import__("psycopg2")
    with local_services.postgres() as admin:
        words = {role: f"'{secrets.token_hex(8)}" for role in ("mlflow", "prefect", "reader")}
        told = {f"{role.upper()}_DB_PASSWORD": word for role, word in words.items()}
        for _ in range(2):
            done = _run("databases.py", **admin, **told)
            assert done.returncode == 0, done.stderr

        def sql(role: str, name: str, text: str) -> str:
            where = {"host": admin["PGHOST"], "port": admin["PGPORT"], "dbname": name}
            try:
                connection = psycopg2.connect(user=role, password=words[role], **where)
            except psycopg2.OperationalError as error:
                return str(error)
            connection.autocommit = True
            with connection.cursor() as cursor:
                try:
                    cursor.execute(text)
                    return str(cursor.fetchone()[0]) if cursor.description else "done"
                except psycopg2.Error as error:
                    return str(error)
                finally:
                    connection.close()

        yield sql


def test_an_owner_has_its_database_and_no_other(database: Run) -> None:
    for name, owner in (("mlflow", "mlflow"), ("mlflow_auth", "mlflow"), ("prefect", "prefect")):
        assert database(owner, name, "CREATE TABLE t AS SELECT 1 AS a") == "done"
    for name, stranger in (("mlflow", "prefect"), ("mlflow_auth", "prefect"), ("prefect", "mlflow")):
        assert "does not have CONNECT privilege" in database(stranger, name, "SELECT 1")
    assert "permission denied to create role" in database("mlflow", "mlflow", "CREATE ROLE mallory")
    assert "permission denied to create database" in database("mlflow", "mlflow", "CREATE DATABASE mine")


def test_a_reader_reads_what_holds_no_password(database: Run) -> None:
    assert database("mlflow", "mlflow", "CREATE TABLE later AS SELECT 7 AS a") == "done"
    assert database("reader", "mlflow", "SELECT a FROM later") == "7"
    assert "permission denied" in database("reader", "mlflow", "DELETE FROM later")
    assert "permission denied" in database("reader", "mlflow", "CREATE TABLE mine (a int)")
    for name in ("mlflow_auth", "postgres"):
        assert "does not have CONNECT privilege" in database("reader", name, "SELECT 1")


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Any]]:
    """An S3 client for the owner and for each role, once the buckets are made."""
    with local_services.s3() as users:
        told = {"S3_PRINCIPAL": "arn:aws:iam:::user/{}-user", "RECORD_DAYS": "1"}
        for _ in range(2):
            done = _run("buckets.py", **users["owner"], **told)
            assert done.returncode == 0, done.stderr
        yield {
            name: boto3.client(
                "s3",
                endpoint_url=each["AWS_ENDPOINT_URL_S3"],
                aws_access_key_id=each["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=each["AWS_SECRET_ACCESS_KEY"],
                region_name="us-east-1",
            )
            for name, each in users.items()
        }


def _may(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "403"):
            return False
        raise
    return True


WRITERS = {"mlflow": {"mlflow"}, "robustdistill": {"trainer", "promoter"}, "records": {"promoter"}}
READERS = {
    "mlflow": {"mlflow"},
    "robustdistill": {"trainer", "promoter", "reader"},
    "records": {"trainer", "promoter", "reader"},
}


@pytest.mark.parametrize("bucket", sorted(WRITERS))
def test_a_bucket_is_written_and_read_by_its_roles_alone(clients: dict[str, Any], bucket: str) -> None:
    writes = {
        r: _may(lambda c=clients[r]: c.put_object(Bucket=bucket, Key="k", Body=b"x")) for r in local_services.ROLES
    }  # type: ignore[misc]
    assert {role for role, may in writes.items() if may} == WRITERS[bucket]
    reads = {r: _may(lambda c=clients[r]: c.get_object(Bucket=bucket, Key="k")) for r in local_services.ROLES}  # type: ignore[misc]
    lists = {r: _may(lambda c=clients[r]: c.list_objects_v2(Bucket=bucket)) for r in local_services.ROLES}  # type: ignore[misc]
    assert {role for role, may in reads.items() if may} == READERS[bucket]
    assert {role for role, may in lists.items() if may} == READERS[bucket]


@pytest.mark.parametrize("role", ["trainer", "promoter", "reader"])
def test_no_role_deletes_alters_policies_or_makes_buckets_public(clients: dict[str, Any], role: str) -> None:
    clients["trainer"].put_object(Bucket="robustdistill", Key="kept", Body=b"x")
    assert not _may(lambda: clients[role].delete_object(Bucket="robustdistill", Key="kept"))
    for bucket in WRITERS:
        assert not _may(lambda bucket=bucket: clients[role].put_bucket_policy(Bucket=bucket, Policy="{}"))  # type: ignore[misc]
        assert not _may(lambda bucket=bucket: clients[role].put_bucket_acl(Bucket=bucket, ACL="public-read"))  # type: ignore[misc]


def test_a_record_stays(clients: dict[str, Any]) -> None:
    """Nobody deletes, shortens or replaces it: what is written over it is a second version."""
    owner, promoter = clients["owner"], clients["promoter"]
    first = promoter.put_object(Bucket="records", Key="digits/1.json", Body=b"as it was")["VersionId"]
    promoter.put_object(Bucket="records", Key="digits/1.json", Body=b"as told later")
    one = {"Bucket": "records", "Key": "digits/1.json", "VersionId": first}
    assert not _may(lambda: promoter.delete_object(**one))
    assert not _may(lambda: owner.delete_object(**one))
    assert not _may(lambda: owner.delete_object(**one, BypassGovernanceRetention=True))
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC)}
    assert not _may(lambda: owner.put_object_retention(**one, Retention=shorter))
    with pytest.raises(ClientError, match="InvalidBucketState"):
        owner.put_bucket_versioning(Bucket="records", VersioningConfiguration={"Status": "Suspended"})
    assert clients["reader"].get_object(**one)["Body"].read() == b"as it was"
