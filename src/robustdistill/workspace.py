"""A workspace: the folder of one model. Where everything in it lies, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robustdistill import config
from robustdistill.errors import BadInput, placed

LOCK_POLL_SECONDS = 0.5


def write_atomically(path: Path, text: str) -> None:
    """The whole text or the file as it was before; its folder is made if needed.

    Raises OSError that names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with placed(path):
            part.write_text(text, encoding="utf-8")
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def workspace_option(root: Path | None) -> str:
    """What a command that is told to a person needs to act on the workspace at `root`: "" in that folder, else
    ` --workspace PATH`, from the current folder where that is shorter. None: not known, ` --workspace DIR`."""
    if root is None:
        return " --workspace DIR"
    if root.resolve() == Path.cwd():
        return ""
    return f" --workspace {shlex.quote(min(os.path.relpath(root), str(root), key=len))}"


class InUse(BadInput):
    """Another run holds the workspace."""


@dataclass(frozen=True)
class Workspace:
    """Paths and settings of one workspace. `root` is absolute."""

    root: Path

    @classmethod
    def find(cls, path: Path | None = None) -> Workspace:
        """The workspace at `path`, default the current folder. Raises BadInput where there is none."""
        root = (path or Path.cwd()).resolve()
        if not (root / "params.yaml").is_file():
            raise BadInput(
                "this is not a workspace: it holds no params.yaml",
                where=str(root),
                fix="make one with `robustdistill init DIR`, or name one with --workspace DIR",
            )
        return cls(root)

    def params(self) -> config.Params:
        return config.load(config.Params, self.root / "params.yaml")

    def policy(self) -> config.Policy:
        return config.load(config.Policy, self.root / "policy.yaml")

    @property
    def name(self) -> str:
        """The name of the registered model."""
        return self.params().name

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def work(self) -> Path:
        """Checkpoints, embedded stores, logs: whatever may be lost without losing a result. Not versioned."""
        return self.root / ".work"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def imports(self) -> Path:
        """Teachers from elsewhere, one folder for each content hash."""
        return self.root / "imports"

    @property
    def pin(self) -> Path:
        """The teacher in use that was not trained here."""
        return self.root / "teacher.pin.json"

    def out(self, stage: str) -> Path:
        """Where a stage's result lies: `export@student` -> artifacts/export/student."""
        return self.artifacts.joinpath(*stage.split("@"))

    def scratch(self, stage: str, key: str) -> Path:
        """Checkpoints of a stage for exactly one set of inputs, named by `key`."""
        return self.work / stage / key

    def log(self, stage: str) -> Path:
        return self.work / "logs" / f"{stage}.log"

    def error(self, stage: str) -> Path:
        """What a failed stage said last, for the process that started it."""
        return self.work / "errors" / f"{stage}.json"

    def holder(self) -> str | None:
        """The pid of the run that holds the workspace now; None if nobody does."""
        path = self.work / "lock"
        if not path.exists():
            return None
        with path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return stream.read(32).decode(errors="replace").strip() or "unknown"
        return None

    @contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Held by one run at a time; the kernel frees it when its holder dies.

        Raises InUse (a BadInput) if it is still taken after `patience` seconds.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.work / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _taken(descriptor, patience):
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise InUse(
                    f"the workspace is locked by another run (pid {holder})",
                    where=str(self.root),
                    fix="wait until it ends, or use another workspace",
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _taken(descriptor: int, patience: float) -> bool:
    """Whether this process has the lock now; asks again for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(LOCK_POLL_SECONDS, patience))
        else:
            return True
