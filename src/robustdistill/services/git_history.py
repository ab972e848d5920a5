"""Which commits of a workspace matter, and those of them that need different things of DVC, as one line of history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robustdistill.errors import ServiceFailed
from robustdistill.services import git_cli

PIN = "teacher.pin.json"


def named(root: Path) -> list[str]:
    """The commits that HEAD, a branch, a tag, a stash or an experiment of DVC names."""
    listed = git_cli.git(root, "for-each-ref", "--format=%(objectname)").split()
    return [*filter(None, (git_cli.head(root), *(_commit(root, each) for each in listed)))]


def recent(root: Path, *, since: float, count: int) -> list[str]:
    """The last `count` commits of HEAD, and all of any branch or tag made after `since` (seconds since the epoch)."""
    if git_cli.head(root) is None:
        return []
    rows = [line.split() for line in git_cli.git(root, "log", "--all", "--format=%H %ct").splitlines()]
    last = git_cli.git(root, "rev-list", f"--max-count={count}", "HEAD").split() if count > 0 else []
    return [*last, *(commit for commit, made in rows if float(made) >= since)]


def known(root: Path, commits: Iterable[str]) -> list[str]:
    """Those of these that this repository has."""
    return [*filter(None, (_commit(root, each) for each in commits if each))]


def _commit(root: Path, name: str) -> str | None:
    try:
        return git_cli.git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    except ServiceFailed:  # a tag of something else; a commit that is elsewhere
        return None


def line(root: Path, commits: Iterable[str]) -> tuple[str, int]:
    """One line of new commits, in no branch, with the contents of these: its last one and their count.

    DVC takes a single revision and how many commits to go back from it. Those that name the same results are in it
    once. ("", 0) for no commits.
    """
    last, count = "", 0
    seen: set[frozenset[str]] = set()
    for commit in dict.fromkeys(commits):
        needs = _needs(root, commit)
        if needs in seen:
            continue
        seen.add(needs)
        identity = ("-c", f"user.name={git_cli.NAME}", "-c", f"user.email={git_cli.EMAIL}")
        parent = ("-p", last) if last else ()
        last = git_cli.git(root, *identity, "commit-tree", f"{commit}^{{tree}}", *parent, "-m", "kept by gc").strip()
        count += 1
    return last, count


def _needs(root: Path, commit: str) -> frozenset[str]:
    """The files of a commit that tell DVC what it needs, with their hashes."""
    listed = git_cli.git(root, "ls-tree", "-r", commit).splitlines()
    return frozenset(row for row in listed if row.endswith((".dvc", "\tdvc.lock", "/dvc.lock", "dvc.yaml")))


def pins(root: Path) -> list[str]:
    """Each content that the pin of a teacher has had, in any commit."""
    if git_cli.head(root) is None:
        return []
    commits = git_cli.git(root, "log", "--all", "--format=%H", "--", PIN).split()
    return [git_cli.git(root, "show", f"{commit}:{PIN}") for commit in commits if _has(root, commit)]


def _has(root: Path, commit: str) -> bool:
    return bool(git_cli.git(root, "ls-tree", "--name-only", commit, "--", PIN).strip())
