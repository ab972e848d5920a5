"""DVC's lock on the files of stages, .dvc/tmp/rwlock: who holds them, and what a killed process left behind.

DVC passes over entries of processes that are gone. It takes any process that has such a number now for the holder, and
refuses to read a file that a crash left half-written, so that each command after it fails. Both are mended here.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from robustdistill.workspace import write_atomically

POLL_SECONDS, GUARD_SECONDS = 0.5, 10.0


class Entry(NamedTuple):
    """One line of the file. mode: read or write; path: what is held; pid, command: by whom."""

    mode: str
    path: str
    pid: int
    command: str


def mend(root: Path) -> None:
    """Takes away what no living DVC holds. DVC's own guard is kept meanwhile."""
    file = root / ".dvc" / "tmp" / "rwlock"
    if not file.exists():
        return
    with _guard(file.with_name("rwlock.lock")) as mine:
        found = _read(file) if mine else []
        if found is None:
            file.unlink(missing_ok=True)
        elif not all(map(alive, found)):
            write_atomically(file, json.dumps(_content([entry for entry in found if alive(entry)])))


def wait(root: Path, reads: list[Path], writes: list[Path], tell: Callable[[Entry], None], stopped: Any) -> None:
    """Returns when no other DVC writes what is read here, or reads or writes what is written, or `stopped` is set.

    tell: called once for each holder.
    """
    file, told = root / ".dvc" / "tmp" / "rwlock", set[Entry]()
    while not stopped.is_set():
        found = [entry for entry in _read(file) or [] if _blocks(entry, reads, writes) and alive(entry)]
        if not found:
            return
        for entry in {*found} - told:
            tell(entry)
            told.add(entry)
        stopped.wait(POLL_SECONDS)


def alive(entry: Entry) -> bool:
    """Whether its process is there and is that command still, not another one under its number."""
    try:
        words = psutil.Process(entry.pid).cmdline()
    except psutil.AccessDenied:  # somebody else's process: not for us to doubt
        return True
    except psutil.Error:
        return False
    given = entry.command.partition(" ")[2]  # what follows the program, which Python spells in its own way
    return " ".join(words).endswith(f" {given}") if given else any("dvc" in word for word in words)


def _blocks(entry: Entry, reads: list[Path], writes: list[Path]) -> bool:
    wanted = [*reads, *writes] if entry.mode == "write" else writes
    held = Path(entry.path)
    return any(held == path or held in path.parents or path in held.parents for path in wanted)


def _read(file: Path) -> list[Entry] | None:
    """What is held; None if the file is not whole."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = [("write", path, [who]) for path, who in found.get("write", {}).items()]
        rows += [("read", path, who) for path, who in found.get("read", {}).items()]
        return [Entry(mode, path, int(one["pid"]), str(one["cmd"])) for mode, path, who in rows for one in who]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _content(entries: list[Entry]) -> dict[str, Any]:
    write = {item.path: {"pid": item.pid, "cmd": item.command} for item in entries if item.mode == "write"}
    read: dict[str, list[dict[str, Any]]] = {}
    for item in entries:
        if item.mode == "read":
            read.setdefault(item.path, []).append({"pid": item.pid, "cmd": item.command})
    return {"write": write, "read": read}


@contextmanager
def _guard(path: Path) -> Iterator[bool]:
    """The lock under which DVC edits the file; False if somebody kept it all the time."""
    with path.open("a+") as stream:
        end = time.monotonic() + GUARD_SECONDS
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                yield False
                return
            time.sleep(0.05)
        yield True
