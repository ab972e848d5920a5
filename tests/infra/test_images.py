"""infra/Dockerfile, what goes into the images, and the shell scripts of infra/."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tools

DOCKERFILE = tools.INFRA / "Dockerfile"
REQUIREMENTS = tools.ROOT / "requirements"
IMAGES = ("image-worker", "image-server", "build", "uv")


def test_the_dockerfile_is_clean() -> None:
    done = tools.run("hadolint", str(DOCKERFILE))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("USER 10001:10001\nCOPY --from=worker-packages", "COPY --from=worker-packages", "DL3002"),
        ("FROM python:${PYTHON} AS uv", "FROM python AS uv", "DL3006"),
        ('CMD ["sh", "infra/container-worker.sh"]', "CMD sh infra/container-worker.sh", "DL3025"),
    ],
    ids=["root", "no version", "a shell as first process"],
)
def test_hadolint_finds(before: str, after: str, rule: str, tmp_path: Path) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert before in text
    (worse := tmp_path / "Dockerfile").write_text(text.replace(before, after), encoding="utf-8")
    done = tools.run("hadolint", str(worse))
    assert done.returncode != 0 and rule in done.stdout


@pytest.mark.parametrize("target", ["s3", "server", "worker"])
def test_an_image_ends_as_nobody_in_particular(target: str) -> None:
    """hadolint looks at the last image alone."""
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = {stage.split("\n", 1)[0].split(" AS ")[1]: stage for stage in stages}
    found = re.findall(r"^USER (\S+)", named["base"] * (target != "s3") + named[target], flags=re.MULTILINE)
    assert found[-1] == "10001:10001"


@pytest.mark.parametrize("name", IMAGES)
def test_every_requirement_of_an_image_has_a_hash(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z])", text.strip())
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert f"--require-hashes -r requirements/{name}.txt" in DOCKERFILE.read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["image-server", "image-worker", "infra", "build"])
def test_the_same_versions_everywhere(name: str) -> None:
    """What is tested is what runs: an image has no other version of anything than the lock of the tests."""
    tested = _pins("dev")
    assert {key: version for key, version in _pins(name).items() if tested.get(key, version) != version} == {}


def test_the_cpu_image_is_the_lock_without_cuda() -> None:
    command = ["awk", "-f", str(REQUIREMENTS / "without-cuda.awk"), str(REQUIREMENTS / "image-worker.txt")]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"^([a-z0-9.-]+)", kept, flags=re.MULTILINE))
    gone = set(_pins("image-worker")) - names
    assert {"torch", "torchvision"} < gone
    assert {name for name in gone if not name.startswith(("torch", "triton", "nvidia-", "cuda-"))} == set()
    assert {name: version.partition("+")[0] for name, version in _pins("torch-cpu").items()} == {
        name: _pins("image-worker")[name] for name in ("torch", "torchvision")
    }


@pytest.mark.parametrize("script", sorted(tools.INFRA.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_clean(script: Path) -> None:
    shared = "--exclude=SC2034,SC2154"  # what one script sets and another that it reads in uses
    done = tools.run("shellcheck", "--shell=sh", "--severity=warning", shared, str(script))
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds(tmp_path: Path) -> None:
    (worse := tmp_path / "worse.sh").write_text("#!/bin/sh\nrm -rf $1/*\ncd $2\n", encoding="utf-8")
    assert tools.run("shellcheck", "--severity=warning", str(worse)).returncode != 0


def test_a_worker_that_was_told_a_database_does_not_start() -> None:
    script = tools.INFRA / "container-worker.sh"
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI", "PGPASSWORD"):
        environment = {"PATH": "/usr/bin:/bin", name: "known"}
        done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "may not know a database" in done.stderr
