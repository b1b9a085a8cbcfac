"""Makes the stages that a command asks for, or prints them for `--dry-run`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.chain import behind
from sppnet_cli.cli.options import clock

if TYPE_CHECKING:
    from sppnet_cli.chain import Stage
    from sppnet_cli.stages.workspace import Workspace


def make(ws: "Workspace", *stages: "Stage") -> Path:
    """Make stages and return the first one's folder; a message first names what they need and lack."""
    asked = {stage.folder for stage in stages}
    before = [stage for stage in ws.plan(*stages).to_make if stage.folder not in asked]
    if before:
        names = ", ".join(dict.fromkeys(stage.name for stage in before))
        about = clock(ws.expected_seconds(before))
        console.status(f"making first what is missing: {names}, about {about}")
    ws.make(*stages)
    return stages[0].folder


def make_or_show(ws: "Workspace", stage: "Stage", dry_run: bool, as_json: bool) -> Path | None:
    """Make a stage and return its folder; for `--dry-run` print what would be made and return None."""
    if dry_run:
        show(ws, [stage], as_json)
        return None
    return make(ws, stage)


def show(
    ws: "Workspace",
    stages: "Sequence[Stage]",
    as_json: bool,
    writes: Sequence[Path] = (),
) -> None:
    """Print what `--dry-run` reports: the folders and files to be made, their size and about how long it takes.

    `writes` are files outside the run directories; `--json` also has `chain`, every folder that the result follows from.
    With `-v` the config of every stage is printed too.
    """
    plan = ws.plan(*stages)
    ready = [stage for stage in plan.used if stage in stages]
    steps: list[dict[str, Any]] = [
        {
            "step": stage.name,
            "out": str(stage.folder),
            "files": (cost := stage.cost()).files,
            "seconds": cost.seconds,
            "ready": stage in ready,
            "config": dataclasses.asdict(stage.config),
        }
        for stage in (*plan.to_make, *ready)
    ]
    seconds = sum(step["seconds"] for step in steps if not step["ready"])
    if as_json:
        result = {
            "config": dataclasses.asdict(ws),
            "steps": steps,
            "writes": [str(path) for path in writes],
            "chain": [str(stage.folder) for stage in behind(stages)],
            "seconds": seconds,
        }
        click.echo(json.dumps(result, default=str))
        return
    rows = [
        (
            step["step"],
            step["out"],
            f"{sum(step['files'].values()) / 1e6:.1f}",
            "ready" if step["ready"] else f"{step['seconds']:.0f}",
        )
        for step in steps
    ]
    if rows:
        console.table("Would make", ["stage", "folder", "MB", "seconds, about"], rows)
    if console.is_verbose():
        for step in steps:
            console.table(
                f"{step['out']}: {', '.join(step['files'])}", ["name", "value"], _flat(step["config"])
            )
    for path in writes:
        click.echo(f"Would write {path}")
    if rows:
        click.echo(f"About {clock(seconds)} of one processor core on this machine.  Nothing was done.")


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            rows.append((prefix + name, str(value)))
    return rows
