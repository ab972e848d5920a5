"""The record of every promotion and rollback in a bucket where nothing is deleted (services/s3_records.py).

Written to .work/records before the promotion counts as done, and pushed afterwards: what S3 does not take waits there
for the next run, and the champion does not depend on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistill.errors import RobustDistillError
from robustdistill.services import s3_records
from robustdistill.workspace import write_atomically

FOLDER = "records"


def owe(work: Path, told: Mapping[str, Any]) -> None:
    """Keeps a record until it is pushed, if records are kept at all. told: its `name` and `at` (ISO) are in its key.

    The same record has the same key, however often it is written.
    """
    if not s3_records.are_kept():
        return
    text = json.dumps(told, sort_keys=True) + "\n"
    at = "".join(sign for sign in str(told["at"])[:19] if sign.isalnum())  # sorts by time
    key = f"{at}Z-{hashlib.sha256(text.encode()).hexdigest()}.json"
    write_atomically(work / FOLDER / str(told["name"]) / key, text)


def push(work: Path) -> str:
    """Pushes what is owed; "", or why something still waits. Raises nothing but OSError."""
    waiting = sorted((work / FOLDER).glob("*/[!.]*.json"))
    if not waiting:
        return ""
    try:
        kept = s3_records.Records.named()
        for path in waiting:
            kept.put(f"{path.parent.name}/{path.name}", path.read_bytes())
            path.unlink()
    except RobustDistillError as error:
        place = f" ({error.where})" if error.where else ""
        return f"a record of a promotion waits in {work / FOLDER} for the next run: {error.cause}{place}"
    return ""


def owed(work: Path) -> str:
    """`push`, as the end of a sentence."""
    said = push(work)
    return said and f"; {said}"
