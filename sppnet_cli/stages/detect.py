"""Stage: detections of a VOC split by a detector."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sppnet_cli.console import track, warn
from sppnet_cli.detection.detector import Detection, Detector
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.network.weights import WEIGHTS_FILE
from sppnet_cli.runs import fingerprint, run_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs, window_source

DETECTIONS_FILE = "detections.csv"
COLUMNS = ("image", "class", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class DetectConfig:
    """`sppnet detect` on a dataset."""

    windows: WindowConfig


def detect_stage(
    config: DetectConfig, detector: Path, inputs: WindowInputs, out: Path, *, device: str
) -> Path:
    """`detections.csv`: a row per detection; boxes in 0-based inclusive pixels of the original image.

    An image that cannot be read is warned of, counted in `skipped.csv` and left out.
    """
    sources = inputs.fingerprints() | {"detector": fingerprint(detector)}

    def build(folder: Path) -> None:
        model = Detector.load(detector, device, config.windows.scales or None)
        source = window_source(
            config.windows,
            inputs,
            model.extractor,
            fingerprint(detector / WEIGHTS_FILE),
            device=device,
            truth=False,
        )
        if source.dataset.class_names != model.class_names:
            raise UsageError(
                f"{detector}: detects {', '.join(model.class_names[:3])}, ..., which are not the classes of "
                f"{source.dataset.root}"
            )
        frames, skipped = [], []
        for index in track(range(len(source)), f"detecting with {model.layer.name}"):
            image_id = source.dataset.ids[index]
            try:
                windows = source.windows(index)
                found = model.detect_pooled(source.pooled(index), windows.boxes, windows.size)
            except DataError as error:
                warn(f"skipped: {error}")
                skipped.append((image_id, str(error)))
                continue
            frames.append(as_frame(image_id, found, model.class_names))
        if len(skipped) == len(source):
            raise DataError(f"{source.dataset.root}: none of its {len(source)} images could be read")
        if skipped:
            warn(f"{len(skipped)} of {len(source)} images were skipped")
            pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(folder / "skipped.csv", index=False)
        pd.concat(frames).to_csv(folder / DETECTIONS_FILE, index=False, lineterminator="\n")

    return run_stage(out, "detect", config, sources, build)


def as_frame(image: str, detections: list[Detection], class_names: tuple[str, ...]) -> pd.DataFrame:
    """Detections of one image as rows of `COLUMNS`."""
    rows = [(image, class_names[d.label], d.score, *d.box) for d in detections]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"image": str, "class": str, **dict.fromkeys(COLUMNS[2:], float)})
