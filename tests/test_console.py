import subprocess
import sys

import pytest
from terminal import on_terminal

from sppnet_cli import console

pytest.importorskip("pty", reason="needs a POSIX terminal")


class Clock:
    """Stands in for `time.monotonic`; advances by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def _default_settings():
    console.configure()
    yield
    console.configure()


def walk(clock, n, seconds, **options):
    seen = []
    for item in console.track(range(n), "detect", **options):
        clock.now += seconds
        seen.append(item)
    return seen


def test_messages_go_to_standard_error(capsys):
    console.status("reading [a.jpg]")
    console.detail("hidden")
    console.warn("w")
    console.error("e")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "reading [a.jpg]\nwarning: w\nerror: e\n"


def test_verbose_adds_details_and_quiet_keeps_warnings(capsys):
    console.configure(verbose=True)
    console.detail("more")
    console.configure(quiet=True, verbose=True)
    console.status("s")
    console.detail("d")
    console.warn("w")
    console.error("e")
    assert capsys.readouterr().err == "more\nwarning: w\nerror: e\n"


def test_short_loops_say_nothing(capsys, clock):
    assert walk(clock, 10, 0.1) == list(range(10))
    assert capsys.readouterr().err == ""


def test_off_a_terminal_a_line_every_ten_seconds(capsys, clock):
    walk(clock, 40, 1.0)
    assert capsys.readouterr().err.splitlines() == [
        "detect: 10/40, 1/s, 0:00:30 left",
        "detect: 20/40, 1/s, 0:00:20 left",
        "detect: 30/40, 1/s, 0:00:10 left",
        "detect: 40 in 0:00:40",
    ]


def test_slow_items_have_a_line_each(capsys, clock):
    walk(clock, 3, 60.0)
    assert capsys.readouterr().err.splitlines() == [
        "detect: 1/3, 0.0167/s, 0:02:00 left",
        "detect: 2/3, 0.0167/s, 0:01:00 left",
        "detect: 3 in 0:03:00",
    ]


def test_without_a_length_the_total_may_be_given_or_missing(capsys, clock):
    for total in (None, 4):
        for _ in console.track(iter(range(4)), "read", total):
            clock.now += 10
    assert [line for line in capsys.readouterr().err.splitlines() if " 2" in line] == [
        "read: 2, 0.1/s",
        "read: 2/4, 0.1/s, 0:00:20 left",
    ]


def test_an_empty_loop(capsys, clock):
    assert walk(clock, 0, 1.0) == []
    assert capsys.readouterr().err == ""


def test_quiet_loops_still_yield(capsys, clock):
    console.configure(quiet=True)
    assert walk(clock, 3, 60.0) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_leaving_a_loop_early_prints_no_end(capsys, clock):
    for item in console.track(range(5), "detect"):
        clock.now += 3
        if item == 1:
            break
    assert capsys.readouterr().err == ""


def test_plain_table_aligns_words_left_and_numbers_right(capsys):
    rows = [("pool5", "41.2", "-"), ("fc6", "5%", ""), ("ftfc7 bb", 100, "0.5")]
    console.table("Table 6", ("row", "mAP", "s"), rows)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "Table 6",
        "row        mAP    s",
        "--------  ----  ---",
        "pool5     41.2    -",
        "fc6         5%",
        "ftfc7 bb   100  0.5",
    ]


def test_table_without_rows(capsys):
    console.table("None found", ("class", "score"), [])
    assert capsys.readouterr().out.splitlines() == ["None found", "class  score", "-----  -----"]


def test_a_column_of_words_is_folded_to_80_characters(capsys):
    words = " ".join(["word"] * 20)
    rows = [("T1", words, "41.2"), ("T2", "", "5"), ("T3", "short", "6")]
    console.table("T", ("id", "claim", "mAP"), rows, fold="claim")
    assert capsys.readouterr().out.splitlines() == [
        "T",
        f"id  {'claim':69}   mAP",
        f"--  {'-' * 69}  ----",
        f"T1  {' '.join(['word'] * 14)}  41.2",
        f"    {' '.join(['word'] * 6)}",
        f"T2  {'':69}     5",
        f"T3  {'short':69}     6",
    ]
    console.table("T", ("id", "claim", "mAP"), rows)
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_under_json_tables_go_to_standard_error(capsys):
    console.configure(json=True)
    console.table("T", ("a",), [("b",)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("T\n")


def console_on_terminal(code, **environment):
    return on_terminal("-c", "from sppnet_cli import console\n" + code, **environment)


SLOW_LOOP = """
import time
console._SLOW = 0.2
for item in console.track(range(8), "detect [x]"):
    time.sleep(0.1)
    if item == 4:
        console.warn("skipped [a.jpg]")
        for _ in console.track(range(2), "inner"):
            pass
"""


def test_on_a_terminal_a_bar_with_rate_and_time_left():
    written = console_on_terminal(SLOW_LOOP)
    assert "detect [x] " in written
    assert "/s, 0:00:0" in written
    assert "warning: skipped [a.jpg]" in written
    assert "detect [x]: 8 in 0:00:01" in written
    assert "inner" not in written  # too quick to be shown
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back


def test_the_cursor_comes_back_after_an_error():
    written = console_on_terminal(
        "try:\n    for _ in console.track(range(3), 'detect'):\n        raise ValueError\n"
        "except ValueError as error:\n    kept = error\n    console.error('no')\n"
    )
    assert "error: no" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_table_on_a_terminal_has_rules():
    written = console_on_terminal("console.table('T [x]', ('row', 'mAP'), [('pool5', '41.2')])")
    assert "T [x]" in written
    assert "─" in written


def test_a_style_colours_the_cells_of_its_text():
    rows = "[('holds', 'a'), ('fails', 'holds not')]"
    written = console_on_terminal(
        f"console.table('T', ('verdict', 'b'), {rows}, styles={{'holds': 'green'}})"
    )
    assert written.count("\x1b[32m") == 1
    assert "\x1b[32mholds" in written


def test_a_dumb_terminal_has_plain_lines():
    assert console_on_terminal("console.warn('w')", TERM="dumb").splitlines() == ["warning: w"]


def test_importing_the_console_loads_neither_rich_nor_torch():
    code = "import sys, sppnet_cli.console; print(sorted({'rich', 'torch', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_message_is_one_line_whatever_a_name_holds(capsys):
    console.warn("a\nb\x1b[31m\x9bc\x7f.jpg: café")
    console.table("T", ("a",), [("x\ny",)])
    out, err = capsys.readouterr()
    assert err == r"warning: a\x0ab\x1b[31m\x9bc\x7f.jpg: café" + "\n"
    assert len(out.splitlines()) == 4


def test_tallies_are_said_once_and_count_each_item_once(capsys):
    for item in ("1", "2", "2", "3", "4"):
        console.tally("VOC2007", "a box is clipped", item)
    console.tally("VOC2012", "a box is clipped", "1")
    console.report_tallies()
    console.report_tallies()
    assert capsys.readouterr().err.splitlines() == [
        "warning: VOC2007: mended in 4 images (1, 2, 3, ...): a box is clipped",
        "warning: VOC2012: mended in 1 image (1): a box is clipped",
    ]
    console.tally("VOC2007", "a box is clipped", "1")
    console.configure()
    console.report_tallies()
    assert capsys.readouterr().err == ""
