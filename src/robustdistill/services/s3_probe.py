"""What an S3 remote lets this user do, asked in seconds, of no other host, and without leaving anything there."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from robustdistill.services.http_probe import SECONDS, skew
from robustdistill.services.s3_errors import DENIED, MISSING, WRONG_KEY, code

NOT_THERE = (*MISSING, "404")  # of a bucket: nothing else is asked for by name
ELSEWHERE = ("iam-role",)  # asks the machine's provider at an address that the user did not name
PROBE = ".doctor-"


class Rights(NamedTuple):
    """Each true, false, or None where it was not asked. cause: why nothing was, in a word: "away", "none" (no
    credentials), "credentials", "bucket", "other". said: the library's words. left: a key that could not be removed."""

    lists: bool | None = None
    puts: bool | None = None
    gets: bool | None = None
    deletes: bool | None = None
    cause: str = ""
    said: str = ""
    skew: float | None = None
    left: str = ""


def rights(bucket: str, prefix: str, *, endpoint: str, profile: str, region: str, write: bool) -> Rights:
    """Lists under the prefix and asks whether it may put, without a thing being put. write: really puts, gets and
    deletes a small object, unless deleting is refused."""
    from botocore.exceptions import BotoCoreError, ClientError

    found, before = Rights(), time.time()
    try:
        client = _client(endpoint, profile, region)
        answer = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        found = Rights(lists=True, skew=skew(date, before))
        key = "/".join(filter(None, (prefix.strip("/"), f"{PROBE}{uuid.uuid4().hex}")))
        return _written(client, bucket, key, found) if write else found._replace(puts=_may_put(client, bucket, key))
    except ClientError as error:
        return found._replace(lists=False, cause=_cause(error), said=code(error))
    except BotoCoreError as error:
        return found._replace(cause=_unsent(error), said=type(error).__name__)


def _client(endpoint: str, profile: str, region: str) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.Session(profile_name=profile or None, region_name=region or None)
    core = session._session  # boto3 has no other way to leave a source of credentials out
    for name in ELSEWHERE:
        core.get_component("credential_provider").remove(name)
    patience = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 1})
    return session.client("s3", endpoint_url=endpoint or None, config=patience)


def _cause(error: Any) -> str:
    for names, cause in ((WRONG_KEY + DENIED, "credentials"), (NOT_THERE, "bucket")):
        if code(error) in names:
            return cause
    return "other"


def _unsent(error: Any) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "none"
    return "away" if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError) else "other"


def _allowed(call: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether a call was let through, whatever else came of it, and its answer if it was good."""
    from botocore.exceptions import ClientError

    try:
        return True, call()
    except ClientError as error:
        return code(error) not in DENIED, None


def _may_put(client: Any, bucket: str, key: str) -> bool:
    """An object whose checksum is wrong is never stored: the server says so to those only who may put."""
    wrong = base64.b64encode(hashlib.md5(b"another", usedforsecurity=False).digest()).decode("ascii")
    may, stored = _allowed(lambda: client.put_object(Bucket=bucket, Key=key, Body=b"probe", ContentMD5=wrong))
    if stored is not None:  # a server that does not look
        _allowed(lambda: client.delete_object(Bucket=bucket, Key=key, **_version(stored)))
    return may


def _written(client: Any, bucket: str, key: str, found: Rights) -> Rights:
    """Deleting is asked first, of a key that is not there: whoever may not would leave something behind."""
    deletes, marker = _allowed(lambda: client.delete_object(Bucket=bucket, Key=key))
    if marker and marker.get("VersionId"):  # in a bucket with versions that made a marker
        _allowed(lambda: client.delete_object(Bucket=bucket, Key=key, VersionId=marker["VersionId"]))
    if not deletes:
        return found._replace(deletes=False, puts=_may_put(client, bucket, key))
    _, stored = _allowed(lambda: client.put_object(Bucket=bucket, Key=key, Body=b"probe"))
    if stored is None:
        return found._replace(deletes=True, puts=False)
    gets, _ = _allowed(lambda: client.get_object(Bucket=bucket, Key=key)["Body"].read())
    _, gone = _allowed(lambda: client.delete_object(Bucket=bucket, Key=key, **_version(stored)))
    return found._replace(deletes=True, puts=True, gets=gets, left="" if gone else key)


def _version(stored: Any) -> dict[str, str]:
    return {"VersionId": stored["VersionId"]} if stored.get("VersionId") else {}
