"""The journal, copied into MLflow from a saved offset: one run for a flow run, one child run for each of its stages.

Nothing is written down as done before MLflow has it, and everything may be sent twice: runs are found by their tags,
equal metrics are one. So a server that is away, or a crash, only delays the copy.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustdistill import journal
from robustdistill.actions.stage_news import News, gather, key_of
from robustdistill.errors import ServiceFailed
from robustdistill.services.mlflow_store import ENDED, Measure, Store
from robustdistill.workspace import write_atomically

RUN, STAGE = "robustdistill.run", "robustdistill.stage"
AT_END = tuple(f"robustdistill.{key}" for key in ("git_dirty", "result_commit", "data_digest", "dvc_lock"))
PASSED_ON = ("robustdistill.", "mlflow.user", "mlflow.source.")  # tags of a flow run that its stages get too


@dataclass
class Opening:
    """What a flow run is called and known by. stage_params: params of each child run."""

    name: str
    model: str
    tags: dict[str, str]
    params: dict[str, str]
    stage_params: dict[str, dict[str, str]] = field(default_factory=dict)
    dataset: dict[str, str] | None = None
    started: float = 0.0


@dataclass
class Ending:
    """How a flow run ended. files: folder -> names, staged until they are sent."""

    status: str
    at: float
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Entry:
    """One flow run in the ledger: what to send, and the MLflow ids of what was sent."""

    opening: Opening
    parent: str | None = None
    stages: dict[str, str] = field(default_factory=dict)
    described: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    ending: Ending | None = None


class Mirror:
    """Keeps `work`/mirror.json: the offset in the journal, and an entry for every flow run not yet told to the end."""

    def __init__(self, work: Path, path: Path) -> None:
        self._work, self._journal = work, path
        self._ledger = work / "mirror.json"
        self.offset = 0
        self.entries: dict[str, Entry] = {}
        self.parents: dict[str, str] = {}  # flow run -> its id in MLflow, of every run seen by this process
        self._load()

    def announce(self, run: str, opening: Opening) -> None:
        """A flow run begins, or goes on under its old id. Needs no server. The caller holds the workspace's lock."""
        for other, entry in self.entries.items():
            if other != run and entry.ending is None:  # its process is gone: this one has the lock
                entry.ending = Ending("KILLED", time.time())
        known = self.entries.get(run)
        # `parent` is looked up again: the run may have been ended as KILLED meanwhile
        self.entries[run] = Entry(opening, None, known.stages if known else {}, running=known.running if known else [])
        self._save()

    def conclude(self, run: str, ending: Ending, files: Mapping[str, Sequence[Path]]) -> None:
        """A flow run has ended. Needs no server; its files are set aside as they are now. Raises OSError."""
        for folder, paths in files.items():
            place = self._aside(run) / folder
            place.mkdir(parents=True, exist_ok=True)
            for path in paths:
                shutil.copyfile(path, place / path.name)
            ending.files[folder] = [path.name for path in paths]
        self.entries[run].ending = ending
        self._save()

    def send(self, store: Store, extra: Mapping[str, Sequence[Measure]] | None = None) -> None:
        """Tells MLflow everything it has not heard. extra: flow run -> measures for its own run.

        Raises ServiceFailed; then nothing is taken for told, and the runs are looked up again next time.
        """
        try:
            self._send(store, extra or {})
        except ServiceFailed:
            for entry in self.entries.values():
                entry.parent = None
            raise

    def _send(self, store: Store, extra: Mapping[str, Sequence[Measure]]) -> None:
        for run, entry in self.entries.items():
            if entry.parent is None:
                self._open(store, run, entry)
        records, offset = self._unread()
        for (run, stage), news in gather(records).items():
            if run in self.entries and news.worth_a_run:
                self._tell(store, run, self.entries[run], stage, news)
        for run, measures in extra.items():
            parent = self.entries[run].parent if run in self.entries else None
            if parent and measures:
                store.log(parent, metrics=measures)
        if offset != self.offset:
            self.offset = offset
            self._save()
        for run, entry in list(self.entries.items()):
            if entry.ending is not None:
                self._close(store, run, entry, entry.ending)

    def _unread(self) -> tuple[list[dict[str, Any]], int]:
        size = self._journal.stat().st_size if self._journal.exists() else 0
        offset = self.offset if self.offset <= size else 0  # somebody emptied it
        records = []
        for after, record in journal.read(self._journal, offset):
            offset = after
            if {"t", "run", "stage", "event"} <= record.keys():
                records.append(record)
        return records, offset

    def _open(self, store: Store, run: str, entry: Entry) -> None:
        """Finds the runs that an earlier attempt made, or makes the parent."""
        opening = entry.opening
        experiment = store.experiment(opening.model)
        params = opening.params
        for found in store.runs(experiment, tags={RUN: run}):
            if stage := found.tags.get(STAGE):
                entry.stages[stage] = found.id
                entry.described += [stage] if found.params else []
            else:
                entry.parent = found.id
                params = {key: value for key, value in params.items() if key not in found.params}
        tags = {**opening.tags, RUN: run}
        if entry.parent is None:
            entry.parent = store.create_run(experiment, opening.name, started=opening.started, tags=tags)
        else:
            store.status(entry.parent, "RUNNING")
        store.log(entry.parent, params=params, tags=tags)
        if opening.dataset:
            store.log_dataset(entry.parent, **opening.dataset)
        self.parents[run] = entry.parent
        self._save()

    def _child(self, store: Store, run: str, entry: Entry, stage: str, started: float) -> str:
        """The run of a stage, made and described at its first news."""
        opening = entry.opening
        if stage not in entry.stages:
            kept = {key: value for key, value in opening.tags.items() if key.startswith(PASSED_ON)}
            tags = {**kept, RUN: run, STAGE: stage}
            made = store.create_run(
                store.experiment(opening.model), stage, started=started, tags=tags, parent=entry.parent
            )
            entry.stages[stage] = made
        if stage not in entry.described:
            given = opening.stage_params
            store.log(entry.stages[stage], params=given.get(stage) or given.get(stage.partition("@")[0]))
            entry.described.append(stage)
        return entry.stages[stage]

    def _tell(self, store: Store, run: str, entry: Entry, stage: str, news: News) -> None:
        child = self._child(store, run, entry, stage, news.first)
        store.log(child, metrics=news.metrics, tags=news.tags)
        if alarms := {f"{key}.{stage}": text for key, text in news.tags.items() if key.startswith("alarm.")}:
            store.log(str(entry.parent), tags=alarms)
        if news.status is not None:
            store.status(child, news.status, ended=news.last)
            going_on = news.status not in ENDED
            entry.running = [name for name in entry.running if name != stage] + ([stage] if going_on else [])

    def _close(self, store: Store, run: str, entry: Entry, ending: Ending) -> None:
        parent = str(entry.parent)
        for stage in entry.running:  # killed before it could say so
            store.status(entry.stages[stage], "KILLED", ended=ending.at)
        metrics = [Measure(key, value, ending.at) for key, value in ending.metrics.items()]
        store.log(parent, metrics=metrics, tags=ending.tags)
        known = {key: ending.tags[key] for key in AT_END if key in ending.tags}  # a stage begins before they are
        for child in entry.stages.values():
            store.log(child, tags=known)
        if entry.opening.dataset:
            store.log_dataset(parent, **entry.opening.dataset)
        aside = self._aside(run)
        store.log_files(
            parent, {folder: [aside / folder / name for name in names] for folder, names in ending.files.items()}
        )
        store.status(parent, ending.status, ended=ending.at)
        del self.entries[run]
        self._save()
        shutil.rmtree(aside, ignore_errors=True)

    def _aside(self, run: str) -> Path:
        return self._work / "mirror" / key_of(run)

    def _save(self) -> None:
        content = {"offset": self.offset, "runs": {run: asdict(entry) for run, entry in self.entries.items()}}
        write_atomically(self._ledger, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _load(self) -> None:
        try:
            content = json.loads(self._ledger.read_text(encoding="utf-8"))
            self.entries = {run: _entry(item) for run, item in content["runs"].items()}
            self.offset = int(content["offset"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):  # lost: what MLflow has is found again by its tags
            self.offset, self.entries = 0, {}


def _entry(item: Mapping[str, Any]) -> Entry:
    ending = Ending(**item["ending"]) if item["ending"] else None
    return Entry(Opening(**item["opening"]), item["parent"], item["stages"], item["described"], item["running"], ending)
