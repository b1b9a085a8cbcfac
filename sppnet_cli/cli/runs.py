"""`sppnet runs`."""

import contextlib
import io
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, json_option, option, say
from sppnet_cli.errors import SppnetError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.inventory import Run

_PROGRAM = "sppnet"


@click.group("runs", short_help="List, compare and delete runs.", invoke_without_command=True)
@option("--runs", "root", type=PATH, default=Path("runs"), help="Where run directories lie.")
@json_option
@click.pass_context
def command(context: click.Context, root: Path, as_json: bool) -> None:
    """List the runs: what differs from the defaults, mAP where there is one, age, size, whether other code made it.

    \b
      sppnet runs
      sppnet runs diff runs/mini/network-A runs/mini/network-B
      sppnet runs prune --caches --unfinished --stale
    """
    if context.invoked_subcommand is not None:
        context.obj = root
        return
    from sppnet_cli.inventory import caches, find_runs, folder_size, unfinished

    console.configure(json=as_json)
    found = [_about(run) for run in find_runs(root)]
    others: list[dict[str, Any]] = [
        {"run": each.folder, "why": each.why, "bytes": folder_size(each.folder)}
        for each in (*caches(root), *unfinished(root))
    ]
    rows = [
        (
            about["run"],
            about["stage"],
            ", ".join(f"{name} {value}" for name, value in about["differs"].items()),
            "" if about["mAP"] is None else f"{100 * about['mAP']:.2f}",
            _age(about["date"]),
            _size(about["bytes"]),
            "other" if about["other_code"] else "",
        )
        for about in found
    ]
    columns = ["run", "stage", "differs from the defaults", "mAP", "age", "size", "code"]
    console.table(f"Runs in {root}", columns, rows, fold="differs from the defaults")
    lines = [f"{each['run']}: {each['why']}, {_size(each['bytes'])}" for each in others]
    total = sum(each["bytes"] for each in (*found, *others))
    say(
        as_json,
        {"runs": found, "others": others, "bytes": total},
        *lines,
        f"{_size(total)} in all; `sppnet runs prune --help` says what can go",
    )


@command.command("diff", short_help="What differs between two runs.")
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Say what differs between the runs A and B: settings, inputs, code, versions, machine."""
    from sppnet_cli.inventory import compare, read_run

    console.configure(json=as_json)
    rows = compare(read_run(first), read_run(second))
    if rows:
        console.table("Differences", ["name", str(first), str(second)], rows)
    result = {name: {"A": before, "B": now} for name, before, now in rows}
    say(as_json, {"differences": result}, *([] if rows else ["nothing differs"]))


@command.command("prune", short_help="Delete caches, unfinished or stale runs.")
@click.option(
    "--caches", "of_caches", is_flag=True, help="Feature maps, which are computed again when needed."
)
@click.option("--unfinished", "of_unfinished", is_flag=True, help="What calls that were cut off left.")
@click.option(
    "--stale",
    "of_stale",
    is_flag=True,
    help="Runs in whose place their own command would make another today.",
)
@click.option("--runs", "given", type=PATH, help="Where run directories lie.  [default: runs]")
@click.option("--yes", is_flag=True, help="Delete; without it, only say what would go.")
@json_option
@click.pass_obj
def prune(
    root: Path,
    *,
    of_caches: bool,
    of_unfinished: bool,
    of_stale: bool,
    given: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Say what would be deleted and how large it is, and with --yes delete it.

    A run is stale where the command that made it, given again today, would make another one: the code or a profile
    has changed since.  Where that cannot be told (another machine, data that are gone), the run stays.
    """
    from sppnet_cli.inventory import caches, delete, find_runs, folder_size, require_idle, stale, unfinished

    console.configure(json=as_json)
    root = given or root
    if not (of_caches or of_unfinished or of_stale):
        raise UsageError("say what may go: --caches, --unfinished or --stale, or several of them")
    require_idle(root)
    found = caches(root) if of_caches else []
    found += unfinished(root) if of_unfinished else []
    if of_stale:
        all_runs = find_runs(root)
        found += stale(all_runs, _named_today(all_runs))
    sizes = [folder_size(each.folder) for each in found]
    if found:
        title = "Deleted" if yes else "Would be deleted"
        rows = [(each.folder, each.why, _size(size)) for each, size in zip(found, sizes, strict=True)]
        if yes:
            delete(found)
        console.table(title, ["folder", "why", "size"], rows)
    entries = [
        {"run": each.folder, "why": each.why, "bytes": size} for each, size in zip(found, sizes, strict=True)
    ]
    last = f"{_size(sum(sizes))} " + ("deleted" if yes else "would go: nothing was deleted, --yes deletes")
    say(
        as_json,
        {"deleted": yes, "folders": entries, "bytes": sum(sizes)},
        last if found else "nothing to delete",
    )


def _about(run: "Run") -> dict[str, Any]:
    """A run as `--json` lists it."""
    from sppnet_cli.inventory import as_text, folder_size

    return {
        "run": run.folder,
        "stage": run.stage,
        "differs": {name: as_text(value) for name, value in _from_defaults(run)},
        "mAP": _mean_ap(run),
        "date": run.date and run.date.isoformat(),
        "bytes": folder_size(run.folder),
        "other_code": run.other_code,
        "command": run.manifest.get("command"),
    }


def _from_defaults(run: "Run") -> list[tuple[str, Any]]:
    """The settings in which a run differs from the nearest config that its profile makes by default."""
    from sppnet_cli.stages.defaults import default_configs

    configs = default_configs(run.folder.parent.name).get(run.stage, [])
    every = [[(name, value) for name, _, value in run.differences(config)] for config in configs]
    return min(every, key=len, default=[])


def _mean_ap(run: "Run") -> float | None:
    """The mAP of detections of a data set, if that is still there."""
    from sppnet_cli.stages.score_detections import evaluate_detections

    data = run.manifest.get("sources", {}).get("data")
    if run.stage != "detect" or data is None:
        return None
    config = run.manifest["config"]
    try:
        score = evaluate_detections(run.folder, Path(data), config["split"], config["limit"])
    except (SppnetError, KeyError):
        return None
    found: float | None = score.as_dict()["mAP"]
    return found


def _named_today(found: Sequence["Run"]) -> dict[str, set[Path] | None]:
    """By each command that made runs, the folders that it names today; None where that cannot be told."""
    from sppnet_cli.provenance import machine

    here = machine()
    commands = {
        str(run.manifest.get("command"))
        for run in found
        if all(run.manifest.get("machine", {}).get(name) == here[name] for name in ("processor", "gpu"))
    }
    return {text: _dry_run(text) for text in sorted(commands)}


def _dry_run(text: str) -> set[Path] | None:
    """The folders that a command names; None where it is none of ours or does not run today."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if _PROGRAM not in words or "--" in words:  # behind which no option counts, --dry-run neither
        return None
    start = words.index(_PROGRAM)
    variables = dict(word.partition("=")[::2] for word in words[:start])
    if not all(name.startswith("SPPNET_") for name in variables):
        return None
    settings = console.settings()
    with _environment(variables), contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            app = click.get_current_context().find_root().command
            app.main([*words[start + 1 :], "--dry-run", "--json", "-q"], _PROGRAM, standalone_mode=False)
            return {Path(folder) for folder in json.loads(output.getvalue())["chain"]}
        except (SppnetError, click.ClickException, ValueError, KeyError, OSError):
            return None
        finally:
            console.restore(settings, None)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """These `SPPNET_*` variables and no other."""
    before = {name: value for name, value in os.environ.items() if name.startswith("SPPNET_")}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def _age(date: str | None) -> str:
    if date is None:
        return ""
    past = datetime.now(UTC) - datetime.fromisoformat(date)
    hours = past / timedelta(hours=1)
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{past.days} days"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
