"""MLflow's tracking store: runs, their metrics and files. Always a client and explicit run ids, never an active run.

MLflow's active run belongs to a thread, so a fluent call from another one opens a stray run. Everything is written in
batches: a single metric costs as much as fifty.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from robustdistill.errors import BadInput
from robustdistill.services.mlflow_address import Address, code, configure_environment, failures, guarded
from robustdistill.services.mlflow_registry import Registry

METRICS_AT_ONCE, ENTRIES_AT_ONCE = 1000, 100  # MLflow's limits of one batch
TAG_LENGTH, PARAM_LENGTH, DIGEST_LENGTH = 5000, 6000, 36
NOTE = "mlflow.note.content"
ENDED = ("FINISHED", "FAILED", "KILLED")


class Measure(NamedTuple):
    """One value of one metric. time: seconds since the epoch."""

    key: str
    value: float
    time: float
    step: int = 0


class Run(NamedTuple):
    """What is kept of a run. status: RUNNING, FINISHED, FAILED or KILLED."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two processes that migrate one fresh SQLite file break each other."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _connect(address: Address) -> Any:
    """An MlflowClient on a store that has been opened once. Raises what MLflow raises."""
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = MlflowClient(address.uri, address.uri)
    client.search_experiments(max_results=1)
    client.search_registered_models(max_results=1)
    return client


@dataclass(frozen=True)
class Store:
    """A reachable MLflow. `client` is its MlflowClient; `files` is where an embedded store keeps artifacts; `workspace`
    is the folder whose commands lead here, where it is one."""

    address: Address
    client: Any
    files: Path | None = None
    workspace: Path | None = None

    @classmethod
    def open(cls, uri: str | None, work: Path) -> Self:
        """The store at `uri`, else MLFLOW_TRACKING_URI, else `work`/mlflow.db with its files in `work`/mlartifacts.

        A fresh SQLite file is migrated under a lock. Raises ServiceFailed if it is away, BadInput for a file store.
        """
        configure_environment()
        address = Address.find(uri, work)
        address.require_reachable()
        home = work.parent if (work.parent / "params.yaml").is_file() else None
        if address.database is None:
            with failures(address):
                return cls(address, _connect(address), workspace=home)
        files = work.resolve() / "mlartifacts"
        with failures(address):
            for folder in (files, address.database.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with _locked(address.database.with_name(f"{address.database.name}.lock")):
                return cls(address, _connect(address), files, home)

    @property
    def registry(self) -> Registry:
        """The model registry of the same MLflow."""
        return Registry(self.address, self.client, self.workspace)

    @guarded
    def experiment(self, name: str) -> str:
        """The id of the experiment of this name, made if needed."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            location = None if self.files is None else (self.files / name).as_uri()
            try:
                made = str(self.client.create_experiment(name, artifact_location=location))
                self._describe(made, f"One run for each flow run of the model {name}; its stages are nested in it.")
                return made
            except MlflowException as error:
                if code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _describe(self, made: str, text: str) -> None:
        """What MLflow's pages say of a new experiment; in a store of ours, also of the empty one that is in each."""
        self.client.set_experiment_tag(made, NOTE, text)
        if self.files is not None:
            self.client.set_experiment_tag("0", NOTE, "MLflow's own, empty: runs are in the experiments beside it.")

    @guarded
    def runs(self, experiment: str, *, tags: Mapping[str, str] | None = None, status: str | None = None) -> list[Run]:
        """Runs that have all these tags and, if given, this status; newest first. Raises BadInput for a quote."""
        for value in (tags or {}).values():
            if "'" in value:  # MLflow's filter language has no escape
                raise BadInput(f"runs are not searched for a value with a quote: {value!r}")
        terms = [f"tags.`{key}` = '{value}'" for key, value in (tags or {}).items()]
        if status:
            terms.append(f"attributes.status = '{status}'")
        found, token = [], None
        while True:
            page = self.client.search_runs([experiment], " and ".join(terms), max_results=1000, page_token=token)
            found += [_run(item) for item in page]
            token = page.token
            if not token:
                return found

    @guarded
    def create_run(
        self, experiment: str, name: str, *, started: float, tags: Mapping[str, str], parent: str | None = None
    ) -> str:
        """A new RUNNING run's id; with `parent`, nested under that run. started: seconds since the epoch."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        cut = {key: value[:TAG_LENGTH] for key, value in {**tags, **nested}.items()}
        run = self.client.create_run(experiment, start_time=round(started * 1000), tags=cut, run_name=name)
        return str(run.info.run_id)

    @guarded
    def log(
        self,
        run: str,
        *,
        metrics: Sequence[Measure] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Any number of metrics, params and tags in as few calls as there can be. Doing it again changes nothing."""
        from mlflow.entities import Metric, Param, RunTag

        values = [Metric(item.key, item.value, round(item.time * 1000), item.step) for item in metrics]
        pairs = [Param(key, value[:PARAM_LENGTH]) for key, value in (params or {}).items()]
        marks = [RunTag(key, value[:TAG_LENGTH]) for key, value in (tags or {}).items()]
        room = METRICS_AT_ONCE - 2 * ENTRIES_AT_ONCE  # a batch holds a thousand things in all
        while values or pairs or marks:
            batch = (values[:room], pairs[:ENTRIES_AT_ONCE], marks[:ENTRIES_AT_ONCE])
            self.client.log_batch(run, *batch)
            values, pairs, marks = values[room:], pairs[ENTRIES_AT_ONCE:], marks[ENTRIES_AT_ONCE:]

    @guarded
    def log_dataset(self, run: str, *, name: str, digest: str, source: str, context: str = "training") -> None:
        """The versioned data that a run read. digest: at most 36 characters, which a DVC folder's md5 just fits."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not 0 < len(digest) <= DIGEST_LENGTH:
            raise BadInput(f"a data digest has 1 to {DIGEST_LENGTH} characters, this one {len(digest)}", where=name)
        dataset = Dataset(name, digest, "dvc", json.dumps({"uri": source}))
        self.client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    @guarded
    def log_files(self, run: str, files: Mapping[str, Sequence[Path]]) -> None:
        """Copies files into a run: folder in the run -> files."""
        for folder, paths in files.items():
            for path in paths:
                self.client.log_artifact(run, str(path), folder or None)

    @guarded
    def status(self, run: str, status: str, *, ended: float | None = None) -> None:
        """RUNNING again, or ended as FINISHED, FAILED or KILLED at `ended` (seconds since the epoch)."""
        if status not in ENDED:
            self.client.update_run(run, status=status)
            return
        self.client.set_terminated(run, status, end_time=None if ended is None else round(ended * 1000))


def _run(item: Any) -> Run:
    return Run(item.info.run_id, item.info.run_name, item.info.status, dict(item.data.tags), dict(item.data.params))
