import io

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.voc import Annotation
from sppnet_cli.evaluation.proposal_recall import proposal_recall

TRUTH = (0, 0, 9, 9)  # 100 inclusive pixels
HALF = (0, 0, 9, 4)  # IoU .5
SEVENTY = (0, 0, 9, 6)  # .7
FAR = (50, 50, 59, 59)
NAMES = ("cat", "dog", "owl")


def boxes(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def image(*objects):
    """Objects of one image, each a label and a box, and True where it is difficult."""
    return Annotation(
        boxes(*(item[1] for item in objects)),
        np.array([item[0] for item in objects], dtype=np.int64),
        np.array([len(item) > 2 for item in objects], dtype=bool),
        (100, 100),
    )


def measured(proposals, annotations):
    return proposal_recall(proposals, annotations, NAMES).table().set_index("class")


def test_recall_by_class_and_of_all():
    proposals = [boxes(HALF, SEVENTY), boxes(TRUTH, FAR, FAR), boxes()]
    annotations = [image((0, TRUTH)), image((0, TRUTH), (1, FAR)), image((0, TRUTH))]
    table = measured(proposals, annotations)
    assert list(table.index) == ["cat", "dog", "owl", "all"]
    assert table["objects"].tolist() == [3, 1, 0, 4]
    # Cats: .7, 1 and, in an image without windows, 0.
    np.testing.assert_allclose(table["recall@0.5"], [2 / 3, 1, np.nan, 3 / 4])
    np.testing.assert_allclose(table["recall@0.7"], [2 / 3, 1, np.nan, 3 / 4])
    # MABO: over the classes that have objects.
    np.testing.assert_allclose(table["ABO"], [1.7 / 3, 1, np.nan, (1.7 / 3 + 1) / 2])
    np.testing.assert_array_equal(table["windows"], [np.nan, np.nan, np.nan, 5 / 3])


def test_an_overlap_of_exactly_the_level_counts():
    table = measured([boxes(HALF)], [image((1, TRUTH))])
    assert table.loc["dog", ["recall@0.5", "recall@0.7", "ABO"]].tolist() == [1, 0, 0.5]
    table = measured([boxes(SEVENTY)], [image((1, TRUTH))])
    assert table.loc["dog", ["recall@0.5", "recall@0.7", "ABO"]].tolist() == [1, 1, 0.7]


def test_difficult_objects_are_left_out():
    table = measured([boxes(TRUTH)], [image((0, TRUTH), (0, FAR, True), (1, FAR, True))])
    assert table["objects"].tolist() == [1, 0, 0, 1]
    assert table.loc["all", "recall@0.5"] == 1.0


def test_windows_serve_their_own_image_only():
    table = measured([boxes(TRUTH), boxes(FAR)], [image(), image((0, TRUTH))])
    assert table.loc["all", ["objects", "recall@0.5", "ABO"]].tolist() == [1, 0, 0]


def test_no_objects_are_nan_and_empty_cells():
    table = proposal_recall([boxes(TRUTH)], [image()], NAMES).table()
    assert table.loc[3].tolist()[:2] == ["all", 0]
    assert table.iloc[:, 2:5].isna().all(axis=None)
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(read, table, check_dtype=False)


def test_images_must_agree():
    with pytest.raises(ValueError, match="zip"):
        proposal_recall([boxes()], [image(), image()], NAMES)
    with pytest.raises(ValueError, match="no images"):
        proposal_recall([], [], NAMES)


def pixels(box):
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_counting_pixels(seed):
    rng = np.random.default_rng(seed)

    def draw(n):
        corner = rng.integers(0, 20, (n, 2))
        return np.hstack([corner, corner + rng.integers(2, 15, (n, 2))]).astype(np.float32)

    proposals = [draw(rng.integers(0, 12)) for _ in range(6)]
    annotations = [
        Annotation(draw(n), rng.integers(0, 2, n), rng.random(n) < 0.3, (40, 40))
        for n in rng.integers(0, 4, 6)
    ]
    best = {name: [] for name in NAMES}
    for windows, truth in zip(proposals, annotations, strict=True):
        for box, label, difficult in zip(truth.boxes, truth.labels, truth.difficult, strict=True):
            own = pixels(box)
            overlaps = [len(own & pixels(w)) / len(own | pixels(w)) for w in windows]
            if not difficult:
                best[NAMES[label]].append(max(overlaps, default=0))
    table = measured(proposals, annotations)
    for name in ("cat", "dog"):
        assert table.loc[name, "objects"] == len(best[name])
        assert table.loc[name, "ABO"] == pytest.approx(np.mean(best[name]))
        assert table.loc[name, "recall@0.5"] == pytest.approx(np.mean(np.array(best[name]) >= 0.5))
        assert table.loc[name, "recall@0.7"] == pytest.approx(np.mean(np.array(best[name]) >= 0.7))
