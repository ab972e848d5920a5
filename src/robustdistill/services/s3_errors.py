"""What S3's refusals mean, and how they are told: one list of codes for all who ask it through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from robustdistill.errors import ServiceFailed, ServiceRefused
from robustdistill.services.dvc_remote import redact

DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled")  # these keys may not do this
WRONG_KEY = ("SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "401")
MISSING = ("NoSuchBucket",)
KEYS = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may {do} there"


def code(error: Any) -> str:
    """S3's own name of an error of boto3's."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def explained(where: str, *, do: str, bucket: str, again: str = "") -> Iterator[None]:
    """Raises what boto3 says as ServiceRefused, where no second attempt helps, else ServiceFailed.

    do: what the user has to be allowed. bucket: what to do about a missing one. again: about a server that is away.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    keys = KEYS.format(do=do)
    try:
        yield
    except NoCredentialsError as error:
        raise ServiceRefused("S3 asks for credentials, and there are none", where=where, fix=keys) from error
    except ClientError as error:
        if code(error) in MISSING:
            raise ServiceRefused("there is no such bucket", where=where, fix=bucket) from error
        if code(error) in DENIED + WRONG_KEY:
            raise ServiceRefused("S3 refuses these credentials", where=where, fix=keys) from error
        raise ServiceFailed(f"S3: {redact(str(error))}", where=where) from None
    except BotoCoreError as error:
        raise ServiceFailed(f"S3 does not answer: {redact(str(error))}", where=where, fix=again) from None
