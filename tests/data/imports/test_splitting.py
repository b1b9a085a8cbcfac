"""The held-out part: its size, its classes, and the frames of videos."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from sppnet_cli.data.imports.splitting import hold_out


def draw(rng, count, kinds=5, rare=0):
    names = [f"{k:06d}.jpg" for k in rng.choice(10**6, count, replace=False)]
    classes = [frozenset(f"c{k}" for k in rng.choice(kinds, rng.integers(0, 3))) for _ in names]
    for k in range(rare):
        for index in rng.choice(count, 2, replace=False):
            classes[index] |= {f"rare{k}"}
    return names, classes


@pytest.mark.parametrize("part", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("count", [5, 20, 100, 400])
def test_photographs_size_and_classes(count, part):
    rng = np.random.default_rng(count)
    names, classes = draw(rng, count, rare=2)
    held = hold_out(names, classes, part, 0)
    every = Counter(name for own in classes for name in own)
    inside = Counter(name for index in held for name in classes[index])
    for name, total in every.items():
        if total > 1:
            assert 0 < inside[name] < total, name
    if count >= 100:
        assert len(held) == round(part * count)
        for name, total in every.items():
            if total > 20:
                assert abs(inside[name] / total - part) < 0.15, name


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(1)
    names, classes = draw(rng, 60)
    held = {names[k] for k in hold_out(names, classes, 0.2, 3)}
    order = rng.permutation(60)
    again = hold_out([names[k] for k in order], [classes[k] for k in order], 0.2, 3)
    assert {names[order[k]] for k in again} == held
    assert {names[k] for k in hold_out(names, classes, 0.2, 4)} != held


@pytest.mark.parametrize(
    ("count", "part", "size"), [(1, 0.2, 0), (0, 0.2, 0), (2, 0.2, 1), (10, 0, 0), (3, 0.9, 2)]
)
def test_few_images(count, part, size):
    assert len(hold_out([f"IMG_{k}.jpg" for k in range(count)], [frozenset({"a"})] * count, part, 0)) == size


def cuts(names, held):
    """How often neighbouring frames lie on different sides, by video."""
    frames = {}
    for index, name in enumerate(names):
        video, number = name.rsplit("_", 1) if "_" in name else name.rsplit("-", 1)
        frames.setdefault(video, []).append((number, index in held))
    return {video: sum(a != b for (_, a), (_, b) in pairwise(sorted(own))) for video, own in frames.items()}


@pytest.mark.parametrize(
    "form", ["clip{}_{:06d}.jpg", "video {}/frame-{:04d}.png", "cam{}_mp4-{:d}_jpg.rf.0ab{}.jpg"]
)
def test_videos_stay_whole(form):
    names = [form.format(video, frame, frame) for video in range(10) for frame in range(20)]
    classes = [frozenset({f"c{k % 3}"}) for k in range(200)]
    for seed in range(5):
        held = hold_out(names, classes, 0.2, seed)
        by_video = Counter(names[k][: len(form.split("{:")[0]) - 1] for k in held)
        assert len(held) == 40
        assert set(by_video.values()) == {20}


def test_names_that_are_numbers_in_a_folder_of_a_video():
    names = [f"images/walk{video}/{frame:05d}.jpg" for video in range(10) for frame in range(20)]
    held = hold_out(names, [frozenset({"a"})] * 200, 0.2, 0)
    assert set(Counter(names[k].split("/")[1] for k in held).values()) == {20}


def test_one_video_is_cut_in_few_places():
    names = [f"clip_{frame:06d}.jpg" for frame in range(0, 3000, 30)]
    held = hold_out(names, [frozenset({"car"})] * 100, 0.2, 0)
    assert len(held) == 20
    assert cuts(names, held)["clip"] <= 2


def test_one_video_is_cut_between_its_scenes_first():
    frames = [*range(60), *range(500, 520), *range(900, 920)]
    names = [f"clip_{frame:06d}.jpg" for frame in frames]
    for seed in range(5):
        held = hold_out(names, [frozenset({"car"})] * 100, 0.2, seed)
        assert sorted(held) in (list(range(60, 80)), list(range(80, 100)))


def test_images_named_for_their_class_have_both_sides():
    names = [f"{name}_{k:03d}.jpg" for name in ("cat", "dog") for k in range(50)]
    classes = [frozenset({name.split("_")[0]}) for name in names]
    held = hold_out(names, classes, 0.2, 0)
    assert Counter(names[k].split("_")[0] for k in held) == {"cat": 10, "dog": 10}
    assert max(cuts(names, held).values()) <= 2


def test_a_long_video_stays_in_training_where_short_ones_are_enough():
    names = [f"long_{k:04d}.jpg" for k in range(100)] + [
        f"s{v}_{k:02d}.jpg" for v in range(10) for k in range(5)
    ]
    held = hold_out(names, [frozenset({"a"})] * 150, 0.2, 0)
    assert len(held) == 30
    assert not any(names[k].startswith("long") for k in held)
    assert sum(cuts(names, held).values()) == 0


@pytest.mark.parametrize(
    "form", ["IMG_{:04d}.JPG", "DSC{:05d}.jpg", "{:06d}.jpg", "photos/{:03d}.png", "image ({}).jpg"]
)
def test_pictures_of_a_camera_are_no_video(form):
    """Ten runs of neighbours would have to be drawn in one piece."""
    names = [form.format(k) for k in range(100)]
    held = sorted(hold_out(names, [frozenset({"a"})] * 100, 0.2, 0))
    assert len(held) == 20
    assert sum(b - a > 1 for a, b in pairwise(held)) > 5


def test_ten_thousand_images_are_quick():
    rng = np.random.default_rng(0)
    names, classes = draw(rng, 10_000, kinds=80, rare=20)
    assert len(hold_out(names, classes, 0.2, 0)) == 2000
