"""Where the features of windows are cached: apart for all that they depend on, shared by all else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.network import precision
from sppnet_cli.network.weights import WEIGHTS_FILE, load_network
from sppnet_cli.protocols import PAPER, MappingRules, take
from sppnet_cli.runs import fingerprint
from sppnet_cli.stages.windows import WindowConfig, window_source

SPP = WindowConfig("trainval", "spp", (120, 240), take(MappingRules, PAPER), 30, 4)
RCNN = replace(SPP, method="rcnn", scales=())


@pytest.fixture
def folder_of(window_network, random_proposals, tiny_data, tmp_path):
    """Name of the cache's folder."""

    def folder(
        config, network_id=None, proposals=random_proposals, data=tiny_data, truth=True, precision="fp32"
    ):
        inputs = Inputs({"data": data / "VOCdevkit", "proposals": proposals})
        identity = network_id or fingerprint(window_network / WEIGHTS_FILE)
        network = load_network(window_network)
        if precision != "fp32":
            network = make_extractor(config.method, network, config.mapping, config.scales, "cpu", precision)
        how = Resources(cache=tmp_path / "cache", cache_gb=1.0)
        source = window_source(config, inputs, how, network, identity, truth=truth)
        assert source.cache.folder.parent == tmp_path / "cache"
        assert source.extractor.mapping == config.mapping
        return source.cache.folder.name

    return folder


def test_maps_are_of_a_network_and_of_images(folder_of, tiny_data, tmp_path):
    folder = folder_of(SPP)
    assert folder.startswith("spp-")
    other = shutil.copytree(tiny_data, tmp_path / "data")
    (other / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000001.jpg").write_bytes(b"another")
    assert len({folder, folder_of(SPP, network_id="other"), folder_of(SPP, data=other)}) == 3
    # Whatever windows are pooled from them, at whichever scales.
    other_rules = replace(SPP, mapping=MappingRules("rounded-side", 0.1))
    others = (
        replace(SPP, scales=(240,)),
        replace(SPP, split="test"),
        replace(SPP, max_windows=9),
        other_rules,
    )
    for config in others:
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
