"""What runs and users keep in JSON, CSV and `.npy` files, checked as it is read back.

A file may be cut off, edited by hand, or of another program.  Everything here raises `DataError` in one line that
names the file, what is wrong with it and the `remedy` that the caller gives.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import types
import typing
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from sppnet_cli.errors import DataError
from sppnet_cli.files import decode, read_bytes, safe_id

if TYPE_CHECKING:  # else where they are needed: --help is quick
    import numpy as np
    import pandas as pd

T = TypeVar("T")
Limits = Mapping[str, tuple[float, float]]

_SHOWN = 60  # characters of a wrong value
_MOST_BYTES = 2**31  # of the arrays in an archive, which could be packed a thousandfold


class _Wrong(ValueError):
    """What is wrong with a file's content."""


def read_json(path: Path, remedy: str) -> Any:
    """The value in a JSON file; `NaN` and `Infinity`, which are no JSON, are refused."""
    try:
        return _parse(read_bytes(path, "JSON", remedy))
    except ValueError as error:
        raise DataError(f"{path}: {error}; {remedy}") from None


def read_json_as(cls: type[T], path: Path, *, remedy: str, limits: Limits | None = None) -> T:
    """The JSON object in a file as a dataclass, every field of its declared type.

    Takes bool, int (of 64 bits), float (finite), str, `Path`, None, `Literal`, unions, lists, tuples, dicts by str, and
    dataclasses inside; a list in the file becomes the tuple that the field declares.  Fields with a default may be
    absent, unknown ones may not be there.  A `ValueError` of the class's own `__post_init__` counts as a wrong file.

    Args:
        cls: the dataclass.
        path: the file.
        remedy: what the user can do, the end of the error.
        limits: least and largest number of a field, by its name; inside another dataclass `outer.inner`.

    Raises:
        DataError: the file cannot be read, or a field is missing, unknown, of another type or out of its limits.
    """
    value = read_json(path, remedy)
    try:
        converted: T = _convert(cls, value, "", limits or {})
    except ValueError as error:
        raise DataError(f"{path}: {error}; {remedy}") from None
    return converted


def read_lines_as(cls: type[T], path: Path, *, remedy: str) -> list[T]:
    """The JSON objects in a file, one a line, as dataclasses; else as `read_json_as`."""
    found: list[T] = []
    try:
        for line in decode(read_bytes(path, "JSON", remedy)).splitlines():
            found.append(_convert(cls, _parse(line), "", {}))
    except ValueError as error:
        raise DataError(f"{path}, line {len(found) + 1}: {error}; {remedy}") from None
    return found


def read_csv(
    path: Path,
    columns: Mapping[str, type[str | float | int]],
    *,
    remedy: str,
    ids: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """A CSV with just these columns, in this order, as text, finite numbers or integers.

    Words stay words: an image or class called `null` or `NA` is no missing value.  `ids` names the columns whose text
    becomes paths (`files.safe_id`), `optional` those that may be absent.

    Raises:
        DataError: the file cannot be read, has other columns, or a line has another number of fields or a field of
            another type.
    """
    try:
        text = decode(read_bytes(path, "CSV", remedy))
        header = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
        columns = {name: kind for name, kind in columns.items() if name not in optional or name in header}
        if header != list(columns):
            raise _Wrong(f"its columns are {_shown(','.join(header))}, not {','.join(columns)}")
        found = _plain_table(text, columns)
        if found is None:
            found = _table(text, columns)
    except (_Wrong, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}; {remedy}") from None
    for name in ids:
        for value in found[name].unique():
            safe_id(value, path)
    return found


def _plain_table(text: str, columns: Mapping[str, type]) -> pd.DataFrame | None:
    """The table by pandas' own reader, which is quick and lenient; None where anything is not as we write it."""
    import numpy as np
    import pandas as pd

    if int in columns.values() or any(mark in text for mark in '"\r\0'):  # -0.0 becomes an integer
        return None
    characters = np.frombuffer(text.encode(), np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    commas = np.searchsorted(np.flatnonzero(characters == ord(",")), ends)
    if not text.endswith("\n") or (np.diff(commas, prepend=0) != len(columns) - 1).any():
        return None
    first = text.split("\n", 2)[1].split(",") if len(ends) > 1 else []
    if any(
        kind is float and _number(field, kind) is None
        for field, kind in zip(first, columns.values(), strict=False)
    ):
        return None  # a column of True and False becomes numbers
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # how to ask for all digits changes with pandas' version
            found = pd.read_csv(
                io.StringIO(text), dtype=dict(columns), na_filter=False, float_precision="round_trip"
            )
    except (ValueError, OverflowError):
        return None
    return found if np.isfinite(found.select_dtypes(float)).all(axis=None) else None


def _table(text: str, columns: Mapping[str, type]) -> pd.DataFrame:
    """The table field by field.  Raises `_Wrong`, naming the line, and `csv.Error`."""
    import numpy as np
    import pandas as pd

    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    next(reader)
    rows, lines = [], []
    for row in reader:
        if row and len(row) != len(columns):
            raise _Wrong(f"line {reader.line_num} has {len(row)} fields, not {len(columns)}")
        if row:
            rows.append(row)
            lines.append(reader.line_num)
    found: dict[str, pd.Series[Any]] = {}
    for place, (name, kind) in enumerate(columns.items()):
        fields = [row[place] for row in rows]
        if kind is str:
            found[name] = pd.Series(fields, dtype=str)
            continue
        numbers = [_number(field, kind) for field in fields]
        if None in numbers:
            at = numbers.index(None)
            wanted = "an integer" if kind is int else "a number"
            raise _Wrong(f"line {lines[at]}: {name} is {_shown(fields[at])}, not {wanted}")
        found[name] = pd.Series(numbers, dtype=np.int64 if kind is int else np.float64)
    return pd.DataFrame(found)


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array in a `.npy` file; never of Python objects, and never larger than the file itself."""
    content = read_bytes(path, ".npy", remedy)
    try:
        return _array(content)
    except Exception as error:  # noqa: BLE001 - a header is Python source, and may be anything
        raise DataError(f"{path}: not an array ({_reason(error)}); {remedy}") from None


def map_array(path: Path, remedy: str) -> np.ndarray:
    """The array in a `.npy` file as `read_array` takes it, but mapped: its pages are read when they are used."""
    import numpy as np

    if not path.is_file():
        read_bytes(path, ".npy", remedy)  # says what is wrong
    try:
        with path.open("rb") as file:
            shape, by_column, dtype = _array_header(file, path.stat().st_size)
            offset = file.tell()
        order: Literal["F", "C"] = "F" if by_column else "C"
        if 0 in shape:
            return np.empty(shape, dtype, order)
        return np.memmap(path, dtype, "r", offset, shape, order)
    except Exception as error:  # noqa: BLE001 - as in `read_array`
        raise DataError(f"{path}: not an array ({_reason(error)}); {remedy}") from None


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays in a `.npz` file by name, each as `read_array` gives it, of at most 2 GiB."""
    content = read_bytes(path, ".npz", remedy)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise _Wrong(f"claims more than {_MOST_BYTES} bytes")
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except Exception as error:  # noqa: BLE001 - as in `read_array`
        raise DataError(f"{path}: holds no arrays ({_reason(error)}); {remedy}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _array(content: bytes) -> np.ndarray:
    """The array that the bytes of a `.npy` file hold.  Raises anything for what is none."""
    import numpy as np

    file = io.BytesIO(content)
    shape, by_column, dtype = _array_header(file, len(content))
    array = np.frombuffer(content, dtype, math.prod(shape), offset=file.tell())
    return array.reshape(shape, order="F" if by_column else "C").copy()


def _array_header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether column by column, and dtype of a `.npy` file of `size` bytes, read up to its numbers.

    Raises anything for what is none, and where there are not just so many numbers.
    """
    import numpy as np

    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise _Wrong(f"is of version {version} of the format")
    shape, by_column, dtype = readers[version](file)
    held, claimed = size - file.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or held != claimed:
        raise _Wrong(f"claims {dtype} of shape {shape}, but holds {held} bytes")
    return shape, by_column, dtype


def _parse(content: bytes | str) -> Any:
    """The value that a text in JSON says.  Raises `ValueError` saying what is wrong."""

    def no_number(text: str) -> None:
        raise _Wrong(f"holds {text}, which is no number")

    try:
        text = decode(content) if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=no_number)
    except RecursionError:
        raise _Wrong("is nested too deeply") from None
    except _Wrong:
        raise
    except ValueError as error:
        raise _Wrong(f"not JSON ({error})") from None


def _number(text: str, kind: type) -> float | int | None:
    """The number that a field says, None where it says none; Python's `1_000` and `inf` are none."""
    try:
        number = kind(text)
    except ValueError:
        return None
    if "_" in text or not math.isfinite(number) or (abs(number) >= 2**63 and kind is int):
        return None
    return number


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _convert(hint: Any, value: Any, name: str, limits: Limits) -> Any:
    """`value`, of JSON types, as the type `hint`; raises `ValueError` naming the field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, name, limits)
    if hint is type(None) and value is None:
        return None
    if origin is Literal and any(value == known and type(value) is type(known) for known in arguments):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _convert_fields(hint, value, name, limits)
    if (hint is list or origin is list) and isinstance(value, list):
        return [_convert((arguments or (Any,))[0], part, name, limits) for part in value]
    if (hint is tuple or origin is tuple) and isinstance(value, list):
        return _convert_tuple(arguments, value, name, limits)
    if (origin or hint) in (dict, Mapping) and isinstance(value, dict):
        inside = (arguments or (str, Any))[1]
        return {_text(key, name): _convert(inside, part, name, limits) for key, part in value.items()}
    if hint in (bool, str) and type(value) is hint:
        return _text(value, name) if hint is str else value
    if hint is Path and isinstance(value, str):
        return Path(_text(value, name))
    if hint is int and type(value) is int and abs(value) < 2**63:
        return _within(value, name, limits)
    if hint is float and type(value) in (int, float) and abs(value) < 1e300:
        return _within(float(value), name, limits)
    raise _Wrong(f"{name or 'the whole'} is {_shown(value)}, not {_kind(hint)}")


def _convert_fields(cls: Any, value: dict[str, Any], name: str, limits: Limits) -> Any:
    prefix = f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if unknown := sorted(set(value) - set(fields)):
        raise _Wrong(f"{prefix}{unknown[0]!a:.60} is no field of it")
    hints = typing.get_type_hints(cls)
    given = {}
    for key, field in fields.items():
        if key in value:
            given[key] = _convert(hints[key], value[key], prefix + key, limits)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _Wrong(f"{prefix}{key} is missing")
    return cls(**given)


def _convert_union(arguments: Sequence[Any], value: Any, name: str, limits: Limits) -> Any:
    problems = []
    for hint in arguments:
        try:
            return _convert(hint, value, name, limits)
        except _Wrong as error:
            problems.append(str(error))
    known = " or ".join(_kind(hint) for hint in arguments)
    # Of `X | None` the problem of X says more than that it is neither.
    raise _Wrong(
        problems[0] if len(problems) == 2 and value is not None else f"{name} is {_shown(value)}, not {known}"
    )


def _convert_tuple(arguments: Sequence[Any], value: list[Any], name: str, limits: Limits) -> tuple[Any, ...]:
    if not arguments or arguments[-1] is Ellipsis:
        return tuple(_convert((arguments or (Any,))[0], part, name, limits) for part in value)
    if len(value) != len(arguments):
        raise _Wrong(f"{name} has {len(value)} parts, not {len(arguments)}")
    return tuple(_convert(hint, part, name, limits) for hint, part in zip(arguments, value, strict=True))


def _within(value: float, name: str, limits: Limits) -> float:
    least, most = limits.get(name, (-math.inf, math.inf))
    if not least <= value <= most:
        raise _Wrong(f"{name} is {value:g}, not between {least:g} and {most:g}")
    return value


def _text(value: str, name: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _Wrong(f"{name} is {_shown(value)}, which is no text")
    return value


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint):
        return "an object"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path"}
    words |= {list: "a list", tuple: "a list", dict: "an object", Mapping: "an object", type(None): "null"}
    return words.get(typing.get_origin(hint) or hint, str(hint))
