import json
from pathlib import Path

import pytest

from sppnet_cli.kernels import pyramid

LAYERS = Path(__file__).parents[1] / "network" / "spp_layers.py"


@pytest.mark.parametrize("layer", [f"{LAYERS}:SideBySide", f"{pyramid.__file__}:SpatialPyramidPooling"])
def test_a_right_layer(sppnet, layer):
    code, out, err = sppnet("check-layer", layer)
    assert code == 0
    assert out == ""
    assert "is spatial pyramid pooling: equal at all 120 sizes" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CeilPadding", "known mistake: kernel and stride are both ceil(a/n)"),
        ("FloorKernel", "known mistake: kernel and stride are both int(a/n)"),
        ("Sliding", "known mistake: kernel ceil(a/n) and stride floor(a/n)"),
        ("PowersOfTwo", "known mistake: levels have 2^l x 2^l bins"),
        ("Average", "known mistake: bins are averaged"),
        ("FoldedBatch", "known mistake: the batch is folded into the bins"),
        ("YoloSPP", 'YOLO\'s "SPP" does, which is another layer'),
        ("Falling", "known mistake: the bins are in another order"),
        ("Unknown", "it is none of the known mistakes"),
    ],
)
def test_a_wrong_layer(sppnet, name, words):
    code, _, err = sppnet("check-layer", f"{LAYERS}:{name}")
    assert code == 1
    assert f"{name} is not spatial pyramid pooling" in err
    assert words in err


@pytest.mark.parametrize(
    ("method", "code", "words"),
    [("__call__", 1, "SystemExit: 3"), ("__init__", 2, "Layer() fails (SystemExit: 3)")],
)
def test_a_layer_that_ends_the_program_does_not_end_ours(sppnet, tmp_path, method, code, words):
    (tmp_path / "layer.py").write_text(
        f"class Layer:\n    def {method}(self, *maps):\n        raise SystemExit(3)\n"
    )
    found, out, err = sppnet("check-layer", "layer.py:Layer")
    assert (found, out) == (code, "")
    assert words in err


def test_the_bins_that_differ_are_shown(sppnet):
    code, out, err = sppnet("check-layer", f"{LAYERS}:CeilPadding")
    assert code == 1
    assert "Bins that differ on maps of 10 x 10 cells" in out
    assert "maps of 1 x 1 cells: RuntimeError: pad should be at most half" in err


def test_json_has_all(sppnet):
    code, out, _ = sppnet("check-layer", f"{LAYERS}:Unknown", "--json")
    result = json.loads(out)
    assert code == 1
    assert (result["equal"], result["sizes"], result["mistakes"]) == (False, 120, {})
    (found,) = [f for f in result["findings"] if f["size"] == [30, 30]]
    assert found["bins"] == [{"level": 1, "row": 0, "column": 0, "cells": [0, 0, 29, 29], "difference": 1.0}]


def test_what_the_file_prints_is_no_result(sppnet):
    code, out, err = sppnet("check-layer", f"{LAYERS}:Chatty", "--json")
    assert code == 0
    assert json.loads(out)["equal"]
    assert "pooling" in err


def test_other_levels(sppnet):
    assert sppnet("check-layer", f"{LAYERS}:PowersOfTwo", "--levels", "8,4,2,1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["layers.py"], 2, "layers.py: write FILE.py:CLASS"),
        (["layers.py:A"], 3, "layers.py: no such file"),
        ([f"{LAYERS}:Missing"], 2, "has no class Missing; it has SideBySide"),
        ([f"{LAYERS}:Argued"], 2, "Argued() fails (TypeError"),
        ([f"{LAYERS}:Average", "--levels", "6,x"], 2, "--levels 6,x: write different whole numbers"),
        ([f"{LAYERS}:Average", "--levels", "6,6"], 2, "--levels 6,6"),
        ([f"{LAYERS}:Average", "--levels", "0"], 2, "--levels 0"),
    ],
)
def test_errors_of_one_line(sppnet, arguments, code, message):
    found, out, err = sppnet("check-layer", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
