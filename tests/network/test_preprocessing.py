import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from sppnet_cli.network.preprocessing import CAFFE, MinusMeanImage, Preprocessing, resize

TORCHVISION = Preprocessing("RGB", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_caffe_is_bgr_minus_128():
    red_green_blue = torch.tensor([255, 128, 3], dtype=torch.uint8).view(1, 3, 1, 1)
    prepared = CAFFE(red_green_blue)
    assert prepared.dtype == torch.float32
    assert prepared.flatten().tolist() == [-125, 0, 127]


def test_torchvision_is_rgb_by_mean_and_deviation():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = normalize(images.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(TORCHVISION(images), expected, rtol=1e-6, atol=1e-6)


def test_the_mean_image_is_warped_to_the_input():
    # Blue, green, red means; the columns of red are 0 and 100, at four columns 0, 25, 75 and 100.
    mean = torch.tensor([[10.0, 10], [20, 20], [0, 100]])[:, None].expand(3, 2, 2)
    image = torch.full((2, 3, 2, 4), 200, dtype=torch.uint8)
    image[:, 0] = 150
    prepared = MinusMeanImage(mean)(image)
    assert prepared.dtype == torch.float32
    assert prepared.shape == (2, 3, 2, 4)
    for one in prepared:
        assert one[:, 1].tolist() == [[190] * 4, [180] * 4, [150, 125, 75, 50]]


@pytest.mark.parametrize("rule", [MinusMeanImage(torch.rand(3, 224, 224)), CAFFE, TORCHVISION])
def test_bytes_and_floats_alike_and_channels_last(rule):
    images = torch.randint(0, 256, (1, 3, 6, 7), dtype=torch.uint8)
    assert torch.equal(rule(images), rule(images.double()))
    assert rule(images).is_contiguous(memory_format=torch.channels_last)


def test_resize_has_half_pixel_centres():
    row = torch.tensor([0, 100], dtype=torch.uint8).view(1, 1, 2).expand(3, 2, 2)
    doubled = resize(row, (2, 4))
    assert doubled.shape == (1, 3, 2, 4)
    assert doubled[0, 0, 0].tolist() == [0, 25, 75, 100]


def test_resize_has_no_antialias():
    # Halving 4 columns takes the mean of the two middle ones of each half pair: centres at 0.5 and 2.5.
    row = torch.tensor([0, 8, 16, 240], dtype=torch.uint8).view(1, 1, 4).expand(3, 1, 4)
    assert resize(row, (1, 2))[0, 0, 0].tolist() == [4, 128]
    # A quarter: the centre at 1.5 sees columns 1 and 2 alone; antialiasing would see all.
    assert resize(row, (1, 1))[0, 0, 0].tolist() == [12]


def test_the_same_size_is_left_alone():
    image = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    assert torch.equal(resize(image, (5, 4))[0], image.float())
