"""MLflow's bin: what a client may put there, and what only the owner of the database may empty for good.

A run or model that is deleted stays in the bin with its files, and can be brought back from MLflow's page. A version of
a registered model has no bin. Emptying is what `mlflow gc` does; here it takes only what is marked as put there by us,
whereas that command takes all it finds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from robustdistill.services.mlflow_address import Address, code, guarded
from robustdistill.services.mlflow_store import Store

MARK = "robustdistill.gc"  # when it was put into the bin
PAGE = 500


class Record(NamedTuple):
    """A run. last: when it ended, or began if it has not, in seconds since the epoch. place: where its files are."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    last: float
    place: str


class Model(NamedTuple):
    """A logged model, which a version may serve. run: that made it. made: seconds since the epoch."""

    id: str
    run: str
    made: float
    place: str


@dataclass(frozen=True)
class Bin:
    store: Store

    @property
    def address(self) -> Address:
        return self.store.address

    @property
    def can_empty(self) -> bool:
        """Whether this client has the database itself, not a server before it."""
        return hasattr(self._backend, "_hard_delete_run")

    @property
    def _backend(self) -> Any:
        return self.store.client._tracking_client.store

    @guarded
    def experiment(self, name: str) -> str | None:
        """Its id, without making it."""
        found = self.store.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    @guarded
    def tags(self, run: str) -> Mapping[str, str]:
        """Of a run, also of one in the bin; {} where it is gone for good."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.store.client.get_run(run).data.tags)
        except MlflowException as error:
            if code(error) == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    @guarded
    def runs(self, experiment: str, *, binned: bool = False) -> list[Record]:
        """Newest first. binned: those that we put into the bin instead."""
        from mlflow.entities import ViewType

        view = ViewType.DELETED_ONLY if binned else ViewType.ACTIVE_ONLY
        listed: list[Record] = []
        token = None
        while True:
            page = self.store.client.search_runs([experiment], "", view, max_results=PAGE, page_token=token)
            listed += map(_record, page)
            token = page.token
            if not token:
                return [record for record in listed if not binned or MARK in record.tags]

    @guarded
    def models(self, experiment: str) -> list[Model]:
        listed: list[Model] = []
        token = None
        while True:
            page = self.store.client.search_logged_models([experiment], max_results=PAGE, page_token=token)
            listed += map(_model, page)
            token = page.token
            if not token:
                return listed

    @guarded
    def binned_models(self, experiment: str) -> list[Model]:
        """Those that we put into the bin. Only where `can_empty`: a client cannot search there."""
        listed = [self._backend.get_logged_model(each, True) for each in self._backend._get_deleted_logged_models()]
        return [_model(each) for each in listed if str(each.experiment_id) == experiment and MARK in (each.tags or {})]

    @guarded
    def made(self, name: str) -> dict[int, float]:
        """When each version of a registered model was made: number -> seconds since the epoch."""
        listed: dict[int, float] = {}
        token = None
        while True:
            page = self.store.client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
            listed |= {int(item.version): item.creation_timestamp / 1000 for item in page}
            token = page.token
            if not token:
                return listed

    @guarded
    def named_by_version(self, runs: Iterable[str]) -> bool:
        """Whether a version of any registered model came from one of these runs."""
        listed = ", ".join(f"'{run}'" for run in runs)
        return bool(self.store.client.search_model_versions(f"run_id IN ({listed})", max_results=1))

    @guarded
    def serves(self, place: str) -> bool:
        """Whether a version was registered with the files at this location; one that was copied names the other."""
        return "'" in place or bool(self.store.client.search_model_versions(f"source_path = '{place}'", max_results=1))

    @guarded
    def place(self, name: str, number: int) -> str:
        """Where the files of a version are."""
        return str(self.store.client.get_model_version_download_uri(name, str(number)))

    @guarded
    def status(self, run: str) -> str:
        return str(self.store.client.get_run(run).info.status)

    @guarded
    def lifecycle(self, run: str) -> str:
        """active, deleted, or gone for one that is not even in the bin."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.store.client.get_run(run).info.lifecycle_stage)
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return "gone"

    @guarded
    def drop_version(self, name: str, number: int) -> None:
        """For good: versions have no bin."""
        self.store.client.delete_model_version(name, str(number))

    @guarded
    def drop_model(self, model: str) -> None:
        self.store.client.set_logged_model_tags(model, {MARK: _now()})
        self.store.client.delete_logged_model(model)

    @guarded
    def drop_run(self, run: str) -> None:
        self.store.client.set_tag(run, MARK, _now())
        self.store.client.delete_run(run)

    @guarded
    def empty_run(self, run: Record) -> None:
        """For good. Files first: what is left half-way is still in the bin."""
        self._remove_files(run.place)
        self._backend._hard_delete_run(run.id)

    @guarded
    def empty_model(self, model: Model) -> None:
        self._remove_files(model.place)
        self._backend._hard_delete_logged_model(model.id)

    def _remove_files(self, place: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        folder = local(place)
        if folder is not None and not folder.exists():  # a run without files, or a second attempt
            return
        try:
            files: Any = get_artifact_repository(place)  # it has no types
            files.delete_artifacts()
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise


def local(place: str) -> Path | None:
    """The folder of an artifact location on this machine; None for one elsewhere."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(place) if not parts.scheme and place.startswith("/") else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _record(item: Any) -> Record:
    info = item.info
    last = (info.end_time or info.start_time or 0) / 1000
    return Record(info.run_id, info.run_name, info.status, dict(item.data.tags), last, info.artifact_uri or "")


def _model(item: Any) -> Model:
    return Model(item.model_id, item.source_run_id or "", item.creation_timestamp / 1000, item.artifact_location)
