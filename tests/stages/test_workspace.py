"""The chain that a workspace describes: which numbers bear on which stage, and what follows from what."""

import pickle
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.chain import Part, Resources, behind, path_of
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.protocols import PAPER, Protocol
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.photos import PhotoConfig
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Column, NeedsData, Workspace

TINY = replace(PROFILES["tiny"], finetune=None)  # fine-tuned by the protocol's schedule
SPP, RCNN = ("spp", (480,)), ("rcnn", ())
VOC = Column("spp6", "full", 224)


@pytest.fixture
def ws(tmp_path):
    return Workspace(TINY, root=tmp_path / "runs", jobs=1)


def chain(ws):
    """A stage of each kind, by a short name."""
    images = ws.image_set("VOC", "trainval")
    stages = {
        "data": ws.embedded(),
        "network": ws.trained_network(),
        "errors": ws.errors("spp6", (224,), "1crop"),
        "proposals": ws.proposals("trainval"),
        "features": ws.layer_features(VOC, "fc7", images),
        "image svms": ws.image_svms(VOC, "fc7", images),
    }
    for method, scales in (SPP, RCNN):
        stages |= {
            f"{method} head": ws.finetuned(method, scales),
            f"{method} pool5": ws.detector(method, scales, "pool5"),
            f"{method} ftfc7": ws.detector(method, scales, "ftfc7"),
            f"{method} bb": ws.detector(method, scales, "ftfc7 bb"),
            f"{method} detections": ws.detections(method, scales, "ftfc7 bb"),
        }
    stages["times"] = ws.times(
        {"SPP": (ws, *SPP, stages["spp ftfc7"]), "R-CNN": (ws, *RCNN, stages["rcnn ftfc7"])}
    )
    return stages


def test_stages_go_to_other_processes(ws, tmp_path):
    stages = behind([*chain(ws).values(), ws.calibrated(*SPP, "pool5"), ws.imported_set(tmp_path)])
    copies = pickle.loads(pickle.dumps(stages))
    assert [copy.folder for copy in copies] == [stage.folder for stage in stages]
    assert [copy.cost() for copy in copies] == [stage.cost() for stage in stages]


HEADS = ("spp head", "rcnn head")
SVMS = ("spp pool5", "spp ftfc7", "rcnn pool5", "rcnn ftfc7")
REGRESSORS = ("spp bb", "rcnn bb")
# The stages of the method that a number is part of; what is made from them follows.
BEARS_ON = {
    "name": SVMS,  # which detectors carry to tell whose rules they have
    "scales": (),  # the caller gives scales
    "single_scale": (),
    "scale_rule": ("spp head", "spp pool5", "spp ftfc7", "spp bb", "times"),
    "cell_slack": ("spp head", "spp pool5", "spp ftfc7", "spp bb", "times"),
    "finetune_scale": ("spp head",),
    "finetune_schedule": ("spp head",),
    "duplicate_rule": SVMS,
    "negative_iou_inclusive": SVMS,
    "bbox_iou_inclusive": ("spp bb",),
    "bbox_lambda": ("spp bb",),
    "whole_image_loss": ("image svms",),
    "lighting": ("network", "features"),  # of another network
    "nms_ties": SVMS,  # detectors carry what detections follow from
    "negative_iou": SVMS,
    "duplicate_iou": SVMS,
    "finetune_positive_iou": HEADS,
    "finetune_negative_iou": ("spp head",),
    "finetune_batch": HEADS,
    "finetune_fc8_rate": ("spp head",),
    "finetune_positive_fraction": HEADS,
    "bbox_iou": ("spp bb",),
    "whole_image_c": ("image svms",),
    "feature_norm": (*SVMS, *REGRESSORS),
    "svm_c": SVMS,
    "svm_positive_weight": SVMS,
    "svm_bias": SVMS,
    "svm_tolerance": SVMS,
    "svm_hard_score": SVMS,
    "svm_evict_score": SVMS,
    "svm_retrain_after": SVMS,
    "score_threshold": SVMS,
    "nms_iou": SVMS,
    "max_per_image": SVMS,
    "rcnn_background_iou": ("rcnn head",),
    "rcnn_bbox_iou": ("rcnn bb",),
    "rcnn_bbox_lambda": ("rcnn bb",),
    "rcnn_finetune_schedule": ("rcnn head",),
    "rcnn_fc8_rate": ("rcnn head",),
}
# What is made from what, in this chain.
FOLLOW = {
    "network": ("errors", *HEADS, *SVMS, *REGRESSORS, "times"),
    "features": ("image svms",),
    "spp head": ("spp ftfc7",),
    "rcnn head": ("rcnn ftfc7",),
    "spp ftfc7": ("spp bb", "times"),
    "rcnn ftfc7": ("rcnn bb", "times"),
    "spp bb": ("spp detections",),
    "rcnn bb": ("rcnn detections",),
}
OTHER = {
    "scale_rule": "rounded-side",
    "finetune_scale": "random",
    "duplicate_rule": "cells",
    "whole_image_loss": "squared-hinge",
    "lighting": "deviation",
    "nms_ties": "last",
    "scales": (480, 1200),
    "finetune_schedule": ((1e-3, 7),),
    "rcnn_finetune_schedule": ((1e-3, 7),),
}


def with_what_follows(names):
    found = set(names)
    while more := {each for name in found for each in FOLLOW.get(name, ())} - found:
        found |= more
    return found


def test_every_field_of_the_protocol_is_looked_at():
    assert set(BEARS_ON) == {field.name for field in fields(Protocol)}


@pytest.mark.parametrize("field", BEARS_ON)
def test_a_changed_number_makes_anew_what_it_bears_on_and_nothing_else(ws, field):
    value = getattr(PAPER, field)
    if isinstance(value, bool):
        other = not value
    else:
        other = OTHER.get(field) or (value + "x" if isinstance(value, str) else value + 1)
    before = chain(ws)
    after = chain(replace(ws, protocol=replace(PAPER, **{field: other})))
    changed = {name for name in before if before[name].digest != after[name].digest}
    assert changed == with_what_follows(BEARS_ON[field])
    assert {name for name in before if before[name].folder != after[name].folder} == changed


DETECTING = ("head", "pool5", "ftfc7", "bb", "detections")
EVERYTHING = {f"{method} {name}" for method in ("spp", "rcnn") for name in DETECTING} | {"times"}
FROM_NETWORK = EVERYTHING | {"errors", "features", "image svms"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, FROM_NETWORK | {"network"}),
        ({"tuning": 1}, with_what_follows(["spp head", "rcnn head"])),
        ({"proposals_method": "edgeboxes"}, EVERYTHING | {"proposals"}),
        ({"proposals_seed": 1}, EVERYTHING | {"proposals"}),
        ({"limit": 8}, EVERYTHING | {"errors", "network", "proposals", "features", "image svms"}),
        ({"profile": replace(TINY, flip=False)}, with_what_follows(["spp head", "rcnn head"])),
        ({"profile": replace(TINY, train_windows=9)}, EVERYTHING),
        ({"profile": replace(TINY, test_windows=9)}, {"spp detections", "rcnn detections"}),
        ({"profile": replace(TINY, timing_images=2)}, {"times"}),
        ({"profile": replace(TINY, timing_windows=9)}, {"times"}),
        ({"profile": replace(TINY, recipe=replace(TINY.recipe, rate=0.5))}, FROM_NETWORK | {"network"}),
        ({"profile": replace(TINY, data=replace(TINY.data, voc_test=9))}, FROM_NETWORK | {"network", "data", "proposals"}),
        # What only says how fast it goes.
        ({"jobs": 2, "remake": True, "how": Resources(workers=4, max_memory=1, cache_gb=0)}, set()),
        ({"profile": replace(TINY, about="x", rcnn_map=False, threads=4)}, set()),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_a_setting_of_the_workspace_or_the_profile_bears_on(ws, change, expected):
    before, after = chain(ws), chain(replace(ws, **change))
    assert {name for name in before if before[name].digest != after[name].digest} == expected


def flat(value, prefix=""):
    """Leaves of a config by their dotted names."""
    if isinstance(value, dict):
        return {k: v for name, each in value.items() for k, v in flat(each, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def test_configs_hold_numbers_by_value(ws):
    """No profile, no method's record, no folder: what stands there is a number, a choice or a list of these."""
    for stage in chain(ws).values():
        for name, value in flat(asdict(stage.config)).items():
            values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            assert "profile" not in name
            assert not any(isinstance(each, Path) for each in values), (stage.name, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stages of each kind, built while no field of a protocol can be read.  The protocol's numbers are uncommon."""
    odd = replace(PAPER, negative_iou=0.25, nms_iou=0.4, svm_c=2e-3, finetune_batch=16, max_per_image=7)
    profile = replace(TINY, finetune=((1e-3, 2),), train_windows=20, test_windows=20)
    ws = Workspace(profile, root=tmp_path_factory.mktemp("runs"), protocol=odd, jobs=1)
    few = replace(ws, limit=8)
    stages = [
        few.detections(*SPP, "ftfc7 bb"),
        few.detector(*RCNN, "fc6"),
        few.errors("spp6", (224,), "1crop"),
        *ws.tested_svms(VOC, "fc7", "VOC"),
        ws.tested_svms(VOC, "SPP pool5", "Caltech101").svms,
    ]
    planned = few.plan(*stages).to_make

    def forbid(self, name):
        if not name.startswith("__"):
            pytest.fail(f"protocol.{name} was read while a stage was built")
        return object.__getattribute__(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Protocol, "__getattribute__", forbid)
        few.make(*stages)
    return planned


def test_stages_read_no_number_that_their_description_does_not_hold(made):
    """Here they had no protocol to read from."""
    configs = [read_manifest(stage.folder)["config"] for stage in made if stage.name == "train-svm"]
    for config in configs:
        assert (config["rules"]["negative_iou"], config["rules"]["svm_c"]) == (0.25, 2e-3)
        assert (config["detect"]["nms_iou"], config["detect"]["max_per_image"]) == (0.4, 7)
    [detections] = [stage.folder for stage in made if stage.name == "detect"]
    rows = pd.read_csv(detections / "detections.csv")
    assert 1 < rows.groupby(["image", "class"]).size().max() <= 7


def test_what_stages_say_that_they_write_is_what_they_write(made):
    """Names exactly, sizes of what is large about."""
    for stage in made:
        if stage.name == "data":
            continue  # a whole tree
        named = {name.split(" (")[0].rstrip("/"): size for name, size in stage.cost().files.items()}
        written = {path.name for path in stage.folder.iterdir()} - {"manifest.json"}
        assert set(named) == written, stage.name
        for name in written:
            path = stage.folder / name
            if path.suffix in (".safetensors", ".npy"):
                assert named[name] <= path.stat().st_size <= named[name] + 3000, (stage.name, name)


def test_a_plan_names_the_folders_that_are_then_written(made):
    runs = {path for path in made[0].folder.parent.iterdir() if path.name != "cache"}
    assert {stage.folder for stage in made} == runs


def test_names_of_runs_can_be_read(made):
    stems = sorted({stage.folder.name.rsplit("-", 1)[0] for stage in made})
    assert "detector-rcnn-fc6-seed0" in stems
    assert "svms-spp6-full-224-trainval-fc7-seed0" in stems
    assert all(stage.folder.name.endswith(f"-{stage.digest[:8]}") for stage in made)


def test_the_plan_of_a_detection(ws):
    assert [
        (stage.name, stage.folder.parent, stage.folder.name.rsplit("-", 1)[0])
        for stage in ws.plan(ws.detections(*SPP, "ftfc7 bb")).to_make
    ] == [
        (name, ws.root / "tiny", stem)
        for name, stem in [
            ("data", "data"),
            ("propose", "proposals-test-ss-fast"),
            ("propose", "proposals-trainval-ss-fast"),
            ("pretrain", "network-spp6-224-seed0"),
            ("finetune", "finetune-spp-480-seed0"),
            ("train-svm", "detector-spp-480-ftfc7-seed0"),
            ("train-bbox", "detector-spp-480-ftfc7-bb-seed0"),
            ("detect", "detections-spp-480-ftfc7-bb-test-seed0"),
        ]
    ]


def test_the_windows_are_those_that_the_profile_names_or_more_on_the_users_data(ws, tiny_data):
    assert ws.detections(*SPP, "pool5").config.max_windows == 60
    assert ws.detector(*SPP, "pool5").config.windows.max_windows == 60
    # The user's data get up to as many windows as are timed.
    own = replace(ws, data=tiny_data / "VOCdevkit")
    assert own.detections(*SPP, "pool5").config.max_windows == 100


def test_detectors_that_are_given_are_not_made(ws, random_detector, tmp_path):
    out = tmp_path / "out"
    stages = [ws.detect([random_detector] * k, ["x"], "trainval").at(out) for k in (1, 2)]
    for stage in stages:
        made = ws.plan(stage).to_make
        assert [each.name for each in made] == ["data", "propose", "detect"]
        assert made[1].folder == ws.proposals("trainval").folder
        assert made[2].folder == out
    assert stages[0].digest != stages[1].digest
    bbox = ws.with_bbox(random_detector, *SPP, "pool5 bb").at(tmp_path / "bb")
    assert [each.name for each in ws.plan(bbox).to_make] == ["data", "propose", "train-bbox"]
    assert {"svm.safetensors", "detector.json", "bbox.safetensors"} <= set(bbox.cost().files)


def test_a_network_that_is_given_is_not_trained(ws, tiny_network, tiny_data):
    given = replace(ws, network_run=tiny_network)
    assert "pretrain" not in {s.name for s in given.plan(given.detections(*SPP, "fc6")).to_make}
    assert given.detector(*SPP, "fc6").inputs["network"] == tiny_network
    real = Workspace(PROFILES["paper"], network_run=tiny_network, data=tiny_data / "VOCdevkit")
    assert real.imagenet is None
    images = real.image_set("VOC", "test")
    assert [s.name for s in real.plan(real.layer_features(VOC, "fc7", images)).to_make] == [
        "extract-features"
    ]


@pytest.mark.parametrize("lists", [("trainval", "test"), ("train", "val")])
def test_the_lists_of_whole_images_are_those_that_are_used(ws, tiny_data, lists):
    tested = ws.tested_svms(VOC, "fc7", "VOC", train=lists[0], test=lists[1])
    made = ws.plan(*tested).to_make
    assert [s.config.images.split for s in made if s.name == "extract-features"] == list(lists)
    assert tested.svms.config.images.split == lists[0]
    for name, stage in zip(lists, (tested.svms.inputs["features"], tested.features), strict=True):
        count = len(load_voc(tiny_data / "VOCdevkit", name))
        assert stage.cost().files["fc6.npy"] == 4 * 32 * count
        assert stage.config.layers == ("pool5", "SPP pool5", "fc6", "fc7")  # of one pass


def test_layers_and_sets_share_features(ws):
    """Table 3, Table 4 and `train-svm --task classification` take the same run."""
    images = ws.image_set("VOC", "trainval")
    assert len({ws.layer_features(VOC, layer, images).digest for layer in ("pool5", "fc6", "fc7")}) == 1
    assert (
        ws.image_svms(VOC, "fc6", images).inputs["features"].digest
        == ws.layer_features(VOC, "fc7", images).digest
    )


def test_errors_of_a_network(ws):
    stage = ws.errors("plain", (224,), "8+2full")
    assert [each.name for each in ws.plan(stage).to_make] == ["data", "pretrain", "evaluate"]
    assert stage.config.views == "8+2full"
    assert stage.inputs["network"].config.levels is None


def test_data_that_are_missing_are_named(tmp_path):
    ws = Workspace(PROFILES["paper"])
    with pytest.raises(NeedsData, match="VOC 2007: give --data DIR") as error:
        ws.voc()
    assert error.value.what == "VOC 2007"
    with pytest.raises(NeedsData, match="give --network RUN"):
        ws.imagenet_data()
    with pytest.raises(NeedsData, match="Caltech101: give --data DIR"):
        ws.caltech_data()
    assert replace(ws, imagenet=tmp_path).imagenet_data() == tmp_path


def test_a_folder_that_is_not_there_is_named_before_anything_is_made(ws, tmp_path):
    for change in ({"network_run": tmp_path / "gone"}, {"head_run": tmp_path / "gone"}):
        given = replace(ws, **change)
        with pytest.raises(DataError, match="gone"):
            given.make(given.detections(*SPP, "ftfc7"))
    assert not ws.runs.exists()


def test_what_cannot_be_is_said(ws, tmp_path):
    bare = replace(ws, profile=replace(TINY, arch="squeezenet1_1"), weights="DEFAULT")
    with pytest.raises(UsageError, match="squeezenet1_1 has no fc6: give --layer pool5, or ftfc6"):
        bare.detector(*SPP, "fc6")
    with pytest.raises(DataError, match="squeezenet1_1 needs ImageNet weights"):
        replace(bare, weights=None).network()
    with pytest.raises(DataError, match="neither a run of `sppnet propose`"):
        replace(ws, proposals_method=str(tmp_path)).proposals("test")


def test_photographs_are_searched_for_their_own_windows(ws, random_detector, tmp_path):
    (tmp_path / "street.jpg").write_bytes(b"x")
    costs = []
    for windows in (123, 1230):
        config = PhotoConfig(None, None, None, "ss-fast", 0, windows, 500, None)
        stage = ws.photos(random_detector, [tmp_path / "street.jpg"], config, ["street"])
        assert stage.at(tmp_path / "out").folder == tmp_path / "out"
        assert not stage.needs
        costs.append(stage.cost().seconds)
    assert 0 < costs[0] < costs[1] < np.inf


def test_the_embedded_data_are_counted_before_they_are_made(ws, tiny_data):
    own = replace(ws, data=tiny_data / "VOCdevkit", caltech=tiny_data / "caltech101")
    for split in ("train", "val", "trainval", "test"):
        for limit in (None, 3, 99):
            assert ws.voc_images(split, limit) == own.voc_images(split, limit)
    for limit in (None, 5):
        images = replace(ws.image_set("Caltech101", "x"), limit=limit)
        assert ws.count(images) == own.count(images)


def test_r_cnn_is_timed_and_described_on_its_own_network(ws):
    times = ws.times(
        {"SPP": (ws, *SPP, ws.detector(*SPP, "ftfc7")), "R-CNN": (ws, *RCNN, ws.detector(*RCNN, "ftfc7"))}
    )
    assert times.alone
    assert times.threads is None
    assert [name for name, _ in times.config.sides] == ["SPP", "R-CNN"]
    assert times.config.machine
    assert isinstance(times.inputs["data"], Part)
    assert path_of(times.inputs["data"]).name == "VOCdevkit"
