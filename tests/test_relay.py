"""What several processes say reaches one display."""

import multiprocessing
import os
import time

import pytest
from terminal import on_terminal

from sppnet_cli import console
from sppnet_cli.relay import Relay, labelled, relay_to

SPAWN = multiprocessing.get_context("spawn")


class Clock:
    """Stands in for `time.monotonic`; six seconds pass at each look."""

    now = 0.0

    def __call__(self):
        self.now += 6
        return self.now


def talk(settings, label):
    """What a stage says: lines of each kind, a loop of some minutes, and a short one."""
    relay_to(settings)
    with labelled(label):
        console.status("hello [x]")
        console.detail("more")
        console.warn("careful")
        console.monotonic = Clock()
        for _ in console.track(range(4), "pooling"):
            pass
        console.monotonic = time.monotonic
        for _ in console.track(range(2), "inner"):
            pass


def both(target, labels=("a", "b")):
    """Two processes, and what they say until both have ended."""
    with Relay(SPAWN) as relay:
        processes = [SPAWN.Process(target=target, args=(relay.settings(), label)) for label in labels]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * len(labels)


LINES = [
    "{0}: hello [x]",
    "{0}: warning: careful",
    "{0}: pooling: 2/4, 0.167/s, 0:00:12 left",
    "{0}: pooling: 4 in 0:00:30",
]


def test_off_a_terminal_each_line_begins_with_the_stages_label(capsys):
    both(talk)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    for label in "ab":  # each in its own order
        assert [line for line in lines if line.startswith(label)] == [line.format(label) for line in LINES]
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"quiet": True}, ["{0}: warning: careful"]), ({"silent": True}, []), ({"json": True}, LINES)],
    ids=["quiet", "silent", "json"],
)
def test_they_say_as_much_as_the_first_one_does(capsys, settings, kept):
    console.configure(**settings)
    both(talk, "a")
    assert capsys.readouterr().err.splitlines() == [line.format("a") for line in kept]


def test_details_for_those_who_asked(capsys):
    console.configure(verbose=True)
    both(talk, "a")
    assert "a: more" in capsys.readouterr().err.splitlines()


def die(settings, label):
    relay_to(settings)
    with labelled(label):
        console.status("hello")
        time.sleep(0.3)
        os.kill(os.getpid(), 9)


def test_a_process_that_is_killed_keeps_nobody_waiting(capsys):
    begin = time.monotonic()
    with Relay(SPAWN) as relay:
        process = SPAWN.Process(target=die, args=(relay.settings(), "a"))
        process.start()
        process.join()
    assert process.exitcode == -9
    assert time.monotonic() - begin < 30
    assert capsys.readouterr().err == "a: hello\n"


def walk(settings, label):
    relay_to(settings)
    with labelled(label):
        for item in console.track(range(8), "pooling [x]"):
            time.sleep(0.1)
            if item == 4:
                console.warn("careful")
        for _ in console.track(range(8), "pooling [x]"):  # the same name again
            pass


ON_TERMINAL = """
from sppnet_cli import console
from test_relay import both, walk

if __name__ == "__main__":
    console._SLOW = 0.2
    both(walk)
    console.status("the end")
"""


def test_on_a_terminal_a_bar_for_each(tmp_path):
    pytest.importorskip("pty", reason="needs a POSIX terminal")
    script = tmp_path / "script.py"
    script.write_text(ON_TERMINAL)
    text = on_terminal(str(script))
    for label in "ab":
        assert f"{label}: pooling [x] " in text
        assert f"{label}: warning: careful" in text
    assert "/s, 0:00:0" in text
    assert "the end" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
