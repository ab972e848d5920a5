"""DVC's remote: is it there, does it let us in, what may we do there, and is what comes from it checked?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from pathlib import Path

from robustdistill.actions.doctor.finding import Case, Finding, check, clock
from robustdistill.errors import BadInput
from robustdistill.services import dvc_remote, s3_probe

NAME = "DVC remote"
OWED = "not-pushed"  # in .work: a run has something to push
KEYS = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@check(NAME)
def examine(case: Case) -> Iterator[Finding]:
    if case.workspace is None or not (case.workspace.root / ".dvc").is_dir():
        yield Finding(NAME, "ok", "not looked at: there is no workspace here that names one")
        return
    root = case.workspace.root
    remote, settings = configured(root)
    url = settings.get("url", "")
    if not url:
        yield Finding(NAME, "FAIL", "none is named in .dvc/config", "dvc remote add --default local URL_OR_FOLDER")
        return
    yield _verified(remote, settings)
    if dvc_remote.WITH_SECRET.search(url + settings.get("endpointurl", "")):
        fix = f"take it out: dvc remote modify {remote} url …; change that password: git has it"
        yield Finding(NAME, "FAIL", "its address holds a user or password, which is committed to git", fix)
    owed = (case.work / OWED).exists()
    if url.startswith("s3://"):
        yield from _s3(case, url, settings, owed=owed)
    elif "://" in url:
        yield Finding(
            NAME, "warn", f"{dvc_remote.shown(url)}: only folders and S3 are looked at", "dvc push, to try it"
        )
    else:
        yield _folder((root / ".dvc" / url).resolve(), owed=owed)


def configured(root: Path) -> tuple[str, dict[str, str]]:
    """Name and settings of the default remote, from .dvc/config and the machine's own .dvc/config.local: read here,
    since DVC takes seconds. Raises BadInput."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    except (Error, UnicodeDecodeError) as error:  # its text may hold a secret of the file
        raise BadInput("not a file that DVC wrote", where=str(root / ".dvc" / "config"), fix="see git log") from error
    remote = parser.get("core", "remote", fallback="")
    section = f"'remote \"{remote}\"'"
    return remote, dict(parser[section]) if parser.has_section(section) else {}


def _verified(remote: str, settings: dict[str, str]) -> Finding:
    if settings.get("verify", "").lower() == "true":
        return Finding(f"{NAME}, verify", "ok", "what comes from it is checked against its hash")
    fix = f"dvc remote modify {remote} verify true"
    return Finding(f"{NAME}, verify", "FAIL", "DVC would hand out altered objects silently", fix)


def _folder(place: Path, *, owed: bool) -> Finding:
    if not place.exists():
        nearest = next(parent for parent in place.parents if parent.exists())
        if os.access(nearest, os.W_OK):
            return Finding(NAME, "ok", f"{place} is not there yet; the first push makes it")
        return Finding(NAME, "FAIL", f"{place} is not there and cannot be made", "name a folder that can be written")
    if not os.access(place, os.R_OK | os.X_OK):
        return Finding(NAME, "FAIL", f"{place} cannot be read", "see who owns it")
    return _may_write(place if os.access(place, os.W_OK) else None, str(place), owed=owed)


def _may_write(writable: object, place: str, *, owed: bool, how: str = "can be read and written") -> Finding:
    if writable:
        return Finding(NAME, "ok", f"{place}: {how}")
    if owed:
        fix = f"{KEYS} of a user who may write there, or push from where one may"
        return Finding(NAME, "FAIL", f"{place} may only be read, and a run here has something to push", fix)
    return Finding(
        NAME, "warn", f"{place} may only be read", "right for a reader; a run that changes something cannot push"
    )


def _s3(case: Case, url: str, settings: dict[str, str], *, owed: bool) -> Iterator[Finding]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    own = settings.get("endpointurl") or next(filter(None, map(os.environ.get, dvc_remote.ENDPOINTS)), "")
    place = dvc_remote.shown(f"{url} at {own}" if own else url)
    profile, region = settings.get("profile", ""), settings.get("region", "")
    found = s3_probe.rights(bucket, prefix, endpoint=own, profile=profile, region=region, write=case.write)
    if found.cause:
        yield _failed(found, place, bucket)
    else:
        yield _may_write(found.puts, place, owed=owed, how=_words(found))
    if found.left:
        yield Finding(f"{NAME}, probe", "warn", f"{found.left} could not be removed", "remove it by hand")
    yield from clock("S3", found.skew)


def _words(found: s3_probe.Rights) -> str:
    told = {"list": found.lists, "put": found.puts, "get": found.gets, "delete": found.deletes}
    may = ", ".join(name for name, allowed in told.items() if allowed)
    refused = ", ".join(name for name, allowed in told.items() if allowed is False)
    return f"may {may}" + (f"; may not {refused}" if refused else "")


def _failed(found: s3_probe.Rights, place: str, bucket: str) -> Finding:
    match found.cause:
        case "away":
            fix = "start it, or see that it can be reached from here"
            return Finding(NAME, "FAIL", f"{place} does not answer ({found.said})", fix, service=True)
        case "none":
            told = "asks for credentials, and there are none (a machine's own role is not asked)"
            return Finding(NAME, "FAIL", f"{place} {told}", KEYS)
        case "credentials":
            fix = f"{KEYS} of a user who may read and write there"
            return Finding(NAME, "FAIL", f"{place} refuses these credentials ({found.said})", fix)
        case "bucket":
            fix = "make it, or: dvc remote modify local url s3://BUCKET/PATH"
            return Finding(NAME, "FAIL", f"the bucket {bucket} does not exist ({place})", fix)
    return Finding(NAME, "FAIL", f"{place}: {found.said}", "see dvc status --cloud --verbose", service=True)
