"""Stage: an export of a labelling tool as a VOC set."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.imports.importing import import_export

SET = "VOCdevkit"  # the set inside the stage's folder


@dataclass(frozen=True)
class ImportConfig:
    """`sppnet data import`."""

    test: float  # part of the images that is held out, where the export has no split
    seed: int


def import_set(config: ImportConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """`VOCdevkit/VOC2007` with links to the images of the input `export`; errors as of `import_export`."""
    import_export(inputs["export"], folder / SET, test=config.test, seed=config.seed)


def import_set_cost() -> Cost:
    """Seconds: images are linked, and of each only the header is read."""
    return Cost(5.0, {f"{SET}/": 1_000_000})
