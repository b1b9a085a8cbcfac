import io

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.data.voc import Annotation
from sppnet_cli.evaluation.diagnosis import KINDS, SIMILAR, diagnose

NAMES = ("car", "cat", "dog", "sofa")
CAR, CAT, DOG, SOFA = range(4)
TRUTH = (0, 0, 9, 9)  # 100 inclusive pixels
HALF = (0, 0, 9, 4)  # IoU .5
LESS = (0, 0, 9, 3)  # .4
TENTH = (0, 0, 9, 0)  # .1
TINY = (0, 0, 8, 0)  # .09
FAR = (50, 50, 59, 59)


def image(*objects):
    """Objects of one image, each a label and a box, and True where it is difficult."""
    return Annotation(
        np.array([item[1] for item in objects], dtype=np.float32).reshape(-1, 4),
        np.array([item[0] for item in objects], dtype=np.int64),
        np.array([len(item) > 2 for item in objects], dtype=bool),
        (100, 100),
    )


def found(*boxes):
    """Detections in descending order of score."""
    rows = [(*box, 1 - k / 10) for k, box in enumerate(boxes)]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def kinds(label, detections, annotations, **options):
    """The row of one class, its counts that are not 0."""
    given = {name: [found() for _ in annotations] for name in NAMES}
    given[NAMES[label]] = detections
    row = diagnose(given, annotations, NAMES, **options).set_index("class").loc[NAMES[label]]
    return {kind: row[kind] for kind in KINDS if row[kind]}


SPACE = tuple((DOG, (200 + 20 * k, 0, 209 + 20 * k, 9)) for k in range(9))  # so that nine are judged


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        (TRUTH, DOG, "correct"),
        (HALF, DOG, "correct"),
        (LESS, DOG, "localisation"),
        (TENTH, DOG, "localisation"),
        (TINY, DOG, "background"),
        (TRUTH, CAT, "similar"),
        (TENTH, CAT, "similar"),
        (TINY, CAT, "background"),
        (TRUTH, SOFA, "other"),
        (TENTH, CAR, "other"),
        (TINY, CAR, "background"),
        (FAR, DOG, "background"),
    ],
)
def test_a_dog_detection_and_one_object(box, label, kind):
    assert kinds(DOG, [found(box)], [image((label, TRUTH), *SPACE)]) == {kind: 1}


def test_the_first_reason_that_holds_is_taken():
    both = image((CAT, TRUTH), (SOFA, TRUTH), *SPACE)
    assert kinds(DOG, [found(TRUTH)], [both]) == {"similar": 1}
    # A cat's place, but a dog is near too.
    assert kinds(DOG, [found(TRUTH)], [image((CAT, TRUTH), (DOG, TENTH), *SPACE)]) == {"localisation": 1}


def test_a_second_detection_of_an_object_is_a_localisation_error():
    found_twice = [found(TRUTH, HALF)]
    assert kinds(DOG, found_twice, [image((DOG, TRUTH), *SPACE)]) == {"correct": 1, "localisation": 1}


def test_as_many_detections_are_judged_as_there_are_objects():
    objects = image((DOG, TRUTH), (DOG, FAR), (DOG, (20, 0, 29, 9), True))
    wrong = (70, 0, 79, 9)
    assert kinds(DOG, [found(wrong, TRUTH, FAR)], [objects]) == {"background": 1, "correct": 1}
    # What matches a difficult object takes no place; what overlaps it a little is a localisation error.
    assert kinds(DOG, [found((20, 0, 29, 9), TRUTH, FAR)], [objects]) == {"correct": 2}
    assert kinds(DOG, [found((20, 0, 29, 3), TRUTH, FAR)], [objects]) == {"localisation": 1, "correct": 1}


def test_the_best_of_all_images_are_judged():
    detections = [found(FAR, FAR), found(TRUTH)]
    detections[1][:, 4] = 0.95
    assert kinds(DOG, detections, [image(), image((DOG, TRUTH), (DOG, FAR))]) == {
        "background": 1,
        "correct": 1,
    }


def test_the_table():
    annotations = [image((DOG, TRUTH), (DOG, FAR)), image((CAR, TRUTH))]
    detections = {
        "car": [found(TRUTH), found()],
        "cat": [found(TRUTH), found()],
        "dog": [found(TRUTH, LESS), found()],
        "sofa": [found(), found()],
    }
    table = diagnose(detections, annotations, NAMES)
    assert list(table.columns) == [
        "class",
        "objects",
        "detections",
        *KINDS,
        *(f"{k}_fraction" for k in KINDS),
    ]
    assert table.iloc[:, :8].to_numpy().tolist() == [
        ["car", 1, 1, 0, 0, 0, 1, 0],
        ["cat", 0, 0, 0, 0, 0, 0, 0],
        ["dog", 2, 2, 1, 1, 0, 0, 0],
        ["sofa", 0, 0, 0, 0, 0, 0, 0],
        ["all", 3, 3, 1, 1, 0, 1, 0],
    ]
    np.testing.assert_allclose(table.loc[2].iloc[8:].astype(float), [0.5, 0.5, 0, 0, 0])
    np.testing.assert_allclose(table.loc[4].iloc[8:].astype(float), [1 / 3, 1 / 3, 0, 1 / 3, 0])
    assert table.loc[1].iloc[8:].isna().all()
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(table.to_csv(index=False))), table)


def test_groups_are_data():
    annotations = [image((SOFA, TRUTH), *SPACE)]
    assert kinds(DOG, [found(TRUTH)], annotations, groups=[frozenset({"dog", "sofa"})]) == {"similar": 1}
    assert kinds(DOG, [found(TRUTH)], [image((CAT, TRUTH), *SPACE)], groups=[]) == {"other": 1}


def test_the_groups_are_those_of_voc_and_of_the_embedded_data():
    similar_to = {
        name: set().union(*(group for group in SIMILAR.values() if name in group))
        for name in ("aeroplane", "person", "bottle", "seven")
    }
    assert {"bird", "train"} <= similar_to["aeroplane"]
    assert {"dog", "horse"} <= similar_to["person"]
    assert not similar_to["bottle"]
    assert len(similar_to["seven"]) == 10
    assert SIMILAR["digits"] | SIMILAR["shapes"] == {item.name for item in CLASSES}


def test_what_is_missing_or_of_another_length():
    with pytest.raises(KeyError, match="cat"):
        diagnose({"car": [found()]}, [image()], NAMES)
    with pytest.raises(ValueError, match="zip"):
        diagnose({name: [found()] for name in NAMES}, [image(), image()], NAMES)


def pixels(box):
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def overlap(a, b):
    return len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))


def plain_diagnosis(detections, annotations, name):
    """The same, by loops over pixels."""
    label = NAMES.index(name)
    rows = [(-row[4], i, j) for i, rows in enumerate(detections) for j, row in enumerate(rows.tolist())]
    n = sum(int(((a.labels == label) & ~a.difficult).sum()) for a in annotations)
    taken, judged = set(), []
    for _, i, j in sorted(rows):
        truth = annotations[i]
        with_object = [overlap(detections[i][j, :4], box) for box in truth.boxes]
        own = [(-with_object[k], k) for k in range(len(with_object)) if truth.labels[k] == label]
        if own and -min(own)[0] >= 0.5:
            best = min(own)[1]
            if truth.difficult[best]:
                continue
            judged.append("localisation" if (i, best) in taken else "correct")
            taken.add((i, best))
            continue
        near = {NAMES[truth.labels[k]] for k, value in enumerate(with_object) if value >= 0.1}
        if name in near:
            judged.append("localisation")
        elif near & {"cat": {"dog"}, "dog": {"cat"}}.get(name, set()):
            judged.append("similar")
        else:
            judged.append("other" if near else "background")
    return {kind: judged[:n].count(kind) for kind in KINDS}


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_loops_over_pixels(seed):
    rng = np.random.default_rng(seed)

    def draw(n):
        corner = rng.integers(0, 20, (n, 2))
        return np.hstack([corner, corner + rng.integers(4, 15, (n, 2))])

    annotations = [
        Annotation(draw(n).astype(np.float32), rng.integers(0, 4, n), rng.random(n) < 0.2, (40, 40))
        for n in rng.integers(0, 7, 20)
    ]
    detections = {}
    for name in NAMES:
        detections[name] = []
        for truth in annotations:
            near = truth.boxes[rng.random(len(truth.boxes)) < 0.5] + rng.integers(-2, 3, 4)
            boxes = np.vstack([near, draw(2)])
            detections[name].append(np.column_stack([boxes, rng.integers(0, 6, len(boxes)) / 2]))
    table = diagnose(detections, annotations, NAMES).set_index("class")
    for name in NAMES:
        expected = plain_diagnosis(detections[name], annotations, name)
        assert {kind: table.loc[name, kind] for kind in KINDS} == expected
    assert (table.loc["all", list(KINDS)] > 0).all()
