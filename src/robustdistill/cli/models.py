"""Commands on registered and exported models: ask them, judge them, move the champion."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from robustdistill.cli.layout import columns
from robustdistill.cli.root import Settings, pass_settings, root

OPENING = "opening the registry (some seconds) ..."
EXISTING = click.Path(path_type=Path, exists=True)


@root.command()
@click.argument("images", nargs=-1, required=True, type=EXISTING)
@click.option("--model", type=EXISTING, help="an export folder; default: the registry's champion")
@click.option("--resize", is_flag=True, help="scale images of another size instead of refusing them")
@pass_settings
def predict(settings: Settings, images: tuple[Path, ...], model: Path | None, resize: bool) -> None:
    """Ask the champion about images.

    Through the code that is shipped: ONNX Runtime, no torch.

    \b
      robustdistill --workspace demo predict three.png seven.png
      robustdistill predict --model demo/artifacts/export/student three.png
    """
    from robustdistill.actions import serving
    from robustdistill.inputs.text import shown

    if model is None:
        settings.say(OPENING)
    folder = model or serving.champion_folder(settings.workspace())
    found = serving.predict(folder, images, resize=resize)
    rows = [(shown(row["image"]), shown(row["class"]), f"{row['probability']:.3f}") for row in found]
    settings.answer(found, "\n".join("\t".join(row) for row in rows))


@root.command()
@pass_settings
def versions(settings: Settings) -> None:
    """List what is registered.

    The candidates, the versions that were promoted, and who is champion.
    """
    from robustdistill.actions import serving

    settings.say(OPENING)
    found = serving.versions(settings.workspace())
    rows = [(row["name"], str(row["version"]), row["aliases"] or "-", row["sha256"][:12]) for row in found]
    table = columns(("model", "version", "aliases", "sha256"), rows)
    settings.answer(found, table if rows else "nothing is registered yet: run the flow")


@root.command()
@click.argument("export", type=EXISTING)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for the scorecard; must not exist")
@pass_settings
def judge(settings: Settings, export: Path, out: Path) -> None:
    """Judge any exported model.

    Under the workspace's data, threat model and attacks. Decides nothing.

    \b
      robustdistill --workspace demo judge demo/artifacts/export/student --out scored/
    """
    from robustdistill.actions import stage

    card = stage.judge(settings.workspace(), export, out, debug=settings.debug)
    clean, robust = card["clean"]["accuracy"], card["robust"]["accuracy"]
    settings.answer(card, f"clean {clean:.1%}, robust {robust:.1%}: {out / 'scorecard.json'}")


def _who() -> str:
    return getpass.getuser()


@root.command()
@click.argument("version", type=int)
@click.option("--why", required=True, help="the reason; kept in the promotion's record")
@click.option("--by", default=_who, help="who answers for it; default: you")
@pass_settings
def promote(settings: Settings, version: int, why: str, by: str) -> int:
    """Promote a candidate by hand.

    It has to pass today's gate; such as one that waits as `challenger`.

    \b
      robustdistill promote 4 --why "approved after review"       version 4 of NAME-candidates
    """
    from robustdistill.actions import by_hand, serving

    with serving.by_hand(settings.workspace(), f"promote {version}", why) as current:
        result = by_hand.judge_candidate(current, version)
        summary = current.conclude(by_hand.promote_candidate(current, version, result, by=by, why=why))
    settings.answer(summary.to_json(), f"{summary.outcome}: {summary.sentence}")
    return summary.exit_code


@root.command()
@click.option("--to", "version", type=int, help="version of NAME; default: the one before")
@click.option("--why", required=True, help="the reason; kept in the promotion's record")
@click.option("--by", default=_who, help="who answers for it; default: you")
@pass_settings
def rollback(settings: Settings, version: int | None, why: str, by: str) -> int:
    """Go back to an earlier champion.

    At once and without judging: it has to work when all else does not.

    \b
      robustdistill rollback --why "complaints since noon"
    """
    from robustdistill.actions import by_hand, serving

    with serving.by_hand(settings.workspace(), "roll back", why) as current:
        summary = current.conclude(by_hand.roll_back(current, version, by=by, why=why))
    settings.answer(summary.to_json(), f"{summary.outcome}: {summary.sentence}")
    return summary.exit_code
