"""An S3 prefix as an inbox, over HTTP against a small server of the test; the real one: test_watch_on_s3.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_fake

from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.services import inbox
from robustdistill.services.inbox import Source


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_fake.Bucket]:
    for name, value in {"ACCESS_KEY_ID": "somebody", "SECRET_ACCESS_KEY": "sesame-4711"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with s3_fake.served(s3_fake.Bucket("inbox")) as served:
        yield served


@pytest.fixture
def source(bucket: s3_fake.Bucket) -> Source:
    return inbox.find("s3://inbox/photos", bucket.endpoint, 60.0)


def test_all_pages_are_listed_and_what_is_none_is_left_out(bucket: s3_fake.Bucket, source: Source) -> None:
    kept = ["cat/1.png", "cat/größe 2.png", "dog/3.png", "a+b & c.npz", "deep/er/4.png"]
    left = ["cat/", "cat/.hidden", "cat/x.part", "cat/x.TMP"]
    for name in kept + left:
        bucket.objects[f"photos/{name}"] = name.encode()
    bucket.objects["photos-old/cat/1.png"] = b"of a neighbour whose name begins alike"
    found = source.list({})
    assert sorted(item.name for item in found.items) == sorted(kept) and found.unsettled == {}
    assert all(item.why == "" for item in found.items) and bucket.asked.count("list") == 5


def test_a_key_that_leads_out_of_the_data_is_named_and_not_fetched(bucket: s3_fake.Bucket, source: Source) -> None:
    bucket.objects["photos/../../etc/cron.d/x"] = b"x"
    bucket.objects["photos//etc/passwd"] = b"x"
    assert {item.why for item in source.list({}).items} == {"its name leads out of the data"}


def test_only_the_content_that_was_listed_is_taken(bucket: s3_fake.Bucket, source: Source, tmp_path: Path) -> None:
    bucket.objects["photos/cat/1.png"] = b"first"
    (item,) = source.list({}).items
    assert source.fetch(item, tmp_path / "one") and (tmp_path / "one").read_bytes() == b"first"

    def replaced(key: str) -> None:
        bucket.objects[key] = b"second, longer"

    bucket.before_get = replaced
    assert not source.fetch(item, tmp_path / "two")
    (now,) = source.list({}).items
    assert now.tag != item.tag and source.fetch(now, tmp_path / "two")
    del bucket.objects["photos/cat/1.png"]
    bucket.before_get = lambda key: None
    assert not source.fetch(now, tmp_path / "three")


def test_the_endpoint_of_the_environment_is_used(bucket: s3_fake.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    bucket.objects["1.npz"] = b"x"
    assert [item.name for item in inbox.find("s3://inbox", None, 60.0).list({}).items] == ["1.npz"]


def test_refusals_are_said_without_a_key_and_not_tried_again(bucket: s3_fake.Bucket, source: Source) -> None:
    for code in ("AccessDenied", "SignatureDoesNotMatch"):
        bucket.refuses = code
        with pytest.raises(ServiceRefused, match="refuses these credentials") as caught:
            source.list({})
        assert "sesame" not in str(caught.value)
    with pytest.raises(ServiceRefused, match="no such bucket"):
        inbox.find("s3://elsewhere/x", bucket.endpoint, 60.0).list({})


def test_a_server_that_is_away_is_a_failed_service(monkeypatch: pytest.MonkeyPatch, bucket: s3_fake.Bucket) -> None:
    monkeypatch.setattr("robustdistill.services.s3_prefix.ATTEMPTS", 1)
    with pytest.raises(ServiceFailed, match="does not answer"):
        inbox.find("s3://inbox/x", "http://127.0.0.1:9", 60.0).list({})


@pytest.mark.parametrize(
    ("source", "endpoint", "fault"),
    [
        ("", None, "no source"),
        ("s3://", None, "no bucket"),
        ("s3://inbox/x", "127.0.0.1:9000", "no address"),
        ("s3://inbox/x", "http://user:pw@host", "user or password"),
        ("https://host/x", None, "neither S3 nor a folder"),
        ("photos", "http://host", "S3 server"),
    ],
)
def test_a_source_that_is_none_is_told(source: str, endpoint: str | None, fault: str) -> None:
    with pytest.raises(BadInput, match=fault) as caught:
        inbox.find(source, endpoint, 60.0)
    assert "pw@" not in str(caught.value)
