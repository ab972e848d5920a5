"""Commands on a workspace: making one, its data, its stages, its teacher, where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from robustdistill.cli.layout import columns, labelled
from robustdistill.cli.root import Settings, pass_settings, root

EXISTING = click.Path(path_type=Path, exists=True)
RESIZE = "edge in pixels that every image is scaled to: data.resize of params.yaml"


@root.command(acts_on_workspace=False)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--recipe", default="digits", show_default=True, help="where to start from; listed below")
@click.option("--name", help="of the registered model; default: the recipe's")
@click.option("--download", is_flag=True, help="the recipe's data may be fetched from its public host")
@click.option("--path", "source_path", type=EXISTING, help="where the data lies already")
@click.option("--remote", help="URL or folder where DVC keeps data and results, for clones too; default: in DIRECTORY")
@click.option("--resize", type=int, help=RESIZE)
@click.option("--endpoint", help="of an S3 remote that is not Amazon's; default: $AWS_ENDPOINT_URL_S3 of each machine")
@pass_settings
def init(
    settings: Settings,
    directory: Path,
    recipe: str,
    name: str | None,
    download: bool,
    source_path: Path | None,
    remote: str | None,
    resize: int | None,
    endpoint: str | None,
) -> None:
    """Make a workspace from a recipe.

    A workspace is a git repository with complete params and policy, the pipeline, and the data, versioned by DVC.

    \b
      robustdistill init demo --recipe digits
      robustdistill init clothes --recipe fashion_mnist --download
      robustdistill init mine --recipe image_folder --name mine --path photos/      one folder a class
      robustdistill init demo --remote s3://bucket/demo --endpoint http://127.0.0.1:9000

    \b
    Recipes:
      digits          8x8 handwritten digits, offline; two minutes on two cores
      fashion_mnist   28x28 clothes; about half an hour on two cores
      cifar10         32x32 photographs, ResNet-50 to MobileNetV2; needs a GPU
      image_folder    your own images, one folder a class
    """
    from robustdistill.actions.init import init as make

    settings.say(f"making {directory} from the recipe {recipe} (data, git and DVC: some seconds) ...")
    where = {"remote": remote, "endpoint": endpoint}
    made = make(directory, recipe, name=name, download=download, source_path=source_path, resize=resize, **where)
    after = f"python flows/retrain.py --workspace {directory}"
    if not made.data.exists():
        after = f"robustdistill --workspace {directory} data add PATH"
    data = {"workspace": str(made.root), "model": made.name, "recipe": recipe}
    settings.answer(data, f"workspace for {made.name}: {made.root}\nnext: {after}")


@root.group()
def data() -> None:
    """Add data; go back; see what changed."""


@data.command("add")
@click.argument("path", type=EXISTING)
@click.option("--resize", type=int, help=f"{RESIZE}; it is written there")
@pass_settings
def add(settings: Settings, path: Path, resize: int | None) -> None:
    """Put new data in place.

    A class needs 30 different images or more (20 in train and 10 in test, where there are such folders). They are
    validated first; the old ones stay where that fails, and stay in DVC's cache in any case.

    \b
      robustdistill --workspace mine data add photos/        photos/cat/1.png, photos/dog/2.png, ...
      robustdistill --workspace mine data add photos/ --resize 64
    """
    from robustdistill.actions import data as actions
    from robustdistill.services import dvc_cli

    workspace = settings.workspace()
    with workspace.lock():  # not under a run that reads the data
        dvc_cli.require_repository(workspace.root)  # before the data are exchanged
        done = actions.add(workspace, path, resize=resize)
        dvc_cli.add_data(workspace.root)
    text = done.markdown() if done.changed else "these data are there already"
    edge = workspace.params().data.resize
    sizes = "" if resize is None else f"\nparams.yaml: data.resize is {edge}"
    after = f"python flows/retrain.py --workspace {workspace.root}"
    told = f"{text}\ndata {done.after}{sizes}\nnext: {after} (retrains what reads the data)"
    settings.answer(done.to_json() | {"resize": edge}, told)


@data.command("versions")
@pass_settings
def data_versions(settings: Settings) -> None:
    """List the versions that there were.

    Newest first, from the workspace's history: `data use DIGEST` goes back to one of them.
    """
    from robustdistill.actions import data_versions as actions

    found = actions.versions(settings.workspace())
    rows = [
        (
            item.digest,
            item.date or "–",
            _figure(item.files),
            _figure(item.size),
            item.commit[:12] or "not yet",
            "*"[: item.here],
        )
        for item in found
    ]
    table = columns(("digest", "committed at", "files", "bytes", "commit", "now"), rows) if rows else "none yet"
    settings.answer([item.to_json() for item in found], table)


def _figure(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


@data.command("use")
@click.argument("digest")
@pass_settings
def data_use(settings: Settings, digest: str) -> None:
    """Go back to an earlier version.

    DIGEST as `data versions` lists it; its first digits are enough. The files come from DVC's cache or remote. Data
    that no version has are never lost: they are refused.

    \b
      robustdistill --workspace mine data use 3f2c
    """
    from robustdistill.actions import data_versions as actions

    workspace = settings.workspace()
    with workspace.lock():  # not under a run that reads the data
        done = actions.use(workspace, digest)
    if done is None:
        settings.answer({"changed": False}, "these data are there already")
        return
    after = f"python flows/retrain.py --workspace {workspace.root}"
    settings.answer(
        done.to_json(), f"{done.markdown()}\ndata {done.after}\nnext: {after} (retrains what reads the data)"
    )


@data.command("report")
@pass_settings
def data_report(settings: Settings) -> None:
    """Show what changed since the last run.

    Classes, counts, colours, duplicates and what was left out, from the data last prepared to those in data/.
    """
    from robustdistill.actions import data as actions

    workspace = settings.workspace()
    actions.require_there(workspace)
    prepared = workspace.artifacts / "prepare"
    changes = actions.report(prepared if prepared.exists() else None, workspace.data, workspace.params().data)
    settings.answer(changes.to_json(), changes.markdown())


@root.command()
@pass_settings
def status(settings: Settings) -> None:
    """Show where the workspace stands.

    Its data, the stages that would run, and what the last run came to.
    """
    from robustdistill.actions.standing import standing

    found = standing(settings.workspace())
    last = found["last"]
    rows = [
        ("workspace", found["workspace"]),
        ("model", found["model"]),
        ("data", found["data"] or "none yet: robustdistill data add PATH"),
        ("would run", _would_run(found)),
        ("last run", f"{last['outcome']}: {last['sentence']}" if last else "none yet"),
    ]
    settings.answer(found, labelled(rows))


def _would_run(found: Mapping[str, Any]) -> str:
    if found["running"]:
        return f"not known while a run holds the workspace (pid {found['running']})"
    return ", ".join(found["changed"]) or "nothing: all stages are up to date"


@root.group()
def teacher() -> None:
    """Choose who is distilled."""


@teacher.command("use")
@click.argument("origin", type=click.Choice(["file", "registry", "none"]))
@click.argument("what", nargs=-1)
@click.option("--config", type=EXISTING, help="file: JSON with architecture, shape, classes, mean, std, low, high")
@click.option("--start", is_flag=True, help="only begin the teacher's training from these weights")
@pass_settings
def use(settings: Settings, origin: str, what: tuple[str, ...], config: Path | None, start: bool) -> None:
    """Use a teacher from elsewhere, or train it here.

    It is judged and has to qualify like any other. Several are averaged: one teacher that answers with the mean of
    their probabilities.

    \b
      robustdistill teacher use file resnet.safetensors --config resnet.json
      robustdistill teacher use registry digits/3           a version of a registered model; digits/champion works too
      robustdistill teacher use file a.safetensors b.safetensors c.safetensors
      robustdistill teacher use none                        train it here again
    """
    from robustdistill.actions import teacher as actions

    workspace = settings.workspace()
    role: actions.Role = "start" if start else "teacher"
    if config and origin != "file":
        raise click.UsageError("--config describes a file: teacher use file W.safetensors --config C.json")
    if origin == "none":
        if what or start:
            raise click.UsageError("none takes nothing else: the teacher is trained here")
        with workspace.lock():
            actions.use_none(workspace)
        settings.answer({"sha256": None}, "the teacher is trained here")
        return
    if not what:
        raise click.UsageError("say which: a safetensors file, or NAME/VERSION")
    with workspace.lock():
        if len(what) > 1:
            source: actions.Source = "file" if origin == "file" else "registry"
            digest = actions.use_mean(workspace, source, what, config, role=role)
        elif origin == "file":
            digest = actions.use_file(workspace, Path(what[0]), config, role=role)
        else:
            digest = actions.use_registry(workspace, what[0], role=role)
    settings.answer({"sha256": digest, "role": role}, f"teacher {digest[:12]} ({role})\nnext: run the flow")


@root.command()
@pass_settings
def report(settings: Settings) -> None:
    """Write the HTML report.

    Of what the workspace holds now, with the last verdict.
    """
    from robustdistill.actions.standing import write_report

    path = write_report(settings.workspace())
    settings.answer({"report": str(path)}, str(path))


@root.command()
@pass_settings
def ui(settings: Settings) -> None:
    """Serve MLflow's and Prefect's pages.

    On the workspace's own records, for this machine only, until Ctrl-C.
    """
    from robustdistill.actions.ui import serve

    workspace = settings.workspace()
    serve(workspace.work, workspace.name, settings.say)


@root.command()
@pass_settings
def upgrade(settings: Settings) -> None:
    """Renew the pipeline file; mend a workspace.

    For a workspace made by an earlier version: takes over this version's dvc.yaml. For one that has lost its .git or
    .dvc: makes them anew. Data, params, results and the registry stay.
    """
    from robustdistill.actions.init import upgrade as take_over

    done = take_over(settings.workspace())
    settings.answer({"changed": bool(done), "renewed": done}, f"{', '.join(done)} renewed" if done else "nothing to do")


@root.command(hidden=True)
@click.argument("name")
@click.option("--revision", type=int, required=True, help="what dvc.yaml was written for")
@pass_settings
def stage(settings: Settings, name: str, revision: int) -> None:
    """Run one stage. For `dvc repro`: run by hand, DVC would not know what it was made from."""
    from robustdistill.actions import stage as actions

    actions.run(settings.workspace(), name, revision, debug=settings.debug)
