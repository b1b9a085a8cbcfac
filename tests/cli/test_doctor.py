"""`sppnet doctor`: each fault has a remedy, and nothing that is broken breaks it."""

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import pytest

from sppnet_cli import libraries
from sppnet_cli.cli import doctor
from sppnet_cli.cli.doctor import (
    check_devices,
    check_disk,
    check_memory,
    check_opencv,
    check_python,
    check_shared_memory,
    check_torch,
)

CONTRIB = "opencv-contrib-python-headless"
Usage = namedtuple("Usage", "total used free")


def test_a_sound_machine(sppnet, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, 1e12))
    monkeypatch.setattr(doctor, "memory", lambda: 16e9)
    code, out, _ = sppnet("doctor")
    assert code == 0
    lines = out.splitlines()
    assert lines[-1] == "no faults"
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "sppnet", "Python", "system", "torch", "devices", "OpenCV", "libraries", "threads", "linear library",
        "memory", "shared memory", "disk", "weights cache",
    ]  # fmt: skip
    found = json.loads(sppnet("doctor", "--json")[1])
    assert found["faults"] == 0
    assert found["checks"]["memory"] == {"value": "16.0 GB", "remedy": None}
    assert re.match(r"(onednn|mkl), of mkl", found["checks"]["linear library"]["value"])


def test_faults_are_told_with_their_remedies(sppnet, monkeypatch):
    monkeypatch.setattr(doctor, "memory", lambda: 1e9)
    monkeypatch.setenv("SPPNET_LINEAR", "blas")
    monkeypatch.setattr(
        libraries, "_default", libraries._default.__wrapped__
    )  # what it chose before does not matter

    def broken():
        raise ImportError("libGL.so.1: cannot open shared object file\nno such file")

    monkeypatch.setattr(doctor, "_torch", broken)
    code, out, err = sppnet("doctor")
    assert (code, err) == (1, "")
    assert "fault: memory: 1.0 GB\n  give --jobs 1" in out
    assert re.search("fault: linear library: .*blas.*\n  unset SPPNET_LINEAR", out)
    assert "fault: torch: broken: libGL.so.1: cannot open shared object file no such file\n" in out
    assert json.loads(sppnet("doctor", "--json")[1])["faults"] >= 3


@pytest.mark.parametrize(
    ("version", "sound"),
    [((3, 11, 3), False), ((3, 11, 4), True), ((3, 14, 9), True), ((3, 15, 0), False), ((3, 10, 20), False)],
)
def test_pythons(version, sound):
    assert (check_python(version).remedy is None) == sound


def test_builds_of_opencv(monkeypatch):
    assert check_opencv({CONTRIB: "5.0", "opencv-python": None}).remedy is None
    both = check_opencv({CONTRIB: "5.0", "opencv-python": "4.9"})
    assert both.value == f"{CONTRIB} 5.0, opencv-python 4.9"
    assert both.remedy == f"pip uninstall -y {CONTRIB} opencv-python; pip install {CONTRIB}"
    assert check_opencv({CONTRIB: None, "opencv-python": "4.9"}).remedy is not None
    assert check_opencv({CONTRIB: None}).remedy == f"pip install {CONTRIB}"
    monkeypatch.delattr(cv2, "ximgproc")
    assert check_opencv({CONTRIB: "5.0"}).remedy == f"pip uninstall -y {CONTRIB}; pip install {CONTRIB}"


def test_torch_and_torchvision_are_a_pair():
    assert check_torch("2.14.0+cpu", "0.29.0+cpu", "2.14.0").remedy is None
    assert check_torch("2.14.0", "0.29.0", None).remedy is None
    assert "force-reinstall" in str(check_torch("2.13.0", "0.29.0", "2.14.0").remedy)


def test_devices():
    assert check_devices([], None, False, False) == ("cpu", None)
    assert check_devices(["cuda:0 X"], "13.0", True, False) == ("cpu, cuda:0 X", None)
    assert check_devices([], None, False, True) == ("cpu, mps", None)
    assert "force-reinstall torch" in str(check_devices([], None, True, False).remedy)
    assert "driver" in str(check_devices([], "13.0", True, False).remedy)


def test_room(monkeypatch, tmp_path):
    assert check_memory(3.9e9).remedy
    assert check_memory(4e9).remedy is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(6.4e7, 0, 4e9))
    assert "prune --caches" in str(check_disk(tmp_path / "not" / "yet").remedy)
    assert "--shm-size" in str(check_shared_memory(tmp_path).remedy)
    assert check_shared_memory(tmp_path / "gone").remedy is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(6.4e8, 0, 6e9))
    assert check_disk(tmp_path).remedy is None
    assert check_shared_memory(tmp_path).remedy is None
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "--runs" in str(check_disk(tmp_path).remedy)


def test_memory_of_a_container(monkeypatch, tmp_path):
    machine = doctor.memory()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "_MEMORY_LIMITS", (limit, Path("gone")))
    limit.write_text("max\n")
    assert doctor.memory() >= machine
    limit.write_text("1000000\n")
    assert doctor.memory() == 1e6
