"""MLflow's model registry: versions, their tags and files, and the aliases that say which one is served.

`models:/…` URIs are never resolved here: MLflow looks them up in the global tracking URI, which need not be this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustdistill.errors import BadInput
from robustdistill.services.mlflow_address import Address, code, guarded
from robustdistill.workspace import workspace_option

DESCRIPTION_LENGTH = 4900  # 5000 in a database with fixed columns
MODEL_TAG_LENGTH = 5000
VERSION_TAG_LENGTH = 100_000
NAMED = 10  # versions that a message lists at most


@dataclass(frozen=True)
class Version:
    """One version of a registered model. `source` is as registered, `run` the MLflow run that made it."""

    name: str
    number: int
    tags: Mapping[str, str]
    source: str = ""
    run: str = ""
    description: str = ""


@dataclass(frozen=True)
class Registry:
    address: Address
    client: Any = field(repr=False)
    workspace: Path | None = None

    @guarded
    def ensure(self, name: str, *, description: str = "") -> None:
        """Makes the registered model if it is not there."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name, description=description[:DESCRIPTION_LENGTH])
        except MlflowException as error:
            if code(error) != "RESOURCE_ALREADY_EXISTS":
                raise

    def _model(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(name)
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    @guarded
    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version number; {} for a model that is not there."""
        model = self._model(name)
        return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}

    @guarded
    def tags(self, name: str) -> dict[str, str]:
        """Tags of the registered model itself; {} if it is not there."""
        model = self._model(name)
        return {} if model is None else dict(model.tags)

    @guarded
    def names(self) -> list[str]:
        """The registered models, by name, one page at most."""
        return sorted(model.name for model in self.client.search_registered_models())

    @guarded
    def versions(self, name: str) -> list[Version]:
        """All versions, newest first; [] for a model that is not there."""
        if "'" in name:  # it would end the quotation below, and no name of ours has one
            return []
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
            found += [_version(item) for item in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda version: version.number, reverse=True)

    @guarded
    def version(self, name: str, number: int) -> Version:
        """Raises BadInput if there is none of this number."""
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version(name, str(number)))
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
        there = [each.number for each in self.versions(name)]
        raise BadInput(
            f"{name} has no version {number}", where=self.address.shown, fix=_told(there) if there else self.instead()
        )

    def instead(self) -> str:
        """What to do where a name has no version: the names that have some, else the flow, which makes the first."""
        there = ", ".join(self.names()[:NAMED])
        return f"registered are {there}" if there else f"run the flow: {self.flow}"

    @property
    def flow(self) -> str:
        """The command that trains, judges and promotes."""
        return f"python flows/retrain.py{workspace_option(self.workspace)}"

    @guarded
    def log_model(
        self, experiment: str, name: str, *, run: str, tags: Mapping[str, str], write: Callable[[str, str], Path]
    ) -> tuple[str, str]:
        """Uploads what `write(model_id, location)` leaves in the folder it returns; gives (model id, location)."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        model = self.client.create_logged_model(experiment, name, source_run_id=run, tags=dict(tags), model_type="onnx")
        try:
            folder = write(model.model_id, model.artifact_location)
            self.client.log_model_artifacts(model.model_id, str(folder))
        except BaseException:
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
            raise
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
        return model.model_id, model.artifact_location

    @guarded
    def create(
        self,
        name: str,
        source: str,
        *,
        run: str,
        tags: Mapping[str, str],
        description: str = "",
        model_id: str | None = None,
    ) -> Version:
        """A new version with its tags, in one step. source: a location, or models:/NAME/VERSION to copy that one."""
        made = self.client.create_model_version(
            name, source, run, tags=dict(tags), description=description[:DESCRIPTION_LENGTH], model_id=model_id
        )
        return _version(made)

    @guarded
    def tag(self, name: str, number: int, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(name, str(number), key, value)

    @guarded
    def tag_model(self, name: str, key: str, value: str | None) -> None:
        """Sets a tag of the registered model itself; None takes it away."""
        if value is not None:
            self.client.set_registered_model_tag(name, key, value)
        elif key in self.tags(name):
            self.client.delete_registered_model_tag(name, key)

    @guarded
    def point(self, name: str, alias: str, number: int | None) -> None:
        """Moves an alias to a version; None takes it away."""
        if number is not None:
            self.client.set_registered_model_alias(name, alias, str(number))
        elif alias in self.aliases(name):
            self.client.delete_registered_model_alias(name, alias)

    @guarded
    def download(self, name: str, number: int, into: Path) -> Path:
        """The files of a version, in the folder `into`."""
        return self.download_from(self.client.get_model_version_download_uri(name, str(number)), into)

    @guarded
    def download_from(self, location: str, into: Path) -> Path:
        """The files at an artifact location, in the folder `into`. Raises BadInput where MLflow knows none."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            return Path(download_artifacts(location, dst_path=str(into), tracking_uri=self.address.uri))
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
        fix = "copy run and path from its page: robustdistill ui"
        raise BadInput(f"MLflow has nothing at {location}", where=self.address.shown, fix=fix)


def _told(numbers: Sequence[int]) -> str:
    """The versions that there are, in words; newest first, one at least."""
    if len(numbers) == 1:
        return f"there is only version {numbers[0]}"
    listed = ", ".join(map(str, numbers[:NAMED]))
    return f"the newest are {listed}" if len(numbers) > NAMED else f"there are versions {listed}"


def _version(item: Any) -> Version:
    # `version` is an int from a database and a text from a server
    return Version(
        item.name, int(item.version), dict(item.tags), item.source, item.run_id or "", item.description or ""
    )
