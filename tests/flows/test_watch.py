"""The flow `watch`, by hand without a server, and on a Prefect server that is told and that tells people."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3_fake
import scenario

import watch
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli, prefect_events, prefect_notify
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


def rows(number: int) -> bytes:
    """An .npz of two further digits."""
    file = BytesIO()
    images = np.full((2, 8, 8), number, np.uint8)
    images[:, 0, :] = np.arange(8) * 16
    images[1, 1, :] = 255
    np.savez(file, images=images, labels=np.array([3, 4]))
    return file.getvalue()


@pytest.fixture
def root(new: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(new)


def test_by_hand_it_needs_no_server(root: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "1.npz").write_bytes(rows(1))
    (tmp_path / "inbox" / "2.npz").write_bytes(b"PK and no more")
    arguments = ("--from", str(tmp_path / "inbox"), "--settle", "0")
    found = scenario.flow("watch", root, *arguments)
    assert (found["outcome"], found["exit_code"]) == ("ingested", 0) and found["sentence"].startswith(
        "1 new file from "
    )
    assert "refused 2.npz (" in found["sentence"]
    assert scenario.flow("watch", root, *arguments)["outcome"] == "nothing new"


@pytest.fixture
def page(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a webhook of the server, named as the block to tell, was sent."""
    from prefect.blocks.webhook import Webhook

    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/hook"
    Webhook(method="POST", url=address, allow_private_urls=True).save("team", overwrite=True)
    monkeypatch.setenv(prefect_notify.VARIABLE, "webhook/team")
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


def _events(name: str, model: str, **payload: object) -> list[dict[str, Any]]:
    """Those with this in their payload: the server is the whole session's, and keeps what other tests' flows told."""
    from prefect.client.orchestration import get_client

    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [prefect_events.resource(model)]}}}
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            told = client._client.post("/events/filter", json=wanted).json()["events"]
            if found := [event for event in told if payload.items() <= event["payload"].items()]:
                return found
            assert time.monotonic() < deadline, "no event came"
            time.sleep(0.5)


def test_what_comes_into_s3_is_an_event_and_a_sentence(
    root: Path, page: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame-4711")
    before = dvc_cli.digest(root)
    with s3_fake.served(s3_fake.Bucket("inbox")) as bucket:
        bucket.objects |= {"digits/1.npz": rows(2), "digits/2.npz": rows(3), "digits/../3.npz": rows(4)}
        state = watch.watch("s3://inbox/digits", str(root), bucket.endpoint, return_state=True)
        again = watch.watch("s3://inbox/digits", str(root), bucket.endpoint, return_state=True)
    result = state.result()
    assert result["outcome"] == "ingested" and "refused ../3.npz (its name leads out" in result["sentence"]
    assert again.result()["outcome"] == "nothing new" and again.name == "Completed"
    (event,) = _events(prefect_events.DATA_CHANGED, Workspace.find(root).name)
    assert event["payload"] == {
        "before": before, "digest": dvc_cli.digest(root), "files": 2, "source": "s3://inbox/digits/",
    }  # fmt: skip
    assert any(each["prefect.resource.id"].startswith("prefect.flow-run.") for each in event["related"])
    assert "sesame" not in json.dumps(event)
    assert len(page) == 1 and page[0].startswith(f"digits: watch: ingested: {result['sentence']}\nhttp")


def test_a_failed_look_is_told(root: Path, page: list[str]) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        watch.watch("/nowhere/at/all", str(root))
    assert len(page) == 1 and page[0].startswith("digits: watch failed: ") and "no such folder" in page[0]
    (found,) = _events(prefect_events.RUN_FAILED, "digits", flow="watch")
    assert "no such folder" in found["payload"]["cause"]
