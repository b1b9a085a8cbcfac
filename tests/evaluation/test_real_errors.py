"""On real ImageNet images with a real classifier; see CONTRIBUTING.md for where they come from."""

import os
from pathlib import Path

import pytest

from sppnet_cli.chain import Resources
from sppnet_cli.stages.evaluate_network import classifier_error

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder"),
]


@pytest.mark.parametrize("views", ["1crop", "1full"])
def test_squeezenet_is_right_about_as_often_as_published(views):
    # 41.9 and 19.6 % on all of ImageNet's validation set; of 100 images three deviations are .15 and .12.
    error = classifier_error(
        "squeezenet1_0",
        str(SHARED / "weights" / "squeezenet1_0.pth"),
        SHARED / "data" / "imagenet-sample",
        views,
        limit=100,
        how=Resources(),
    )
    assert error.images == 100
    assert error.top1 == pytest.approx(0.42, abs=0.15)
    assert error.top5 == pytest.approx(0.196, abs=0.12)
