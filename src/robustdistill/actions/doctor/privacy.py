"""Nothing is told to strangers, nothing is loaded that could run code, and secrets are closed to others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from robustdistill.actions.doctor.finding import Case, Finding, check
from robustdistill.actions.doctor.remote import configured
from robustdistill.services import mlflow_address

# Variable -> the values with which that engine tells nobody. MLflow's are set by force in our own processes.
SILENT: Mapping[str, tuple[str, ...]] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": ("false", "0", "no"),
    "DO_NOT_TRACK": ("true",),  # MLflow heeds no other spelling
    "MLFLOW_DISABLE_TELEMETRY": ("true", "1"),
    "DVC_NO_ANALYTICS": ("1", "true", "yes"),
}
PICKLES = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
SECRET_KEYS = ("access_key_id", "secret_access_key", "session_token", "password", "token")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@check("privacy")
def examine(case: Case) -> Iterator[Finding]:
    mlflow_address.configure_environment()
    loud = [name for name, quiet in SILENT.items() if os.environ.get(name, "").lower() not in quiet]
    if loud:
        fix = "unset them: robustdistill switches telemetry off by itself"
        yield Finding("telemetry", "FAIL", f"on, by {', '.join(loud)}", fix)
    else:
        yield Finding("telemetry", "ok", "off: Prefect, MLflow, DVC")
    safe = os.environ.get(PICKLES) == "false"
    yield Finding(
        "pickles", "ok" if safe else "FAIL", "never loaded: MLflow refuses them" if safe else f"{PICKLES} is on"
    )
    if case.workspace is not None:
        yield from _folders(case.workspace.root, case.work)


def _folders(root: Path, work: Path) -> Iterator[Finding]:
    """Of results that name their own loader (Prefect's) and of secrets."""
    private = [work / "prefect", *(work / "stack").glob("*/secrets")]
    shut = [place for place in private if place.exists()]
    opened = [place for place in shut if place.stat().st_mode & OTHERS]
    if opened:
        listed = " ".join(map(str, opened))
        yield Finding("folders", "FAIL", f"open to other users: {listed}", f"chmod 700 {listed}")
    else:
        yield Finding("folders", "ok", "closed to other users: " + (", ".join(map(str, shut)) or "none is there yet"))
    if root.stat().st_mode & stat.S_IWOTH:
        yield Finding("workspace, rights", "FAIL", "anybody may write in it", f"chmod o-w {root}")
    _, settings = configured(root)
    own = root / ".dvc" / "config.local"
    if any(key in settings for key in SECRET_KEYS):
        closed = own.exists() and not own.stat().st_mode & OTHERS
        fix = f"keep keys in the environment, or chmod 600 {own}; never in .dvc/config, which git has"
        level, found = (
            ("ok", "closed to others") if closed else ("FAIL", "keys of the remote stand in a file that others read")
        )
        yield Finding("DVC remote, keys", level, found, "" if closed else fix)  # type: ignore[arg-type]
