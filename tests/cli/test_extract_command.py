"""`sppnet extract-features` and `visualize conv5` with --limit, which is about the images they are given alone."""

import json

import numpy as np
import pytest

TINY = ("--profile", "tiny", "--workers", "1", "-q", "--json")


def test_the_network_that_is_trained_on_the_way_knows_no_limit(sppnet, tmp_path):
    code, out, err = sppnet("extract-features", *TINY, "--limit", "3", "--layer", "fc7")
    assert code == 0, err
    features = tmp_path / json.loads(out)["features"]["fc7"]
    assert len(np.load(features)) == 3
    (network,) = (tmp_path / "runs" / "tiny").glob("network-spp6-224-180-*")
    assert json.loads((network / "manifest.json").read_text())["config"]["limit"] is None
    code, out, err = sppnet(
        "extract-features", *TINY, "--limit", "2", "--layer", "fc7"
    )  # of the same network
    assert code == 0, err
    assert len(list(tmp_path.rglob("network.json"))) == 1


@pytest.mark.parametrize("command", [["extract-features"], ["visualize", "conv5"]])
def test_a_dry_run_says_so(sppnet, command):
    plans = [json.loads(sppnet(*command, *TINY, "--dry-run", *more)[1]) for more in ((), ("--limit", "3"))]
    whole, few = ({step["step"]: step["out"] for step in plan["steps"]} for plan in plans)
    assert few["pretrain"] == whole["pretrain"]
    last = command[0]
    assert few[last] != whole[last]
