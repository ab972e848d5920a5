"""DVC's remote: a failure is a sentence that names it, credentials are not repeated, a clone knows what to bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.services import dvc_cli, dvc_remote
from robustdistill.stages.catalog import STAGES, with_descendants

URL, ENDPOINT = "s3://bucket/place", "http://127.0.0.1:9000"
HEAD = "An error occurred (403) when calling the HeadObject operation: Forbidden"
LIST = "An error occurred (NoSuchBucket) when calling the ListObjectsV2 operation: None"
AWAY = 'Could not connect to the endpoint URL: "http://127.0.0.1:9000/bucket"'


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """dvc(words) -> `dvc push` and `dvc pull` fail with these words; `dvc config` answers."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    config = {"core.remote": "local", "remote.local.url": URL, "remote.local.endpointurl": ENDPOINT}

    def install(words: str) -> None:
        def run(root: Path, *arguments: str) -> str:
            if arguments[0] == "config":
                return config[arguments[1]] + "\n"
            raise ServiceFailed(words, where=str(root))

        monkeypatch.setattr(dvc_cli, "dvc", run)

    return install


@pytest.mark.parametrize(
    ("words", "kind", "said", "fix"),
    [
        (f"unexpected error - Forbidden: {HEAD}", ServiceRefused, "refuses these credentials", "AWS_ACCESS_KEY_ID"),
        (f"unexpected error - None: {LIST}", ServiceRefused, "bucket of the DVC remote does not exist", "make it|make"),
        ("unexpected error - Unable to locate credentials", ServiceRefused, "there are none", "AWS_SECRET_ACCESS_KEY"),
        (f"failed to connect to s3 (bucket/place) - {AWAY}", ServiceFailed, "does not answer", "start it"),
        ("something else altogether", ServiceFailed, "something else altogether", ""),
    ],
)
def test_a_failure_is_a_sentence_that_names_the_remote(
    dvc: Callable[[str], None], tmp_path: Path, words: str, kind: type[ServiceFailed], said: str, fix: str
) -> None:
    dvc(words)
    for act in (dvc_remote.push, dvc_remote.fetch_data, lambda root: dvc_remote.fetch_results(root, ["artifacts/x"])):
        with pytest.raises(ServiceFailed, match=said) as caught:
            act(tmp_path)
        assert type(caught.value) is kind and caught.value.exit_code == 4
        assert caught.value.where == f"{URL} at {ENDPOINT}"
        assert any(part in caught.value.fix for part in fix.split("|"))
        assert (dvc_remote.KEPT in caught.value.fix) == (act is dvc_remote.push)


def test_data_that_the_remote_does_not_hold_are_said_to_be_missing(dvc: Callable[[str], None], tmp_path: Path) -> None:
    dvc("failed to pull data from the cloud - Checkout failed\n<https://error.dvc.org/missing-files>")
    with pytest.raises(ServiceRefused, match="does not hold it, or its bucket does not exist") as caught:
        dvc_remote.fetch_data(tmp_path)
    assert caught.value.where == f"{URL} at {ENDPOINT}" and "dvc push" in caught.value.fix


def test_credentials_are_not_repeated(
    dvc: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hidden-two")
    dvc("strange: hidden-one of hidden-two at https://me:hidden-three@host/x")
    with pytest.raises(ServiceFailed, match="strange") as caught:
        dvc_remote.push(tmp_path)
    assert "hidden" not in str(caught.value) and "https://***@host/x" in str(caught.value)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    dvc_remote.require_no_secret("s3://bucket/place@2")
    with pytest.raises(BadInput, match="committed to git") as caught:
        dvc_remote.require_no_secret("https://me:hidden@host/x")
    assert "hidden" not in str(caught.value) and caught.value.where == "https://***@host/x"


DELETED = {"changed deps": {"artifacts/prepare": "deleted"}, "changed outs": {"out": "not in cache"}}
ADDED = {"changed deps": {"artifacts/prepare": "deleted", "params.yaml": {"control.objective": "modified"}}}


@pytest.mark.parametrize(
    ("known", "changed", "expected"),
    [
        (tuple(STAGES), {}, []),
        (tuple(STAGES), {name: [DELETED] for name in STAGES}, list(STAGES)),
        (("prepare", "initial"), {name: [DELETED] for name in STAGES}, ["prepare", "initial"]),
        (
            tuple(STAGES),
            {name: [ADDED if name == "control" else DELETED] for name in STAGES},
            [name for name in STAGES if name not in with_descendants(["control"])],
        ),
        (tuple(STAGES), {"prepare": [ADDED], "initial": [DELETED]}, []),
    ],
)
def test_only_what_would_be_made_again_as_it_was_is_brought(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: tuple[str, ...],
    changed: dict[str, list[object]],
    expected: list[str],
) -> None:
    """A stage whose own inputs changed, or one that reads from such a stage, is made anew."""
    monkeypatch.setattr(dvc_cli, "recorded", lambda root: {STAGES[name].out: (name, "0.dir") for name in known})
    monkeypatch.setattr(dvc_cli, "_require_pipeline", lambda root: None)
    monkeypatch.setattr(dvc_cli, "status", lambda root: changed)
    assert dvc_cli.restorable(tmp_path) == expected
    for stage in STAGES.values():
        (tmp_path / stage.out).mkdir(parents=True, exist_ok=True)
    assert dvc_cli.restorable(tmp_path) == []  # nothing is gone
