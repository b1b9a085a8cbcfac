"""R-CNN with all layers fine-tuned, on the tiny profile."""

from dataclasses import replace

import pytest
import torch
from sppnet_cli.stages.finetune_rcnn import brings_network, finetune_rcnn_stage
from sppnet_cli.stages.plan import detection_steps

from sppnet_cli import runs
from sppnet_cli.detection.detector import Detector
from sppnet_cli.learning import finetune_rcnn as learning
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.network.weights import HEAD_FILE, load_head, load_network
from sppnet_cli.stages import finetune_rcnn as module
from sppnet_cli.stages.finetune import FinetuneConfig
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.windows import WindowConfig, WindowInputs
from sppnet_cli.stages.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    profile = replace(
        PROFILES["tiny"], rcnn_finetune="all", finetune=((1e-2, 1),), train_windows=20, test_windows=20
    )
    return Workspace(profile, root=tmp_path_factory.mktemp("runs"), limit=8)


def same_trunk(a, b):
    ours, theirs = a.trunk.state_dict(), b.trunk.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_only_the_paper_fine_tunes_all_layers():
    assert {name: profile.rcnn_finetune for name, profile in PROFILES.items()} == {
        "tiny": "fc",
        "mini": "fc",
        "pretrained": "fc",
        "paper": "all",
    }


def test_the_run_is_a_network_with_its_fc_layers(workspace):
    run = workspace.head("rcnn", ())
    assert brings_network(run)
    assert not (run / "checkpoint.pt").exists()
    pretrained, network, head = load_network(workspace.network()), load_network(run), load_head(run)
    assert not same_trunk(network, pretrained)
    assert network.head is None
    assert network.spec.levels == pretrained.spec.levels
    assert head.fc6.in_features == network.pooled_size
    assert head.fc8.out_features == 21
    assert workspace.head("rcnn", ()) == run


@pytest.fixture
def finetune(window_network, tiny_data, random_proposals, tmp_path):
    windows = WindowConfig("trainval", "rcnn", (), "paper", 20, 4)
    config = FinetuneConfig(windows, Schedule(((1e-3, 2),)), 8, flip=True, seed=0)
    inputs = WindowInputs(tiny_data / "VOCdevkit", random_proposals, tmp_path / "cache", 1.0)

    def run(name):
        return finetune_rcnn_stage(
            config, window_network, inputs, tmp_path / name, device="cpu", workers=0, max_gib=1.0
        )

    return run


@pytest.mark.parametrize(
    ("where", "name"), [(module, "save_head"), (runs, "return_memory")], ids=["trained", "built"]
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(finetune, monkeypatch, where, name):
    whole = finetune("whole")

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, cut_off)
        with pytest.raises(KeyboardInterrupt):
            finetune("run")
    monkeypatch.setattr(learning, "_step", lambda *_: pytest.fail("a batch twice"))
    run = finetune("run")
    files = ("head.safetensors", "network.json", "network.safetensors")
    assert all((run / name).read_bytes() == (whole / name).read_bytes() for name in files)
    assert sorted(path.name for path in run.iterdir()) == sorted([*files, "manifest.json"])


def test_ft_rows_use_the_fine_tuned_network_and_the_others_the_pretrained_one(workspace):
    pretrained = load_network(workspace.network())
    tuned = workspace.head("rcnn", ())
    plain = Detector.load(workspace.detector("rcnn", (), "fc6"))
    assert same_trunk(plain.extractor.network, pretrained)
    regressed = workspace.detector("rcnn", (), "ftfc7 bb")
    for folder in (workspace.detector("rcnn", (), "ftfc7"), regressed):
        detector = Detector.load(folder)
        assert same_trunk(detector.extractor.network, load_network(tuned))
        assert (folder / HEAD_FILE).read_bytes() == (tuned / HEAD_FILE).read_bytes()
    assert 0 <= workspace.score("rcnn", (), "ftfc7 bb").mean_ap <= 1
    assert (workspace.detections("rcnn", (), "ftfc7 bb") / "detections.csv").stat().st_size > 100


def test_a_given_fine_tuning_brings_its_network(workspace):
    tuned = workspace.head("rcnn", ())
    given = replace(workspace, network_run=workspace.network(), head_run=tuned)
    detector = given.detector("rcnn", (), "ftfc6", workspace.runs / "given")
    assert same_trunk(Detector.load(detector).extractor.network, load_network(tuned))


def test_spp_net_keeps_its_frozen_trunk(workspace):
    run = workspace.head("spp", (480,))
    assert not brings_network(run)
    detector = Detector.load(workspace.detector("spp", (480,), "ftfc7"))
    assert same_trunk(detector.extractor.network, load_network(workspace.network()))


def test_the_plan_knows_of_the_network(workspace):
    (step,) = (s for s in detection_steps(workspace, "rcnn", (), "ftfc7", "detect") if s.name == "finetune")
    assert step.out == workspace.head_folder("rcnn", ())
    assert set(step.files) == {"head.safetensors", "network.json", "network.safetensors"}
    assert step.seconds > 0
