"""`watch` on a real S3 server: a multipart upload appears whole, and only its own user's keys open the bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
import scenario
from server_stack import Stack

from robustdistill.actions import watch
from robustdistill.errors import ServiceRefused
from robustdistill.workspace import Workspace

pytestmark = [pytest.mark.services, pytest.mark.timeout(2400)]
PART = 5 * 2**20  # the least that S3 takes as a part that is not the last


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """S3 alone."""
    found = Stack()
    try:
        scenario.make(found.workspace)
        found.script("s3", "start")
        yield found
    finally:
        found.end()


def _look(stack: Stack, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> watch.Look:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    return watch.look(Workspace.find(stack.workspace), "s3://robustdistill/inbox", endpoint=stack.endpoint)


def _large() -> bytes:
    """An .npz of more than one part: digits of noise, named by a hash of nothing but their number."""
    file = BytesIO()
    images = np.frombuffer(os.urandom(2 * PART), np.uint8)[: (2 * PART) // 64 * 64].reshape(-1, 8, 8)
    np.savez(file, images=images, labels=np.arange(len(images)) % 10)
    return file.getvalue()


def test_an_object_is_taken_when_its_last_part_is_there(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, keys, content = stack.bucket("robustdistill"), stack.exports("s3", "robustdistill"), _large()
    upload = bucket.Object("inbox/more.npz").initiate_multipart_upload()
    first = upload.Part(1).upload(Body=content[:PART])
    assert _look(stack, keys, monkeypatch).outcome == "nothing new"
    second = upload.Part(2).upload(Body=content[PART:])
    parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in ((1, first), (2, second))]
    upload.complete(MultipartUpload={"Parts": parts})
    bucket.put_object(Key="inbox/torn.npz", Body=content[:1000])
    found = _look(stack, keys, monkeypatch)
    assert found.outcome == "ingested" and "refused torn.npz" in found.sentence
    again = _look(stack, keys, monkeypatch)
    assert again.outcome == "nothing new" and "1 refused earlier" in again.sentence


def test_the_keys_of_another_bucket_do_not_open_it(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceRefused, match="refuses these credentials"):
        _look(stack, stack.exports("s3", "mlflow"), monkeypatch)
