"""Reads the weights of Caffe models: protobuf's wire format and the few fields of caffe.proto that hold them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.errors import DataError

Blob = NDArray[np.float32]

_LIMIT = 2**31  # bytes of a message: protobuf's own bound
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are none of Caffe's
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_RUN = 2**16  # records of a run that are looked at together


def read_caffemodel(path: Path) -> dict[str, tuple[Blob, ...]]:
    """The blobs of every layer that has some, by the layer's name, in the file's order.

    A convolution's or inner product's are its weight and its bias.  Layers may be of any of Caffe's three
    generations (`layer`, `layers`, and `layers { layer { } }`).  Blobs are float32, read only, in the shape
    that the file gives them: old files have four dimensions everywhere, such as (1, 1, outputs, inputs).  The
    file is memory-mapped and packed values are views of it.

    Raises `DataError` for what is missing, cut off, above 2 GB or no Caffe model, for blobs whose shape does
    not give their number of values or whose values are not finite, for two layers of one name, and where no layer has
    weights.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such Caffe model; give a .caffemodel file")
    size = path.stat().st_size
    if size >= _LIMIT:
        raise DataError(f"{path}: {size / 1e9:.1f} GB, but no Caffe model has 2 GB; give a .caffemodel file")
    layers: dict[str, tuple[Blob, ...]] = {}
    try:
        net = np.memmap(path, np.uint8, "r").data if size else memoryview(b"")
        for name, blobs in _layers(net):
            if blobs and name in layers:
                raise ValueError(f"layer {name!r} is there twice")
            if blobs:
                layers[name] = blobs
    except ValueError as error:
        raise DataError(f"{path}: not a whole Caffe model ({error}); give a .caffemodel file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not layers:
        raise DataError(f"{path}: holds no layer with weights; give a .caffemodel file")
    return layers


def _layers(net: memoryview) -> Iterator[tuple[str, tuple[Blob, ...]]]:
    """Names and blobs of the layers of a NetParameter."""
    for number, wire, value in _fields(net):
        if (number, wire) == (100, _BYTES):  # LayerParameter
            yield _layer(value, 1, 7)
        elif (number, wire) == (2, _BYTES):  # V1LayerParameter, which may hold a V0LayerParameter
            oldest = [inner for *key, inner in _fields(value) if key == [1, _BYTES]]
            yield _layer(oldest[-1], 1, 50) if oldest else _layer(value, 4, 6)


def _layer(message: memoryview, name_field: int, blobs_field: int) -> tuple[str, tuple[Blob, ...]]:
    name, blobs = "", []
    for number, wire, value in _fields(message):
        if (number, wire) == (name_field, _BYTES):
            name = bytes(value).decode()
        elif (number, wire) == (blobs_field, _BYTES):
            blobs.append(value)
    try:
        return name, tuple(map(_blob, blobs))
    except ValueError as error:
        raise ValueError(f"layer {name[:60]!r}: {error}") from None


def _blob(message: memoryview) -> Blob:
    """A BlobProto's values, in its shape."""
    shape: list[int] | None = None
    legacy = [0, 0, 0, 0]  # num, channels, height, width
    singles, doubles = [np.empty(0, "<f4")], [np.empty(0, "<f8")]
    for number, wire, value in _fields(message):
        if wire == _VARINT and 1 <= number <= 4:
            legacy[number - 1] = _signed(value)
        elif number == 5 and wire in (_BYTES, _FIXED32):
            singles.append(np.frombuffer(value, "<f4"))
        elif (number, wire) == (7, _BYTES):
            shape = _dimensions(value)
        elif number == 8 and wire in (_BYTES, _FIXED64):
            doubles.append(np.frombuffer(value, "<f8"))
    pieces = [piece for piece in singles if len(piece)] or [piece for piece in doubles if len(piece)]
    count = sum(map(len, pieces))
    wanted = legacy if shape is None else shape
    if not count or min(wanted, default=1) < 1 or math.prod(wanted) != count:
        raise ValueError(f"a blob of shape {tuple(wanted[:8])} holds {count} values")
    values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ValueError("a blob holds NaN, infinity or what float32 cannot hold")
    return values.reshape(wanted)


def _dimensions(message: memoryview) -> list[int]:
    """A BlobShape's dimensions."""
    found = []
    for number, wire, value in _fields(message):
        if (number, wire) == (1, _VARINT):
            found.append(_signed(value))
        elif (number, wire) == (1, _BYTES):
            at = 0
            while at < len(value):
                dimension, at = _varint(value, at)
                found.append(_signed(dimension))
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of a message's fields: an int of a varint, else the bytes.

    Fixed-width fields of one number that follow each other come together, as though they were packed.
    """
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("its bytes are no fields")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire not in _WIDTHS:
            raise ValueError("its bytes are no fields")
        elif at == begin + 1 and (end := _end_of_run(message, begin, _WIDTHS[wire])) > begin:
            records = np.frombuffer(message[begin:end], np.uint8).reshape(-1, 1 + _WIDTHS[wire])
            at = end
            yield number, wire, records[:, 1:].tobytes()
            continue
        else:
            length = _WIDTHS[wire]
        if length > len(message) - at:
            raise ValueError("it is cut off")
        yield number, wire, message[at : at + length]
        at += length


def _end_of_run(message: memoryview, begin: int, width: int) -> int:
    """Where the whole records (a tag of one byte and `width` bytes) that repeat the tag at `begin` end."""
    record = 1 + width
    at = begin
    while True:
        block = np.frombuffer(message[at : at + _RUN * record], np.uint8)
        tags = block[: len(block) // record * record : record]
        others = np.flatnonzero(tags != message[begin])
        at += record * (int(others[0]) if len(others) else len(tags))
        if len(others) or len(tags) < _RUN:
            return at


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A varint of 64 bits and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("its bytes are no fields")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
