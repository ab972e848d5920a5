"""Where new data are put by others: a folder or an S3 prefix, as a list of files with a tag that changes with each.

A file is listed only when it is whole: S3 shows an object when its last part is there; in a folder a file has to lie
still for some seconds. What is being written under another name (hidden, .part, .tmp) is passed over.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from robustdistill.errors import BadInput, ServiceFailed, of_system

UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".swp")
LONGEST = 255  # bytes of one name on Linux file systems


@dataclass(frozen=True)
class Item:
    """name: path below the source, parts divided by "/". tag: other content, other tag. why: not to be taken at all."""

    name: str
    tag: str
    why: str = ""


@dataclass(frozen=True)
class Listing:
    """items: whole files. unsettled: name -> tag of those that may still be written."""

    items: list[Item]
    unsettled: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Raises BadInput where there is no such place, ServiceFailed where it cannot be asked."""

    @property
    def shown(self) -> str:
        """For a person; without credentials."""

    def list(self, unsettled: Mapping[str, str]) -> Listing:
        """All that lies there. unsettled: what an earlier look, `settle` seconds ago at least, found unsettled."""

    def fetch(self, item: Item, to: Path) -> bool:
        """Copies the file; False if it is no longer the one that was listed."""


def find(source: str, endpoint: str | None, settle: float) -> Source:
    """The place that a person named: s3://BUCKET/PREFIX or a folder. settle: seconds. Raises BadInput."""
    if not source.strip():
        raise BadInput("no source is named", where="--from", fix="s3://BUCKET/PREFIX, or a folder")
    if source.startswith("s3://"):
        from robustdistill.services.s3_prefix import Prefix

        return Prefix.named(source, endpoint)
    if "://" in source:
        raise BadInput("this is neither S3 nor a folder", where=source.split("@")[-1], fix="s3://BUCKET/PREFIX, or DIR")
    if endpoint:
        raise BadInput("an endpoint is an S3 server's", where="--endpoint", fix="leave it out: the source is a folder")
    return Folder(Path(source).expanduser().resolve(), settle)


def is_passed_over(name: str) -> bool:
    """Whether a file is somebody's temporary one, or hidden, or lies in a hidden folder."""
    parts = name.split("/")
    hidden = any(part.startswith((".", "~")) and part not in (".", "..") for part in parts)
    return hidden or parts[-1].lower().endswith((*UNFINISHED, "~")) or parts[-1] in ("Thumbs.db", "desktop.ini")


def fault_of_name(name: str) -> str:
    """Why nothing may be written under this name: an object's key can be any text, "../../etc/x" too. "" if it may."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or PurePosixPath(name).is_absolute() or "\\" in name:
        return "its name leads out of the data"
    if not name.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "its name holds control characters"
    if any(len(os.fsencode(part)) > LONGEST for part in parts):
        return "its name is longer than file systems allow"
    return ""


@dataclass(frozen=True)
class Folder:
    """root: absolute. settle: seconds for which a file has to lie still."""

    root: Path
    settle: float

    @property
    def shown(self) -> str:
        return str(self.root)

    def list(self, unsettled: Mapping[str, str]) -> Listing:
        if not self.root.is_dir():
            raise BadInput("there is no such folder", where=self.shown, fix="make it, or name another with --from")
        items, moving = list[Item](), dict[str, str]()
        for name, path in self._files():
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue  # moved away meanwhile
            tag = _tag(found)
            if not stat.S_ISREG(found.st_mode):
                items.append(Item(name, tag, "it is a link or no file; put the file itself there"))
            elif time.time() - found.st_mtime < self.settle and unsettled.get(name) != tag:  # or a clock is ahead
                moving[name] = tag
            else:
                items.append(Item(name, tag, fault_of_name(name)))
        return Listing(items, moving)

    def _files(self) -> Iterator[tuple[str, Path]]:
        def stop(error: OSError) -> None:
            raise of_system(error, "the folder cannot be read")

        for base, folders, files in os.walk(self.root, onerror=stop):
            links = [each for each in folders if (Path(base) / each).is_symlink()]
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            for each in sorted([*files, *links]):
                name = (Path(base) / each).relative_to(self.root).as_posix()
                if not is_passed_over(name):
                    yield name, Path(base) / each

    def fetch(self, item: Item, to: Path) -> bool:
        path = self.root / item.name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ServiceFailed(f"the file cannot be read: {error.strerror}", where=str(path)) from error
        with os.fdopen(descriptor, "rb") as stream, to.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
            return _tag(os.fstat(stream.fileno())) == item.tag


def _tag(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns}"
