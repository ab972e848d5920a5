"""An S3 prefix as an inbox: listed and read with boto3, credentials and endpoint from the environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistill.errors import BadInput
from robustdistill.services.dvc_remote import ENDPOINTS, require_no_secret
from robustdistill.services.inbox import Item, Listing, fault_of_name, is_passed_over
from robustdistill.services.s3_errors import code, explained

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 4
GONE = ("404", "NoSuchKey", "PreconditionFailed", "412")  # of an object: removed or replaced since it was listed


@dataclass(frozen=True)
class Prefix:
    """prefix: "" or ending in "/", so that `photos` does not mean `photos-old` too."""

    bucket: str
    prefix: str
    endpoint: str | None
    client: Any

    @classmethod
    def named(cls, url: str, endpoint: str | None = None) -> Prefix:
        """s3://BUCKET/PREFIX. endpoint: default that of the environment, else Amazon's. Raises BadInput."""
        import boto3
        from botocore.config import Config

        endpoint = endpoint or next((os.environ[each] for each in ENDPOINTS if os.environ.get(each)), None)
        for address in (url, endpoint or ""):
            require_no_secret(address)
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput("no bucket is named", where=url, fix="s3://BUCKET/PREFIX")
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise BadInput("this is no address of a server", where="--endpoint", fix="--endpoint https://HOST:PORT")
        session = boto3.session.Session()
        settings = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"max_attempts": ATTEMPTS, "mode": "standard"},
            s3={"addressing_style": "path"} if endpoint else None,
        )
        region = session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=endpoint, region_name=region, config=settings)
        return cls(bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else "", endpoint, client)

    @property
    def shown(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def list(self, unsettled: Mapping[str, str]) -> Listing:
        with self._explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            found = [entry for page in pages for entry in page.get("Contents", [])]
        items = []
        for entry in found:
            name = str(entry["Key"])[len(self.prefix) :]
            if name and not name.endswith("/") and not is_passed_over(name):  # folders as some programs mark them
                tag = f"{entry['ETag']} {entry['Size']} {entry['LastModified'].timestamp():.0f}"
                items.append(Item(name, tag, fault_of_name(name)))
        return Listing(items)

    def fetch(self, item: Item, to: Path) -> bool:
        from botocore.exceptions import ClientError

        etag = item.tag.split(" ")[0]
        with self._explained():
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + item.name, IfMatch=etag)
            except ClientError as error:
                if code(error) in GONE:
                    return False
                raise
            with answer["Body"] as body, to.open("wb") as copy:
                shutil.copyfileobj(body, copy)
        return to.stat().st_size == int(answer["ContentLength"])

    def _explained(self) -> AbstractContextManager[None]:
        where = f"{self.shown} at {self.endpoint}" if self.endpoint else self.shown
        again = "start it; the next look takes what is new"
        return explained(where, do="list and read", bucket="make it, or name another", again=again)
