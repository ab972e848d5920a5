"""DVC's remote, where data and results of a workspace are kept for all its clones: pushing, bringing back, and what a
failure means.

DVC speaks of a failure in its libraries' words. Here each is a sentence that names the remote and says who can mend it;
what no second attempt can change is ServiceRefused.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.services import dvc_cli

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REMOTE = re.compile(r"""['"]?remote "([^"]+)"['"]?""")  # how DVC heads the section of one
WITH_SECRET = re.compile(r"(?<=//)[^/@]*@")
KEPT = "all is kept here, and the next run pushes what is missing"


class Meaning(NamedTuple):
    """What DVC's words (a pattern) say of a remote, and what the user can do. again: it may work later by itself."""

    words: str
    cause: str
    fix: str
    again: bool = False


MEANINGS = (
    Meaning(
        r"NoSuchBucket|bucket does not exist",
        "the bucket of the DVC remote does not exist",
        "make the bucket, or name another: dvc remote modify local url s3://BUCKET/PATH",
    ),
    Meaning(
        r"Unable to locate credentials|NoCredentials",
        "the DVC remote asks for credentials, and there are none",
        "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the run is started",
    ),
    Meaning(
        r"Forbidden|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|ExpiredToken|\(40[13]\)",
        "the DVC remote refuses these credentials",
        "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may read and write there",
    ),
    Meaning(
        r"Could not connect|ConnectTimeout|ReadTimeout|timed out|Connection (was )?(closed|refused|reset)|\(50\d\)",
        "the DVC remote does not answer",
        "start it, or see that it can be reached from here",
        again=True,
    ),
)
MISSING = re.compile(
    r"missing-files|checkout failed for following targets"
    r"|do not exist neither locally nor on remote|missing cache files",
    re.IGNORECASE,
)


def require_no_secret(url: str) -> None:
    """Raises BadInput for an address that holds a user or password: it would be committed to git."""
    if WITH_SECRET.search(url):
        raise BadInput(
            "an address with a user or password in it would be committed to git",
            where=shown(url),
            fix="leave them out; for S3 export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )


def shown(url: str) -> str:
    return WITH_SECRET.sub("***@", url)


def name(root: Path) -> str:
    """What the default remote is called for a person: its URL, and the endpoint if it is S3 elsewhere. "" if none."""
    chosen = _config(root, "core.remote")
    url = _config(root, f"remote.{chosen}.url") if chosen else ""
    if not url.startswith("s3://"):
        return shown(url)
    set_here = next((os.environ[each] for each in ENDPOINTS if os.environ.get(each)), "")
    endpoint = _config(root, f"remote.{chosen}.endpointurl") or set_here
    return shown(f"{url} at {endpoint}" if endpoint else url)


def _config(root: Path, key: str) -> str:
    """ "" where it is not set."""
    try:
        return dvc_cli.dvc(root, "config", key).strip()
    except ServiceFailed:
        return ""


def verify_all(root: Path) -> list[str]:
    """Sets `verify` for every remote that has not got it, as for one that was added by hand: without it DVC hands out
    altered objects silently. Returns their names. Read without DVC."""
    mended, files = [], {"--project": root / ".dvc" / "config", "--local": root / ".dvc" / "config.local"}
    for level, remotes in {level: _remotes(file) for level, file in files.items()}.items():
        for name, settings in remotes.items():
            if "url" in settings and settings.get("verify", "").lower() != "true":
                dvc_cli.dvc(root, "remote", "modify", level, name, "verify", "true")
                mended.append(name)
    return mended


def _remotes(file: Path) -> dict[str, dict[str, str]]:
    """name -> settings, of the remotes in a file of DVC's; none where it cannot be read: DVC says so itself."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    found = {section: REMOTE.fullmatch(section) for section in parser.sections()}
    return {
        match[1]: {key: (value or "").strip("'\"") for key, value in parser[section].items()}
        for section, match in found.items()
        if match
    }


def redact(text: str) -> str:
    """Without what the environment says of credentials."""
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "***")
    return WITH_SECRET.sub("***@", text)


@contextmanager
def _explained(root: Path, *, after: str = "") -> Iterator[None]:
    """What DVC says of a remote in our words. after: what is said besides of how it goes on."""
    try:
        yield
    except ServiceFailed as error:
        place = name(root)
        for meaning in MEANINGS:
            if re.search(meaning.words, error.cause):
                kind = ServiceFailed if meaning.again else ServiceRefused
                fix = "; ".join(filter(None, (meaning.fix, after)))
                raise kind(meaning.cause, where=place, fix=fix) from error
        raise ServiceFailed(redact(error.cause), where=place or error.where, fix=after or error.fix) from None


def push(root: Path) -> None:
    """Copies data and results that the remote does not have yet to it. Raises ServiceFailed or ServiceRefused."""
    with _explained(root, after=KEPT):
        dvc_cli.dvc(root, "push")  # with --quiet it fails without a reason


def fetch_data(root: Path, lacking: str = "data/ is not here") -> None:
    """data/ as data.dvc names it, from the cache or the remote. lacking: what is said where neither has it.

    Raises BadInput where the remote is a missing folder (the default one lies in the workspace that was cloned),
    ServiceFailed or ServiceRefused.
    """
    try:
        with _explained(root):
            dvc_cli.dvc(root, "pull", "data.dvc")
    except ServiceFailed as error:
        place = name(root)
        if place and "://" not in place and not (root / ".dvc" / place).is_dir():  # relative to DVC's own folder
            raise BadInput(
                f"{lacking}, and neither is the folder that is the DVC remote, as in a clone of a workspace",
                where=place,
                fix="dvc remote modify --local local url FOLDER, .work/dvc-remote of the workspace it was cloned from; "
                "`robustdistill init --remote URL` makes a workspace whose remote all its clones share",
            ) from error
        if MISSING.search(error.cause):
            raise ServiceRefused(
                f"{lacking}, and the DVC remote does not hold it, or its bucket does not exist",
                where=place,
                fix="dvc push where the data are, or name the right remote: dvc remote modify local url URL",
            ) from error
        raise


def fetch_results(root: Path, folders: Sequence[str]) -> list[str]:
    """These results as dvc.lock names them, from the cache or the remote; returns those that are there now.

    What the remote does not hold is left out: its stage makes it again. Raises ServiceFailed or ServiceRefused where
    the remote cannot be asked: training anew what is kept there would cost hours.
    """
    if folders:
        with _explained(root):
            dvc_cli.dvc(root, "pull", "--allow-missing", *folders)
    return [folder for folder in folders if (root / folder).is_dir()]
