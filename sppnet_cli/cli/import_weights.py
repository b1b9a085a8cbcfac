"""`sppnet import-weights`."""

import dataclasses
from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, json_option, option, say
from sppnet_cli.names import CAFFE_KINDS, DROPOUT_SCALINGS


@click.command("import-weights", short_help="Import a Caffe model of ZF-5.")
@click.argument("file", metavar="FILE.caffemodel", type=PATH)
@option(
    "--kind",
    type=click.Choice(CAFFE_KINDS),
    help="Which net the file holds; shapes alone cannot tell.  [default: py-faster-rcnn-zf if the layers have "
    "Faster R-CNN's names, else zeiler-conv5]",
)
@option(
    "--dropout-scaling",
    type=click.Choice(DROPOUT_SCALINGS),
    default="training",
    help="When the Caffe that trained the net scaled for dropout.  training: keep the weights, as the released test "
    "code does; testing: halve fc7 and fc8, as both nets' forks of Caffe do.",
)
@option("--out", type=PATH, help="Run directory to make.  [default: runs/ and the name of FILE]")
@json_option
def command(file: Path, kind: str | None, dropout_scaling: str, out: Path | None, as_json: bool) -> None:
    """Import a Caffe model as a network, which other commands take as --network.

    \b
      sppnet import-weights Zeiler_conv5.caffemodel
      sppnet import-weights ZF_faster_rcnn_final.caffemodel --out runs/frcnn
      sppnet train-svm --network runs/frcnn

    zeiler-conv5 is the ZF-5 of the authors' SPP_net; it subtracts 128 from every pixel.  py-faster-rcnn-zf pads
    differently, pools 6x6 bins and subtracts a mean of its own.  Layers other than conv1 to conv5, fc6, fc7 and fc8 are
    left out.
    """
    from sppnet_cli.network.backbones import OWN
    from sppnet_cli.network.caffe_zf import find_kind
    from sppnet_cli.network.caffemodel import read_caffemodel
    from sppnet_cli.network.weights import load_spec
    from sppnet_cli.stages.import_weights import read_import
    from sppnet_cli.stages.profiles import find_profile
    from sppnet_cli.stages.workspace import Workspace

    console.configure(json=as_json)
    ws = Workspace(find_profile("paper"))
    stage = ws.imported(file, kind or find_kind(read_caffemodel(file)), dropout_scaling)
    stage = stage.at(out or Path("runs") / stage.folder.name)
    ws.make(stage)
    folder = stage.folder
    spec, found = load_spec(folder), read_import(folder)
    expects = OWN[spec.arch].preprocessing
    assert spec.levels is not None
    head = f"fc6 and fc7 of {spec.fc}, {spec.classes or 'no'} classes" if spec.fc else "no fc layers"
    result = {
        "network": folder,
        "kind": found.kind,
        "spec": dataclasses.asdict(spec),
        "preprocessing": dataclasses.asdict(expects),
        "left_out": found.left_out,
    }
    say(
        as_json,
        result,
        f"network: {folder}",
        f"{found.kind}: {spec.arch}, width {spec.width:g}, bins {{{','.join(map(str, spec.levels[::-1]))}}}, {head}",
        f"it is fed {expects.order} pixels in 0..255 minus {', '.join(f'{mean:.7g}' for mean in expects.mean)}",
        *([f"left out: {', '.join(found.left_out)}"] if found.left_out else []),
    )
