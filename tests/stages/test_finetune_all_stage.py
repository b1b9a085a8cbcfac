"""R-CNN with all layers fine-tuned, on the tiny profile."""

from dataclasses import replace

import pytest
import torch

from sppnet_cli import building
from sppnet_cli.detection.detector import Detector
from sppnet_cli.features.methods import METHODS
from sppnet_cli.learning import finetune_rcnn as learning
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.network.weights import HEAD_FILE, load_head, load_network
from sppnet_cli.protocols import PAPER, FinetuneRules, MappingRules, take
from sppnet_cli.stages import finetune as module
from sppnet_cli.stages.finetune import FinetuneConfig, brings_network, finetune_all_layers
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.windows import WindowConfig
from sppnet_cli.stages.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    profile = replace(
        PROFILES["tiny"], rcnn_finetune="all", finetune=((1e-2, 1),), train_windows=20, test_windows=20
    )
    return Workspace(profile, root=tmp_path_factory.mktemp("runs"), limit=8, jobs=1)


@pytest.fixture
def made(workspace):
    """Makes a stage and returns its folder."""

    def run(stage):
        workspace.make(stage)
        return stage.folder

    return run


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


def test_the_run_is_a_network_with_its_fc_layers(workspace, made):
    run = made(workspace.finetuned("rcnn", ()))
    assert brings_network(run)
    assert not (run / "checkpoint.pt").exists()
    pretrained = load_network(made(workspace.trained_network()))
    network, head = load_network(run), load_head(run)
    assert not same_trunk(network, pretrained)
    assert network.head is None
    assert network.spec.levels == pretrained.spec.levels
    assert head.fc6.in_features == network.pooled_size
    assert head.fc8.out_features == 21


@pytest.fixture
def finetune(make, window_network, tiny_data, random_proposals):
    windows = WindowConfig("trainval", "rcnn", (), take(MappingRules, PAPER), 20, 4)
    rules = replace(take(FinetuneRules, METHODS["rcnn"].protocol_of(PAPER)), finetune_batch=16)
    config = FinetuneConfig(windows, rules, Schedule(((1e-3, 2),)), 8, flip=True, seed=0)
    inputs = {
        "data": tiny_data / "VOCdevkit",
        "proposals": random_proposals,
        "network": window_network,
    }

    def run(name):
        return make(finetune_all_layers, config, inputs, name, workers=0, max_memory=2.0)

    return run


@pytest.mark.parametrize(
    ("where", "name"), [(module, "save_head"), (building, "return_memory")], ids=["trained", "built"]
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(finetune, monkeypatch, where, name):
    whole = finetune("whole")

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, cut_off)
        with pytest.raises(KeyboardInterrupt):
            finetune("run")
    # A batch that was trained on is not drawn again.
    monkeypatch.setattr(learning.WarpedBatches, "draw", lambda *_: pytest.fail("a batch twice"))
    run = finetune("run")
    files = ("head.safetensors", "network.json", "network.safetensors")
    assert all((run / name).read_bytes() == (whole / name).read_bytes() for name in files)
    assert sorted(path.name for path in run.iterdir()) == sorted([*files, "manifest.json"])


def test_ft_rows_use_the_fine_tuned_network_and_the_others_the_pretrained_one(workspace, made):
    pretrained = load_network(made(workspace.trained_network()))
    tuned = made(workspace.finetuned("rcnn", ()))
    plain = Detector.load(made(workspace.detector("rcnn", (), "fc6")))
    assert same_trunk(plain.extractor.network, pretrained)
    for row in ("ftfc7", "ftfc7 bb"):
        folder = made(workspace.detector("rcnn", (), row))
        detector = Detector.load(folder)
        assert same_trunk(detector.extractor.network, load_network(tuned))
        assert (folder / HEAD_FILE).read_bytes() == (tuned / HEAD_FILE).read_bytes()
    assert (made(workspace.detections("rcnn", (), "ftfc7 bb")) / "detections.csv").stat().st_size > 100


def test_a_given_fine_tuning_brings_its_network(workspace, made):
    tuned = made(workspace.finetuned("rcnn", ()))
    network = made(workspace.trained_network())
    given = replace(workspace, network_run=network, head_run=tuned).detector("rcnn", (), "ftfc6")
    assert given.inputs["network"] == given.inputs["head"] == tuned
    assert same_trunk(Detector.load(made(given)).extractor.network, load_network(tuned))


def test_spp_net_keeps_its_frozen_trunk(workspace, made):
    assert not brings_network(made(workspace.finetuned("spp", (480,))))
    detector = Detector.load(made(workspace.detector("spp", (480,), "ftfc7")))
    assert same_trunk(detector.extractor.network, load_network(made(workspace.trained_network())))


def test_the_description_knows_of_the_network(workspace):
    stage = workspace.finetuned("rcnn", ())
    assert stage.name == "finetune-all"
    seconds, files, memory, _ = stage.cost()
    assert set(files) == {"head.safetensors", "network.json", "network.safetensors"}
    assert seconds > 0
    assert memory > 1
