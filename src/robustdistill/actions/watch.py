"""New data noticed: what has come into an inbox since the last look is validated as `data add` does, and taken.

Order, so that a kill at any moment costs only a repetition: files are fetched without the workspace's lock; under it
the state says that an event will be owed, data/ is exchanged in one step, DVC and git are told, the state is written;
the event goes out last, and is sent again by the next look if it was not.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robustdistill.actions import data, version, watch_place
from robustdistill.actions.summary import Summary
from robustdistill.actions.watch_place import New, Standing
from robustdistill.actions.watch_state import Known, State
from robustdistill.errors import BadInput
from robustdistill.inputs import shown
from robustdistill.services import dvc_cli, inbox, prefect_events
from robustdistill.services.inbox import Item, Listing, Source
from robustdistill.workspace import InUse, Workspace

SETTLE = 60.0  # seconds for which a file in a folder has to lie still
NAMED = 5  # refused files named in a sentence
_LONGEST = 300  # characters of a reason

Outcome = Literal["nothing new", "ingested", "too few", "refused", "busy"]


@dataclass
class Look:
    """What one look came to. taken: names. refused: name -> why, those of this look. before, after: digests."""

    outcome: Outcome
    sentence: str
    taken: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    before: str | None = None
    after: str | None = None

    def summary(self, workspace: Workspace) -> Summary:
        pointers = [("refused", f"{shown(name)}: {why}") for name, why in self.refused.items()]
        return Summary(str(workspace.root), self.outcome, self.sentence, pointers=pointers)


def look(workspace: Workspace, source: str, *, endpoint: str | None = None, settle: float = SETTLE) -> Look:
    """Takes what is new at `source` (s3://BUCKET/PREFIX or a folder) into data/, and tells Prefect's server.

    endpoint: of an S3 server that is not Amazon's; default, that of the environment. settle: seconds for which a file
    in a folder has to lie still. Files that cannot be used are named once and not tried again until they change; they
    hold no others up. Raises BadInput for a source that is none, ServiceFailed if it cannot be asked.
    """
    place = inbox.find(source, endpoint, settle)
    _require_apart(workspace, place)
    with _alone(workspace) as alone:
        if not alone:
            return Look("busy", f"another look is under way; {place.shown} waits for the next")
        return _look(workspace, place, settle)


@contextmanager
def _alone(workspace: Workspace) -> Iterator[bool]:
    """Whether no other look of this workspace is under way: two would fetch into one place and forget what the other
    saw."""
    workspace.work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(workspace.work, os.O_RDONLY)  # the folder itself: a look at nothing leaves no trace
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _look(workspace: Workspace, place: Source, settle: float) -> Look:
    state = State.load(workspace, place.shown)
    listing = place.list(state.lying_still(settle))
    if state.see(listing.unsettled):
        state.save()
    wanted = _wanted(state, listing.items, first=dvc_cli.digest(workspace.root) is None)
    if not wanted:
        _tell(workspace, place, state, 0)
        return Look("nothing new", _nothing(place, state, listing))
    incoming = workspace.work / "watch" / "incoming"
    news = _fetched(place, wanted, incoming, state)
    try:
        with workspace.lock():
            found = _ingest(workspace, place, state, news)
    except InUse as error:  # what was fetched is kept for the next look
        return Look("busy", f"{len(news)} new files in {place.shown} wait: {error.cause}")
    shutil.rmtree(incoming, ignore_errors=True)
    _tell(workspace, place, state, len(found.taken))
    return found


def _require_apart(workspace: Workspace, place: Source) -> None:
    """An inbox in the workspace would be versioned, or take its own output in."""
    if isinstance(place, inbox.Folder) and (
        place.root.is_relative_to(workspace.root) or workspace.root.is_relative_to(place.root)
    ):
        raise BadInput("the folder and the workspace lie in each other", where=place.shown, fix="watch another folder")


def _wanted(state: State, items: Sequence[Item], *, first: bool) -> list[Item]:
    """New and changed files, and what waits for them: earlier ones of their classes; all, where there are no data."""
    fresh = [item for item in items if item.name not in state.files or state.files[item.name].tag != item.tag]
    names, groups = {item.name for item in fresh}, {New(item, Path()).group for item in fresh if _usable(item)}
    waiting = [item for item in items if item.name not in names and state.files[item.name].group]
    return [*fresh, *(item for item in waiting if first or state.files[item.name].group in groups)] if fresh else []


def _usable(item: Item) -> bool:
    return not (item.why or watch_place.fault_of_place(item.name))


def _fetched(place: Source, items: Sequence[Item], incoming: Path, state: State) -> list[New]:
    """The files on this machine, those of an earlier look that was cut short included; what is gone is left out."""
    incoming.mkdir(parents=True, exist_ok=True)
    news = []
    for item in items:
        known = state.files.get(item.name)
        digest = hashlib.sha256(
            f"{place.shown}\n{item.name}\n{item.tag}".encode("utf-8", "surrogateescape")
        ).hexdigest()
        path = incoming / f"{digest}{'.npz' if item.name.endswith('.npz') else ''}"
        if _usable(item) and not path.exists():
            part = path.with_name(f".{path.name}.part")
            if not place.fetch(item, part):
                continue
            part.replace(path)
        news.append(New(item, path, known.place if known else ""))
    return news


def _ingest(workspace: Workspace, place: Source, state: State, news: Sequence[New]) -> Look:
    dvc_cli.require_repository(workspace.root)
    version.bring_data(workspace)
    before = dvc_cli.digest(workspace.root)
    cut_short = state.owed  # by a kill: data/ may hold what DVC was not told of
    if not cut_short:
        state.owed, state.before = True, before
        state.save()
    good, refused = _examined(workspace, news)
    placed = _placed(workspace, good)
    for new in news:
        why = refused.get(new.item.name, "") or placed.refused.get(new.group, "")
        group = new.group if new.group in placed.refused and new.item.name not in refused and not new.is_arrays else ""
        state.files[new.item.name] = Known(new.item.tag, why, group, placed.places.get(new.item.name, new.before))
    if (placed.changed or cut_short) and workspace.data.is_dir() and data.tree_digest(workspace.data) != before:
        dvc_cli.add_data(workspace.root)
    after = dvc_cli.digest(workspace.root)
    told = {new.item.name: state.files[new.item.name] for new in news}
    found = _came_to(place, told, before, after)
    if after != before:
        version.commit_data(workspace, f"Data: {found.sentence}")
    state.save()
    return found


def _examined(workspace: Workspace, news: Sequence[New]) -> tuple[list[New], dict[str, str]]:
    """The files that can be used, each by itself; of the others, why not."""
    refused = {new.item.name: why for new in news if (why := new.item.why or watch_place.fault_of_place(new.item.name))}
    usable = [new for new in news if new.item.name not in refused]
    there = watch_place.standing(workspace, usable)
    shape = there.shape
    for new in usable:
        try:
            watch_place.examine(new, there, shape)
        except BadInput as fault:
            refused[new.item.name] = _reason(fault)
    return [new for new in usable if new.item.name not in refused], refused


@dataclass(frozen=True)
class _Placed:
    """places: name -> path in data/. refused: group -> why. changed: data/ was exchanged."""

    places: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    changed: bool = False


def _placed(workspace: Workspace, news: Sequence[New]) -> _Placed:
    """Puts what is valid together into data/: all at once as a rule; if that is refused, the classes at fault are found
    by halves, and the others taken."""
    if not news:
        return _Placed()
    there = watch_place.standing(workspace, news)
    staging = workspace.work / "watch" / "staging"
    groups = list(dict.fromkeys(new.group for new in news))
    refused: dict[str, str] = {}

    def add(chosen: Sequence[New]) -> _Placed:
        places = watch_place.build(chosen, there, staging)
        if places is not None:
            data.add(workspace, staging)
        return _Placed(places or {}, refused, places is not None)

    try:
        return add(news)
    except BadInput as fault:
        if there.raw is None or len(groups) == 1:
            return _Placed(refused=dict.fromkeys(groups, _reason(fault, staging)))
        chosen = _valid(workspace, there, [], _by_group(news, groups), staging, refused)
        return add(chosen)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _by_group(news: Sequence[New], groups: Sequence[str]) -> list[list[New]]:
    return [[new for new in news if new.group == group] for group in groups]


def _valid(
    workspace: Workspace,
    there: Standing,
    base: list[New],
    groups: list[list[New]],
    staging: Path,
    refused: dict[str, str],
) -> list[New]:
    """`base` and those of `groups` that can be added to it; why the others cannot is put into `refused`."""
    trial = [*base, *(new for group in groups for new in group)]
    try:
        if watch_place.build(trial, there, staging) is not None:
            data.report(None, staging, workspace.params().data)
        return trial
    except BadInput as fault:
        if len(groups) == 1:
            refused[groups[0][0].group] = _reason(fault, staging)
            return base
    half = len(groups) // 2
    for part in (groups[:half], groups[half:]):
        base = _valid(workspace, there, base, part, staging, refused)
    return base


def _reason(fault: BadInput, staging: Path | None = None) -> str:
    text = " ".join(str(fault.cause).split())
    if staging:
        text = text.replace(f"{staging}/", "")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _came_to(place: Source, dealt: Mapping[str, Known], before: str | None, after: str | None) -> Look:
    """dealt: each new file and what became of it."""
    taken = [name for name, known in dealt.items() if not known.why]
    refused = {name: known.why for name, known in dealt.items() if known.why and not known.group}
    waiting = {known.group: known.why for known in dealt.values() if known.group}
    notes = [f"refused {_listed(refused)}"] if refused else []
    notes += [f"waiting for more: class {_listed(waiting)}"] if waiting else []
    said, facts = "; ".join(notes), (taken, refused, before, after)
    if after != before:
        return Look("ingested", "; ".join([f"{_files(len(taken))} from {place.shown}", *notes]), *facts)
    if notes:
        return Look("refused" if refused else "too few", f"{place.shown}: {said}", *facts)
    return Look("nothing new", f"{_files(len(taken))} in {place.shown}, and the data hold them already", *facts)


def _files(count: int) -> str:
    return f"{count} new file{'s' * (count != 1)}"


def _listed(reasons: Mapping[str, str]) -> str:
    """In words, the first NAMED with their reasons."""
    first = [f"{shown(name)} ({why})" for name, why in list(reasons.items())[:NAMED]]
    rest = len(reasons) - len(first)
    return f"{', '.join(first)}{f' and {rest} more' if rest else ''}"


def _nothing(place: Source, state: State, listing: Listing) -> str:
    refused = sum(bool(known.why and not known.group) for known in state.files.values())
    waiting = sum(bool(known.group) for known in state.files.values())
    notes = [f"{refused} refused earlier"] if refused else []
    notes += [f"{waiting} wait for more of their class"] if waiting else []
    notes += [f"{len(listing.unsettled)} still being written"] if listing.unsettled else []
    return f"nothing new in {place.shown}" + (f" ({', '.join(notes)})" if notes else "")


def _tell(workspace: Workspace, place: Source, state: State, files: int) -> None:
    """Sends the event that is owed, if the data did change; the next look does if Prefect's server does not answer."""
    if not state.owed:
        return
    after = dvc_cli.digest(workspace.root)
    if after is not None and after != state.before:
        payload = {"digest": after, "before": state.before, "files": files, "source": place.shown}
        sent = prefect_events.emit(prefect_events.DATA_CHANGED, workspace.name, payload)
        if not sent and prefect_events.is_heard():
            return
    state.owed, state.before = False, None
    state.save()
