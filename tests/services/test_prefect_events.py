"""Events to a real Prefect server, to none, and to one that is away."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustdistill.services import prefect_events


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def api_url() -> Iterator[str]:
    """An address at which nobody answers, as the server of this process's settings."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address = f"http://127.0.0.1:{_free_port()}/api"
    with temporary_settings({PREFECT_API_URL: address}):
        yield address


def test_without_a_server_nothing_is_started_or_sent(tmp_path: Path) -> None:
    script = (
        "import logging, sys, time; logging.basicConfig(level=logging.DEBUG)\n"
        "from robustdistill.services.prefect_events import DATA_CHANGED, emit\n"
        "import prefect.settings, psutil; began = time.monotonic()\n"
        "assert emit(DATA_CHANGED, 'digits', {'digest': 'x'}) is False\n"
        "assert time.monotonic() - began < 1.0 and not psutil.Process().children()\n"
        "assert 'prefect.server' not in sys.modules\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment["PYTHONPATH"] = str(Path(prefect_events.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "robustdistill.data.changed of digits: no Prefect server is named" in done.stderr
    assert not list((tmp_path / "prefect").glob("*.db*"))


def test_a_server_that_is_away_is_logged_and_breaks_nothing(api_url: str, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, prefect_events.__name__):
        assert prefect_events.emit(prefect_events.RUN_FAILED, "digits", {"cause": "x"}) is False
    assert time.monotonic() - began < prefect_events.SECONDS + 2
    assert "robustdistill.run.failed of digits: Prefect's server was not told (ConnectionRefused" in caplog.text


def test_a_server_that_accepts_and_never_answers_costs_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(prefect_events, "SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        began = time.monotonic()
        with temporary_settings({PREFECT_API_URL: address}):
            assert prefect_events.emit(prefect_events.RUN_FAILED, "digits") is False
        assert time.monotonic() - began < 6.0
    assert "no answer within 1 s" in caplog.text


def test_an_unknown_event_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="unknown event"):
        prefect_events.emit("robustdistill.data.chagned", "digits")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://eve:hunter2@host/x", "http://host/x"),
        ("the key is sesame-1234, it seems", "the key is ***, it seems"),
        ("a" * 2000, "a" * 999 + "…"),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_a_payload_holds_no_secret(monkeypatch: pytest.MonkeyPatch, value: str, shown: str) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame-1234")
    assert prefect_events.clean(value) == shown
