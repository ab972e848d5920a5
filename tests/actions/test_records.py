"""A record is owed before its promotion counts as done, and pushed afterwards, whatever happens in between."""

from __future__ import annotations

import hashlib
import json

import pytest

from robustdistill.actions import intent, records
from robustdistill.actions.promote import promote, rollback
from robustdistill.actions.reconcile import reconcile
from robustdistill.errors import ServiceFailed
from robustdistill.services import s3_records

PASS = {"verdict": "pass", "policy_sha256": "abc"}


class Bucket:
    """Where records go in these tests; away or refusing if `fault` is set."""

    def __init__(self):
        self.kept, self.fault = {}, None

    def put(self, key, body):
        if self.fault:
            raise self.fault
        self.kept[key] = body


@pytest.fixture
def bucket(monkeypatch):
    found = Bucket()
    monkeypatch.setenv(s3_records.VARIABLE, "s3://kept")
    monkeypatch.setattr(s3_records.Records, "named", lambda: found)
    return found


def made(store, work, number):
    return promote(store, "toy", number, verdict=PASS, record={"run": "r1"}, by="on call", work=work)


def owed(work):
    return sorted(path.name for path in (work / records.FOLDER).glob("*/*.json"))


def test_without_a_bucket_nothing_is_owed(store, work, registered, monkeypatch):
    monkeypatch.delenv(s3_records.VARIABLE, raising=False)
    made(store, work, registered(1.0))
    assert owed(work) == [] and records.owed(work) == ""


def test_promotion_and_rollback_are_kept_whole_in_order(store, work, registered, bucket):
    made(store, work, registered(1.0)), made(store, work, registered(2.0))
    rollback(store, "toy", None, by="me", why="complaints", work=work)
    assert len(owed(work)) == 3
    assert records.push(work) == "" and owed(work) == []
    told = [json.loads(bucket.kept[key]) for key in bucket.kept]
    assert sorted(item["kind"] for item in told) == ["promotion", "promotion", "rollback"]
    first = next(item for item in told if item["kind"] == "promotion" and item["candidate"] == 1)
    assert (first["version"], first["by"], first["champion"]) == (1, "on call", None)
    assert json.loads(first["record"])["verdict"] == PASS
    back = next(item for item in told if item["kind"] == "rollback")
    assert (back["version"], back["champion"], back["why"]) == (1, 2, "complaints")
    for key, body in bucket.kept.items():
        folder, name = key.split("/")
        time, digest = name.removesuffix(".json").split("Z-")
        assert folder == "toy" and digest == hashlib.sha256(body).hexdigest()
        assert time == "".join(sign for sign in json.loads(body)["at"][:19] if sign.isalnum())


def test_what_s3_does_not_take_waits_and_the_champion_stands(store, work, registered, bucket):
    bucket.fault = ServiceFailed("S3 does not answer", where="s3://kept")
    assert made(store, work, registered(1.0)).version == 1
    said = records.owed(work)
    assert said.startswith("; a record") and "S3 does not answer" in said and str(work / "records") in said
    assert store.registry.aliases("toy") == {"champion": 1} and len(owed(work)) == 1
    bucket.fault = None
    assert records.push(work) == "" and len(bucket.kept) == 1
    assert records.push(work) == "" and len(bucket.kept) == 1


def test_a_setting_that_is_none_does_not_end_a_promotion(store, work, registered, monkeypatch):
    monkeypatch.setenv(s3_records.VARIABLE, "a folder")
    assert made(store, work, registered(1.0)).version == 1
    assert "no place for records" in records.push(work) and len(owed(work)) == 1


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_around_it_the_next_start_keeps_the_same_record(store, work, registered, bucket, monkeypatch, step):
    number = registered(1.0)

    class Killed(BaseException):
        pass

    def kill(*given):
        if step == "after":
            records.owe(*given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(intent, "records", type("", (), {"owe": staticmethod(kill)}))
        with pytest.raises(Killed):
            made(store, work, number)
    before = owed(work)
    assert len(before) == (1 if step == "after" else 0)
    assert "completed" in reconcile(store, "toy", work)[0]
    assert len(owed(work)) == 1 and set(before) <= set(owed(work))
    records.push(work)
    assert len(bucket.kept) == 1 and store.registry.aliases("toy") == {"champion": 1}
