"""`--profile paper` is what was published: the numbers, by hand, beside those of a dry run and of manifests."""

import contextlib
import io
import json
import os
import re
from dataclasses import replace

import pytest

from sppnet_cli import console
from sppnet_cli.data.mini import TINY
from sppnet_cli.protocols import PAPER
from sppnet_cli.runs import MANIFEST
from sppnet_cli.stages.image_svm import RandomSplits
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Column, Workspace

FIVE_SCALES = (480, 576, 688, 864, 1200)
MAPPING = {"windows.mapping.scale_rule": "closest-area", "windows.mapping.cell_slack": 0.0}
SVM = {
    "protocol": "paper",
    "rules.negative_iou": 0.3,
    "rules.negative_iou_inclusive": True,  # "at most 30%"
    "rules.duplicate_rule": "iou",
    "rules.duplicate_iou": 0.7,
    "rules.feature_norm": 20.0,
    "rules.svm_c": 1e-3,
    "rules.svm_positive_weight": 2.0,
    "rules.svm_bias": 10.0,
    "rules.svm_hard_score": -1.0001,
    "rules.svm_evict_score": -1.2,
    "rules.svm_retrain_after": 2000,
    "detect.score_threshold": -1.5,
    "detect.nms_iou": 0.3,
    "detect.nms_ties": "first",
    "detect.max_per_image": 100,
    **MAPPING,
}
FINETUNE = {
    "rules.finetune_positive_iou": 0.5,
    "rules.finetune_batch": 128,
    "rules.finetune_positive_fraction": 0.25,
    "rules.finetune_scale": "best",
    "schedule.momentum": 0.9,
    "schedule.weight_decay": 5e-4,
    "fc": 4096,
    "flip": True,
    **MAPPING,
}
# Of each stage, and method of detection, its numbers in the report, or in R-CNN's paper and code.
PUBLISHED = {
    "pretrain": {
        "arch": "zf5",
        "width": 1.0,
        "fc": 4096,
        "recipe.epochs": 70,
        "recipe.batch": 128,
        "recipe.rate": 0.01,
        "recipe.schedule": "plateau",
        "recipe.init": "paper",
        "recipe.optimizer": "sgd",
        "recipe.momentum": 0.9,
        "recipe.weight_decay": 5e-4,
        "recipe.lighting": "variance",
        "recipe.draw_size": False,
        "recipe.amp": False,
    },
    "train-svm-images": {
        "rules.whole_image_loss": "hinge",
        "rules.whole_image_c": 1.0,
        "splits.count": 10,
        "splits.train": 30,
        "splits.test": 50,
    },
    "propose": {"method": "ss-paper"},
    "finetune spp": {
        "rules.finetune_negative_iou": 0.1,
        "schedule.steps": ((1e-4, 250_000), (1e-5, 50_000)),
        "schedule.fc8_rate": 1.0,
        **FINETUNE,
    },
    "finetune-all rcnn": {
        "rules.finetune_negative_iou": 0.0,
        "schedule.steps": ((1e-3, 20_000), (1e-4, 20_000), (1e-5, 20_000), (1e-6, 10_000)),
        "schedule.fc8_rate": 10.0,
        **FINETUNE,
    },
    "train-svm spp": SVM,
    "train-svm rcnn": SVM,
    "train-bbox spp": {
        "rules.bbox_iou": 0.5,
        "rules.bbox_iou_inclusive": True,
        "rules.bbox_lambda": 1000.0,
        "rules.feature_norm": 20.0,
        **MAPPING,
    },
    "train-bbox rcnn": {
        "rules.bbox_iou": 0.6,
        "rules.bbox_iou_inclusive": False,
        "rules.bbox_lambda": 1000.0,
        "rules.feature_norm": 20.0,
    },
    "time": {
        "images": 100,
        "windows": 2000,
        **{name.removeprefix("windows."): of for name, of in MAPPING.items()},
    },
}
# What the manifests' runs have less of: data, width, epochs, batches.
SMALLER = {
    "pretrain": {"width": 0.0625, "fc": 32, "recipe.epochs": 2, "recipe.batch": 8},
    "train-svm-images": {"splits.count": 2, "splits.train": 2, "splits.test": 2},
    "finetune spp": {"fc": 32, "schedule.steps": ((1e-4, 2), (1e-5, 1))},
    "finetune-all rcnn": {"fc": 32, "schedule.steps": ((1e-3, 1), (1e-4, 1), (1e-5, 1), (1e-6, 1))},
}
NEVER_CUT = ("finetune", "finetune-all", "train-svm", "train-bbox", "detect")  # they take all windows


def flat(config, prefix=""):
    """A nested config by dotted names."""
    found = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


@pytest.fixture(scope="module")
def dry_run(run, tiny_data, tmp_path_factory):
    """Of a dry run: the name of each stage, and its config as printed."""
    folder = tmp_path_factory.mktemp("dry_run")
    # The tiny data with enough images for the published batch and splits.
    for name, copies in (("imagenet", 4), ("caltech101", 11)):
        for path in (tiny_data / name).rglob("*.*"):
            for copy in range(copies if path.is_file() else 0):
                target = folder / path.relative_to(tiny_data).with_name(f"{copy}{path.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
    data = (
        "--imagenet",
        folder / "imagenet",
        "--caltech",
        folder / "caltech101",
        "--data",
        tiny_data / "VOCdevkit",
    )
    tables = ["table1", "table2", "table3", "table4", "table6"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stdout(printed):
        monkeypatch.chdir(folder)
        console.configure()
        assert run(tables, *data, "--dry-run", "-v", profile="paper") == 0
    lines = printed.getvalue().splitlines()
    stages = dict(reversed(line.split()[:2]) for line in lines if re.match(r"[a-z-]+ +runs/paper/", line))
    configs, config = [], {}
    for line in lines:
        if header := re.match(r"(runs/paper/\S+): ", line):
            config = {}
            configs.append((stages[header[1]], config))
        elif len(row := re.split(r"  +", line.strip(), maxsplit=1)) == 2:
            config[row[0]] = row[1]
    return configs


def key(stage, config):
    """Its key in `PUBLISHED`."""
    method = config.get("windows.method")
    return f"{stage} {method}" if f"{stage} {method}" in PUBLISHED else stage


def test_a_dry_run_prints_every_published_number(dry_run):
    assert {key(*each) for each in dry_run} >= set(PUBLISHED)
    for stage, config in dry_run:
        expected = PUBLISHED.get(key(stage, config), {})
        if config.get("images.dataset") == "VOC":
            expected = {name: value for name, value in expected.items() if not name.startswith("splits.")}
        found = {name: config.get(name) for name in expected}
        assert found == {name: str(value) for name, value in expected.items()}, stage
        assert not {"max_windows", "windows.max_windows", "limit", "windows.limit"} & set(config)


def test_a_dry_run_prints_the_networks_views_scales_and_columns(dry_run):
    def seen(stage, *names):
        return {tuple(config.get(name) for name in names) for which, config in dry_run if which == stage}

    assert seen("pretrain", "levels", "recipe.sizes") == {
        (None, "(224,)"),
        ("(1, 2, 3, 4)", "(224,)"),
        ("(1, 2, 3, 6)", "(224,)"),
        ("(1, 2, 3, 6)", "(224, 180)"),
    }
    assert seen("evaluate", "views") == {("10",), ("8+2full",), ("1crop",), ("1full",)}
    assert seen("train-svm", "windows.method", "windows.scales") == {
        ("spp", "(688,)"),
        ("spp", str(FIVE_SCALES)),
        ("rcnn", "()"),
    }
    assert seen("extract-features", "view", "size") == {("crop", "224"), ("full", "224"), ("full", "392")}
    assert seen("train-svm-images", "layer") == {
        (layer,) for layer in ("conv4", "conv5", "pool5", "SPP pool5", "fc6", "fc7")
    }


def test_the_manifests_of_a_small_run_hold_every_published_number(tmp_path):
    """Under the rules of `paper`, of tiny's data, width, epochs and batches."""
    profile = PROFILES["paper"]
    ws = Workspace(
        replace(
            profile,
            data=TINY,
            width=0.0625,
            fc=32,
            recipe=replace(profile.recipe, epochs=2, batch=8),
            detection_images=(3, 2),
            splits=RandomSplits(count=2, train=2, test=2),
            threads=1,
        ),
        root=tmp_path,
        protocol=replace(
            PAPER,
            finetune_schedule=((1e-4, 2), (1e-5, 1)),
            rcnn_finetune_schedule=((1e-3, 1), (1e-4, 1), (1e-5, 1), (1e-6, 1)),
        ),
        jobs=1,
    )
    ws.make(
        ws.detections("spp", FIVE_SCALES, "ftfc7 bb"),
        ws.detections("rcnn", (), "ftfc7 bb"),
        *ws.tested_svms(Column("spp6", "full", 224), "SPP pool5", "Caltech101"),
    )
    seen = set()
    for path in tmp_path.rglob(MANIFEST):
        manifest = json.loads(path.read_text())
        config = flat(manifest["config"])
        name = key(manifest["stage"], config)
        expected = json.loads(json.dumps(PUBLISHED.get(name, {}) | SMALLER.get(name, {})))
        assert {field: config.get(field) for field in expected} == expected, name
        if manifest["stage"] in NEVER_CUT:
            assert {value for field, value in config.items() if field.endswith("max_windows")} == {None}
        seen.add(name)
    assert seen >= set(PUBLISHED) - {"time"}
