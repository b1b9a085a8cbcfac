"""`sppnet export`."""

import dataclasses
from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, json_option, option, quiet_option, say
from sppnet_cli.errors import UsageError


@click.command("export", short_help="Write a network or a detector as an ONNX file.")
@click.argument("run", metavar="RUN", type=PATH)
@option("--out", type=PATH, default=Path("model.onnx"), help="File to write.")
@click.option(
    "--nms",
    is_flag=True,
    help="Export a detector with NMS: it returns detections, not scores and boxes of all windows.",
)
@json_option
@quiet_option
def command(run: Path, out: Path, nms: bool, as_json: bool, quiet: bool) -> None:
    """Write RUN, a network or a detector, as an ONNX file of standard operators, and compare it in ONNX Runtime.

    \b
      sppnet export runs/detector --out detector.onnx
      sppnet export runs/detector --out detector.onnx --nms
      sppnet export runs/network --out network.onnx

    A network takes images (N, H, W, 3), uint8 RGB, of any size, and returns scores (N, classes) before the softmax, or
    pooled vectors if it has no fc layers.

    A detector takes an image (H, W, 3), uint8 RGB, and windows (N, 4): x1, y1, x2, y2 in 0-based inclusive pixels of that
    image, float32, such as the boxes of `sppnet propose`.  It returns scores (N, classes) and boxes (N, classes, 4),
    the windows after each class's box regression.  With --nms it returns detections, best first: labels, scores and
    boxes.  The file includes resizing, preprocessing, the choice of scales and cells, pooling and regression, but not
    proposals.

    The class names are in the file's metadata `class_names`.  Needs: pip install onnx onnxruntime onnxscript
    """
    from sppnet_cli.detection.detector import Detector
    from sppnet_cli.detection.detector_files import DETECTOR_FILE
    from sppnet_cli.export.onnx_file import export_detector, export_network
    from sppnet_cli.files import read_text
    from sppnet_cli.network.weights import load_network

    console.configure(json=as_json, quiet=quiet)
    if (run / DETECTOR_FILE).is_file():
        exported = export_detector(Detector.load(run), out, nms=nms)
    else:
        network = load_network(run)
        if nms:
            raise UsageError(f"{run}: is a network; --nms goes with a detector")
        names = run / "classes.txt"
        exported = export_network(
            network, out, read_text(names, "list").splitlines() if names.is_file() else ()
        )
    shift = exported.largest_shift
    say(
        as_json,
        {"file": out, **dataclasses.asdict(exported)},
        f"file: {out}, opset {exported.opset}; names in shapes are dynamic axes",
        *(f"input {name}: {what}" for name, what in exported.inputs.items()),
        *(f"output {name}: {what}" for name, what in exported.outputs.items()),
        f"in ONNX Runtime, on {' and '.join(exported.compared)}: scores differ by at most "
        f"{exported.largest_difference:.2g}{f', boxes by {shift:.2g} pixels' if shift is not None else ''}",
    )
