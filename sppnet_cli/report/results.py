"""What `sppnet reproduce` left in a folder of results: the records of its tables, and the runs behind them."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sppnet_cli.errors import DataError
from sppnet_cli.inventory import Run, read_run
from sppnet_cli.records import read_json
from sppnet_cli.runs import is_run
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.tables.paper import LAYOUTS

SMALL = {
    "architectures": ("Four architectures, of the journal edition", "journal"),
    "corners": ("Corners of the entire image or of its central square", "paper"),
    "views": ("96 views on feature maps, of the journal edition", "journal"),
    "scale": ("The scale of whole images", "paper"),
    "warp": ("Whole images or warped ones, of the journal edition", "journal"),
    "scale_pooling": ("A window pooled over all scales or at one", "paper"),
    "fc_size": ("Smaller fc layers", "paper"),
    "complexity": ("The work of the convolutional layers", "paper"),
}
"""Tables that the paper does not number: their titles, and whose the published numbers are."""

NUMBERED = {f"table{number}": number for number in LAYOUTS}
NAMES = (*NUMBERED, *SMALL, "convergence")
REMEDY = "not a table that sppnet wrote; measure it again"
_FLAGS = ("-q", "--quiet", "-v", "--verbose", "--json", "--remake", "--dry-run")


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Attributes:
        folder: where the tables are.
        records: the JSON of each table that was measured, by the name of its experiment, in the order of `NAMES`.
    """

    folder: Path
    records: dict[str, dict[str, Any]]

    @property
    def first(self) -> dict[str, Any]:
        """The record of the first table."""
        return next(iter(self.records.values()))

    @property
    def profile(self) -> str:
        """The profile that the tables were measured with."""
        return str(self.first["profile"])

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The runs behind the tables that are still there, by the paths that the records name."""
        found: dict[str, Run] = {}
        for record in self.records.values():
            for name in record["runs"]:
                # Relative to the folder of the call, which may have been the one above the results.
                places = [Path(name), self.folder.absolute().parents[1] / name]
                place = next(filter(is_run, places), None)
                if name not in found and place is not None:
                    found[name] = read_run(place)
        return found

    @property
    def seed(self) -> int:
        """The first of the seeds, whose detectors and networks are shown."""
        return int(self.first["seeds"][0])

    def command(self, name: str, *options: str) -> str:
        """The command that measures `name` as the tables here were measured."""
        return remeasure(str(self.first["command"]), self.profile, name, options)


def has_tables(folder: Path) -> bool:
    """Whether a table was measured that the page shows."""
    return any((folder / f"{name}.json").is_file() for name in NAMES)


def read_results(folder: Path) -> Results:
    """The tables in a folder.  Raises `DataError` where there is none, or where one is broken."""
    records = {}
    for name in NAMES:
        path = folder / f"{name}.json"
        if path.is_file():
            record = read_json(path, REMEDY)
            wanted = ("profile", "seeds", "command", "runs", "values", "notes")
            if not isinstance(record, dict) or not all(key in record for key in wanted):
                raise DataError(f"{path}: {REMEDY}")
            records[name] = record
    if not records:
        measure = "sppnet reproduce table6" + (f" --profile {folder.name}" if folder.name in PROFILES else "")
        raise DataError(f"{folder}: no tables there; measure one first: {measure}")
    return Results(folder, records)


def remeasure(command: str, profile: str, name: str, options: tuple[str, ...] = ()) -> str:
    """A `sppnet reproduce` command for another table, with the options of `command`; of a command that is none, the profile's."""
    words = shlex.split(command)
    if "reproduce" not in words:
        words = ["sppnet", "reproduce", "--profile", profile]
    start = words.index("reproduce") + 1
    given = [word for word in words[start:] if word not in (*NAMES, "claims", "all", *_FLAGS)]
    for option in options[:1]:
        if option in given:  # its value, too
            at = given.index(option)
            del given[at : at + 2]
    return shlex.join([*words[:start], name, *given, *options])
