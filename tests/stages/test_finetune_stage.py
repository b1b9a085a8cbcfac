"""Fine-tuning as a run directory, and the stages after it on images that lack something."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from sppnet_cli import building
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.network.weights import load_head
from sppnet_cli.protocols import PAPER, BboxRules, DetectRules, FinetuneRules, MappingRules, SvmRules, take
from sppnet_cli.stages import finetune as module
from sppnet_cli.stages.finetune import FinetuneConfig, finetune_fc_layers
from sppnet_cli.stages.train_bbox import BboxConfig, add_regressors
from sppnet_cli.stages.train_svm import SvmConfig, train_detector
from sppnet_cli.stages.windows import WindowConfig

WINDOWS = WindowConfig("trainval", "spp", (120, 240), take(MappingRules, PAPER), 1000, 4)
CONFIG = FinetuneConfig(WINDOWS, take(FinetuneRules, PAPER), Schedule(((1e-3, 6),)), 8, flip=True, seed=0)
CHUNK = 1e-4  # GiB: less than all batches


@pytest.fixture
def inputs(data, proposals, window_network):
    return {"data": data, "proposals": proposals, "network": window_network}


@pytest.fixture
def finetune(make, inputs):
    def run(name="run", gigabytes=1.0):
        how = {"cache_gb": gigabytes, "max_memory": 8 * CHUNK}
        return make(finetune_fc_layers, CONFIG, inputs, name, **how)

    return run


def test_any_cache_gives_the_same_bytes(finetune, tmp_path):
    runs = []
    for name, gigabytes in (("none", 0.0), ("little", 1e-4), ("all", 1.0), ("read", 1.0)):
        runs.append(finetune(name, gigabytes))
    assert len({(run / "head.safetensors").read_bytes() for run in runs}) == 1
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 4 * 2 * 2


@pytest.mark.parametrize(
    ("where", "name"), [(module, "save_head"), (building, "return_memory")], ids=["trained", "built"]
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(finetune, monkeypatch, capsys, where, name):
    whole = finetune("whole")
    assert sorted(path.name for path in whole.iterdir()) == ["head.safetensors", "manifest.json"]
    chunks = capsys.readouterr().err.count("mean loss")
    assert chunks > 1

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, cut_off)
        with pytest.raises(KeyboardInterrupt):
            finetune()
    run = finetune()
    assert capsys.readouterr().err.count("mean loss") == chunks  # none twice
    assert (run / "head.safetensors").read_bytes() == (whole / "head.safetensors").read_bytes()
    assert sorted(path.name for path in run.iterdir()) == ["head.safetensors", "manifest.json"]


def test_images_that_lack_proposals_or_objects(finetune, make, inputs, data, proposals):
    """Of four images one has no proposals, one no object and one neither; every stage takes them as they are."""
    dataset = load_voc(data, "trainval", 4)
    for image_id in (dataset.ids[0], dataset.ids[2]):
        np.save(proposals / "boxes" / f"{image_id}.npy", np.empty((0, 4), np.float32))
    for image_id in (dataset.ids[1], dataset.ids[2]):
        path = dataset.root / "Annotations" / f"{image_id}.xml"
        tree = ElementTree.parse(path)
        for item in tree.getroot().findall("object"):
            tree.getroot().remove(item)
        tree.write(path)
    head = finetune()
    assert all(value.isfinite().all() for value in load_head(head).state_dict().values())
    for layer in ("pool5", "fc7"):
        config = SvmConfig(WINDOWS, layer, take(SvmRules, PAPER), take(DetectRules, PAPER), "paper", 0)
        tuned = {} if layer == "pool5" else {"head": head}
        svms = make(train_detector, config, inputs | tuned, layer)
        config = BboxConfig(WINDOWS, take(BboxRules, PAPER), 0)
        found = make(add_regressors, config, inputs | {"detector": svms}, f"{layer}-bb")
        detector = Detector.load(found).set_image(dataset.image(dataset.ids[0]))
        assert detector.detect(np.empty((0, 4), np.float32)) == []
        assert np.isfinite(detector.svms.weights).all()
        assert torch.isfinite(torch.from_numpy(detector.bbox.weights)).all()


def test_proposals_without_an_area_are_named(finetune, data, proposals):
    path = proposals / "boxes" / f"{load_voc(data, 'trainval', 4).ids[3]}.npy"
    np.save(path, np.array([[10, 10, 9, 30]], np.float32))
    with pytest.raises(DataError, match=r"holds boxes that are not x1 <= x2 and y1 <= y2") as caught:
        finetune()
    assert str(path) in str(caught.value)
