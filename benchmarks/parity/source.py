"""Where published code lies: a file of a repository at a commit, known by its hash."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from robustdistill.errors import BadInput

ADDRESS = "https://github.com/{repository}"


@dataclass(frozen=True)
class Source:
    """repository: OWNER/NAME. commit: in full. files: path -> SHA-256 of its bytes at that commit."""

    repository: str
    commit: str
    files: dict[str, str]


@dataclass(frozen=True)
class Clones:
    """A folder of clones, OWNER/NAME each, bare or with a work tree. offline: what is missing is not fetched."""

    folder: Path
    offline: bool = False

    def read(self, source: Source, path: str) -> str:
        """The text of a file. Raises BadInput if it cannot be had or is not the one that is named."""
        place = f"{source.repository}@{source.commit[:10]}:{path}"
        clone = self._clone(source.repository)
        done = subprocess.run(
            ["git", "-C", str(clone), "cat-file", "blob", f"{source.commit}:{path}"], capture_output=True
        )
        if done.returncode != 0:
            raise BadInput(
                f"git cannot read it: {done.stderr.decode(errors='replace').strip()}", where=place,
                fix=f"git -C {clone} fetch origin {source.commit}",
            )  # fmt: skip
        found = hashlib.sha256(done.stdout).hexdigest()
        if found != source.files[path]:
            raise BadInput(
                f"its SHA-256 is {found}, not {source.files[path]}: it is not run", where=place,
                fix="clone it afresh; if it is the same again, the table in benchmarks/parity/cases is wrong",
            )  # fmt: skip
        return done.stdout.decode("utf-8")

    def _clone(self, repository: str) -> Path:
        clone = self.folder / repository
        if clone.is_dir():
            return clone
        address = ADDRESS.format(repository=repository)
        if self.offline:
            raise BadInput("there is no clone", where=str(clone), fix=f"git clone --bare {address} {clone}")
        clone.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["git", "clone", "--quiet", "--bare", address, str(clone)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BadInput(f"git cannot clone it: {done.stderr.strip()}", where=address)
        return clone
