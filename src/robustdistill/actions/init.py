"""Makes a workspace: a small git repository with the recipe's files and its data, versioned; all of it or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from robustdistill import recipes
from robustdistill.actions import data as data_actions
from robustdistill.actions import data_news, teacher
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli, dvc_remote, git_cli
from robustdistill.workspace import Workspace

# What DVC versions, what may be lost, and what is told elsewhere.
IGNORED = ("/data", "/artifacts", "/imports", "/reports", "/journal.jsonl", "/.work", "/dvc_plots")
COMMITTED = (
    "params.yaml",
    "policy.yaml",
    "dvc.yaml",
    "data.dvc",
    "teacher.pin.json",
    ".gitignore",
    ".dvcignore",
    ".dvc",
)


def init(
    directory: Path,
    recipe: str,
    *,
    name: str | None = None,
    download: bool = False,
    source_path: Path | None = None,
    remote: str | None = None,
    resize: int | None = None,
    endpoint: str | None = None,
) -> Workspace:
    """A workspace at `directory`, which must not exist or be empty. Built beside it and moved there at the end.

    name: of the registered model, default the recipe's. download: the recipe's data may be fetched from its public
    host. source_path: where the data lies already. remote: URL or folder where DVC
    keeps data and results for all clones; default: a folder inside the workspace. endpoint: of an S3 server that is
    not Amazon's; committed, as the remote is, and neither may hold credentials. resize: data.resize, an edge in pixels.
    Raises BadInput (unknown recipe, folder in use, unusable option or data) or ServiceFailed (git, DVC).
    """
    chosen = recipes.load(recipe, model_name=name, resize=resize)
    _require_options(chosen, {"--path": source_path is not None, "--download": download})
    _require_remote(remote or "", endpoint or "")
    target = directory.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput("the folder is not empty", where=str(target), fix="name a new one, or remove what is in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _built_beside(target) as folder:
        _write(chosen, folder)
        git_cli.init(folder)
        dvc_cli.init(folder, _absolute(remote))
        if endpoint:
            dvc_cli.dvc(folder, "remote", "modify", "local", "endpointurl", endpoint)
        if source_path or not chosen.needs_path:
            _add_data(chosen, folder, download=download, source_path=source_path)
        git_cli.commit(folder, COMMITTED, f"Start from the recipe {recipe}")
    return Workspace.find(target)


def _require_options(recipe: recipes.Recipe, given: Mapping[str, bool]) -> None:
    from robustdistill.data.sources import SOURCES

    source = recipe.params.data.source
    for option, used in given.items():
        if used and option.removeprefix("--") not in SOURCES[source].Config.model_fields:
            fix = "leave it out" if option == "--download" else "leave it out; your own images: --recipe image_folder"
            raise BadInput(f"the recipe {recipe.name} does not take it: its data are {source}", where=option, fix=fix)


def _require_remote(remote: str, endpoint: str) -> None:
    for url in (remote, endpoint):
        dvc_remote.require_no_secret(url)
    if endpoint and not (remote.startswith("s3://") and endpoint.startswith(("http://", "https://"))):
        fix = "--remote s3://BUCKET/PATH --endpoint https://HOST:PORT"
        raise BadInput("an endpoint is the http(s) address of the server of an S3 remote", where="--endpoint", fix=fix)


def _absolute(remote: str | None) -> str | None:
    """A folder from the root on, for all clones on this machine; a URL as it is."""
    return str(Path(remote).expanduser().resolve()) if remote and "://" not in remote else remote


@contextmanager
def _built_beside(target: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder.chmod(0o755)
        yield folder
        folder.rename(target)  # onto an empty folder or nothing; fails if somebody else was quicker
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(recipe: recipes.Recipe, folder: Path) -> None:
    recipes.write(recipe, folder)
    (folder / ".gitignore").write_text("\n".join(IGNORED) + "\n", encoding="utf-8")
    (folder / "teacher.pin.json").write_text(
        json.dumps(teacher.NO_PIN, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _add_data(recipe: recipes.Recipe, folder: Path, *, download: bool, source_path: Path | None) -> None:
    from robustdistill.data import materialise

    data, workspace = recipe.params.data, Workspace(folder)
    materialise(data.source, workspace.data, path=source_path, download=download, module=data.module)
    own = source_path if recipe.needs_path else None  # so that errors name the user's files, not the copies
    with _before_there_is_a_workspace(own):
        changes = data_actions.report(None, own or workspace.data, data)
    data_news.leave(workspace, data_actions.tree_digest(workspace.data), changes.markdown())
    dvc_cli.add_data(folder)


@contextmanager
def _before_there_is_a_workspace(own: Path | None) -> Iterator[None]:
    """A user's own data may need another setting, and the file to put it into is not there yet."""
    try:
        yield
    except BadInput as fault:
        if own is None:
            raise
        later = "no workspace was made: init without --path makes one, `robustdistill data add` then brings the data"
        raise BadInput(fault.cause, where=fault.where, fix=f"{fault.fix}; {later}") from fault


def upgrade(workspace: Workspace) -> list[str]:
    """Mends a workspace: makes .git or .dvc anew where it is lost, lets every remote verify what it hands out, and
    takes over this version's dvc.yaml.

    .dvc comes back as it was committed, with its remotes, if git still has it. Returns what was renewed, [] if nothing.
    """
    root, renewed = workspace.root, dvc_cli.lost(workspace.root)
    if ".git" in renewed:
        git_cli.init(root)
    if ".dvc" in renewed and not git_cli.restore(root, ".dvc"):
        dvc_cli.init(root)
    settings = ".dvc/config"
    clean = not git_cli.dirty(root, "HEAD", [settings])
    if dvc_remote.verify_all(root) and ".dvc" not in renewed and clean:  # else it is the user's to commit
        renewed.append(settings)
    path = root / "dvc.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != recipes.pipeline():
        path.write_text(recipes.pipeline(), encoding="utf-8")
        renewed.append("dvc.yaml")
    if renewed:
        paths = (*COMMITTED, "dvc.lock") if ".git" in renewed else [name for name in renewed if name != ".git"]
        git_cli.commit(root, paths, f"Renew {', '.join(renewed)}")
    return renewed
