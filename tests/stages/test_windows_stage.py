"""Where the features of windows are cached: apart for all that they depend on, shared by all else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from sppnet_cli.errors import UsageError
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.network import precision
from sppnet_cli.network.weights import WEIGHTS_FILE, load_network
from sppnet_cli.protocols import PAPER
from sppnet_cli.runs import fingerprint
from sppnet_cli.stages.windows import WindowConfig, WindowInputs, window_source

SPP = WindowConfig("trainval", "spp", (120, 240), "paper", 30, 4)
RCNN = replace(SPP, method="rcnn", scales=())


@pytest.fixture
def folder_of(window_network, random_proposals, tiny_data, tmp_path):
    """Name of the cache's folder."""

    def folder(
        config, network_id=None, proposals=random_proposals, data=tiny_data, truth=True, precision="fp32"
    ):
        inputs = WindowInputs(data / "VOCdevkit", proposals, tmp_path / "cache", 1.0)
        identity = network_id or fingerprint(window_network / WEIGHTS_FILE)
        network = load_network(window_network)
        if precision != "fp32":
            network = make_extractor(config.method, network, PAPER, config.scales, "cpu", precision)
        source = window_source(config, inputs, network, identity, device="cpu", truth=truth)
        assert source.cache.folder.parent == tmp_path / "cache"
        return source.cache.folder.name

    return folder


def test_maps_are_of_a_network_and_of_images(folder_of, tiny_data, tmp_path):
    folder = folder_of(SPP)
    assert folder.startswith("spp-")
    other = shutil.copytree(tiny_data, tmp_path / "data")
    (other / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000001.jpg").write_bytes(b"another")
    assert len({folder, folder_of(SPP, network_id="other"), folder_of(SPP, data=other)}) == 3
    # Whatever windows are pooled from them, at whichever scales.
    for config in (replace(SPP, scales=(240,)), replace(SPP, split="test"), replace(SPP, max_windows=9)):
        assert folder_of(config, truth=False) == folder


@pytest.mark.parametrize("config", [SPP, RCNN], ids=["spp", "rcnn"])
def test_what_was_computed_in_another_precision_is_kept_apart(folder_of, monkeypatch, config):
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: True)
    assert folder_of(config) != folder_of(config, precision="bf16")


def test_rcnns_vectors_are_of_windows_too(folder_of, random_proposals, tmp_path):
    other = shutil.copytree(random_proposals, tmp_path / "proposals")
    np.save(next((other / "boxes").glob("*.npy")), np.empty((0, 4), np.float32))
    folders = {
        folder_of(SPP),
        folder_of(RCNN),
        folder_of(RCNN, network_id="other"),
        folder_of(RCNN, proposals=other),
        folder_of(RCNN, truth=False),
        folder_of(replace(RCNN, max_windows=9)),
    }
    assert len(folders) == 6


def test_an_unknown_protocol(folder_of):
    with pytest.raises(UsageError, match="choose one of paper, released"):
        folder_of(replace(SPP, protocol="mine"))
