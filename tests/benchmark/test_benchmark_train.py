"""`sppnet train` beside Faster R-CNN, on next to nothing: what is compared and written, not who wins."""

import itertools
import json
import subprocess

import pandas as pd
import pytest

from sppnet_cli.benchmark import faster_rcnn, train
from sppnet_cli.benchmark.faster_rcnn import Recipe
from sppnet_cli.benchmark.train import Ours, TrainSpeed, benchmark_train, compare, run_ours
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import SppnetError
from sppnet_cli.stages.detection_rows import COLUMNS


@pytest.fixture
def right(tiny_data):
    """All objects of the test part, found."""
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        for box, label in zip(truth.boxes.tolist(), truth.labels, strict=True):
            rows.append((image_id, dataset.class_names[label], 1.0, *box))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_compared(tiny_data, right, squeezenet_file, monkeypatch):
    monkeypatch.setattr(faster_rcnn.time, "process_time", itertools.count().__next__)  # a step takes a second
    recipe = Recipe(short_side=64, long_side=100, windows=8, proposals=10)
    config = TrainSpeed("squeezenet1_1", str(squeezenet_file), times=(1, 2), recipe=recipe)
    found = compare(config, tiny_data / "VOCdevkit", Ours(1.0, 0.2, right))
    assert list(found.table["side"]) == ["sppnet train", "Faster R-CNN, 1x", "Faster R-CNN, 2x"]
    ours, once, twice = found.record["sides"].values()
    assert (ours["mAP"], ours["low"], ours["high"], ours["epochs"]) == (1, 1, 1, None)
    assert (ours["processor_seconds"], ours["wall_seconds"]) == (1, 0.2)
    assert (once["processor_seconds"], twice["processor_seconds"]) == (1, 2)
    # A step has two images.
    assert (once["epochs"], twice["epochs"]) == (2 / found.record["images"]["trainval"], 2 * once["epochs"])
    assert 0 <= once["mAP"] < 1
    assert json.loads(json.dumps(found.record, allow_nan=False))["recipe"]["windows"] == 8


def test_ours_is_called_as_a_user_does(tiny_data, right, monkeypatch):
    seen = []

    def run(call, **_):
        seen.append(call)
        runs = call[call.index("--runs") + 1]
        folder = train.Path(runs) / "pretrained/detections-detector-test-seed3-abc"
        folder.mkdir(parents=True)
        right.to_csv(folder / "detections.csv", index=False)
        return subprocess.CompletedProcess(call, 0)

    monkeypatch.setattr(train.subprocess, "run", run)
    monkeypatch.setattr(train, "_of_children", iter([10.0, 17.0]).__next__)
    found = run_ours(TrainSpeed("alexnet", "a.pth", seed=3), tiny_data / "VOCdevkit")
    assert found.processor_seconds == 7
    assert len(found.detections) == len(right)
    (call,) = seen
    assert call[2:5] == ["sppnet_cli", "train", str(tiny_data / "VOCdevkit")]
    assert {"--arch alexnet", "--weights a.pth", "--seed 3", "--device cpu"} <= {
        f"{name} {value}" for name, value in itertools.pairwise(call)
    }


def test_what_fails_there_fails_here(tmp_path, monkeypatch):
    monkeypatch.setattr(train.subprocess, "run", lambda call, **_: subprocess.CompletedProcess(call, 3))
    with pytest.raises(SppnetError, match="nothing to compare with"):
        benchmark_train(TrainSpeed(), tmp_path)


def test_processor_time_of_children_counts():
    before = train._of_children()
    subprocess.run([train.sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert train._of_children() > before
