"""Files are written byte by byte, from the wire format's definition and the field numbers of caffe.proto."""

import struct

import numpy as np
import pytest

from sppnet_cli.errors import DataError
from sppnet_cli.network import caffemodel
from sppnet_cli.network.caffemodel import read_caffemodel


def varint(value):
    value %= 2**64  # negative numbers take ten bytes
    out = bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def number(field, value):
    return varint(field * 8) + varint(value)


def message(field, *parts):
    content = b"".join(parts)
    return varint(field * 8 + 2) + varint(len(content)) + content


def text(field, value):
    return message(field, value.encode())


def packed(values, code="f", field=5):
    return message(field, struct.pack(f"<{len(values)}{code}", *values))


def unpacked(values, code="f", field=5):
    tag = varint(field * 8 + (5 if code == "f" else 1))
    return b"".join(tag + struct.pack(f"<{code}", value) for value in values)


def shape(*dims):
    return message(7, message(1, *map(varint, dims)))


def legacy(*dims):
    return b"".join(number(field, dim) for field, dim in enumerate(dims, 1))


def layer(name, *blobs):
    return message(
        100, text(1, name), text(2, "Convolution"), text(3, "data"), text(4, name),
        message(6, unpacked([1.0], field=3)), *(message(7, blob) for blob in blobs), message(106, number(1, 2)),
    )  # fmt: skip


def v1_layer(name, *blobs):
    return message(
        2, text(2, "data"), text(3, name), text(4, name), number(5, 4),
        *(message(6, blob) for blob in blobs), unpacked([1.0, 2.0], field=7), unpacked([0.5], field=35),
    )  # fmt: skip


def v0_layer(name, *blobs):
    inner = [text(1, name), text(2, "conv"), number(3, 2), *(message(50, blob) for blob in blobs)]
    return message(2, message(1, *inner, unpacked([1.0, 2.0], field=51)), text(2, "data"), text(3, name))


@pytest.fixture
def model(tmp_path):
    """Write a model of these bytes; its path."""

    def write(*parts):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(b"".join(parts))
        return path

    return write


NET = text(1, "ZF"), text(3, "data"), number(4, 1), message(8, message(1, varint(1), varint(3))), number(5, 0)
WEIGHT, BIAS = [1.5, -2.0, 3.0, 0.25, -0.5, 6.0], [7.0, -8.0]


def assert_weight_and_bias(layers, names=("conv1",), bias_shape=(2,), weight_shape=(2, 3, 1, 1)):
    assert list(layers) == list(names)
    for weight, bias in layers.values():
        assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
        assert (weight.shape, bias.shape) == (weight_shape, bias_shape)
        assert weight.ravel().tolist() == WEIGHT
        assert bias.ravel().tolist() == BIAS


def test_the_writer_of_these_tests_by_hand():
    # The examples of protobuf's documentation, and -1 and 1.0 (0x3f800000).
    assert number(1, 150) == bytes.fromhex("089601")
    assert text(2, "testing") == bytes.fromhex("120774657374696e67")
    assert number(1, -1) == bytes.fromhex("08ffffffffffffffffff01")
    assert unpacked([1.0]) == bytes.fromhex("2d0000803f")
    assert packed([1.0]) == bytes.fromhex("2a040000803f")


@pytest.mark.parametrize("values", [packed, unpacked])
@pytest.mark.parametrize("write", [layer, v1_layer, v0_layer])
def test_three_generations_of_layers(model, write, values):
    blobs = shape(2, 3, 1, 1) + values(WEIGHT), values(BIAS) + shape(2)
    path = model(*NET, write("relu0"), write("conv1", *blobs), write("prob"))
    assert_weight_and_bias(read_caffemodel(path))


@pytest.mark.parametrize("write", [layer, v1_layer, v0_layer])
def test_four_dimensions_of_old(model, write):
    blobs = legacy(1, 1, 2, 3) + packed(WEIGHT), legacy(1, 1, 1, 2) + packed(BIAS)
    path = model(*NET, write("conv1", *blobs))
    assert_weight_and_bias(read_caffemodel(path), bias_shape=(1, 1, 1, 2), weight_shape=(1, 1, 2, 3))


def test_a_shape_goes_before_four_dimensions(model):
    blobs = legacy(6, 1, 1, 1) + shape(2, 3, 1, 1) + packed(WEIGHT), shape(2) + packed(BIAS)
    assert_weight_and_bias(read_caffemodel(model(layer("conv1", *blobs))))


def test_a_shape_that_is_not_packed(model):
    dims = message(7, number(1, 2), number(1, 3), number(1, 1), number(1, 1))
    assert_weight_and_bias(
        read_caffemodel(model(layer("conv1", dims + packed(WEIGHT), shape(2) + packed(BIAS))))
    )


@pytest.mark.parametrize("values", [packed, unpacked])
def test_doubles(model, values):
    blobs = shape(2, 3, 1, 1) + values(WEIGHT, "d", 8), shape(2) + values(BIAS, "d", 8)
    assert_weight_and_bias(read_caffemodel(model(layer("conv1", *blobs))))


def test_gradients_beside_the_values_are_not_read(model):
    blobs = (
        packed([9.0] * 6, field=6) + packed(WEIGHT) + shape(2, 3, 1, 1),
        shape(2) + packed(BIAS) + unpacked([9.0] * 2, "d", 9),
    )
    assert_weight_and_bias(read_caffemodel(model(layer("conv1", *blobs))))


def test_values_in_pieces(model):
    weight = (
        packed(WEIGHT[:2])
        + unpacked(WEIGHT[2:4])
        + shape(2, 3, 1, 1)
        + unpacked(WEIGHT[4:5])
        + packed(WEIGHT[5:])
    )
    assert_weight_and_bias(read_caffemodel(model(layer("conv1", weight, packed(BIAS) + shape(2)))))


@pytest.mark.parametrize("run", [1, 2, 3, 7, 8])
def test_runs_are_looked_at_in_blocks(model, monkeypatch, run):
    monkeypatch.setattr(caffemodel, "_RUN", run)
    blobs = unpacked(WEIGHT) + shape(2, 3, 1, 1), shape(2) + unpacked(BIAS)
    assert_weight_and_bias(read_caffemodel(model(layer("conv1", *blobs))))


def test_both_generations_in_one_file(model):
    blobs = shape(2, 3, 1, 1) + packed(WEIGHT), shape(2) + packed(BIAS)
    path = model(v1_layer("conv1", *blobs), layer("conv2", *blobs), v0_layer("conv3", *blobs))
    assert_weight_and_bias(read_caffemodel(path), ("conv1", "conv2", "conv3"))


def test_a_layer_may_be_named_after_its_blobs(model):
    blobs = message(7, shape(2, 3, 1, 1), packed(WEIGHT)), message(7, shape(2), packed(BIAS))
    assert_weight_and_bias(read_caffemodel(model(message(100, *blobs, text(1, "conv1")))))


def test_packed_values_are_views_of_the_file(model):
    path = model(layer("conv1", shape(6) + packed(WEIGHT), shape(2) + packed(BIAS)))
    weight, bias = read_caffemodel(path)["conv1"]
    assert not weight.flags.owndata
    assert not weight.flags.writeable
    assert not bias.flags.writeable


def test_cut_off_anywhere(model):
    blobs = shape(2, 3, 1, 1) + packed(WEIGHT), legacy(1, 1, 1, 2) + unpacked(BIAS)
    parts = [*NET, layer("conv1", *blobs), v1_layer("conv2", *blobs), v0_layer("conv3", *blobs)]
    whole = b"".join(parts)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    for length in range(len(whole)):
        path = model(whole[:length])
        if length in ends[len(NET) :]:  # between two layers: a smaller model, as good as any
            assert len(read_caffemodel(path)) == ends.index(length) - len(NET) + 1
            continue
        with pytest.raises(DataError) as caught:
            read_caffemodel(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_an_error_of_one_line_or_another_model(model):
    blobs = shape(2, 3, 1, 1) + packed(WEIGHT), legacy(1, 1, 1, 2) + unpacked(BIAS)
    whole = b"".join([*NET, layer("conv1", *blobs), v0_layer("conv2", *blobs)])
    refused = []
    for position in range(len(whole)):
        for byte in (0xFF, whole[position] ^ 0x08):
            path = model(whole[:position], bytes([byte]), whole[position + 1 :])
            try:
                read_caffemodel(path)
            except DataError as error:
                refused.append(str(error))
    assert len(refused) > len(whole) / 2
    assert not [message for message in refused if "\n" in message]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no layer with weights"),
        (b"".join(NET), "holds no layer with weights"),
        (b"name: 'ZF'\nlayer {\n}\n", "not a whole Caffe model"),
        (b"<!DOCTYPE html><html></html>\n", "not a whole Caffe model"),
        (b"\x89PNG\r\n\x1a\n", "not a whole Caffe model"),
        (b"PK\x03\x04", "not a whole Caffe model"),
        (b"\x00" * 64, r"\(its bytes are no fields\)"),
        (b"\xff" * 64, r"\(its bytes are no fields\)"),
        (varint(802) + varint(-1), r"\(it is cut off\)"),
        (varint(802) + varint(2**40) + b"conv1", r"\(it is cut off\)"),
        (layer("conv1", shape(6) + packed(WEIGHT)) * 2, "layer 'conv1' is there twice"),
        (layer("a\nb" * 99, shape(6)), r"layer 'a\\nba\\n.*' *: a blob of shape \(6,\) holds 0 values"),
        (message(100, message(1, b"\xff")), "not a whole Caffe model"),
        (layer("conv1", shape(2, 3) + message(5, b"12345")), "'conv1': buffer size"),
    ],
)
def test_what_is_no_model(model, content, message):
    path = model(content)
    with pytest.raises(DataError, match=message) as caught:
        read_caffemodel(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("give a .caffemodel file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dims", "shown"),
    [
        (shape(2, 3, 1, 2), r"\(2, 3, 1, 2\)"),
        (shape(2, 2), r"\(2, 2\)"),
        (shape(), r"\(\)"),
        (shape(-2, -3), r"\(-2, -3\)"),
        (shape(2**62, 2**62), rf"\({2**62}, {2**62}\)"),
        (shape(0, 6), r"\(0, 6\)"),
        (legacy(1, 1, 2, 2), r"\(1, 1, 2, 2\)"),
        (legacy(6), r"\(6, 0, 0, 0\)"),
        (legacy(-1, 1, 1, -6), r"\(-1, 1, 1, -6\)"),
        (b"", r"\(0, 0, 0, 0\)"),
    ],
)
def test_a_shape_of_another_number_of_values(model, dims, shown):
    path = model(v1_layer("fc6", dims + packed(WEIGHT)))
    with pytest.raises(DataError, match=rf"layer 'fc6': a blob of shape {shown} holds 6 values"):
        read_caffemodel(path)


def test_a_file_too_large(tmp_path):
    path = tmp_path / "net.caffemodel"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(DataError, match=r"net\.caffemodel: 2\.1 GB, but no Caffe model has 2 GB"):
        read_caffemodel(path)


def test_no_file_at_all(tmp_path):
    for path in (tmp_path, tmp_path / "none.caffemodel"):
        with pytest.raises(DataError, match="no such Caffe model"):
            read_caffemodel(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_numbers_that_are_none(tmp_path, number, kind):
    values = np.array([1, number], kind)
    field = b"\x2a" if kind == "<f4" else b"\x42"  # data = 5, double_data = 8
    blob = field + bytes([values.nbytes]) + values.tobytes() + b"\x3a\x03\x0a\x01\x02"  # shape { dim: 2 }
    layer = b"\x0a\x05conv1" + b"\x3a" + bytes([len(blob)]) + blob
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    with pytest.raises(DataError, match="layer 'conv1': a blob holds NaN, infinity"):
        read_caffemodel(path)
