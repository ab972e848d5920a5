"""What is asked of S3 for a record, and what its answers mean. On a real one: tests/services/test_server_stack.py."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import ANY, Stubber

from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.services import s3_records
from robustdistill.services.s3_records import Records

BODY = b'{"version": 1}\n'
ASKED = {
    "Bucket": "kept",
    "Key": "team/digits/1.json",
    "Body": BODY,
    "ContentType": "application/json",
    "ContentMD5": base64.b64encode(hashlib.md5(BODY).digest()).decode(),
}
ONCE = ASKED | {"IfNoneMatch": "*"}


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    monkeypatch.setenv(s3_records.VARIABLE, "s3://kept/team")
    monkeypatch.setenv(s3_records.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.delenv(s3_records.LOCK, raising=False)
    return Records.named()


@pytest.fixture
def s3(records: Records) -> Iterator[Stubber]:
    with Stubber(records.place.client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def put(records: Records) -> None:
    records.put("digits/1.json", BODY)


def test_a_record_is_written_once(records: Records, s3: Stubber) -> None:
    s3.add_response("put_object", {}, ONCE)
    put(records)


def test_a_key_that_is_taken_names_the_same_content(records: Records, s3: Stubber) -> None:
    s3.add_client_error("put_object", "PreconditionFailed", http_status_code=412, expected_params=ONCE)
    put(records)


def test_a_server_without_if_none_match_is_asked_without_it(records: Records, s3: Stubber) -> None:
    s3.add_client_error("put_object", "NotImplemented", http_status_code=501, expected_params=ONCE)
    s3.add_response("put_object", {}, ASKED)
    put(records)


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_a_lock_that_is_named_goes_along(monkeypatch: pytest.MonkeyPatch, records: Records, mode: str) -> None:
    monkeypatch.setenv(s3_records.LOCK, f"{mode.lower()} 30")
    locked = Records.named()
    told: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(Records, "_write", lambda _, given: told.update(given))
        put(locked)
    assert told["ObjectLockMode"] == mode
    left = told["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    with Stubber(locked.place.client) as stubber:
        stubber.add_response("put_object", {}, ONCE | {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": ANY})
        put(locked)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("AccessDenied", ServiceRefused, "refuses these credentials"),
        ("NoSuchBucket", ServiceRefused, "no such bucket"),
        ("InvalidRequest", ServiceFailed, "InvalidRequest"),
    ],
)
def test_a_refusal_is_a_sentence(records: Records, s3: Stubber, code: str, kind: type[Exception], words: str) -> None:
    s3.add_client_error("put_object", code, service_message="no secret-of-a-test")
    with pytest.raises(kind, match=words) as caught:
        put(records)
    assert "secret-of-a-test" not in str(caught.value)


def test_a_server_that_is_away_is_a_sentence(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    monkeypatch.setattr(records.place.client, "put_object", away)
    with pytest.raises(ServiceFailed, match="does not answer"):
        put(records)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (s3_records.VARIABLE, "/a/folder"),
        (s3_records.VARIABLE, "s3://"),
        (s3_records.LOCK, "FOREVER 3"),
        (s3_records.LOCK, "COMPLIANCE"),
        (s3_records.LOCK, "COMPLIANCE 0"),
    ],
)
def test_a_setting_that_is_none_is_named(
    records: Records, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as caught:
        Records.named()
    assert caught.value.fix
