"""Table 6: detection on VOC 2007 by SPP-net at one and five scales, and by R-CNN on the same weights.

    make reproduce-table6        (sppnet reproduce table6 --profile mini)

Rows: mAP of SVMs on pool5, fc6, fine-tuned fc6 and fc7, and after box regression; then the time per image of the
convolutional and the fully connected layers, and the speed-up over R-CNN.  The three columns share the network
(e3 of Table 1: SPP-net6, single-size), the windows, the SVM and regression code, and the machine.

Cost: `mini` 21 minutes on two CPU cores and 5.5 GB of disk; `paper` two weeks of pre-training on the GPU of
its time, then about a day.
"""

import numpy as np

from sppnet_cli.chain import Stage
from sppnet_cli.evaluation.outcomes import SecondsOutcome
from sppnet_cli.network.geometry import CROP, resized_size
from sppnet_cli.stages.cost import conv_flops, sizes_of
from sppnet_cli.stages.time_features import read_times
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import CONV_SPEEDUP, PRINTED_CONV_SPEEDUP, journal, printed

from .detection import about_detection, columns, detections, note_rcnn, score
from .runner import Measured, Steps, numbered

PARTS = ("conv", "fc", "total")  # of the time of an image


def table6(ws: Workspace) -> Steps:
    """mAPs and times of one seed."""
    detected = detections(ws)
    timed = times(ws)
    yield [*detected.values(), timed]

    measured = about_detection(ws)
    aps: dict[str, dict[str, object]] = {}
    for (row, column), made in detected.items():
        result = score(ws, made, f"{column} {row}")
        measured.outcomes[row, column] = result.outcome
        aps.setdefault(column, {})[row] = result.as_dict()["AP"]
    measured.more["AP"] = aps
    fill_times(ws, measured, timed)
    measured.more["arithmetic"] = ratios = arithmetic(ws)
    measured.notes.append(note_arithmetic(ratios))
    note_rcnn(measured, ws)
    return measured


def times(ws: Workspace) -> Stage:
    """The times of the columns, on the same windows.

    Weights do not change the time, so without R-CNN's mAP it is timed with SPP-net's fc layers.
    """
    sides = {}
    for column, (method, scales) in columns(ws).items():
        has_detector = column != "rcnn" or ws.measures_rcnn()
        source = (method, scales) if has_detector else columns(ws)["spp_1scale"]
        sides[column] = (ws, method, scales, ws.detector(*source, "ftfc7"))
    return ws.times(sides)


def fill_times(ws: Workspace, measured: Measured, timed: Stage) -> None:
    """The rows of seconds and speed-ups."""
    times = read_times(timed.folder)
    for column, of_images in times.items():
        for part in PARTS:
            seconds = np.array([getattr(time, part) for time in of_images])
            measured.outcomes[f"{part} time (s)", column] = SecondsOutcome(seconds)
    conv, total = (
        {column: measured.outcomes[f"{part} time (s)", column].value() for column in times}
        for part in ("conv", "total")
    )
    for column in ("spp_1scale", "spp_5scale"):
        measured.values["speedup vs R-CNN", column] = total["rcnn"] / total[column]
        measured.values[CONV_SPEEDUP, column] = conv["rcnn"] / conv[column]
    preparation = {column: float(np.mean([time.preparation for time in of])) for column, of in times.items()}
    images, windows = len(times["rcnn"]), ws.profile.timing_windows
    measured.more["timing"] = {"images": images, "windows": windows, "preparation_seconds": preparation}
    measured.notes += [
        f"Times: mean of {images} images with {windows} windows each, the same for every column "
        "(selective search's, topped up with random windows where it finds fewer); total = conv + fc. Beside them, "
        "in neither: "
        + ", ".join(f"{mean:.3g} s to prepare the input of {column}" for column, mean in preparation.items())
        + ", proposals, SVM scoring and NMS.",
        "R-CNN is measured here on the same weights, windows and machine; the published column is AlexNet's.",
    ]


def arithmetic(ws: Workspace) -> dict[str, dict[str, float]]:
    """R-CNN's floating-point operations over SPP-net's for a typical image: the speed-up of equally efficient code."""
    spec, windows = ws.network_spec(), ws.profile.timing_windows
    pooled, _ = sizes_of(spec)
    fc = 2 * windows * (pooled + ws.profile.fc) * ws.profile.fc
    rcnn = windows * conv_flops(spec, CROP, CROP)
    ratios: dict[str, dict[str, float]] = {"speedup vs R-CNN": {}, CONV_SPEEDUP: {}}
    for column, (_, scales) in columns(ws).items():
        if column != "rcnn":
            conv = sum(conv_flops(spec, *resized_size(ws.image_size(), scale)) for scale in scales)
            ratios["speedup vs R-CNN"][column] = (rcnn + fc) / (conv + fc)
            ratios[CONV_SPEEDUP][column] = rcnn / conv
    return ratios


def note_arithmetic(ratios: dict[str, dict[str, float]]) -> str:
    """The ratios of `arithmetic` beside the speed-ups that the paper and the journal edition print."""
    of_paper, of_journal = printed(6).set_index("row"), journal()
    of_paper.loc[CONV_SPEEDUP] = PRINTED_CONV_SPEEDUP
    parts = [
        f"{ratios[row][column]:.3g}x {what} (paper {of_paper[column][row]}x, journal {of_journal[column][row]}x)"
        for column, scales in (("spp_1scale", "one scale"), ("spp_5scale", "five scales"))
        for row, what in (
            (CONV_SPEEDUP, f"in the convolutions at {scales}"),
            ("speedup vs R-CNN", f"in all at {scales}"),
        )
    ]
    return (
        f"R-CNN's floating-point operations over SPP-net's: {', '.join(parts)}. Where both run equally efficient code, no "
        "speed-up exceeds this. The paper's R-CNN is AlexNet; the journal's has SPP-net's weights, as here."
    )


EXPERIMENT = numbered(6, __doc__, table6)
