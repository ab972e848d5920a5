"""Commands on registered and exported models: ask them, judge any model, move the champion."""

from __future__ import annotations

import getpass
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from robustdistill.cli.layout import columns
from robustdistill.cli.root import Settings, pass_settings, root

MOST_SEEDS = 8  # as many as gate/two_way.py can take; that module is not imported for --help
EXISTING = click.Path(path_type=Path, exists=True)


@root.command()
@click.argument("images", nargs=-1, required=True, type=EXISTING)
@click.option("--model", type=EXISTING, help="an export folder; default: the registry's champion")
@click.option("--resize", is_flag=True, help="scale images of another size, as `data.resize` does in training")
@pass_settings
def predict(settings: Settings, images: tuple[Path, ...], model: Path | None, resize: bool) -> None:
    """Ask the champion about images.

    Through the code that is shipped: ONNX Runtime, no torch. Images of another size are refused, unless the model was
    trained on images that data.resize scaled (then these are scaled in the same way) or --resize is given. Gray and
    colour are never converted.

    \b
      robustdistill --workspace demo predict three.png seven.png
      robustdistill predict --model demo/artifacts/export/student three.png
    """
    from robustdistill.actions import serving
    from robustdistill.inputs.text import shown

    folder = model or serving.champion_folder(settings.workspace(), settings.say)
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

    settings.say(serving.OPENING)
    found = serving.versions(settings.workspace())
    rows = [(row["name"], str(row["version"]), row["aliases"] or "-", row["sha256"][:12]) for row in found]
    table = columns(("model", "version", "aliases", "sha256"), rows)
    settings.answer(found, table if rows else "nothing is registered yet: run the flow")


@root.command()
@click.argument("target")
@click.option("--data", type=EXISTING, help="FILE.npz with images and labels, or a folder with a folder a class")
@click.option("--threat", help="what an attacker may do: linf:8/255, l2:0.5")
@click.option(
    "--config", type=EXISTING, help="safetensors: JSON with architecture, shape, classes, mean, std, low, high"
)
@click.option("--twin", help="ONNX: the same model with gradients, FILE.safetensors or package.module:factory")
@click.option("--surrogate", multiple=True, help="another TARGET: what breaks it is tried here too; may be repeated")
@click.option("--n", type=click.IntRange(min=1), help="judge only so many examples")
@click.option("--seed", type=click.IntRange(min=0), help="of every random draw; default 0")
@click.option(
    "--quick",
    "attacks",
    flag_value="quick",
    help="PGD only: not AutoAttack (an ONNX file alone: Square with 500 queries, not 5000), figures may be too high",
)
@click.option("--randomised", "attacks", flag_value="rand", help="AutoAttack's version for models that draw at random")
@click.option("--device", help="as torch names it; default: cuda where there is one")
@click.option("--harder", type=click.IntRange(min=0), hidden=True, help="twice the steps, drawn by this seed: rescore")
@click.option("--again", is_flag=True, help="judge anew what was judged already")
@click.option("--out", type=click.Path(path_type=Path), help="new folder for the results; default: judged/NAME-HASH")
@pass_settings
def judge(settings: Settings, /, **given: Any) -> int:
    """Judge any model, yours or ours.

    How many images does it still classify rightly when each may be changed within the threat model? And can that
    figure be trusted?

    \b
    TARGET is one of
      my_package.module:factory        your own code: returns a torch module of images in [0, 1], logits out
      model.safetensors                an architecture of robustdistill, described by --config FILE.json
      model.onnx                       black box only: such an answer is never healthy, unless --twin has the weights
      demo/artifacts/export/student    what a workspace exported
      models:/digits/3, digits@champion, runs:/ID/path      from the registry of the workspace

    \b
      robustdistill judge my_model:load --data test.npz --threat linf:8/255
      robustdistill judge net.safetensors --config net.json --data photos/ --threat l2:0.5 --n 500
      robustdistill judge net.onnx --twin net.safetensors --config net.json --data test.npz --threat linf:0.1
      robustdistill --workspace demo judge digits@champion --json

    The .npz holds `images` (n, H, W) or (n, H, W, C), uint8 or floats in [0, 1], which reach the model as
    (n, C, H, W), and `labels` (n,) from 0 on. In a workspace, data and threat model are its own unless given.

    Attacks are those of a promotion: FGSM, PGD, AutoAttack. An ONNX file alone gives no gradients: Square, and in a
    workspace or with --surrogate what breaks other models. Importing factory runs its code. Stopped half-way, the same
    command goes on where it was; finished, it shows what it found. The folder gets judgement.json, report.html and the
    outcome of each example.

    Exit codes: 0 no check of the evaluation failed, 3 one did (the figure shows no robustness), 2 bad input.
    """
    from robustdistill import console
    from robustdistill.actions import judging
    from robustdistill.actions.judge_case import Request
    from robustdistill.errors import Unhealthy

    request = Request(**given)
    with closing(console.progress(console.console())) as listener:
        result = judging.run(settings.workspace_if_any(), request, listeners=[listener], debug=settings.debug)
    if result.known:
        settings.say(f"already judged: {result.folder}; --again judges anew")
    if settings.as_json:
        settings.answer(result.content, "")
    else:
        console.judgement(result.content, console.answers())
        settings.answer(None, f"{result.folder / judging.JSON}\n{result.folder / judging.HTML}")
    return 0 if result.healthy else Unhealthy.exit_code


@root.command()
@click.option("--seeds", type=click.IntRange(2, MOST_SEEDS), default=5, show_default=True, help="pairs to train")
@pass_settings
def confirm(settings: Settings, seeds: int) -> int:
    """Ask whether distillation helped, over several seeds.

    The gate's answer to "did the student gain from its teacher?" comes from one training of either. Here student and
    control are trained anew with fresh seeds, beside the same teacher, and judged as in a run. The interval is over
    seeds and images; "helps", "harms" and "non-inferior" (by one point) are said only where both allow it.

    
      robustdistill --workspace demo confirm                 five pairs
      robustdistill --workspace demo confirm --seeds 8       three more: what is done is not done again

    Each pair costs what student, control and their scores cost in a run; the workspace is locked meanwhile. Stopped
    half-way, the same command goes on where it was. The answer is recorded in MLflow and decides nothing.

    Exit codes: 0 answered, 3 an evaluation cannot be trusted, 2 bad input.
    """
    from robustdistill import console
    from robustdistill.actions import confirm as actions
    from robustdistill.errors import Unhealthy

    with closing(console.progress(console.console())) as listener:
        found = actions.run(settings.workspace(), seeds, listeners=[listener], debug=settings.debug)
    if settings.as_json:
        settings.answer(found, "")
    else:
        console.confirmation(found, console.answers())
    return 0 if found["healthy"] else Unhealthy.exit_code


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

    by_hand.require_said(by, why)
    settings.say(f"{serving.OPENING} and judging version {version} today, if that was not done")
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

    by_hand.require_said(by, why)
    settings.say(serving.OPENING)
    with serving.by_hand(settings.workspace(), "roll back", why) as current:
        summary = current.conclude(by_hand.roll_back(current, version, by=by, why=why))
    settings.answer(summary.to_json(), f"{summary.outcome}: {summary.sentence}")
    return summary.exit_code
