"""git, for the one thing a workspace needs of it: a history of its params, pipeline and data digests."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from robustdistill.errors import ServiceFailed

NAME, EMAIL = "robustdistill", "robustdistill@localhost"


def environment() -> dict[str, str]:
    """The process's environment without what points git at another repository (a hook's GIT_DIR and its like)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def git(root: Path, *arguments: str) -> str:
    """One git command in `root`; its output. Raises ServiceFailed with git's own last words."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", *arguments]
    try:
        done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ServiceFailed("git is not installed", fix="install git; a workspace is a git repository") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        verb = next(word for word in arguments if not word.startswith("-") and "=" not in word)
        raise ServiceFailed(f"git {verb} failed: {said}", where=str(root))
    return done.stdout


def init(root: Path) -> None:
    """A new repository that needs no global identity."""
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "config", "user.name", NAME)
    git(root, "config", "user.email", EMAIL)


def commit(root: Path, paths: Sequence[str], message: str) -> bool:
    """Commits these paths and no others, as far as they exist. False where nothing in them has changed."""
    present = [path for path in paths if (root / path).exists()]
    if not present:
        return False
    git(root, "add", "--", *present)
    if not git(root, "diff", "--cached", "--name-only", "--", *present).strip():
        return False
    git(root, *_identity(root), "commit", "--quiet", "--message", message, "--only", "--", *present)
    return True


def _identity(root: Path) -> tuple[str, ...]:
    """Options that name ours where nobody is named, as in a clone on a server."""
    try:
        git(root, "config", "--get", "user.email")
    except ServiceFailed:
        return ("-c", f"user.name={NAME}", "-c", f"user.email={EMAIL}")
    return ()


def history(root: Path, path: str) -> list[tuple[str, str]]:
    """(commit, its date in ISO 8601) of each commit on any branch that changed this path, newest first."""
    if head(root) is None:
        return []
    lines = git(root, "log", "--all", "--format=%H %cI", "--", path).splitlines()
    return [(commit, date) for commit, _, date in (line.partition(" ") for line in lines)]


def show(root: Path, commit: str, path: str) -> str | None:
    """The text of a file as that commit has it; None where it has none."""
    try:
        return git(root, "show", f"{commit}:{path}")
    except ServiceFailed:
        return None


def restore(root: Path, path: str) -> bool:
    """Brings a lost file or folder back as it was last committed. False where it never was."""
    try:
        git(root, "checkout", "HEAD", "--", path)
    except ServiceFailed:
        return False
    return True


def head(root: Path) -> str | None:
    """The commit the workspace is at; None before the first one or outside a repository."""
    try:
        return git(root, "rev-parse", "--verify", "HEAD").strip()
    except ServiceFailed:
        return None


def dirty(root: Path, since: str = "HEAD", paths: Sequence[str] = ()) -> bool:
    """Whether a versioned file differs from what commit `since` holds. paths: only these count, versioned or not."""
    try:
        changed = git(root, "diff", "--name-only", since, "--", *paths)
        return bool(changed or (paths and git(root, "ls-files", "--others", "--", *paths)))
    except ServiceFailed:
        return True


def hash_file(path: Path) -> str:
    """The id git gives a file's content (SHA-1 of a blob): equal contents have the equal id."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
