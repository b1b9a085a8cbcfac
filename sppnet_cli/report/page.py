"""The page: its sections in order, written as one HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sppnet_cli import __version__
from sppnet_cli.atomic import write_text
from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.detection.detector_files import DETECTOR_FILE, read_description
from sppnet_cli.errors import DataError
from sppnet_cli.inventory import Run, read_run
from sppnet_cli.report import classes, own
from sppnet_cli.report import detections as detecting
from sppnet_cli.report.beside import tables
from sppnet_cli.report.detections import Detections
from sppnet_cli.report.figures import figure_2, figure_6
from sppnet_cli.report.made import made_of_results, made_of_run, runs_behind
from sppnet_cli.report.missing import missing
from sppnet_cli.report.outcomes import detectors_at_work
from sppnet_cli.report.results import Results, read_results
from sppnet_cli.report.section import Section
from sppnet_cli.report.times import times
from sppnet_cli.report.training import training
from sppnet_cli.report.verdicts import verdicts
from sppnet_cli.stages.evaluate_network import validation_folder
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.tables.paper import published, unit
from sppnet_cli.tables.render import format_number

PAGE = "report.html"
_REPORT = "report"  # folder of a detector of `sppnet train`
_HIGHLIGHTS = (
    ("ftfc7 bb", "spp_5scale", "mAP of SPP-net at five scales", "%"),
    ("ftfc7 bb", "rcnn", "mAP of R-CNN", "%"),
    ("speedup vs R-CNN", "spp_1scale", "SPP-net at one scale, times faster than R-CNN", "x"),
)  # of Table 6
_TEMPLATES = Path(__file__).with_name("templates")


def write_results_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a folder of results, which `sppnet reproduce` made, to `out` or into it; returns its path.

    Raises `DataError` where no table was measured or one is broken, `SppnetError` where the page cannot be written.
    """
    return _write(out or folder / PAGE, **_of_results(read_results(folder)))


def write_run_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a run directory, to `out` or into it; returns its path.

    Raises `DataError` where `folder` is no run, `SppnetError` where the page cannot be written.
    """
    return _write(out or folder / PAGE, **_of_run(read_run(folder)))


def _of_results(results: Results) -> dict[str, Any]:
    claimed, claims = verdicts(results)
    runs = list(results.runs.values())
    shown = detecting.of_seed(runs, results.seed)
    trained = training(runs, results.seed, results.command("convergence"))
    sections = [
        claimed,
        tables(results),
        times(results, claims),
        *_of_detections(
            shown, classes.of_record(results.records.get("table6", {})), f"Of seed {results.seed}."
        ),
        trained,
        _figure_2(runs, shown),
        made_of_results(results),
        missing(results, trained is not None),
    ]
    profile = PROFILES.get(results.profile)
    return {
        "title": f"SPP-net reproduced: {results.profile}",
        "about": f"{profile.about[0].upper()}{profile.about[1:]}." if profile else "",
        "sections": [each for each in sections if each],
        "highlights": _highlights(results),
    }


def _of_run(run: Run) -> dict[str, Any]:
    behind = runs_behind(run)
    sections: list[Section | None] = []
    about = ""
    if run.stage == "detect":
        shown = detecting.read(run)
        about = f"Detections by {shown.name}."
        sections += [*_of_detections([shown], {}), *own.of_detections(shown)]
    elif (run.folder / DETECTOR_FILE).is_file():
        described = read_description(run.folder)
        names = ", ".join(described.class_names)
        about = f"A detector of {len(described.class_names)} classes: {names}."
        report = run.folder / _REPORT
        if (report / "ap.csv").is_file():
            sections += [
                own.contact_sheet(report),
                classes.classes(*classes.of_report(report, "this detector")),
                *own.of_report(report),
            ]
    sections += [training(behind, None, None), _figure_2(behind, []), made_of_run(run)]
    return {
        "title": run.folder.name,
        "about": about,
        "sections": [each for each in sections if each],
        "highlights": [],
    }


def _of_detections(shown: Sequence[Detections], aps: classes.Aps, about: str = "") -> list[Section | None]:
    """Classes, detectors at work and Figure 6; `aps` are known already, `about` says of what."""
    if not shown and not aps:
        return []
    furthest = detecting.furthest(shown)
    measured, curves = classes.of_detections(furthest)
    aps = aps or measured
    means = {name: classes.mean(of) for name, of in aps.items()}
    best = max(furthest, key=lambda each: means.get(each.name) or 0, default=None)
    return [
        classes.classes(aps, curves, about),
        detectors_at_work(shown, means),
        figure_6(best) if best else None,
    ]


def _figure_2(runs: Sequence[Run], shown: Sequence[Detections]) -> Section | None:
    """Of a network that was pre-trained, else of one with published weights, in the test images or its own."""
    networks = [run for run in runs if run.stage in ("pretrain", "backbone", "import-weights")]
    if not networks:
        return None
    network = max(networks, key=lambda run: (bool(run.manifest["config"].get("levels")), -runs.index(run)))
    if shown:
        dataset = shown[0].dataset
        return figure_2(network.folder, [dataset.image_path(image_id) for image_id in dataset.ids])
    data = network.manifest["sources"].get("data")
    try:
        images = load_image_folder(validation_folder(Path(data))).paths if data else ()
    except DataError:
        return None
    return figure_2(network.folder, images) if images else None


def _highlights(results: Results) -> list[dict[str, str]]:
    """The few numbers that one looks for first, each with the paper's."""
    values = results.records.get("table6", {}).get("values", {})
    theirs = published(6).to_dict()
    found = []
    for row, column, name, sign in _HIGHLIGHTS:
        value = values.get(row, {}).get(column)
        if value is not None:
            ours = 100 * value if unit(row) == "percent" else value
            numbers = (format_number(of, row, 1) + sign for of in (ours, theirs[column][row]))
            found.append(dict(zip(("value", "paper"), numbers, strict=True)) | {"name": name})
    return found


def _write(path: Path, **content: Any) -> Path:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template("page.html").render(version=__version__, **content))
    return path
