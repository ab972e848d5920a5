"""Waits until every address answers 200: python infra/wait.py URL...

With the credentials of the environment: MLflow's (MLFLOW_TRACKING_USERNAME, _PASSWORD) for addresses that begin with
MLFLOW_TRACKING_URI, Prefect's (PREFECT_API_AUTH_STRING) for those that begin with PREFECT_API_URL.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from urllib.request import Request, urlopen

SECONDS = float(os.environ.get("WAIT_SECONDS", "240"))


def _asked(address: str) -> Request:
    known = {
        os.environ.get("MLFLOW_TRACKING_URI"): ":".join(
            os.environ.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD")
        ),
        os.environ.get("PREFECT_API_URL"): os.environ.get("PREFECT_API_AUTH_STRING", ""),
    }
    pair = next((pair for server, pair in known.items() if server and address.startswith(server)), "")
    token = base64.b64encode(pair.encode()).decode()
    return Request(address, headers={"Authorization": f"Basic {token}"} if pair.strip(":") else {})


def wait(address: str) -> None:
    """Returns when it answers 200; ends the program with a sentence if it never does."""
    deadline, last = time.monotonic() + SECONDS, ""
    while time.monotonic() < deadline:
        try:
            urlopen(_asked(address), timeout=5).close()
            return
        except OSError as error:  # refused, not granted yet, not there yet
            last = str(error)
            time.sleep(0.5)
    sys.exit(f"no answer from {address}: {last}")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        wait(each)
