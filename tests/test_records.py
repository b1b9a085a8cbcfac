"""JSON, CSV and arrays that are not what was written."""

import json
import tracemalloc
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from sppnet_cli import records
from sppnet_cli.errors import DataError
from sppnet_cli.records import (
    map_array,
    read_array,
    read_arrays,
    read_csv,
    read_json,
    read_json_as,
    read_lines_as,
)

REMEDY = "make it anew"


@dataclass(frozen=True)
class Inner:
    count: int
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    kind: Literal["spp", "rcnn"] = "spp"
    levels: tuple[int, ...] | None = None
    pair: tuple[int, str] = (1, "a")
    flag: bool = False
    path: Path | None = None
    table: dict[str, float] = field(default_factory=dict)
    rest: Any = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("name is forbidden")


WHOLE = {
    "name": "cat", "inner": {"count": 3, "rate": 1}, "kind": "rcnn", "levels": [1, 2], "pair": [2, "b"],
    "flag": True, "path": "/x", "table": {"a": 1.5}, "rest": [None],
}  # fmt: skip


def read(tmp_path, text, **options):
    path = tmp_path / "record.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return read_json_as(Outer, path, remedy=REMEDY, **options)


def test_a_record_comes_back_in_its_types(tmp_path):
    found = read(tmp_path, WHOLE)
    assert found == Outer(
        "cat", Inner(3, 1.0), "rcnn", (1, 2), (2, "b"), True, Path("/x"), {"a": 1.5}, [None]
    )
    assert type(found.inner.rate) is float
    assert read(tmp_path, {"name": "cat", "inner": {"count": 3}}) == Outer("cat", Inner(3))
    assert read(tmp_path, WHOLE | {"levels": None}).levels is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3, not a text"),
        ({"name": None}, "name is None, not a text"),
        ({"name": "a\0"}, r"name is 'a\\x00', which is no text"),
        ({"name": "\ud800"}, r"name is '\\ud800', which is no text"),
        ({"name": "forbidden"}, "name is forbidden"),
        ({"inner": 3}, "inner is 3, not an object"),
        ({"inner": {}}, "inner.count is missing"),
        ({"inner": {"count": 3, "more": 1}}, "inner.'more' is no field"),
        ({"inner": {"count": True}}, "inner.count is True, not an integer"),
        ({"inner": {"count": 1.0}}, "inner.count is 1.0, not an integer"),
        ({"inner": {"count": 2**63}}, "inner.count is 9223372036854775808, not an integer"),
        ({"inner": {"count": 101}}, "inner.count is 101, not between 0 and 100"),
        ({"inner": {"count": -1}}, "inner.count is -1, not between 0 and 100"),
        ({"inner": {"count": 1, "rate": "x"}}, "inner.rate is 'x', not a number"),
        ({"inner": {"count": 1, "rate": 10**400}}, "inner.rate is 1000"),
        ({"kind": "yolo"}, "kind is 'yolo', not 'spp' or 'rcnn'"),
        ({"kind": ["spp"]}, r"kind is \['spp'\], not"),
        ({"levels": [1, "2"]}, "levels is '2', not an integer"),
        ({"levels": {}}, r"levels is \{\}, not"),
        ({"pair": [1]}, "pair has 1 parts, not 2"),
        ({"flag": 1}, "flag is 1, not true or false"),
        ({"path": 1}, "path is 1, not a path"),
        ({"table": {"a": "b"}}, "table is 'b', not a number"),
        ({"table": [1]}, r"table is \[1\], not an object"),
        ({"width": 1}, "'width' is no field of it"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"record\.json: {message}.*; {REMEDY}$") as caught:
        read(tmp_path, WHOLE | change, limits={"inner.count": (0, 100)})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1", "not JSON"),
        ("\x00", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5000, "not JSON"),
        ("NaN", "holds NaN, which is no number"),
        ("-Infinity", "holds -Infinity, which is no number"),
        ("[]", r"the whole is \[\], not an object"),
        ("null", "the whole is None, not an object"),
    ],
)
def test_what_is_no_record(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"record\.json: .*{message}.*{REMEDY}$"):
        read(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(DataError, match=r"x\.json: not JSON"):
        read_json(tmp_path / "x.json", REMEDY)
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"name": "caf\xc3\xa9"}')
    assert read_json(tmp_path / "x.json", REMEDY) == {"name": "café"}


COLUMNS = {"image": str, "class": str, "score": float, "windows": int}


def csv_of(tmp_path, *lines, header="image,class,score,windows"):
    path = tmp_path / "x.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return read_csv(path, COLUMNS, remedy=REMEDY, ids=("image",))


def test_words_stay_words(tmp_path):
    words = ["null", "NA", "nan", "NaN", "None", "N/A", "", "inf", "1e5", "007", "True", "1_0"]
    frame = csv_of(tmp_path, *(f"0001,{word},0.5,3" for word in words))
    assert frame["class"].tolist() == words
    assert frame["image"].tolist() == ["0001"] * len(words)
    assert frame["score"].dtype == np.float64
    assert frame["windows"].dtype == np.int64


def test_every_digit_of_a_score_counts(tmp_path):
    scores = np.random.default_rng(0).standard_normal(200)
    frame = csv_of(tmp_path, *(f"a,b,{score!r},1" for score in scores.tolist()))
    assert frame["score"].tolist() == scores.tolist()


def test_a_column_that_may_be_absent(tmp_path):
    path = tmp_path / "x.csv"

    def columns(text):
        path.write_text(text)
        columns = {"image": str, "sure": float, "windows": int}
        return list(read_csv(path, columns, remedy=REMEDY, optional=("sure",)).columns)

    assert columns("image,sure,windows\na,.5,1\n") == ["image", "sure", "windows"]
    assert columns("image,windows\na,1\n") == ["image", "windows"]
    for header in ("image,windows,sure", "image,sure", "windows"):
        with pytest.raises(DataError, match="its columns are"):
            columns(f"{header}\n")


def test_quotes_blank_lines_a_mark_and_no_row(tmp_path):
    frame = csv_of(tmp_path, '"a,b","c ""d""",1,2', "", header="\ufeffimage,class,score,windows")
    assert frame.to_numpy().tolist() == [["a,b", 'c "d"', 1.0, 2]]
    assert csv_of(tmp_path).to_numpy().tolist() == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b,1", "line 2 has 3 fields, not 4"),
        ("a,b,1,2,3", "line 2 has 5 fields, not 4"),
        ("a,b,x,2", "line 2: score is 'x', not a number"),
        ("a,b,nan,2", "line 2: score is 'nan', not a number"),
        ("a,b,inf,2", "line 2: score is 'inf', not a number"),
        ("a,b,1_0,2", "line 2: score is '1_0', not a number"),
        ("a,b,1,2.5", "line 2: windows is '2.5', not an integer"),
        ("a,b,1,9223372036854775808", "not an integer"),
        ("../a,b,1,2", "'../a' is no id of an image"),
        ('a,"b,1,2', "unexpected end of data"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=rf"x\.csv.*{message}"):
        csv_of(tmp_path, line)


FIELDS = [
    "a", "", " ", "1", "-0.0", ".5", " 1.0", "1.0 ", "1e400", "1_0", "nan", "0x10", "True", "+3", '"b"', '"', "\u00e9",
    "1,2", "\r", "9" * 30,
]  # fmt: skip


def test_the_quick_reader_agrees_with_the_careful_one():
    """Of random lines, most of them wrong: what the quick one takes, the careful one takes to the same table."""
    rng = np.random.default_rng(0)
    columns = {"name": str, "score": float, "sure": float}
    taken = 0
    for _ in range(3000):
        lines = [
            ",".join(rng.choice(FIELDS, size=rng.choice([2, 3, 3, 3, 4])))
            if rng.random() < 0.3
            else ",".join([rng.choice(FIELDS), rng.choice(FIELDS[3:8]), "3"])
            for _ in range(rng.integers(3))
        ]
        text = "\n".join(["name,score,sure", *lines]) + rng.choice(["", "\n", "\n\n", "\n \n"])
        quick = records._plain_table(text, columns)
        if quick is not None:
            pd.testing.assert_frame_equal(quick, records._table(text, columns))
            taken += len(quick)
    assert taken > 200


def test_other_columns(tmp_path):
    for header in ("image,class,score", "class,image,score,windows", "", "a" * 10_000):
        with pytest.raises(
            DataError, match=r"x\.csv: its columns are .*, not image,class,score,windows"
        ) as caught:
            csv_of(tmp_path, header=header)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0, 4), (3, 4), (), (2, 3, 2)])
def test_an_array_comes_back(tmp_path, shape, order):
    array = np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    np.save(tmp_path / "x.npy", array)
    found = read_array(tmp_path / "x.npy", REMEDY)
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


def header_of(tmp_path, text, data=b""):
    text = text.encode() + b"\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}",  # with four bytes too many
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'shape': (1,)}",
        "__import__('os').system('false')",
        "(" * 1000,
    ],
)
def test_a_header_that_claims_what_is_not_there(tmp_path, text):
    path = header_of(tmp_path, text, b"\0" * 4)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x\.npy: not an array \(.*\); make it anew"):
        read_array(path, REMEDY)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_what_is_no_array_file(tmp_path):
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    for content in (path.read_bytes(), b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(20), b"text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.npy: not an array"):
            read_array(path, REMEDY)


@dataclass(frozen=True)
class Line:
    epoch: int
    error: float | None = None


def test_objects_by_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2, "error": 0.5}\n')
    assert read_lines_as(Line, path, remedy=REMEDY) == [Line(1), Line(2, 0.5)]
    path.write_text("")
    assert read_lines_as(Line, path, remedy=REMEDY) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch": "2"}', '{"epoch": 2, "error": NaN}', "", "[" * 9999])
def test_a_broken_line_is_named(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{text}\n{{"epoch": 3}}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: .*; make it anew"):
        read_lines_as(Line, path, remedy=REMEDY)


def test_arrays_of_an_archive(tmp_path):
    path = tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, wrong=np.array([True, False]), scores=np.ones((2, 3), np.float32))
        found = read_arrays(path, REMEDY)
        assert sorted(found) == ["scores", "wrong"]
        np.testing.assert_array_equal(found["wrong"], [True, False])
        assert found["scores"].dtype == np.float32


def _archive(path, name, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


def test_archives_that_hold_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,), }".ljust(118)
    )
    np.savez(path, objects=np.array([{}], dtype=object))
    objects = path.read_bytes()
    np.savez(path, numbers=np.ones(100))
    whole = path.read_bytes()
    for content in (b"", b"PK", objects, whole[:-30], whole.replace(np.ones(3).tobytes(), bytes(24))):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: holds no arrays \(.*; make it anew"):
            read_arrays(path, REMEDY)
    for content in (b"words", header):
        _archive(path, "a.npy", content)
        with pytest.raises(DataError, match=r"a\.npz: holds no arrays"):
            read_arrays(path, REMEDY)
    with pytest.raises(DataError, match=r"none\.npz: no such \.npz file; make it anew"):
        read_arrays(tmp_path / "none.npz", REMEDY)


def test_a_packed_archive_of_too_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("sppnet_cli.records._MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(10_000))
    with pytest.raises(DataError, match="claims more than 1000 bytes"):
        read_arrays(tmp_path / "a.npz", REMEDY)


def test_an_array_is_mapped(tmp_path):
    for array in (
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.empty((0, 3)),
    ):
        np.save(tmp_path / "a.npy", array)
        found = map_array(tmp_path / "a.npy", REMEDY)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
        assert isinstance(found, np.memmap) == bool(array.size)


def test_an_array_that_is_cut_off_is_not_mapped(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.npy: not an array \(.*; make it anew"):
        map_array(path, REMEDY)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"a\.npy: not an array"):
        map_array(path, REMEDY)
    with pytest.raises(DataError, match=r"no such \.npy file; make it anew"):
        map_array(tmp_path / "none.npy", REMEDY)
