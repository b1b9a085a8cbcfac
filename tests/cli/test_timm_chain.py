"""A timm trunk with random weights through features, SVMs and detection."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

timm = pytest.importorskip("timm")

TINY = ("--profile", "tiny", "--limit", "10", "--workers", "1", "-q")


def test_a_timm_trunk_on_ten_images(sppnet, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    net = (*TINY, "--arch", "timm/mobilenetv3_small_050", "--weights", "weights.pth")

    code, out, _ = sppnet("extract-features", *net, "--layer", "SPP pool5", "--json")
    assert code == 0
    features = np.load(json.loads(out)["features"]["SPP pool5"])
    assert features.shape == (10, 288 * 50)
    assert features.std() > 0

    code, _, err = sppnet(
        "train-svm", *net, "--scales", "480", "--layer", "pool5", "--out", "detector", "--json"
    )
    assert code == 0, err
    code, out, err = sppnet("detect", *TINY, "--detector", "detector", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 10
    assert len(pd.read_csv(found["detections"])) > 0
