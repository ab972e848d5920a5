"""A Prefect server and a small workspace for the whole session; each module works on a copy of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scenario

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "flows"))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own test harness: a real server in a child process on a temporary database."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        quick = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_SERVER_ANALYTICS_ENABLED: False}
        with temporary_settings(quick):
            yield


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """copied(workspace) -> a copy of it, wherever there is room."""

    def copy(root: Path) -> Path:
        return shutil.copytree(root, tmp_path_factory.mktemp("copy") / root.name, symlinks=True)

    return copy


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workspace on which nothing has run. To be copied, not used."""
    return scenario.make(tmp_path_factory.mktemp("new") / "digits")


@pytest.fixture(scope="session")
def finished(new: Path, copied: Callable[[Path], Path]) -> Path:
    """The same with all stages up to date, and nothing decided yet. To be copied, not used."""
    root = copied(new)
    scenario.finish(root)
    return root
