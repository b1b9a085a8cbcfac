import numpy as np
import pytest
import torch
from PIL import Image

from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.distributed import World
from sppnet_cli.errors import DataError
from sppnet_cli.learning import crops as module
from sppnet_cli.learning.crops import (
    Centres,
    Colours,
    Crops,
    Epoch,
    load_short_side,
    principal_components,
)


def address_image(height, width):
    """Every pixel says where it is: red x mod 256, green y, blue x // 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256], axis=2).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def wide(tmp_path):
    """One image of 256 x 320 pixels that gives the place of each of them."""
    path = write(tmp_path / "a" / "0.png", address_image(256, 320))
    return ImageFolder((path,), np.array([0]), ("a",))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("workers", "processes"), [(0, 1), (2, 1), (0, 2)])
def test_the_mean_image(tmp_path, monkeypatch, in_memory, workers, processes):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((256, 256), (256, 300), (270, 256))
    ]
    paths = tuple(write(tmp_path / f"{k}.png", image) for k, image in enumerate(images))
    if not in_memory:
        monkeypatch.setattr(module, "_IN_MEMORY_PIXELS", 0)
    crops = Crops(ImageFolder(paths, np.zeros(3, np.int64), ("a",)), seed=0)
    totals = []
    for rank in range(processes):
        monkeypatch.setattr(module, "world", lambda rank=rank: World(rank, processes))
        monkeypatch.setattr(module, "gather", lambda total: totals.append(total) or totals)
        mean = crops.mean_image(workers)
    # Margins of 32 rows or columns, of 300 - 224 = 76 columns and of 46 rows.
    centres = [images[0][16:240, 16:240], images[1][16:240, 38:262], images[2][23:247, 16:240]]
    expected = np.mean(np.stack(centres).astype(np.float64), axis=0)
    assert mean.dtype == torch.float32
    np.testing.assert_array_equal(mean.numpy(), expected.transpose(2, 0, 1)[::-1].astype(np.float32))


def places(crops, epochs):
    """(top, left, flipped) of the crops of image 0."""
    found = []
    for epoch in range(epochs):
        crop, _, label, shown = crops[epoch, 0]
        assert crop.shape == (3, 224, 224)
        assert crop.dtype == torch.uint8
        assert label == shown == 0
        rows = crop.permute(1, 2, 0).numpy().astype(int)
        flipped = bool(rows[0, 0, 0] + 256 * rows[0, 0, 2] > rows[0, 1, 0] + 256 * rows[0, 1, 2])
        first = rows[0, -1] if flipped else rows[0, 0]
        top, left = int(first[1]), int(first[0] + 256 * first[2])
        expected = address_image(256, 320)[top : top + 224, left : left + 224]
        np.testing.assert_array_equal(rows, expected[:, ::-1] if flipped else expected)
        found.append((top, left, flipped))
    return found


def test_crops_are_the_centre_and_the_corners_of_the_entire_image(wide):
    found = places(Crops(wide, seed=0), 200)
    corners = [(16, 48), (0, 0), (0, 96), (32, 0), (32, 96)]
    counts = {(*corner, flip): found.count((*corner, flip)) for corner in corners for flip in (False, True)}
    assert sum(counts.values()) == 200
    # 20 each on average, give or take 4.2.
    assert min(counts.values()) > 3
    assert max(counts.values()) < 37


def test_a_tall_image(tmp_path):
    path = write(tmp_path / "0.png", address_image(256, 320).transpose(1, 0, 2))
    crops = Crops(ImageFolder((path,), np.array([0]), ("a",)), seed=0)
    tops = {int(crops[epoch, 0][0][0, 0, 0]) for epoch in range(40)}  # red counts rows here
    assert tops == {0, 48, 96}


def test_the_short_side_becomes_256(tmp_path):
    path = write(tmp_path / "0.png", np.full((100, 333, 3), 77, dtype=np.uint8))
    image = load_short_side(path)
    assert image.shape == (256, 853, 3)  # ceil(333 * 2.56) = ceil(852.48)
    assert (image == 77).all()
    assert load_short_side(write(tmp_path / "1.png", address_image(512, 300))).shape == (437, 256, 3)


def test_a_crop_depends_on_seed_epoch_and_index_alone(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / f"{k}.png", rng.integers(0, 256, (256, 300, 3), dtype=np.uint8)) for k in range(6)
    ]
    folder = ImageFolder(tuple(paths), np.arange(6), tuple("abcdef"))
    crops = Crops(folder, seed=3)
    items = [(epoch, index) for epoch in range(3) for index in range(6)]
    straight = {item: crops[item][0] for item in items}
    monkeypatch.setattr(module, "_IN_MEMORY_PIXELS", 0)
    from_disk = Crops(folder, seed=3)
    assert crops.in_memory
    assert not from_disk.in_memory
    assert all(torch.equal(from_disk[item][0], straight[item]) for item in reversed(items))
    assert [from_disk[0, index][2] for index in range(6)] == list(range(6))
    other = Crops(folder, seed=4)
    assert any(not torch.equal(other[item][0], straight[item]) for item in items)
    assert any(not torch.equal(straight[0, index], straight[1, index]) for index in range(6))


def test_the_principal_components_are_those_of_all_pixels():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    images = [np.clip(128 + 20 * rng.normal(size=(40, 50 + k, 3)) @ mixing, 0, 255) for k in range(4)]
    images = [image.astype(np.uint8) for image in images]
    found = principal_components(iter(images))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_allclose(found.components * found.variances @ found.components.T, covariance, atol=1e-6)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(3), atol=1e-12)
    assert (np.diff(found.variances) > 0).all()


@pytest.mark.parametrize(
    ("lighting", "deviations"),
    # 255 * .1 times ImageNet's variance, or its root, .4517; and .04, or .2; and nothing.
    [("variance", [5.2, 1.02, 0]), ("deviation", [11.5, 5.1, 0])],
)
def test_the_colours_shift_along_the_components(wide, lighting, deviations):
    crops = Crops(wide, seed=0, lighting=lighting)
    components = np.array([[0.6, 0.8, 0], [0.8, -0.6, 0], [0, 0, 1.0]])
    crops.colours = Colours(components, np.array([0.204, 0.04, 0.0]))
    shifts = np.stack([crops[epoch, 0][1].numpy() for epoch in range(1000)])
    along = shifts @ components
    np.testing.assert_allclose(along.std(axis=0), deviations, rtol=0.08, atol=1e-5)
    np.testing.assert_allclose(along.mean(axis=0), 0, atol=0.1 * deviations[0])
    assert abs(np.corrcoef(along[:, 0], along[:, 1])[0, 1]) < 0.1


def test_the_papers_lighting_is_the_default(wide):
    shift = Crops(wide, seed=0)[0, 0][1]
    assert torch.equal(shift, Crops(wide, seed=0, lighting="variance")[0, 0][1])
    assert not torch.equal(shift, Crops(wide, seed=0, lighting="deviation")[0, 0][1])


def test_a_grey_set_keeps_its_grey(tmp_path):
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (256, 256, 1)), 3, axis=2).astype(np.uint8)
    crops = Crops(ImageFolder((write(tmp_path / "0.png", grey),), np.array([0]), ("a",)), seed=0)
    shift = crops[0, 0][1]
    assert shift.abs().max() > 0
    torch.testing.assert_close(shift, shift[:1].expand(3), rtol=1e-3, atol=1e-4)


def test_centres(wide):
    crop, label = Centres(wide)[0]
    assert label == 0
    np.testing.assert_array_equal(crop.permute(1, 2, 0), address_image(256, 320)[16:240, 48:272])


def test_an_epoch_is_shared_by_processes(monkeypatch):
    whole = list(Epoch(11, 4, seed=5, epoch=2))
    assert [len(batch) for batch in whole] == [4, 4]
    assert len({index for batch in whole for _, index in batch}) == 8
    assert {epoch for batch in whole for epoch, _ in batch} == {2}
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        shares.append(list(Epoch(11, 4, seed=5, epoch=2)))
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]
    assert all(len(batch) == 2 for share in shares for batch in share)
    assert list(Epoch(11, 4, seed=5, epoch=3)) != whole


@pytest.fixture
def spoilt(tmp_path):
    """Six images of one grey level each, of which the second, third and last are none."""
    paths = tuple(write(tmp_path / f"{k}.png", np.full((256, 256, 3), 40 * k, np.uint8)) for k in range(6))
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[0].read_bytes()[:100])
    paths[5].unlink()
    return ImageFolder(paths, np.array([0, 0, 1, 1, 2, 2]), ("a", "b", "c"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_next_image_is_shown_for_one_that_cannot_be_read(spoilt, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(module, "_IN_MEMORY_PIXELS", 0)
    crops = Crops(spoilt, seed=0)
    assert crops.in_memory == in_memory
    items = [crops[0, index] for index in range(6)]
    assert [shown for *_, shown in items] == [0, 3, 3, 3, 4, 0]
    assert [label for _, _, label, _ in items] == [0, 1, 1, 1, 2, 0]
    assert [int(pixels[0, 0, 0]) for pixels, *_ in items] == [0, 120, 120, 120, 160, 0]
    assert not torch.equal(items[1][1], items[3][1])  # with colours of its own
    assert crops.mean_image(0).unique().tolist() == [pytest.approx((0 + 120 + 160) / 3)]
    grey = principal_components(iter([np.full((2, 2, 3), 40 * k, np.uint8) for k in (0, 3, 4)]))
    np.testing.assert_allclose(crops.colours.variances, grey.variances, rtol=1e-4, atol=1e-9)


def test_a_validation_image_that_cannot_be_read_has_no_label(spoilt):
    items = [Centres(spoilt)[index] for index in range(6)]
    assert [label for _, label in items] == [0, -1, -1, 1, 2, -1]
    assert not items[1][0].any()


@pytest.mark.parametrize("in_memory", [True, False])
def test_no_image_can_be_read(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(module, "_IN_MEMORY_PIXELS", 0)
    folder = ImageFolder((tmp_path / "0.png", tmp_path / "1.png"), np.array([0, 0]), ("a",))
    with pytest.raises(DataError, match=r"0\.png: neither this nor another of the 2 images can be read"):
        Crops(folder, seed=0)
