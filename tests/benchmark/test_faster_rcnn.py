"""The other side of `sppnet benchmark train`: its conventions by hand, its clock by a clock that the test winds."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.benchmark import faster_rcnn as module
from sppnet_cli.benchmark.faster_rcnn import Recipe, detections, faster_rcnn, train_for
from sppnet_cli.data.voc import load_voc


class Line(nn.Module):
    """A model of one number, whose loss has the gradient 1: each step lowers the number by the rate."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, images, targets):
        return {"loss": self.value, "other": torch.zeros(())}


@pytest.fixture
def clock(monkeypatch):
    """A step takes a second of processor time and two of wall time."""
    ticks = {"process_time": itertools.count(), "perf_counter": itertools.count(0, 2)}
    for name, values in ticks.items():
        monkeypatch.setattr(module.time, name, lambda values=values: next(values))
    monkeypatch.setattr(module, "_WARM_UP", 2)


def test_budgets_and_rates(clock, tiny_data):
    recipe = Recipe(rate=1.0, momentum=0.0, decay=0.0, settle=0.5)
    dataset = load_voc(tiny_data / "VOCdevkit", "trainval")
    line = Line()
    short, long = [
        (each.model.value.item(), each.processor_seconds, each.wall_seconds, each.steps)
        for each in train_for(line, dataset, [4, 8], recipe, seed=0)
    ]
    # Warm-up 1/2, then 1; the copy settles with 1 and 1/2: the rate falls from 1 to 0 in 2 seconds.
    assert short == (-(0.5 + 1 + 1 + 0.5), 4, 8, 4)
    assert long == (-(0.5 + 3 + 1 + 0.75 + 0.5 + 0.25), 8, 16, 8)
    assert line.value.item() == -3.5  # the line itself never settles


def test_momentum_goes_with_the_copy(clock, tiny_data):
    recipe = Recipe(rate=1.0, momentum=0.5, decay=0.0, settle=0.5)
    dataset = load_voc(tiny_data / "VOCdevkit", "trainval")
    (found,) = train_for(Line(), dataset, [4], recipe, seed=0)
    # Momentum 1, 1.5, 1.75, 1.875.
    assert found.model.value.item() == pytest.approx(-(0.5 * 1 + 1.5 + 1.75 + 0.5 * 1.875))


def test_batches(tiny_data):
    dataset = load_voc(tiny_data / "VOCdevkit", "trainval", 6)
    batches = list(itertools.islice(module._batches(dataset, 3, 0), 4))
    whole = {image_id: (dataset.image(image_id), dataset.annotation(image_id)) for image_id in dataset.ids}
    seen = dict.fromkeys(whole, 0)
    mirrored = 0
    for image, target in (
        (i, t) for images, targets in batches for i, t in zip(images, targets, strict=True)
    ):
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        turned, image_id = next(
            (turned, name)
            for name, (own, _) in whole.items()
            for turned in (False, True)
            if np.array_equal(own[:, ::-1] if turned else own, pixels)
        )
        seen[image_id] += 1
        mirrored += turned
        truth = whole[image_id][1]
        kept = ~truth.difficult
        x1, y1, x2, y2 = truth.boxes[kept].T
        if turned:
            x1, x2 = pixels.shape[1] - 1 - x2, pixels.shape[1] - 1 - x1
        np.testing.assert_array_equal(target["boxes"].numpy(), np.stack([x1, y1, x2 + 1, y2 + 1], axis=1))
        assert target["labels"].tolist() == (truth.labels[kept] + 1).tolist()
    assert set(seen.values()) == {2}  # two epochs
    assert 0 < mirrored < 12


def test_detections_end_with_their_last_pixel(tiny_data):
    dataset = load_voc(tiny_data / "VOCdevkit", "test", 1)

    class Found(nn.Module):
        def forward(self, images):
            assert images[0].shape[1:] == dataset.image(dataset.ids[0]).shape[:2]
            boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0]])
            return [{"boxes": boxes, "labels": torch.tensor([2]), "scores": torch.tensor([0.5])}]

    frame = detections(Found(), dataset)
    assert frame.to_numpy().tolist() == [[dataset.ids[0], dataset.class_names[1], 0.5, 1.0, 2.0, 10.0, 21.0]]


def test_the_trunk_has_the_given_weights(squeezenet_file):
    model = faster_rcnn("squeezenet1_1", str(squeezenet_file), 3, Recipe())
    state = torch.load(squeezenet_file, weights_only=True)
    own = model.backbone.state_dict()
    assert state.keys() == {f"features.{name}" for name in own}
    assert all(torch.equal(state[f"features.{name}"], value) for name, value in own.items())
    assert model.transform.image_mean == (0.485, 0.456, 0.406)
    assert model.roi_heads.box_predictor.cls_score.out_features == 4
    assert model.roi_heads.box_head.fc6.in_features == 512 * 7 * 7
