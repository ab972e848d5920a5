"""Makes the databases of MLflow and Prefect and their roles, and says who may enter; may be run again.

    PGHOST=… PGUSER=postgres PGPASSWORD=… MLFLOW_DB_PASSWORD=… PREFECT_DB_PASSWORD=… READER_DB_PASSWORD=… \
    python infra/rights/databases.py

A role's password becomes what the environment says, so a password is changed by running this again.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import extensions, sql

ROLES = {"mlflow": "MLFLOW_DB_PASSWORD", "prefect": "PREFECT_DB_PASSWORD", "reader": "READER_DB_PASSWORD"}
OWNERS = {"mlflow": "mlflow", "mlflow_auth": "mlflow", "prefect": "prefect"}
READABLE = ("mlflow", "prefect")
TABLES = Path(__file__).with_name("databases.sql")


def _connect(database: str) -> extensions.connection:
    connection = psycopg2.connect(dbname=database)  # the rest stands in PGHOST, PGUSER, PGPASSWORD
    connection.autocommit = True  # CREATE DATABASE cannot be part of a transaction
    return connection


def make() -> None:
    """Roles, databases, and who may connect."""
    with closing(_connect("postgres")) as connection, connection.cursor() as cursor:
        for role, variable in ROLES.items():
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            limits = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
            text = sql.SQL(verb + " ROLE {} " + limits + " PASSWORD {}")
            # hashed here, so that the server's log cannot hold it
            hashed = extensions.encrypt_password(os.environ[variable], role, connection, "scram-sha-256")
            cursor.execute(text.format(sql.Identifier(role), sql.Literal(hashed)))
        for database, owner in OWNERS.items():
            names = {"database": sql.Identifier(database), "owner": sql.Identifier(owner)}
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {database} OWNER {owner}").format(**names))
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
            cursor.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {owner}").format(**names))
            verb, to = ("GRANT", "TO") if database in READABLE else ("REVOKE", "FROM")
            cursor.execute(sql.SQL(f"{verb} CONNECT ON DATABASE {{database}} {to} reader").format(**names))
        cursor.execute("REVOKE ALL ON DATABASE postgres FROM PUBLIC")


def grant() -> None:
    """Who may read the tables there are, and those to come."""
    for database in READABLE:
        with closing(_connect(database)) as connection, connection.cursor() as cursor:
            owner = sql.Identifier(OWNERS[database])
            cursor.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(owner))
            cursor.execute(sql.SQL(TABLES.read_text(encoding="utf-8")).format(owner=owner))


if __name__ == "__main__":
    lacking = [name for name in ("PGHOST", "PGPASSWORD", *ROLES.values()) if not os.environ.get(name)]
    if lacking:
        sys.exit(f"error: not set: {', '.join(lacking)}")
    make()
    grant()
    print(f"databases: {', '.join(OWNERS)}")
