"""What there is to choose from."""

from __future__ import annotations

import click

from robustdistill.cli.root import Settings, pass_settings, root


@root.command()
@click.option("--markdown", is_flag=True, help="the table of docs/methods.md")
@pass_settings
def methods(settings: Settings, markdown: bool) -> None:
    """List the methods.

    Adversarial training and distillation: what each minimises, what it costs, when to use it. A method is named in
    params.yaml as `teacher.objective.name`, `student.objective.name` or `control.objective.name`.

    \b
      robustdistill methods
      robustdistill methods --json
    """
    from robustdistill.objectives import catalogue

    rows = catalogue.methods()
    text = catalogue.markdown(rows) if markdown else "\n".join(catalogue.paragraph(row) for row in rows)
    settings.answer([row._asdict() for row in rows], text.rstrip())
