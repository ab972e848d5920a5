"""A bucket with object lock, where the records of promotions are kept for good.

ROBUSTDISTILL_RECORDS            s3://BUCKET/PREFIX; unset: records are kept beside the versions in MLflow alone
ROBUSTDISTILL_RECORDS_ENDPOINT   the server; default that of the environment, else Amazon's
ROBUSTDISTILL_RECORDS_LOCK       "COMPLIANCE 3650" or "GOVERNANCE 30": mode and days; unset: the bucket's own

With a lock named, a bucket without object lock refuses the record; with the bucket's own, nobody would notice.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from robustdistill.errors import BadInput
from robustdistill.services.dvc_remote import ENDPOINTS
from robustdistill.services.s3_errors import code, explained
from robustdistill.services.s3_prefix import Prefix

VARIABLE, ENDPOINT, LOCK = (f"ROBUSTDISTILL_RECORDS{end}" for end in ("", "_ENDPOINT", "_LOCK"))
MODES = ("COMPLIANCE", "GOVERNANCE")
THERE = ("PreconditionFailed", "412")  # If-None-Match: the key is taken, and it names the content
UNABLE = ("NotImplemented", "501")  # a server that knows no If-None-Match


def are_kept() -> bool:
    return bool(os.environ.get(VARIABLE))


@dataclass(frozen=True)
class Records:
    """place: bucket, prefix and client. lock: (mode, days), None for the bucket's own."""

    place: Prefix
    lock: tuple[str, int] | None = None

    @classmethod
    def named(cls) -> Self:
        """Those of the environment. Raises BadInput for a setting that is none."""
        url = os.environ.get(VARIABLE, "")
        if not url.startswith("s3://"):
            raise BadInput("this is no place for records", where=VARIABLE, fix=f"{VARIABLE}=s3://BUCKET/PREFIX")
        endpoint = next((os.environ[name] for name in (ENDPOINT, *ENDPOINTS) if os.environ.get(name)), None)
        return cls(Prefix.named(url, endpoint), _lock(os.environ.get(LOCK, "")))

    def put(self, key: str, body: bytes) -> None:
        """Keeps `body` (JSON) under a key that names its content, once. Raises ServiceFailed or ServiceRefused."""
        given = {"Bucket": self.place.bucket, "Key": f"{self.place.prefix}{key}", "Body": body, **self._kept(body)}
        with explained(self.place.shown, do="write", bucket="make it, with object lock"):
            self._write(given)

    def _write(self, given: dict[str, Any]) -> None:
        from botocore.exceptions import ClientError

        try:
            self.place.client.put_object(**given, IfNoneMatch="*")
        except ClientError as error:
            if code(error) in UNABLE:
                self.place.client.put_object(**given)
            elif code(error) not in THERE:
                raise

    def _kept(self, body: bytes) -> dict[str, Any]:
        """What goes with it; S3 demands the MD5 of whatever is locked."""
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        told: dict[str, Any] = {"ContentType": "application/json", "ContentMD5": digest}
        if self.lock is None:
            return told
        mode, days = self.lock
        return told | {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=days)}


def _lock(text: str) -> tuple[str, int] | None:
    if not text.strip():
        return None
    mode, _, days = text.strip().partition(" ")
    if mode.upper() not in MODES or not days.strip().isdigit() or int(days) < 1:
        fix = f"{LOCK}='COMPLIANCE 3650', or 'GOVERNANCE 30': mode and days"
        raise BadInput(f"{text!r} is no lock", where=LOCK, fix=fix)
    return mode.upper(), int(days)
