"""What earlier looks at an inbox came to: one JSON file of the workspace for each source, written as a whole.

It may be lost: then everything is looked at again, and what is in data/ already changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustdistill.workspace import Workspace, write_atomically


@dataclass(frozen=True)
class Known:
    """A file that was dealt with. tag: of its content then. why: it was refused; "" if taken.

    group: it was refused together with others of its class, and is tried again when more of it come. place: in data/.
    """

    tag: str
    why: str = ""
    group: str = ""
    place: str = ""


@dataclass
class State:
    """unsettled: name -> (tag, since when). owed: an event on data that may have changed is not sent yet; before: the
    digest of the data before that, None if there were none."""

    path: Path
    source: str
    files: dict[str, Known] = field(default_factory=dict)
    unsettled: dict[str, tuple[str, float]] = field(default_factory=dict)
    owed: bool = False
    before: str | None = None

    @classmethod
    def load(cls, workspace: Workspace, source: str) -> State:
        """source: as shown to a person; its hash names the file. A damaged file counts as none."""
        digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = workspace.work / "watch" / f"{digest}.json"
        try:
            record: Any = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): Known(**entry) for name, entry in record["files"].items()}
            moving = {str(name): (str(tag), float(since)) for name, (tag, since) in record["unsettled"].items()}
            return cls(path, source, files, moving, bool(record["owed"]), record["before"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, source)

    def save(self) -> None:
        record = {
            "source": self.source,
            "files": {name: asdict(known) for name, known in self.files.items()},
            "unsettled": self.unsettled,
            "owed": self.owed,
            "before": self.before,
        }
        write_atomically(self.path, json.dumps(record, sort_keys=True) + "\n")

    def lying_still(self, seconds: float) -> dict[str, str]:
        """Tags of files that an earlier look, so long ago at least, saw as they were."""
        now = time.time()
        return {name: tag for name, (tag, since) in self.unsettled.items() if not 0 <= now - since < seconds}

    def see(self, unsettled: Mapping[str, str]) -> bool:
        """Keeps what may still be written; whether that differs from what was known."""
        now, old = time.time(), self.unsettled
        self.unsettled = {
            name: old[name] if name in old and old[name][0] == tag else (tag, now) for name, tag in unsettled.items()
        }
        return self.unsettled != old
