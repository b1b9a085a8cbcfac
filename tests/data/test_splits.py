"""Random splits of Caltech101."""

import numpy as np
import pytest

from sppnet_cli.data.splits import caltech_splits
from sppnet_cli.errors import DataError

NAMES = ("ant", "bee", "cat")
LABELS = np.repeat([0, 1, 2], [31, 80, 100])


def test_thirty_to_train_and_up_to_fifty_to_test():
    splits = caltech_splits(LABELS, NAMES)
    assert len(splits) == 10
    for train, test in splits:
        assert np.bincount(LABELS[train]).tolist() == [30, 30, 30]
        assert np.bincount(LABELS[test]).tolist() == [1, 50, 50]
        assert not set(train) & set(test)
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()


def test_a_split_is_drawn_from_its_seed_and_number_alone():
    many, few, other = (
        caltech_splits(LABELS, NAMES, count, seed=seed) for count, seed in ((4, 0), (2, 0), (2, 1))
    )
    for a, b, c in zip(many, few, other, strict=False):
        np.testing.assert_array_equal(a.train, b.train)
        np.testing.assert_array_equal(a.test, b.test)
        assert not np.array_equal(a.train, c.train)
    assert not np.array_equal(many[0].train, many[1].train)


def test_every_image_has_the_same_chance():
    splits = caltech_splits(np.zeros(8, np.int64), ["ant"], 4000, 2, 3)
    for part, size in (("train", 2), ("test", 3)):
        counts = np.bincount(np.concatenate([getattr(split, part) for split in splits]), minlength=8)
        np.testing.assert_allclose(counts / 4000, size / 8, atol=0.03)


def test_labels_in_any_order():
    labels = np.array([1, 0, 1, 0, 1])
    for train, test in caltech_splits(labels, ["a", "b"], 5, train=1, test=1):
        assert sorted(labels[train]) == sorted(labels[test]) == [0, 1]


@pytest.mark.parametrize(("size", "train"), [(30, 30), (2, 2), (0, 1)])
def test_a_category_that_is_too_small_is_named(size, train):
    labels = np.concatenate([np.zeros(50, np.int64), np.ones(size, np.int64)])
    with pytest.raises(DataError, match=rf"category bee has {size} images, but {train + 1} are needed"):
        caltech_splits(labels, ["ant", "bee"], train=train)
