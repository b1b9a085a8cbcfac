"""Stage: the authors' precomputed windows in place of a search of our own."""

import csv
from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.mat_boxes import load_mat_boxes
from sppnet_cli.data.proposals import write_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.files import visible
from sppnet_cli.runs import fingerprint, run_stage


@dataclass(frozen=True)
class ImportBoxesConfig:
    """`--proposals FILE.mat`."""

    split: str
    limit: int | None = None  # images


def find_mat(given: Path, split: str) -> Path | None:
    """The file of a split's windows: `given` itself, or `*_<split>.mat` in that folder; None where it is neither.

    Raises `DataError` for a folder that holds such files, but not one of this split.
    """
    if given.suffix == ".mat":
        return given
    if not given.is_dir() or not (files := visible(given, "*.mat")):
        return None
    found = [path for path in files if path.stem.endswith(f"_{split}")]
    if len(found) != 1:
        raise DataError(
            f"{given}: {len(found)} files are called *_{split}.mat; it must hold one, as voc_2007_{split}.mat"
        )
    return found[0]


def import_boxes_stage(config: ImportBoxesConfig, mat: Path, data: Path, out: Path) -> Path:
    """The windows of a split's images from a `.mat` file as a run of proposals (see `propose_stage`), in their order.

    Raises `DataError` where the file lacks an image of the split.
    """
    dataset = load_voc(data, config.split, config.limit)
    if not mat.is_file():
        raise DataError(f"{mat}: no such file of proposals; check --proposals")

    def build(folder: Path) -> None:
        boxes = load_mat_boxes(mat)
        missing = [image_id for image_id in dataset.ids if image_id not in boxes]
        if missing:
            raise DataError(
                f"{mat}: has no windows of {missing[0]} and {len(missing) - 1} more images of {config.split}; give the "
                "file of that split, or the folder that holds voc_2007_trainval.mat and voc_2007_test.mat"
            )
        (folder / "boxes").mkdir(exist_ok=True)
        for image_id in dataset.ids:
            write_boxes(folder / "boxes" / f"{image_id}.npy", boxes[image_id])
        with atomic_path(folder / "index.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image", "windows"))
            writer.writerows((image_id, len(boxes[image_id])) for image_id in dataset.ids)

    inputs = {"data": fingerprint(dataset.root), "mat": fingerprint(mat)}
    return run_stage(out, "propose", config, inputs, build)
