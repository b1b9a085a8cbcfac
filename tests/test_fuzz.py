"""Hostile input from a seed, by way of the command line in one process: one line, the right code, nothing left.

Each case spoils a file that a user would bring, or an option, in a folder of its own and calls `sppnet` on it.  An
exception that leaves `sppnet` fails the test, and so does a warning.
"""

import argparse
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from spoiling import WORDS, spoil, spoil_json, spoil_text

from sppnet_cli import cli, console
from sppnet_cli.building import make_run
from sppnet_cli.chain import Resources
from sppnet_cli.data.voc import load_voc
from sppnet_cli.runs import identity

SEED = 7
CASES = {
    "images": 70, "photographs": 12, "xml": 50, "lists": 40, "comp4": 40, "csv": 30, "weights": 30, "caffemodel": 20,
    "mat": 25, "detectors": 40, "options": 40, "imports": 60, "trains": 20, "proposals": 10, "results": 30,
    "networks": 15, "runs": 25, "layers": 12, "exports": 4,
}  # fmt: skip


@pytest.fixture
def small_voc(tiny_data, tmp_path):
    """Two images of each split of the tiny VOC as a set of its own, in which nothing is wrong."""
    source = tiny_data / "VOCdevkit" / "VOC2007"
    root = tmp_path / "seeds" / "VOCdevkit" / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split in ("trainval", "test"):
        dataset = load_voc(source, split, limit=2)
        for image_id in dataset.ids:
            shutil.copy(source / "Annotations" / f"{image_id}.xml", root / "Annotations")
            shutil.copy(source / "JPEGImages" / f"{image_id}.jpg", root / "JPEGImages")
        for name in (split, *(f"{each}_{split}" for each in dataset.class_names)):
            label = "" if name == split else " -1"
            lines = "".join(f"{each}{label}\n" for each in dataset.ids)
            (root / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
    return root


@pytest.fixture
def cases(
    tmp_path, small_voc, random_detector, tiny_network
) -> dict[str, Callable[[Path, np.random.Generator], list[object]]]:
    """By kind: a function that writes spoilt input into a folder and returns the arguments of the call."""
    ids = load_voc(small_voc, "test").ids
    classes = load_voc(small_voc, "test").class_names
    photo = small_voc / "JPEGImages" / f"{ids[0]}.jpg"
    pictures = {}
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    with Image.open(photo) as opened:
        picture = opened.resize((80, 60))
    for suffix in ("jpg", "png", "webp", "bmp", "tif", "ppm"):
        written = io.BytesIO()
        picture.save(written, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), exif=exif)
        pictures[suffix] = written.getvalue()
    state = torchvision.models.get_model("squeezenet1_1", weights=None).state_dict()
    boxes, names = np.empty(2, object), np.empty(2, object)
    for k, image_id in enumerate(ids):
        boxes[k], names[k] = np.array([[1.0, 1, 30, 40], [5, 6, 70, 80]]), image_id

    def voc(folder: Path) -> Path:
        return shutil.copytree(small_voc, folder / "VOC2007")

    def images(folder, rng):
        suffix = [*pictures][rng.integers(len(pictures))]
        (folder / "val" / "cat").mkdir(parents=True)
        (folder / "val" / "cat" / f"1.{suffix}").write_bytes(spoil(pictures[suffix], rng))
        return ["data", "check", folder, "--full"]

    def photographs(folder, rng):
        suffix = [*pictures][rng.integers(len(pictures))]
        path = folder / os.fsdecode(
            [b"a", b"caf\xe9", "山".encode(), b"-x", b"~", b"y" * 250][rng.integers(6)]
        )
        path = path.with_name(f"{path.name}.{suffix}")
        path.write_bytes(spoil(pictures[suffix], rng) if rng.integers(2) else pictures[suffix])
        return ["detect", "--detector", random_detector, "--out", folder / "out", "--workers", 0, path]

    def xml(folder, rng):
        root = voc(folder)
        spoil_text(root / "Annotations" / f"{ids[0]}.xml", rng)
        return ["data", "check", root]

    def lists(folder, rng):
        root = voc(folder)
        spoil_text(root / "ImageSets" / "Main" / ["test.txt", f"{classes[0]}_test.txt"][rng.integers(2)], rng)
        if rng.integers(2):
            return ["data", "check", root]
        return ["propose", "--data", root, "--split", "test", "--out", folder / "out", "--workers", 0]

    def comp4(folder, rng):
        root = voc(folder)
        (folder / "results").mkdir()
        path = folder / "results" / f"comp4_det_test_{classes[0]}.txt"
        path.write_text("".join(f"{each} 0.{k}5 1.0 2.0 30.5 40.0\n" for each in ids for k in range(4)))
        spoil_text(path, rng)
        return ["evaluate", "--detections", folder / "results", "--data", root]

    def csv(folder, rng):
        root = voc(folder)
        rows = "".join(f"{each},{classes[k]},0.{k}5,1.0,2.0,30.5,40.0\n" for each in ids for k in range(4))
        (folder / "detections.csv").write_text(f"image,class,score,x1,y1,x2,y2\n{rows}")
        spoil_text(folder / "detections.csv", rng)
        return ["evaluate", "--detections", folder / "detections.csv", "--data", root]

    def weights(folder, rng):
        key = [*state][rng.integers(20)]
        odd = [
            torch.nan * state[key],
            state[key].to(torch.int8),
            state[key] + 1j,
            state[key][None],
            "text",
            None,
        ]
        spoilt = state | {key: odd[rng.integers(len(odd))]}
        inside = [
            state, spoilt, {"model": spoilt}, {"module." + k: v for k, v in state.items()}, [state], "text",
            {"state_dict": state, "args": argparse.Namespace(a=1)}, {"model": torch.nn.Linear(2, 2)},
        ][rng.integers(8)]  # fmt: skip
        path = folder / "net.pth"
        torch.save(inside, path)
        if rng.integers(2):
            path.write_bytes(spoil(path.read_bytes(), rng))
        return [
            "extract-features", photo, "--arch", "squeezenet1_1", "--weights", path, "--runs", folder / "runs", "--dry-run",
        ][:-1]  # fmt: skip

    def caffemodel(folder, rng):
        blob = b"\x2a\x08" + np.float32([1, rng.choice([2, np.nan])]).tobytes() + b"\x3a\x03\x0a\x01\x02"
        layer = b"\x0a\x05conv1" + b"\x3a" + bytes([len(blob)]) + blob
        content = b"\xa2\x06" + bytes([len(layer)]) + layer
        (folder / "x.caffemodel").write_bytes(spoil(content, rng))
        return ["import-weights", folder / "x.caffemodel", "--out", folder / "out"]

    def mat(folder, rng):
        root = voc(folder)
        path = folder / "voc_2007_test.mat"
        given = names.copy()
        if rng.integers(2):
            given[0] = ["../evil", "", "\n", "x" * 300, 5.0][rng.integers(5)]
        scipy.io.savemat(path, {"boxes": boxes.reshape(1, -1), "images": given.reshape(-1, 1)})
        if rng.integers(2):
            path.write_bytes(spoil(path.read_bytes(), rng))
        return ["propose", "--data", root, "--split", "test", "--proposals", path, "--out", folder / "out"]

    def detectors(folder, rng):
        detector = shutil.copytree(random_detector, folder / "detector")
        path = (
            detector
            / ["detector.json", "network.json", "svm.safetensors", "network.safetensors"][rng.integers(4)]
        )
        if path.suffix == ".json" and rng.integers(4):
            path.write_text(json.dumps(spoil_json(json.loads(path.read_text()), rng)))
        elif path.suffix == ".safetensors" and rng.integers(2):
            tensors = load_file(path)
            name = [*tensors][rng.integers(len(tensors))]
            odd = [
                torch.zeros(3),
                tensors[name].to(torch.int32),
                tensors[name] * torch.nan,
                tensors[name][None],
            ]
            save_file(tensors | {name: odd[rng.integers(4)].contiguous()}, path)
        else:
            path.write_bytes(spoil(path.read_bytes(), rng))
        return ["detect", "--detector", detector, "--out", folder / "out", "--workers", 0, photo]

    def options(folder, rng):
        command = ["propose", "detect", "extract-features", "pretrain", "finetune"][rng.integers(5)]
        names = [
            "seed",
            "device",
            "limit",
            "workers",
            "max-memory",
            "cache-gb",
            "data",
            "split",
            "scales",
            "arch",
            "out",
        ]
        arguments = [command, "--profile", "tiny", "--runs", folder / "runs", "--dry-run"]
        name = names[rng.integers(len(names))]
        word = WORDS[rng.integers(len(WORDS))].replace(b"\0", b"")
        more = [
            b"cpu:",
            b"cuda:99",
            str(2**64).encode(),
            b".",
            b"/",
            b"/dev/null",
            b"zf5",
            b"1",
            b"64",
            b"x y",
        ]
        arguments += [f"--{name}", os.fsdecode(word if rng.integers(2) else more[rng.integers(len(more))])]
        return arguments

    def export_of_a_tool(folder: Path, rng: np.random.Generator) -> Path:
        """Two images with labels as COCO, YOLO or Pascal VOC have them, one of its files spoilt."""
        export = folder / "export"
        (export / "images").mkdir(parents=True)
        for name in "ab":
            (export / "images" / f"{name}.jpg").write_bytes(pictures["jpg"])
        files = {}
        match rng.integers(3):
            case 0:
                coco = {
                    "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 80}, {"id": 2, "file_name": "b.jpg"}],
                    "annotations": [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 30, 40]} for k in (1, 2)],
                    "categories": [{"id": 1, "name": "cat"}],
                }  # fmt: skip
                if rng.integers(2):
                    key = [*coco][rng.integers(3)]
                    coco[key][0] = spoil_json(coco[key][0], rng)
                elif rng.integers(2):
                    coco = spoil_json(coco, rng)
                files["labels.json"] = json.dumps(coco)
            case 1:
                files["data.yaml"] = "path: .\ntrain: images\nval: images\nnc: 2\nnames: ['cat', 'dog']\n"
                files["labels/a.txt"] = "0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.1 0.1\n"
                files["labels/b.txt"] = "1 0.1 0.1 0.9 0.1 0.9 0.9\n"
            case 2:
                files["xml/a.xml"] = (small_voc / "Annotations" / f"{ids[0]}.xml").read_text()
                files["xml/b.xml"] = files["xml/a.xml"]
        for name, text in files.items():
            (export / name).parent.mkdir(exist_ok=True)
            (export / name).write_text(text)
        if rng.integers(4):
            spoil_text(export / [*files][rng.integers(len(files))], rng)
        return export

    def imports(folder, rng):
        return ["data", "import", export_of_a_tool(folder, rng), "--out", folder / "out"]

    def trains(folder, rng):
        data = export_of_a_tool(folder, rng)
        if rng.integers(2):
            data = voc(folder)
            spoil_text([*data.rglob("*.xml"), *data.rglob("t*.txt")][rng.integers(6)], rng)
        arguments = [
            "train",
            data,
            "--profile",
            "tiny",
            "--arch",
            "zf5",
            "--runs",
            folder / "runs",
            "--out",
            folder / "out",
        ]
        return [*arguments, "--dry-run"]

    def proposals(folder, rng):
        root = voc(folder)
        path = folder / "windows" / "boxes" / f"{ids[0]}.npy"
        path.parent.mkdir(parents=True)
        for image_id in ids:
            np.save(path.with_stem(image_id), boxes[0].astype(np.float32))
        odd = [
            boxes[0] * np.nan,
            boxes[0][:, :3],
            boxes[0].astype("S1"),
            boxes[0] + 1j,
            boxes[0][::-1, ::-1],
            boxes[0] * 1e300,
        ]
        if rng.integers(2):
            np.save(path, odd[rng.integers(len(odd))])
        else:
            path.write_bytes(spoil(path.read_bytes(), rng))
        arguments = [
            "detect",
            "--detector",
            random_detector,
            "--data",
            root,
            "--proposals",
            folder / "windows",
        ]
        return [*arguments, "--out", folder / "out", "--runs", folder / "runs", "--workers", 0]

    def results(folder, rng):
        entries = [{"image_id": 1, "category_id": k, "bbox": [1, 2, 30, 40], "score": 0.5} for k in (1, 2)]
        if rng.integers(2):
            entries[1] = spoil_json(entries[1], rng)
        (folder / "found.json").write_text(json.dumps(entries))
        if rng.integers(2):
            spoil_text(folder / "found.json", rng)
        return ["evaluate", "--detections", folder / "found.json", "--data", voc(folder)]

    def spoilt_network(folder: Path, rng: np.random.Generator) -> Path:
        network = shutil.copytree(tiny_network, folder / "network")
        path = (
            network / ["network.json", "network.json", "network.safetensors", "classes.txt"][rng.integers(4)]
        )
        if path.suffix == ".json" and rng.integers(2):
            path.write_text(json.dumps(spoil_json(json.loads(path.read_text()), rng)))
        elif path.suffix == ".txt":
            path.write_bytes(spoil(b"cat\ndog\n", rng))
        else:
            path.write_bytes(spoil(path.read_bytes(), rng))
        return network

    def networks(folder, rng):
        network = spoilt_network(folder, rng)
        return ["extract-features", photo, "--network", network, "--out", folder / "out", "--workers", 0]

    def exports(folder, rng):
        return ["export", spoilt_network(folder, rng), "--out", folder / "out.onnx"]

    def runs(folder, rng):
        at = folder / "runs" / "mini"
        for name in "ab":
            make_run(
                at / name,
                identity("detect", Resources(), {"data": "0"}),
                lambda made: (made / "x.csv").touch(),
            )
        path = at / "a" / "manifest.json"
        if rng.integers(2):
            path.write_text(json.dumps(spoil_json(json.loads(path.read_text()), rng)))
        else:
            spoil_text(path, rng)
        command = [["runs"], ["runs", "diff", at / "a", at / "b"], ["runs", "prune", "--stale", "--dry-run"]]
        return ["runs", "--runs", folder / "runs", *command[rng.integers(3)][1:]]

    def layers(folder, rng):
        path = folder / "layer.py"
        path.write_text(
            "import torch\n\nclass Layer(torch.nn.Module):\n    def forward(self, x):\n        return x.flatten(1)\n"
        )
        spoil_text(path, rng)
        return ["check-layer", f"{path}:Layer"]

    found = locals()
    return {name: found[name] for name in CASES}


@pytest.fixture
def call(monkeypatch, capsys):
    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["sppnet", *map(str, arguments)])
        console.configure()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


def left_over(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.name.endswith((".tmp", ".partial")):
            yield path


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_hostile_input_is_one_line_and_leaves_nothing(cases, call, tmp_path, monkeypatch, kind):
    outside = sorted(tmp_path.iterdir())
    for number in range(CASES[kind]):
        rng = np.random.default_rng([SEED, *kind.encode(), number])
        folder = tmp_path / "case" / "inside"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        arguments = cases[kind](folder, rng)
        name = f"{kind} {number}: sppnet {' '.join(map(str, arguments))}"
        before = set(folder.rglob("*"))
        try:
            code, _, err = call(arguments)
        except Exception as error:
            raise AssertionError(name) from error
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code in (0, 1, 2, 3), name
        differs = kind == "layers" and code == 1 and not errors  # the answer that a layer is another
        assert len(errors) == (code != 0) or differs, (name, err)
        assert all(len(line) < 3000 for line in errors), name
        assert not list(left_over(folder)), name
        if code in (2, 3):
            new = {path for path in folder.rglob("*") if path.is_file()} - before
            assert not {path for path in new if "runs" not in path.parts}, (name, new)
        assert [path.name for path in (tmp_path / "case").iterdir()] == ["inside"], name
        assert sorted(tmp_path.iterdir()) == sorted([*outside, tmp_path / "case"]), name
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(tmp_path / "case")
