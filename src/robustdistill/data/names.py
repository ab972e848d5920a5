"""Names of files and folders as DVC can keep them, so that data under any name can be versioned.

DVC 3 refuses names that are not UTF-8. Some of its own and git's it passes over in silence: their content would be
missing from every copy, and a folder `.dvc` hides all that lies beside it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from robustdistill.inputs import shown

PASSED_OVER = (".git", ".hg", ".dvc", ".dvcignore")
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep")  # left by file browsers and git, never data
LONGEST = 255  # bytes of a name on Linux file systems
HEAD = 180  # bytes of an escaped name that stay before a hash
LONGEST_SUFFIX = 8


def kept(name: str) -> str:
    """The name as DVC can keep it: itself for nearly every name, else printable and escaped.

    Escaped are names that are not UTF-8 (`caf\\xe9`) and PASSED_OVER (`\\x2egit`); an escaped name that is longer than
    file systems allow is cut and ends in a hash. Two names may become one: the caller has to look.
    """
    if name in PASSED_OVER:
        return f"\\x2e{name[1:]}"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        escaped = shown(name)
        return escaped if len(escaped.encode()) <= LONGEST else marked(name)
    return name


def marked(name: str) -> str:
    """The name, escaped, with a hash of its bytes before its suffix: no other name's."""
    escaped = shown(name)
    suffix = PurePath(escaped).suffix if len(PurePath(escaped).suffix) <= LONGEST_SUFFIX else ""
    head = escaped.removesuffix(suffix).encode()[:HEAD].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{suffix}"


def renamed(names: Iterable[str]) -> Mapping[str, str]:
    """{name: name to keep it under} for the content of one folder; no two become one."""
    ordered = sorted(names, key=lambda name: (kept(name) != name, name))  # who needs no other name keeps his
    taken: dict[str, str] = {}
    for name in ordered:
        wanted = kept(name)
        taken[marked(name) if wanted in taken else wanted] = name
    return {name: new for new, name in taken.items()}


def all_kept(folder: Path) -> bool:
    """Whether DVC can keep everything in a folder under its own name."""
    return all(kept(name) == name for _, folders, files in os.walk(folder) for name in (*folders, *files))


def copy_kept(source: Path, target: Path) -> None:
    """Copies the content of a folder into an existing one, links as files, without litter, under kept names.

    Raises OSError.
    """
    for name, new in renamed(path.name for path in source.iterdir() if path.name not in LITTER).items():
        if (source / name).is_dir():
            (target / new).mkdir()
            copy_kept(source / name, target / new)
        else:
            shutil.copyfile(source / name, target / new)
