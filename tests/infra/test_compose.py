"""infra/compose.yaml as Docker Compose reads it: secrets demanded, nobody root, a worker that knows no database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml

ONCE = {"setup", "rights"}
OPTIONAL = {"PUBLIC_HOSTS", "PUBLIC_ORIGINS", "TORCH_INDEX", "SOURCE", "NOTIFY"}
DATABASE = re.compile(r"postgres|PGPASSWORD|PGHOST|DATABASE|BACKEND_STORE", re.IGNORECASE)


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return tools.services()


def _mended(tmp_path: Path, before: str, after: str) -> Path:
    """A copy of compose.yaml with one thing changed."""
    text = tools.COMPOSE.read_text(encoding="utf-8")
    assert before in text
    (changed := tmp_path / "compose.yaml").write_text(text.replace(before, after, 1), encoding="utf-8")
    return changed


@pytest.mark.parametrize(
    "name", [name for name, value in tools.example().items() if not value and name not in OPTIONAL]
)
def test_what_is_unset_or_empty_is_refused(name: str) -> None:
    for variables in (tools.filled() | {name: ""}, {k: v for k, v in tools.filled().items() if k != name}):
        done = tools.config(variables)
        assert done.returncode != 0
        assert f"required variable {name} is missing a value" in done.stderr


def test_no_secret_has_a_default() -> None:
    """Every secret is demanded with `:?`, and the example gives none that would pass as one."""
    text = tools.COMPOSE.read_text(encoding="utf-8")
    secret = re.compile(r"PASSWORD|SECRET|AUTH|KEY")
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert {name for name, how in asked if secret.search(name) and not how.startswith(":?")} == set()
    assert {name for name, value in tools.example().items() if secret.search(name) and value} == set()
    assert {name for name, _ in asked} == set(tools.example())


def test_a_written_down_secret_would_be_found(stack: dict[str, Any]) -> None:
    """Each value of a secret variable comes from the environment: none stands in the file."""
    given = set(tools.filled().values())
    for name, service in stack["services"].items():
        for variable, value in service["environment"].items():
            if re.search(r"PASSWORD$|SECRET$|SECRET_ACCESS_KEY$|AUTH_STRING$|SECRET_KEY$", variable):
                assert value in given, (name, variable)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    done = tools.config(tools.filled(), _mended(tmp_path, "    shm_size: 256m", "    shm_sizes: 256m"))
    assert done.returncode != 0 and "shm_sizes" in done.stderr


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    done = tools.config(tools.filled(), _mended(tmp_path, "rights: {condition", "writes: {condition"))
    assert done.returncode != 0 and "writes" in done.stderr


def _roots(stack: dict[str, Any]) -> set[str]:
    return {name for name, each in stack["services"].items() if each.get("user", "0").split(":")[0] in ("0", "root")}


def test_nobody_is_root(stack: dict[str, Any], tmp_path: Path) -> None:
    assert _roots(stack) == set()
    assert _roots(tools.services(_mended(tmp_path, '    user: "999:999"\n', ""))) == {"postgres"}


def test_every_service_is_bounded_and_watched(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert ("healthcheck" in service) == (name not in ONCE), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":[\w.-]*\d+\.\d+[\w.-]*$", service["image"]), f"{name}: {service['image']} is not pinned"


@pytest.mark.parametrize(("worker", "role"), [("worker", "trainer"), ("promoter", "promoter")])
def test_a_worker_knows_no_database(stack: dict[str, Any], tmp_path: Path, worker: str, role: str) -> None:
    def told(found: dict[str, Any]) -> set[str]:
        environment = found["services"][worker]["environment"]
        return {key for key, value in environment.items() if DATABASE.search(f"{key}={value}")}

    assert told(stack) == set()
    assert stack["services"][worker]["environment"]["MLFLOW_TRACKING_USERNAME"] == role
    assert not {"postgres", "setup"} & stack["services"][worker]["depends_on"].keys()
    assert "databases" not in stack["services"][worker]["networks"]
    leaking = _mended(tmp_path, f"      MLFLOW_TRACKING_USERNAME: {role}\n", "      PGHOST: postgres\n")
    assert told(tools.services(leaking)) == {"PGHOST"}


def test_each_secret_reaches_only_who_needs_it(stack: dict[str, Any]) -> None:
    holders = {
        secret: {name for name, each in stack["services"].items() if value in each["environment"].values()}
        for secret, value in tools.filled().items()
    }
    assert holders["POSTGRES_PASSWORD"] == {"postgres", "setup"}
    assert holders["S3_OWNER_SECRET"] == {"s3", "setup"}
    assert holders["MLFLOW_ADMIN_PASSWORD"] == {"mlflow", "rights"}
    assert holders["MLFLOW_DB_PASSWORD"] == {"mlflow", "setup"}
    assert holders["PREFECT_DB_PASSWORD"] == {"prefect", "setup"}
    assert holders["PROMOTER_PASSWORD"] == {"promoter", "rights"}
    assert holders["PROMOTER_S3_SECRET"] == {"promoter", "setup"}
    assert holders["TRAINER_PASSWORD"] == {"worker", "rights"}
    assert holders["READER_PASSWORD"] == {"rights"}


def test_ports_are_open_on_this_machine_alone(stack: dict[str, Any]) -> None:
    ports = {name: [port["host_ip"] for port in each.get("ports", [])] for name, each in stack["services"].items()}
    assert {name: hosts for name, hosts in ports.items() if hosts} == {
        "mlflow": ["127.0.0.1"],
        "prefect": ["127.0.0.1"],
    }
    assert stack["networks"]["databases"]["internal"] and stack["networks"]["objects"]["internal"]


def test_hosts_and_origins_are_listed(stack: dict[str, Any]) -> None:
    mlflow, prefect = (stack["services"][name]["environment"] for name in ("mlflow", "prefect"))
    assert mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"] == "localhost:*,127.0.0.1:*,mlflow:5000,known-public_hosts"
    assert mlflow["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].startswith("http://localhost:5000")
    assert "*" not in prefect["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]


def test_a_gpu_is_an_addition() -> None:
    with_gpu = tools.services(tools.COMPOSE, tools.INFRA / "compose.gpu.yaml")
    device = with_gpu["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["count"]) == ("nvidia", 1)


def test_volumes_are_named(stack: dict[str, Any]) -> None:
    kinds = {volume["type"] for each in stack["services"].values() for volume in each.get("volumes", [])}
    assert kinds == {"volume"}
    assert set(yaml.safe_load(tools.COMPOSE.read_text(encoding="utf-8"))["volumes"]) == set(stack["volumes"])
