"""infra/kubernetes: valid under Kubernetes' own schemas, strictly, and a Job that holds no secret and no database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "kubernetes"
SECRET = "prefect:a-known-secret"
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"


def _template() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "job.json").read_text(encoding="utf-8"))
    return found


def _documents() -> list[dict[str, Any]]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def _job(template: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """The Job that Prefect's worker makes of the template for a flow run."""
    configuration: Any = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(template, variables))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="quick-fox"))
    worker: Any = object.__new__(KubernetesWorker)  # only to ask how it puts a secret in the pair's place
    reference = {"secret_name": "prefect", "secret_key": "auth"}
    asyncio.run(
        worker._replace_env_variable_with_secret(
            configuration=configuration, env_variable_name="PREFECT_API_AUTH_STRING", **reference
        )
    )
    manifest: dict[str, Any] = configuration.job_manifest
    manifest["metadata"]["name"] = "checked"  # the checker cannot name what has only a generateName
    return manifest


@pytest.fixture(autouse=True)
def worker_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a worker of ours knows."""
    monkeypatch.delenv(DATABASE, raising=False)
    with temporary_settings({PREFECT_API_URL: "http://prefect.services:4200/api", PREFECT_API_AUTH_STRING: SECRET}):
        yield


def _strict(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("variables", [{}, {"gpu": "1", "node_selector": {"gpu": "h100"}}], ids=["cpu", "gpu"])
def test_the_job_is_valid(variables: dict[str, Any]) -> None:
    job = _job(_template(), **variables)
    _strict(job)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == variables.get("gpu")
    assert job["spec"]["template"]["spec"].get("nodeSelector") == variables.get("node_selector")


def test_prefects_own_template_is_not() -> None:
    """Why there is one of ours: its pod has fields of a job."""
    with pytest.raises(kubernetes_validate.ValidationError):
        _strict(_job(KubernetesWorker.get_default_base_job_template()))


def test_an_unknown_field_and_a_wrong_type_are_found() -> None:
    for path, value in ((("backoffLimits",), 1), (("backoffLimit",), "none")):
        template = _template()
        template["job_configuration"]["job_manifest"]["spec"][path[0]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            _strict(_job(template))


def test_a_job_holds_no_secret_and_no_database() -> None:
    job = _job(_template(), env={"MLFLOW_TRACKING_URI": "http://mlflow.services:5000"})
    container = job["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["MLFLOW_TRACKING_URI"]["value"] == "http://mlflow.services:5000"
    assert environment["PREFECT_API_AUTH_STRING"]["valueFrom"]["secretKeyRef"] == {"name": "prefect", "key": "auth"}
    assert container["envFrom"] == [{"secretRef": {"name": "flow-run"}}]
    text = json.dumps(job)
    assert SECRET not in text and "a-known-secret" not in text
    assert not {name for name in environment if "DATABASE" in name or "PASSWORD" in name or "SECRET" in name}
    assert "postgresql" not in text


def test_a_worker_that_knows_a_database_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail: Prefect does copy it, and worker.yaml must not have it."""
    monkeypatch.setenv(DATABASE, "postgresql+asyncpg://prefect:word@postgres/prefect")
    from prefect.settings import get_current_settings

    fresh = type(get_current_settings())()
    assert "postgresql" in json.dumps(fresh.to_environment_variables(exclude_unset=True))


def test_a_pod_is_not_root_and_has_no_token() -> None:
    pod = _job(_template())["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(
    "document", _documents(), ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_the_rest_is_valid(document: dict[str, Any]) -> None:
    _strict(document)


def test_the_parts_name_each_other() -> None:
    """The claim, the accounts and the labels that one file uses are those that another makes."""
    there = {(each["kind"], each["metadata"]["name"]): each for each in _documents()}
    pod = _job(_template())["spec"]["template"]
    claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in there
    assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in there
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "flow-run"
    policy = there["NetworkPolicy", "flow-run"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "flow-run"}
    assert 5432 not in {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    deployed = there["Deployment", "worker"]["spec"]["template"]["spec"]["containers"][0]["env"]
    names = {entry["name"]: entry for entry in deployed}
    assert "value" not in names["PREFECT_API_AUTH_STRING"] and not [name for name in names if "DATABASE" in name]
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_"
    assert (names[f"{prefix}NAME"]["value"], names[f"{prefix}KEY"]["value"]) == ("prefect", "auth")
