"""Table 6: detection on VOC 2007 by SPP-net at one and five scales, and by R-CNN on the same weights.

    make reproduce-table6        (python -m experiments.table6 --profile mini)

Rows: mAP of SVMs on pool5, fc6, fine-tuned fc6 and fc7, and after box regression; then the time per image of the
convolutional and the fully connected layers, and the speed-up over R-CNN.  The three columns share the network
(e3 of Table 1: SPP-net6, single-size), the windows, the SVM and regression code, and the machine.

Cost: `mini` 18 minutes on two CPU cores and 2.2 GB of disk; `paper` two weeks of pre-training on the GPU of
its time, then about a day.
"""

import numpy as np
from numpy.typing import NDArray

from experiments.detection import columns, detectors, measured_on, note_rcnn, score_of, steps
from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.data.proposals import image_seed, read_boxes, top_up
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.evaluation.outcomes import SecondsOutcome
from sppnet_cli.evaluation.timing import FeatureTime, time_extractors
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace

PARTS = ("conv", "fc", "total")  # of the time of an image


def table6(ws: Workspace) -> Measured:
    """mAPs and times of one seed."""
    measured = measured_on(ws)
    aps: dict[str, dict[str, object]] = {}
    for column, layer in detectors(ws):
        score = score_of(ws, column, layer)
        measured.outcomes[layer, column] = score.outcome
        aps.setdefault(column, {})[layer] = score.as_dict()["AP"]

    times = time_columns(ws)
    for column, of_images in times.items():
        for part in PARTS:
            seconds = np.array([getattr(time, part) for time in of_images])
            measured.outcomes[f"{part} time (s)", column] = SecondsOutcome(seconds)
    total = {column: measured.outcomes["total time (s)", column].value() for column in times}
    for column in ("spp_1scale", "spp_5scale"):
        measured.values["speedup vs R-CNN", column] = total["rcnn"] / total[column]

    preparation = {
        column: float(np.mean([time.preparation for time in own])) for column, own in times.items()
    }
    n_images = len(times["rcnn"])
    measured.more |= {
        "timing": {
            "images": n_images,
            "windows": ws.profile.timing_windows,
            "preparation_seconds": preparation,
        },
        "AP": aps,
    }
    measured.notes += [
        f"Times: mean of {n_images} images with {ws.profile.timing_windows} windows each, the same for every column "
        "(selective search's, topped up with random windows where it finds fewer); total = conv + fc. Beside them, "
        "in neither: "
        + ", ".join(f"{mean:.3g} s to prepare the input of {column}" for column, mean in preparation.items())
        + ", proposals, SVM scoring and NMS.",
        "R-CNN is measured here on the same weights, windows and machine; the published column is AlexNet's.",
    ]
    note_rcnn(measured, ws)
    return measured


def timed_windows(ws: Workspace) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Random test images, and of each the windows to be timed with."""
    dataset = load_voc(ws.voc_data(), "test", ws.detection_limit("test"))
    rng = np.random.default_rng(ws.seed)
    ids = [dataset.ids[i] for i in np.sort(rng.permutation(len(dataset))[: ws.profile.timing_images])]
    images = [dataset.image(image_id) for image_id in ids]
    boxes = [
        top_up(
            read_boxes(ws.proposals("test") / "boxes" / f"{image_id}.npy"),
            ws.profile.timing_windows,
            image.shape[:2],
            image_seed(ws.seed, image_id),
        )
        for image_id, image in zip(ids, images, strict=True)
    ]
    return images, boxes


def time_columns(ws: Workspace) -> dict[str, list[FeatureTime]]:
    """Feature times of the columns, each with exactly the same windows."""
    extractors = {}
    for column, (method, scales) in columns(ws).items():
        # Weights do not change the time: without its own fine-tuning, R-CNN is timed with SPP-net's fc layers.
        own = method == "spp" or ws.measures_rcnn()
        source = (method, scales) if own else columns(ws)["spp_1scale"]
        detector = Detector.load(ws.detector(*source, "ftfc7"), ws.device)
        extractors[column] = (ws.extractor(method, scales), detector.layer)
    return time_extractors(extractors, *timed_windows(ws))


def plan(ws: Workspace) -> list[Step]:
    """The stages of all columns."""
    return steps(ws, detectors(ws))


command = experiment(6, (__doc__ or "").split("\n")[0], table6, plan, detection=True)

if __name__ == "__main__":
    run(command)
