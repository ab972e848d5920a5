"""What a person sees in a terminal: progress while stages run, tables when they are done. All but answers
goes to stderr, so that `--json` leaves stdout clean."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from robustdistill.actions.summary import ModelRow, Summary
from robustdistill.errors import OutOfTime
from robustdistill.journal import fraction
from robustdistill.threat import ThreatModel

LOG_WIDTH = 160  # of tables in a log
PLAIN_SECONDS = 10.0  # away from a terminal, at most one progress line a stage in this time

MARKS = {
    "pass": "[green]✔ pass[/]",
    "fail": "[red]✘ fail[/]",
    "waived": "[yellow]~ waived[/]",
    "informs": "[cyan]i informs[/]",
    "not_applicable": "[dim]–[/]",
}


def console(*, quiet: bool = False) -> Console:
    return _wide(Console(stderr=True, quiet=quiet, highlight=False))


def answers() -> Console:
    """Where answers go: stdout, wide enough in a file or a pipe."""
    return _wide(Console(highlight=False))


def _wide(out: Console) -> Console:
    """A file or a pipe has no width of its own: COLUMNS gives it one, else it is LOG_WIDTH."""
    if not out.is_terminal:
        asked = os.environ.get("COLUMNS", "")
        out.width = int(asked) if asked.isdecimal() and int(asked) > 0 else LOG_WIDTH
    return out


def describe(record: Mapping[str, Any]) -> str:
    """One journal event as a short text, such as `epoch 3/12 · loss 0.71 · val_pgd 0.62`."""
    match record["event"]:
        case "epoch":
            keys = ("loss", "val_clean", "val_pgd")
            figures = [f"{key} {record[key]:.3f}" for key in keys if isinstance(record.get(key), int | float)]
            return " · ".join([f"epoch {record.get('epoch')}", *figures])
        case "attack":
            robust = record.get("robust")
            held = f" · {robust} still robust" if robust is not None else ""
            return f"{record.get('name')} {record.get('done')}/{record.get('total')} images{_asked(record)}{held}"
        case "progress":
            return f"{record.get('done')}/{record.get('total')} {record.get('unit', '')}"
        case "end":
            return f"done in {record.get('seconds', 0):.1f} s"
        case "failed" if record.get("kind") == OutOfTime.kind:
            return str(record["error"])
        case "alarm":
            advice = f". What helps: {record['advice']}" if record.get("advice") else ""
            return f"alarm, {record.get('kind', 'unknown')}: {record.get('message')}{advice}"
        case event:
            return str(record.get("message", event))


def _asked(record: Mapping[str, Any]) -> str:
    """How far the part of an attack is with the images in hand, where that was said."""
    if "query" not in record:
        return ""
    part = f"{record['part']} " if record.get("part") else ""
    return f" · {part}query {record['query']} of at most {record['queries']}"


class LiveProgress:
    """A bar for each running stage, on a terminal."""

    def __init__(self, out: Console) -> None:
        self._out = out
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(32),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=out, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def __call__(self, record: Mapping[str, Any]) -> None:
        stage, event = record["stage"], record["event"]
        if event in ("end", "failed"):
            task = self._tasks.pop(stage, None)
            if task is not None:
                self._progress.remove_task(task)
        elif event == "alarm":
            self._out.print(f"[yellow]! {escape(stage)}: {escape(describe(record))}[/]")
            return
        elif stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(escape(stage), total=1.0, note="")
        if event in ("end", "failed"):
            self._out.print(f"  {escape(stage):<16} {escape(describe(record))}")
            return
        done = fraction(record)
        note = escape(describe(record)) if event != "start" else ""
        self._progress.update(self._tasks[stage], note=note, completed=done)

    def close(self) -> None:
        self._progress.stop()


class PlainProgress:
    """Lines at a modest rate, where there is no terminal (a log, CI)."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._last: dict[str, float] = {}

    def __call__(self, record: Mapping[str, Any]) -> None:
        stage, event, now = record["stage"], record["event"], time.monotonic()
        if (
            event in ("progress", "attack", "epoch", "note")
            and now - self._last.get(stage, now - PLAIN_SECONDS) < PLAIN_SECONDS
        ):
            return
        if event == "start":
            self._last[stage] = now
            return
        self._last[stage] = now
        self._out.print(f"  {escape(stage):<16} {escape(describe(record))}", soft_wrap=True)

    def close(self) -> None:
        pass


def progress(out: Console) -> LiveProgress | PlainProgress:
    return LiveProgress(out) if out.is_terminal else PlainProgress(out)


def _percent(figure: Mapping[str, Any] | None) -> str:
    if not figure:
        return "–"
    text = f"{100 * figure['accuracy']:.1f}"
    if "lower" in figure:
        text += f" [dim]({100 * figure['lower']:.0f}–{100 * figure['upper']:.0f})[/]"
    return text


def models_table(models: list[ModelRow]) -> Table:
    """The models side by side: parameters, clean and every attack that all faced, each with its interval."""
    names = dict.fromkeys(name for model in models for name in model.attacks)
    attacks = [name for name in names if len(models) == 1 or sum(name in model.attacks for model in models) > 1]
    table = Table(title="accuracy in % (95 % interval)", title_style="dim", title_justify="left", padding=(0, 0))
    table.add_column("model", no_wrap=True, min_width=max((len(model.name) for model in models), default=0))
    for heading in ("parameters", "clean", *attacks, "worst case", "worst class"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in models:
        rows = [_percent(model.attacks.get(name)) for name in attacks]
        figures = f"{model.parameters:,}", _percent(model.clean), *rows, f"[bold]{_percent(model.robust)}[/]"
        table.add_row(model.name, *figures, _weakest(model.worst_class))
    return table


def _weakest(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    return f"{100 * found['accuracy']:.1f} [dim]({escape(str(found['class']))}, n {found['n']})[/]"


def _stages_table(summary: Summary) -> Table:
    table = Table("stage", title="stages", title_style="dim", title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for row in summary.stages:
        idle = f"not run: {escape(row.withheld)}" if row.withheld else "unchanged"
        table.add_row(row.name, f"{row.seconds:.1f}" if row.ran else "–", "run" if row.ran else f"[dim]{idle}[/]")
    return table


def _gate_table(verdict: Mapping[str, Any]) -> Table:
    table = Table("rule", "", "why", title="gate", title_style="dim", title_justify="left")
    for rule in verdict["rules"]:
        table.add_row(
            escape(rule["rule"]), MARKS.get(rule["status"], f"[dim]{rule['status']}[/]"), escape(rule["sentence"])
        )
    return table


def show(summary: Summary, out: Console) -> None:
    """The result of a flow run: stages, models, gate, registry, and where to look next."""
    if summary.stages:
        out.print(_stages_table(summary))
    if summary.models:
        out.print(models_table(summary.models))
        for model in summary.models:
            if model.name == "student" and model.around:
                out.print(f"[dim]around the student:[/] {escape(model.around)}", soft_wrap=True)
    if summary.looks:
        out.print(f"[dim]{escape(summary.looks)}[/]", soft_wrap=True)
    if summary.verdict:
        out.print(_gate_table(summary.verdict))
        gain = summary.verdict.get("gain")
        if gain:
            out.print(f"did the student gain from its teacher? [bold]{gain['answer']}[/]: {escape(gain['sentence'])}")
    colour = {"promoted": "green", "unchanged": "green"}.get(summary.outcome, "yellow")
    out.print(f"\n[bold {colour}]{summary.outcome.upper()}[/]  {escape(summary.sentence)}")
    if summary.registry:
        out.print("registry  " + escape("   ".join(summary.registry)))
    for label, text in summary.pointers:
        out.print(f"[dim]{label:<9}[/] {escape(text)}", soft_wrap=True)


def judgement(content: Mapping[str, Any], out: Console) -> None:
    """A judged model: clean, each attack with what it broke, the worst case, and what health found."""
    threat, n, clean = ThreatModel.from_json(content["threat"]), content["sample"]["n"], content["clean"]
    title = f"accuracy in % (95 % interval), {n} examples, {threat.norm} eps {threat.eps_text}"
    table = Table("attack", title=title, title_style="dim", title_justify="left")
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("broken", justify="right")
    table.add_row("none (clean)", _percent(clean), "–")
    for attack in content["attacks"]:
        broken = round(n * (clean["accuracy"] - attack["accuracy"]))
        table.add_row(escape(attack["name"]), _percent(attack), str(broken))
    table.add_row("[bold]worst case[/]", f"[bold]{_percent(content['robust'])}[/]", "")
    if weakest := content.get("worst_class", {}).get("robust"):
        table.add_row("worst class", _weakest(weakest), "")
    out.print(table)
    for attack in content["attacks"]:
        if attack["note"]:
            parts = f" ({', '.join(attack['parts'])})" if len(attack["parts"]) > 1 else ""
            out.print(f"[dim]{escape(attack['name'] + parts)}: {escape(attack['note'])}[/]", soft_wrap=True)
    for text in filter(None, (content.get("in_short"), content.get("looks", {}).get("sentence"))):
        out.print(f"[dim]{escape(text)}[/]", soft_wrap=True)
    for text in content["notes"]:
        out.print(f"[yellow]note[/]  {escape(text)}", soft_wrap=True)
    for item in content["checks"]:
        if not item["ok"]:
            mark = "[yellow]warning[/]" if item["level"] == "warning" else "[red]✘ fails[/]"
            out.print(f"{mark}  {escape(item['name'])}: {escape(item['sentence'])}", soft_wrap=True)
    if content["healthy"]:
        robust = content["robust"]
        suite = any(len(row["parts"]) > 1 for row in content["attacks"])
        interval = f"95 % {robust['lower']:.1%} to {robust['upper']:.1%}, {n} examples"
        figure = f"robust {robust['accuracy']:.1%} ({interval}{'' if suite else ', not by AutoAttack'})"
        out.print(f"[bold green]HEALTHY[/]  no check of the evaluation failed: {figure}")
    else:
        out.print("[bold red]NOT HEALTHY[/]  the evaluation cannot be trusted: it shows no robust accuracy")


def confirmation(found: Mapping[str, Any], out: Console) -> None:
    """Student and control over several seeds: each pair, and what may be said of their difference."""
    title = f"robust accuracy in %, {found['images']} test images, {found['threat']}, {found['epochs']} epochs each"
    table = Table("seed", title=title, title_style="dim", title_justify="left")
    for heading in ("control", "student", "difference", "core-s control", "core-s student"):
        table.add_column(heading, justify="right")
    for number, row in enumerate(found["seeds"], 1):
        control, student = 100 * row["control_robust"], 100 * row["student_robust"]
        seconds = (f"{row[f'{role}_core_seconds']:.0f}" for role in ("control", "student"))
        table.add_row(str(number), f"{control:.1f}", f"{student:.1f}", f"{student - control:+.1f}", *seconds)
    out.print(table)
    difference, lower, upper = (100 * found[key] for key in ("difference", "lower", "upper"))
    says = {"helps": "YES: distillation helps", "harms": "NO: distillation harms"}.get(found["says"], found["says"])
    out.print(f"[bold]{says}[/]  {difference:+.1f} points (95 % {lower:+.1f} to {upper:+.1f}, p {found['p']:.3f})")
    out.print(f"[dim]{escape(found['power'])}[/]", soft_wrap=True)
    if not found["healthy"]:
        out.print("[bold red]NOT HEALTHY[/]  an evaluation cannot be trusted: see the journal beside the result")
