"""Views and errors of whole-image classification."""

import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import write_image
from sppnet_cli.evaluation.classification import classification_error, views_of


@pytest.fixture
def image():
    """Short side 256 already, so that nothing is resampled."""
    return np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)


def test_ten_views_are_of_the_entire_image(image):
    views = views_of(image, "10")
    assert [view.shape for view in views] == [(224, 224, 3)] * 10
    np.testing.assert_array_equal(views[0], image[16:240, 38:262])
    np.testing.assert_array_equal(views[1], image[:224, :224])
    np.testing.assert_array_equal(views[4], image[32:, 76:])
    for view, flipped in zip(views[:5], views[5:], strict=True):
        np.testing.assert_array_equal(view[:, ::-1], flipped)


def test_single_and_full_views(image):
    (crop,) = views_of(image, "1crop")
    np.testing.assert_array_equal(crop, image[16:240, 38:262])
    (full,) = views_of(image, "1full")
    np.testing.assert_array_equal(full, image)
    assert sorted(view.shape[1] for view in views_of(image, "8+2full")) == [224] * 8 + [300] * 2


class MeanColour(nn.Module):
    """Knows class k by the k-th channel: red, green, blue."""

    def forward(self, images):
        return images.float().mean(dim=(2, 3)) / 10


def test_errors_by_hand(tmp_path):
    paths, labels = [], [0, 1, 1]  # the last one is blue and called green
    for name, colour in zip("abc", ([200, 9, 5], [9, 200, 5], [5, 9, 200]), strict=True):
        paths.append(tmp_path / f"{name}.png")
        write_image(paths[-1], np.full((260, 280, 3), colour, dtype=np.uint8))
    folder = ImageFolder(tuple(paths), np.array(labels), ("red", "green", "blue"))
    for views in ("10", "1full", "8+2full"):
        error = classification_error(MeanColour(), folder, views)
        assert error.as_dict() == {"top1_error": pytest.approx(1 / 3), "top5_error": 0.0, "n": 3}
    assert not torch.is_inference_mode_enabled()
