"""What was run: commands, data, seeds, machine, code, and the time of each stage."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sppnet_cli.inventory import Run, as_text, read_run
from sppnet_cli.provenance import code_name
from sppnet_cli.report.results import Results
from sppnet_cli.report.section import Section
from sppnet_cli.runs import is_run
from sppnet_cli.stages.profiles import PROFILES

_STAGES = {
    "data": "making the embedded data",
    "import": "importing the data",
    "backbone": "taking a network's published weights",
    "import-weights": "importing a network's weights",
    "pretrain": "pre-training networks",
    "evaluate": "classifying the validation images",
    "propose": "proposing windows",
    "folds": "dealing images into folds",
    "finetune": "fine-tuning the fc layers",
    "finetune-all": "fine-tuning all layers",
    "train-svm": "training SVMs on hard negatives",
    "train-bbox": "training box regression",
    "calibrate": "calibrating a detector",
    "detect": "detecting in the test images",
    "detect-photos": "detecting in photographs",
    "time": "timing the features",
    "extract-features": "extracting features of whole images",
    "train-svm-images": "training SVMs on whole images",
}


def made_of_results(results: Results) -> Section:
    """What was run for all tables together."""
    records = list(results.records.values())
    behind = {name: about for record in records for name, about in record["runs"].items()}
    profile = PROFILES.get(results.profile)
    facts: list[tuple[str, Sequence[str]]] = [
        ("profile", [f"{results.profile}: {profile.about}" if profile else results.profile]),
        ("architecture", _each(record.get("arch") for record in records)),
        ("seeds of the networks", _each(", ".join(map(str, record["seeds"])) for record in records)),
        ("images", _each(map(_images, records))),
        ("data", _each(path for record in records for path in record.get("data", ()))),
        ("machine", _each(map(_machine, (*records, *behind.values())))),
        ("code of the tables", _each(map(code_name, records))),
        ("code of the runs", _each(map(code_name, behind.values()))),
        ("versions", _each(map(_versions, records))),
        ("dates", _span(record.get("date", "") for record in records)),
    ]
    return _section(
        _each(record["command"] for record in records),
        facts,
        ((about.get("stage", ""), float(about.get("seconds") or 0)) for about in behind.values()),
    )


def made_of_run(run: Run) -> Section:
    """What was run for one run directory and for all that it was made from, as far as that is still there."""
    behind = runs_behind(run)
    manifest = run.manifest
    facts: list[tuple[str, Sequence[str]]] = [
        ("stage", [f"{run.stage}: {_STAGES.get(run.stage, run.stage)}"]),
        ("folder", [str(run.folder)]),
        ("data", _each(each.manifest["sources"].get("data") for each in behind)),
        ("machine", _each(_machine(each.manifest) for each in behind)),
        ("code", _each(code_name(each.manifest) for each in behind)),
        ("versions", [_versions(manifest)]),
        ("dates", _span(each.manifest["date"] for each in behind)),
        ("settings", [f"{name} = {value}" for name, value in _settings(manifest["config"])]),
    ]
    return _section(
        _each(each.manifest["command"] for each in behind),
        facts,
        ((each.stage, float(each.manifest["seconds"])) for each in behind),
    )


def runs_behind(run: Run) -> list[Run]:
    """The run and all that it was made from, each once, as far as they are still there."""
    found: dict[Path, Run] = {}

    def visit(each: Run) -> None:
        if each.folder in found:
            return
        found[each.folder] = each
        for source in map(Path, each.manifest["sources"].values()):
            # An input may be a folder inside of a run, such as the VOC layout of the embedded data.
            place = next((path for path in (source, *source.parents[:2]) if is_run(path)), None)
            if place is not None:
                visit(read_run(place))

    visit(run)
    return list(found.values())


def _section(
    commands: Sequence[str], facts: Iterable[tuple[str, Sequence[str]]], times: Iterable[tuple[str, float]]
) -> Section:
    seconds: dict[str, float] = {}
    count: Counter[str] = Counter()
    for stage, taken in times:
        seconds[stage] = seconds.get(stage, 0.0) + taken
        count[stage] += 1
    most = max(seconds.values(), default=1) or 1
    stages = [
        {
            "name": _STAGES.get(stage, stage),
            "count": count[stage],
            "time": duration(taken),
            "share": 100 * taken / most,
        }
        for stage, taken in sorted(seconds.items(), key=lambda each: -each[1])
    ]
    data = {
        "commands": commands,
        "facts": [(name, values) for name, values in facts if values],
        "stages": stages,
        "runs": sum(count.values()),
        "total": duration(sum(seconds.values())),
    }
    return Section(
        "run",
        "What was run",
        "What you would have to type, on what, to get these numbers again, and where the time goes.",
        "made.html",
        data,
    )


def duration(seconds: float) -> str:
    """`0.4 s`, `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _each(values: Iterable[Any]) -> list[str]:
    """Each different value once."""
    return list(dict.fromkeys(str(value) for value in values if value))


def _images(record: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} of {split}" for split, count in record.get("images", {}).items())
    return f"{counts}; the first {record['limit']} of each set" if record.get("limit") else counts


def _machine(about: Mapping[str, Any]) -> str:
    machine = about.get("machine") or {}
    return ", ".join(str(machine[name]) for name in ("processor", "gpu", "system") if machine.get(name))


def _versions(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in about.get("environment", {}).items() if value)


def _span(dates: Iterable[str]) -> list[str]:
    known = sorted(date[:10] for date in dates if date)
    return [known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"] if known else []


def _settings(config: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{name}.")
        else:
            yield before + name, as_text(value)
