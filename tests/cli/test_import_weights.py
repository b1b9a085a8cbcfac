"""From a .caffemodel, written here byte by byte, to a network that the other commands take."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.names import CAFFE_KINDS
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network, load_spec


def field(number, content):
    """A length-delimited field of the wire format."""
    head, length = [number * 8 + 2], len(content)
    if head[0] > 127:
        head = [head[0] % 128 + 128, head[0] // 128]
    while length > 127:
        head.append(length % 128 + 128)
        length //= 128
    return bytes([*head, length]) + content


def caffe_layer(name, *blobs):
    """A LayerParameter: name 1, blobs 7; of a blob data 5 and shape 7."""
    parts = [field(1, name.encode()), field(2, b"Layer")]
    for blob in blobs:
        dims = b"".join(bytes([d]) if d < 128 else bytes([d % 128 + 128, d // 128]) for d in blob.shape)
        parts.append(field(7, field(5, blob.astype("<f4").tobytes()) + field(7, field(1, dims))))
    return field(100, b"".join(parts))


@pytest.fixture
def zf(tmp_path):
    """Write a narrow network as a .caffemodel, some layers renamed; the network and the path."""

    def write(arch="zf5", levels=(1, 2, 3, 6), renamed=(), more=()):
        torch.manual_seed(0)
        network = SPPNet(NetworkSpec(arch, 0.0625, levels, 16, 5)).eval()
        network.initialise("he")
        parts = [field(1, b"ZF"), caffe_layer("data")]
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                name = name.split(".")[-1]
                blobs = [p.detach().contiguous().numpy() for p in (layer.weight, layer.bias)]
                parts += [caffe_layer(dict(renamed).get(name, name), *blobs), caffe_layer(f"relu{name}")]
        parts += [caffe_layer(name, np.zeros((2, 3)), np.zeros(2)) for name in more]
        path = tmp_path / "ZF.caffemodel"
        path.write_bytes(b"".join(parts))
        return network, path

    return write


def made_run(tmp_path):
    """The run that was made where no folder was named."""
    (run,) = tmp_path.glob("runs/ZF-*")
    return run


def test_a_model_becomes_a_network(sppnet, zf, tmp_path):
    network, path = zf()
    code, out, err = sppnet("import-weights", path, "--dropout-scaling", "training")
    assert (code, out) == (0, "")
    assert err == (
        f"network: runs/{made_run(tmp_path).name}\n"
        "zeiler-conv5: zf5, width 0.0625, bins {6,3,2,1}, fc6 and fc7 of 16, 5 classes\n"
        "it is fed BGR pixels in 0..255 minus 128, 128, 128\n"
    )
    loaded = load_network(made_run(tmp_path))
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))
    manifest = json.loads((made_run(tmp_path) / "manifest.json").read_text())
    assert manifest["config"] == {"kind": "zeiler-conv5", "dropout_scaling": "training"}


def test_dropout_of_the_forks(sppnet, zf, tmp_path):
    network, path = zf()
    assert sppnet("import-weights", path, "--dropout-scaling", "testing")[0] == 0
    loaded = load_network(made_run(tmp_path))
    assert torch.equal(loaded.head.fc6.weight, network.head.fc6.weight)
    assert torch.equal(loaded.head.fc7.weight, network.head.fc7.weight / 2)
    assert torch.equal(loaded.head.fc8.weight, network.head.fc8.weight / 2)


def test_a_detection_net_under_json(sppnet, zf, tmp_path):
    _, path = zf("zf5-frcnn", (6,), {"fc8": "cls_score"}, ("rpn_conv1", "bbox_pred"))
    code, out, err = sppnet("import-weights", path, "--out", "net", "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    assert json.loads(out) == {
        "network": "net",
        "kind": "py-faster-rcnn-zf",
        "spec": {"arch": "zf5-frcnn", "width": 0.0625, "levels": [6], "fc": 16, "classes": 0},
        "preprocessing": {
            "order": "BGR",
            "divisor": 1.0,
            "mean": [102.9801, 115.9465, 122.7717],
            "deviation": [1.0, 1.0, 1.0],
        },
        "left_out": ["cls_score", "rpn_conv1", "bbox_pred"],
    }
    assert "left out: cls_score, rpn_conv1, bbox_pred\n" in err
    assert "minus 102.9801, 115.9465, 122.7717\n" in err
    assert load_spec(tmp_path / "net").arch == "zf5-frcnn"


def test_a_kind_can_be_named(sppnet, zf, tmp_path):
    _, path = zf(levels=(6,), more=("rpn_conv1",))
    assert sppnet("import-weights", path, "--kind", "zeiler-conv5", "--out", "a")[0] == 0
    assert sppnet("import-weights", path, "--kind", "py-faster-rcnn-zf", "--out", "b")[0] == 0
    assert [load_spec(tmp_path / name).arch for name in "ab"] == ["zf5", "zf5-frcnn"]


def test_a_second_call_finds_the_first(sppnet, zf, tmp_path):
    _, path = zf()
    first = sppnet("import-weights", path, "--json")
    made = (made_run(tmp_path) / "network.safetensors").stat().st_mtime_ns
    assert sppnet("import-weights", path, "--json") == first
    assert (made_run(tmp_path) / "network.safetensors").stat().st_mtime_ns == made
    assert sppnet("import-weights", path, "--out", "own")[0] == 0
    code, _, err = sppnet("import-weights", path, "--kind", "py-faster-rcnn-zf", "--out", "own")
    assert code == 2
    assert "kind was 'zeiler-conv5', not 'py-faster-rcnn-zf'" in err


@pytest.mark.parametrize("keep", [0, 100, 0.3, 0.9])
def test_a_file_cut_off(sppnet, zf, tmp_path, keep):
    _, path = zf()
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    code, out, err = sppnet("import-weights", path)
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_net(sppnet, zf, tmp_path):
    _, path = zf(renamed={"conv3": "conv3_1"})
    code, out, err = sppnet("import-weights", path)
    assert (code, out) == (3, "")
    assert err == f"error: {path}: not of kind zeiler-conv5, width 0.0625: conv3 is missing\n"
    assert not list(tmp_path.glob("runs/ZF*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.caffemodel"], 3, "none.caffemodel: no such Caffe model"),
        ([], 2, "Missing argument 'FILE.caffemodel'"),
        (["none.caffemodel", "--kind", "vgg"], 2, "'zeiler-conv5', 'py-faster-rcnn-zf'"),
    ],
)
def test_wrong_calls(sppnet, tmp_path, arguments, code, message):
    found, out, err = sppnet("import-weights", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert not list(tmp_path.iterdir())


def test_choices_are_those_of_the_network():
    from sppnet_cli.cli import import_weights
    from sppnet_cli.network import caffe_zf

    assert tuple(caffe_zf.KINDS) == CAFFE_KINDS
    assert caffe_zf.DROPOUT_SCALINGS == import_weights.DROPOUT_SCALINGS
