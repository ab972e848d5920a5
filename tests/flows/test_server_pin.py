"""Prefect's server works with the FastAPI we pin; newer ones refuse nulls or do not import (pyproject.toml)."""

from __future__ import annotations

import httpx
import pytest
from prefect.settings import PREFECT_API_URL


@pytest.mark.slow
def test_the_server_takes_explicit_nulls(prefect_server: None) -> None:
    body = {"flows": None, "flow_runs": None, "task_runs": None, "limit": None, "offset": 0}
    answer = httpx.post(f"{PREFECT_API_URL.value()}/flows/filter", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json(), list)
