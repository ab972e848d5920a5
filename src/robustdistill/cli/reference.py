"""What there is to choose from."""

from __future__ import annotations

import json
import shutil

import click

from robustdistill.cli.layout import columns, labelled
from robustdistill.cli.root import Settings, pass_settings, root

WIDTH = 120  # of a table in a file or a pipe


@root.command(acts_on_workspace=False)
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="the table of docs/methods.md")
@pass_settings
def methods(settings: Settings, name: str | None, markdown: bool) -> None:
    """List the methods, or tell about one.

    Adversarial training and distillation: what each needs, what it costs, when to use it. With NAME: what it minimises,
    its source and its options, too. A method is named in params.yaml as `teacher.objective.name`,
    `student.objective.name` or `control.objective.name`.

    \b
      robustdistill methods
      robustdistill methods rslad
      robustdistill methods --json
    """
    from robustdistill.objectives import catalogue

    if name is not None:
        _tell(settings, name)
        return
    rows = catalogue.methods()
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    table = f"{columns(catalogue.BRIEF, catalogue.brief(rows), width)}\n\n{catalogue.KEY}"
    text = catalogue.markdown(rows).rstrip() if markdown else table
    settings.answer([row.to_json() for row in rows], text)


def _tell(settings: Settings, name: str) -> None:
    from robustdistill.objectives import catalogue

    row, options = catalogue.one(name), catalogue.options(name)
    about = labelled(zip(catalogue.HEAD, row, strict=True))
    keys = labelled((option.name, f"{option.description} (default {json.dumps(option.default)})") for option in options)
    settings.answer(
        row.to_json() | {"options": [option._asdict() for option in options]}, f"{about}\n\noptions\n{keys}"
    )
