import shutil

import numpy as np
import pytest
from PIL import Image

from sppnet_cli.data.boxes import iou
from sppnet_cli.data.proposals import image_seed, ss_fast
from sppnet_cli.data.voc import load_voc
from sppnet_cli.evaluation.voc_statistics import voc_statistics


def annotation(size, *objects):
    """XML of an image (width, height); an object is a class, a 1-based box and other elements."""
    width, height = size
    found = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2), more in objects
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{found}</annotation>"


@pytest.fixture
def devkit(tmp_path):
    """Two images of trainval and one of test."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    images = {
        "a": ((100, 50), ("cat", (1, 1, 10, 10), "<truncated>1</truncated>"), ("cat", (1, 1, 40, 10), "")),
        "b": ((50, 200), ("dog", (1, 1, 50, 50), "<truncated>0</truncated><occluded>1</occluded>")),
        "c": ((80, 80), ("dog", (1, 1, 40, 40), "<difficult>1</difficult>"), ("cat", (1, 1, 20, 80), "")),
    }
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for image_id, (size, *objects) in images.items():
        (root / "Annotations" / f"{image_id}.xml").write_text(annotation(size, *objects))
        Image.new("RGB", size).save(root / "JPEGImages" / f"{image_id}.jpg")
    for split, ids in (("trainval", "a\nb\n"), ("test", "c\n")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(ids)
    return root.parent


def test_worked_out_by_hand(devkit):
    found = voc_statistics(devkit, searched=0)
    assert (found.images, found.objects, found.classes) == (3, 5, 2)
    # Sides of what is not difficult: 10/50, 20/50, 50/50 and 40/80; the 5% lie .15 of the way from .2 to .4.
    assert found.side == pytest.approx((0.23, 0.45, 0.925))
    assert found.difficult_side == pytest.approx((0.5, 0.5, 0.5))
    assert found.objects_an_image == pytest.approx((5 / 3, 2, 2))
    assert found.classes_an_image == pytest.approx(4 / 3)
    assert found.images_a_class == (2, 2, 2)
    assert found.objects_a_class == (2, 2.5, 3)
    assert (found.truncated, found.occluded, found.difficult) == (0.5, 1, 0.2)  # of those that tell
    assert found.image_size == (50, 100)
    assert found.searched == 0
    assert {found.windows, found.recall_05, found.recall_07, found.best_overlap} == {None}


def test_what_is_not_known_is_empty(devkit):
    for image_id in "abc":
        path = devkit / "VOC2007" / "Annotations" / f"{image_id}.xml"
        path.write_text(path.read_text().replace("occluded", "hidden"))
    rows = dict(voc_statistics(devkit, searched=0).rows())
    assert rows["occluded objects"] == ""
    assert rows["truncated objects"] == "50.0%"
    assert rows["windows an image, mean"] == ""


def test_a_set_without_test_images(devkit):
    (devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    assert voc_statistics(devkit, searched=0).images == 2


def test_windows_are_those_of_selective_search(tiny_data, tmp_path):
    data = shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")
    for split in ("trainval", "test"):
        images = data / f"VOC2007/ImageSets/Main/{split}.txt"
        images.write_text("".join(images.read_text().splitlines(keepends=True)[:3]))
    found = voc_statistics(data, searched=10_000, seed=3)
    counts, best = [], []
    for split in ("trainval", "test"):
        dataset = load_voc(data, split)
        for image_id in dataset.ids:
            windows = ss_fast(dataset.image(image_id), image_seed(3, image_id))
            truth = dataset.annotation(image_id)
            counts.append(len(windows))
            best += [iou(windows, box[None]).max() for box in truth.boxes[~truth.difficult]]
    overlaps = np.array(best)
    assert found.searched == found.images == len(counts)
    assert found.windows == pytest.approx(np.mean(counts))
    assert found.recall_05 == pytest.approx((overlaps >= 0.5).mean())
    assert found.recall_07 == pytest.approx((overlaps >= 0.7).mean())
    assert found.best_overlap == pytest.approx(overlaps.mean())
