"""A version read straight from the file of an embedded registry: a millisecond, where importing MLflow takes seconds.

It only looks. Whatever is not as expected (no SQLite, another schema, a file in use, no such alias) gives None, and
then MLflow itself has to answer.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from robustdistill.services.mlflow_address import Address
from robustdistill.services.mlflow_registry import Version

# MLflow keeps several tenants ("workspaces") in one database; in an embedded one there is only the default.
TENANT = "default"
HELD = """
SELECT versions.version, versions.source, versions.run_id, versions.description
FROM registered_model_aliases AS aliases
JOIN model_versions AS versions USING (workspace, name, version)
WHERE workspace = ? AND name = ? AND alias = ? AND versions.status = 'READY'
  AND versions.current_stage IS NOT 'Deleted_Internal'
"""
TAGS = "SELECT key, value FROM model_version_tags WHERE workspace = ? AND name = ? AND version = ?"
BUSY_SECONDS = 2.0


def version(address: Address, name: str, alias: str) -> Version | None:
    """The version of NAME that `alias` names; None if MLflow has to be asked."""
    database = address.database
    if database is None or not database.is_file():
        return None
    try:
        path = f"{database.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=BUSY_SECONDS)) as connection:
            rows = connection.execute(HELD, (TENANT, name, alias)).fetchall()
            if len(rows) != 1:
                return None
            number, source, run, description = rows[0]
            tags = connection.execute(TAGS, (TENANT, name, number)).fetchall()
    except sqlite3.Error:
        return None
    return Version(name, int(number), dict(tags), source or "", run or "", description or "")
