"""Results as `sppnet reproduce` leaves them, with numbers that are known, and the runs behind them."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.building import make_run
from sppnet_cli.data.voc import load_voc
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.learning.pretrain import METRICS, Recipe
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.runs import identity
from sppnet_cli.stages.detect import CALIBRATED_COLUMNS, DETECTIONS_FILE, DetectConfig
from sppnet_cli.stages.pretrain import PretrainConfig
from sppnet_cli.tables.claims import write_outcomes
from sppnet_cli.tables.paper import literature, published
from sppnet_cli.tables.write import write_small_table, write_table

EPOCHS = ((1, 0.9, 0.8), (2, 0.5, 0.6), (3, 0.25, 0.4))  # training and validation errors


@dataclass(frozen=True)
class DetectorConfig:
    """All that the page looks for in the config of a detector's run."""

    seed: int = 0


def make(folder, name, config, source=None, sources=None, content=None):
    def build(partial):
        if source is not None:
            shutil.copytree(source, partial, dirs_exist_ok=True)
        for file, text in (content or {}).items():
            (partial / file).write_text(text)

    make_run(folder, identity(name, config, {}), build, sources=sources)
    return folder


def found(dataset):
    """Of every image the first object found surely, and a second box beside it that is wrong."""
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        name = dataset.class_names[truth.labels[0]]
        x1, y1, x2, y2 = truth.boxes[0].tolist()
        score = 1 / (1 + len(rows))
        rows += [
            (image_id, name, score, 0.5 + score / 2, x1, y1, x2, y2),
            (image_id, name, score - 1, score / 2, x1 + 2, y1, x2 + 2, y2),
        ]
    return pd.DataFrame(rows, columns=list(CALIBRATED_COLUMNS))


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_data, tiny_network, random_detector):
    """A network, a detector and its detections, by the names of their stages."""
    root = tmp_path_factory.mktemp("project") / "runs" / "tiny"
    recipe = Recipe((224,), 3, 8, 0.02, "one-cycle", "he", 5.0)
    spec = NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 24, 5)
    config = PretrainConfig("zf5", spec.width, spec.levels, 24, recipe, 0, None)
    lines = [
        {"epoch": epoch, "size": 224, "loss": 1.0, "train_top1_error": a, "val_top1_error": b, "rate": 0.1}
        for epoch, a, b in EPOCHS
    ]
    metrics = "".join(json.dumps(line) + "\n" for line in lines)
    data = {"imagenet": tiny_data / "imagenet", "voc": tiny_data / "VOCdevkit"}
    network = make(
        root / "network-1", "pretrain", config, tiny_network, {"data": data["imagenet"]}, {METRICS: metrics}
    )
    detector = make(root / "detector-1", "train-svm", DetectorConfig(), random_detector, {"network": network})
    rows = found(load_voc(data["voc"], "test")).to_csv(index=False)
    detections = make(
        root / "detections-1",
        "detect",
        DetectConfig("test", None),
        sources={"detector": detector, "data": data["voc"]},
        content={DETECTIONS_FILE: rows},
    )
    return {"pretrain": network, "train-svm": detector, "detect": detections}


def record(runs, seeds, **more):
    """What the runner writes beside the values of a table."""
    behind = {
        f"runs/tiny/{folder.name}": {
            "stage": stage,
            "code": "abc",
            "commit": None,
            "machine": {},
            "seconds": 1.5,
        }
        for stage, folder in runs.items()
    }
    return {
        "profile": "tiny",
        "arch": "zf5",
        "seeds": seeds,
        "limit": None,
        "images": {"test": 20},
        "command": "sppnet reproduce table1 table6 --profile tiny --workers 2 -q",
        "date": "2026-05-04T03:02:01+00:00",
        "data": ["/data/VOCdevkit"],
        "code": "abc",
        "commit": "0123456789abcdef",
        "machine": {"processor": "A processor", "system": "A system", "gpu": None},
        "environment": {"torch": "9.8.7"},
        "runs": behind,
        "notes": ["A note with <b>signs</b> & more."],
        **more,
    }


@pytest.fixture(scope="session")
def results(runs):
    """Tables 1 and 6 as published but for some cells, an ablation, and outcomes of a claim."""
    folder = runs["detect"].parents[2] / "results" / "tiny"
    errors = published(1).mask(literature(1))
    errors.loc[["e1", "e2"], "top1_error"] = 40.0, 30.0
    write_table(folder, 1, errors, record(runs, [0]))
    outcomes = {
        (row, "top1_error"): ErrorOutcome(np.arange(200) < wrong) for row, wrong in (("e1", 80), ("e2", 60))
    }
    write_outcomes(folder, 1, 0, outcomes)
    detection = published(6)
    detection.loc["ftfc7 bb", ["spp_5scale", "rcnn"]] = 60.2, 56.5
    more = {
        "AP": {"spp_1scale": {"pool5": {"disk": 0.5, "ring": None}}},
        "arithmetic": {"speedup vs R-CNN": {"spp_1scale": 80.0, "spp_5scale": 30.0}},
        "timing": {"images": 10, "windows": 2000},
    }
    write_table(folder, 6, detection, record(runs, [0, 1], **more), deviation=detection * 0 + 0.25, seeds=2)
    corners = pd.DataFrame({"entire": [12.5], "central": [14.0]}, index=pd.Index(["e1"], name="id"))
    write_small_table(folder, "corners", corners, corners * np.nan, record(runs, [0]))
    return folder
