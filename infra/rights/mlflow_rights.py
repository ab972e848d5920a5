"""Who may do what in MLflow: three users, and for each model three roles, on the server's own basic-auth API.

    MLFLOW_TRACKING_URI=http://… MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=… \
    TRAINER_PASSWORD=… PROMOTER_PASSWORD=… READER_PASSWORD=… python infra/rights/mlflow_rights.py NAME [NAME …]

May be run again: then passwords and grants become what they are here, grants beyond GRANTS go, and a user called
otherwise keeps what it has. Models and experiments are made here first, because MLflow gives MANAGE to whoever
makes one: a trainer who made NAME would own it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import requests

V2, V3 = "api/2.0/mlflow", "api/3.0/mlflow"
WORKSPACE = "default"
SECONDS = 30.0
MODEL, CANDIDATES = "{name}", "{name}-candidates"
# To take an alias away MLflow asks for MANAGE: who reverts a first promotion does that, or decides on a candidate.
GRANTS: dict[str, dict[tuple[str, str], str]] = {
    "trainer": {
        ("experiment", MODEL): "EDIT",
        ("registered_model", CANDIDATES): "EDIT",
        ("registered_model", MODEL): "READ",
    },
    "promoter": {
        ("experiment", MODEL): "EDIT",
        ("registered_model", CANDIDATES): "MANAGE",
        ("registered_model", MODEL): "MANAGE",
    },
    "reader": {
        ("experiment", MODEL): "READ",
        ("registered_model", CANDIDATES): "READ",
        ("registered_model", MODEL): "READ",
    },
}


class Refused(Exception):
    """MLflow did not do what was asked; the text has no password."""


@dataclass(frozen=True)
class Server:
    """A basic-auth server, spoken to as its admin."""

    address: str
    admin: tuple[str, str]

    def ask(self, verb: str, path: str, *, may: tuple[str, ...] = (), **body: Any) -> dict[str, Any]:
        """MLflow's answer; {} for an error whose code is in `may`. Raises Refused for all others."""
        how = {"params" if verb == "GET" else "json": body}
        try:
            answer = requests.request(
                verb, f"{self.address.rstrip('/')}/{path}", auth=self.admin, timeout=SECONDS, **how
            )
            said = answer.json() if answer.headers.get("Content-Type", "").startswith("application/json") else {}
        except (requests.RequestException, ValueError) as error:
            raise Refused(f"{path}: {type(error).__name__}") from None
        if answer.ok:
            return dict(said)
        if said.get("error_code") in may:
            return {}
        raise Refused(f"{path}: {answer.status_code} {said.get('error_code', '')} {said.get('message', '')}")

    def user(self, name: str, password: str) -> None:
        """Makes the user, or gives it this password."""
        made = self.ask(
            "POST", f"{V2}/users/create", may=("RESOURCE_ALREADY_EXISTS",), username=name, password=password
        )
        if not made:
            self.ask("PATCH", f"{V2}/users/update-password", username=name, password=password)

    def model(self, name: str) -> None:
        self.ask("POST", f"{V2}/registered-models/create", may=("RESOURCE_ALREADY_EXISTS",), name=name)

    def experiment(self, name: str) -> str:
        """Its id."""
        made = self.ask("POST", f"{V2}/experiments/create", may=("RESOURCE_ALREADY_EXISTS",), name=name)
        found = self.ask("GET", f"{V2}/experiments/get-by-name", experiment_name=name)
        return str(made.get("experiment_id") or found["experiment"]["experiment_id"])

    def role(self, name: str, grants: dict[tuple[str, str], str]) -> int:
        """The id of the role of this name, which has these grants and no others."""
        known = {role["name"]: role for role in self.ask("GET", f"{V3}/roles/list", workspace=WORKSPACE)["roles"]}
        if name not in known:
            known[name] = self.ask("POST", f"{V3}/roles/create", name=name, workspace=WORKSPACE)["role"]
        number = int(known[name]["id"])
        for old in self.ask("GET", f"{V3}/roles/permissions/list", role_id=number)["role_permissions"]:
            if grants.get((old["resource_type"], old["resource_pattern"])) != old["permission"]:
                self.ask("DELETE", f"{V3}/roles/permissions/remove", role_permission_id=old["id"])
        there = self.ask("GET", f"{V3}/roles/permissions/list", role_id=number)["role_permissions"]
        for (kind, pattern), permission in grants.items():
            if (kind, pattern) not in {(old["resource_type"], old["resource_pattern"]) for old in there}:
                wanted = {"resource_type": kind, "resource_pattern": pattern, "permission": permission}
                self.ask("POST", f"{V3}/roles/permissions/add", role_id=number, **wanted)
        return number

    def assign(self, user: str, role: int) -> None:
        self.ask("POST", f"{V3}/roles/assign", may=("RESOURCE_ALREADY_EXISTS",), username=user, role_id=role)


def grant(server: Server, names: list[str], passwords: dict[str, str]) -> None:
    """Users, models and roles for the registered models `names`. Raises Refused."""
    for user, password in passwords.items():
        server.user(user, password)
    for name in names:
        ids = {"experiment": server.experiment(name)}
        for model in (MODEL, CANDIDATES):
            server.model(model.format(name=name))
        for user, wanted in GRANTS.items():
            grants = {
                (kind, ids.get(kind, pattern.format(name=name))): permission
                for (kind, pattern), permission in wanted.items()
            }
            server.assign(user, server.role(f"{name}:{user}", grants))


def main(names: list[str]) -> int:
    wanted = ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"]
    wanted += [f"{user.upper()}_PASSWORD" for user in GRANTS]
    if lacking := [key for key in wanted if not os.environ.get(key)]:
        print(f"error: not set: {', '.join(lacking)}", file=sys.stderr)
        return 2
    if not names:
        print("error: which models?\n  fix:   mlflow_rights.py NAME [NAME …]", file=sys.stderr)
        return 2
    address, admin, password = (os.environ[key] for key in wanted[:3])
    try:
        grant(
            Server(address, (admin, password)), names, {user: os.environ[f"{user.upper()}_PASSWORD"] for user in GRANTS}
        )
    except Refused as error:
        print(f"error: MLflow: {error}", file=sys.stderr)
        return 4
    print(f"rights set for {', '.join(names)}: {', '.join(GRANTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
