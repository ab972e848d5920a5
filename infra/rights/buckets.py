"""Makes the buckets and says who may do what in each; may be run again.

    AWS_ENDPOINT_URL_S3=http://… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… python infra/rights/buckets.py [BUCKET …]

As the owner of the buckets, default all of them. Each file of infra/rights/buckets is the policy of the bucket it is
named after; its principals are users. S3_PRINCIPAL says how the server writes one (default `{}`: its access key, as
Versity's gateway; Ceph: `arn:aws:iam:::user/{}`; Amazon: `arn:aws:iam::ACCOUNT:user/{}`). S3_USERS=versity also makes
the users at the gateway, with the passwords TRAINER_S3_SECRET and so on; elsewhere users are made by the server's own
means.

`records` is locked: what is written stays for RECORD_DAYS (default 3650), and nobody, its owner included, can delete
or shorten that. RECORD_MODE=GOVERNANCE lets the owner of the bucket do so; the default is COMPLIANCE.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

POLICIES = Path(__file__).with_name("buckets")
LOCKED = "records"
USERS = ("mlflow", "trainer", "promoter", "reader")
TAKEN = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def policy(bucket: str, principal: str) -> dict[str, Any]:
    """The bucket's policy, its users written as `principal` says."""
    document: dict[str, Any] = json.loads((POLICIES / f"{bucket}.json").read_text(encoding="utf-8"))
    for statement in document["Statement"]:
        statement["Principal"]["AWS"] = [principal.format(user) for user in statement["Principal"]["AWS"]]
    return document


def make(client: Any, bucket: str, days: int, mode: str) -> None:
    """The bucket, with old versions kept; `records` locked."""
    lock = {"ObjectLockEnabledForBucket": True} if bucket == LOCKED else {}
    try:
        client.create_bucket(Bucket=bucket, **lock)
    except ClientError as error:
        if error.response["Error"]["Code"] not in TAKEN:
            raise
        client.head_bucket(Bucket=bucket)  # somebody else's raises
    if bucket != LOCKED:  # a lock brings versions with it
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return
    retention = {"DefaultRetention": {"Mode": mode, "Days": days}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )


def make_user(endpoint: str, user: str, secret: str) -> None:
    """A user of Versity's gateway, or its new secret; the request is signed as the gateway's owner."""
    session = boto3.Session()
    for path, body in (
        (
            "create-user",
            f"<Account><Access>{user}</Access><Secret>{escape(secret)}</Secret><Role>user</Role></Account>",
        ),
        (f"update-user?access={user}", f"<MutableProps><Secret>{escape(secret)}</Secret></MutableProps>"),
    ):
        asked = AWSRequest("PATCH", f"{endpoint.rstrip('/')}/{path}", data=body.encode())
        S3SigV4Auth(session.get_credentials(), "s3", session.region_name or "us-east-1").add_auth(asked)
        try:
            urlopen(Request(asked.url, asked.data, dict(asked.headers.items()), method="PATCH"), timeout=30).close()
        except OSError as error:
            if getattr(error, "code", 0) != 409:
                raise
            continue  # it is there already
        return


def main() -> None:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", "")
    if os.environ.get("S3_USERS") == "versity":
        for user in USERS:
            make_user(endpoint, user, os.environ[f"{user.upper()}_S3_SECRET"])
    client = boto3.client("s3", endpoint_url=endpoint or None, config=Config(s3={"addressing_style": "path"}))
    days, principal = int(os.environ.get("RECORD_DAYS", "3650")), os.environ.get("S3_PRINCIPAL", "{}")
    mode = os.environ.get("RECORD_MODE", "COMPLIANCE")
    buckets = sys.argv[1:] or sorted(path.stem for path in POLICIES.glob("*.json"))
    for bucket in buckets:
        make(client, bucket, days, mode)
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy(bucket, principal)))
    print(f"buckets: {', '.join(buckets)}" + f"; {LOCKED} locked for {days} days ({mode})" * (LOCKED in buckets))


if __name__ == "__main__":
    sys.exit(main())
