import copy

import pytest
import torch
from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.lrn import WithinChannelLRN
from sppnet_cli.network.backbones import build_trunk, is_own
from sppnet_cli.network.receptive import geometry_of

GEOMETRIES = {
    "zf5": (16, 20, 139),
    "convnet5": (16, 15, 131),
    "overfeat5": (12, 8, 113),
    "overfeat7": (12, 8, 161),
    "alexnet": (16, 15, 163),
    "squeezenet1_0": (16, 17, 155),
    "squeezenet1_1": (16, 15, 207),
    "resnet18": (32, 0, 435),
    "timm/resnet10t": (32, 0, 199),
}


def linear_twin(layer):
    """The same connections with positive weights: a pixel that reaches a cell has a positive gradient there."""
    if isinstance(layer, nn.Conv2d):
        twin = copy.deepcopy(layer)
        fan_in = twin.weight[0].numel()
        nn.init.uniform_(twin.weight, 0.5 / fan_in, 1.5 / fan_in)
        twin.bias = None
        return twin
    if isinstance(layer, nn.MaxPool2d):
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    if isinstance(layer, nn.ReLU | nn.BatchNorm2d | WithinChannelLRN):
        return nn.Identity()
    for name, child in layer.named_children():
        setattr(layer, name, linear_twin(child))
    return layer


def span_of_gradient(trunk, cell, axis, pixels):
    """First and last pixel along an axis with a gradient of map cell `cell`, and whether all between have one."""
    size = [33, 33]
    size[axis] = pixels
    image = torch.zeros(1, 3, *size, dtype=torch.float64, requires_grad=True)
    maps = trunk(image)
    maps.select(2 + axis, cell).sum().backward()
    reached = image.grad.sum(dim=(0, 1, 3 - axis)).nonzero()[:, 0]
    first, last = int(reached[0]), int(reached[-1])
    return first, last, len(reached) == last - first + 1


@pytest.mark.parametrize("arch", GEOMETRIES)
def test_geometry_is_where_the_gradient_is(arch):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    trunk, _ = build_trunk(arch, 0.0625 if is_own(arch) else 1.0)
    geometry = geometry_of(trunk)
    assert geometry == GEOMETRIES[arch]
    stride, offset, field = geometry
    twin = linear_twin(trunk).double().requires_grad_(False).eval()
    reach = (field - 1) / 2
    cell = int((reach + stride) // stride) + 1  # its whole field lies inside
    centre = stride * cell + offset
    for axis in (0, 1):
        found = span_of_gradient(twin, cell, axis, int(centre + reach) + 3 * stride)
        assert found == (centre - reach, centre + reach, True)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Conv2d(3, 4, 1)], (1, 0, 1)),
        ([nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()], (1, 0, 3)),
        ([nn.Conv2d(3, 4, 2)], (1, 0.5, 2)),
        # conv: -1 .. 5 at stride 2; the pool adds two strides to the right.
        ([nn.Conv2d(3, 4, 7, stride=2, padding=1), nn.MaxPool2d(3, 2)], (4, 4, 11)),
        ([nn.Conv2d(3, 4, 3, dilation=2, padding=2)], (1, 0, 5)),
        ([nn.AvgPool2d(4)], (4, 1.5, 4)),
        ([nn.Conv2d(3, 4, 5, padding="same", dilation=2)], (1, 0, 9)),
        ([nn.Conv2d(3, 4, 5, padding="valid")], (1, 2, 5)),
        # Seven cells along one axis, then along the other.
        ([nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0))], (1, 0, 7)),
    ],
)
def test_worked_by_hand(layers, expected):
    assert geometry_of(nn.Sequential(*layers)) == expected


class Join(nn.Module):
    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return torch.cat([self.one(x), self.other(x)], dim=1)


def test_branches_give_the_envelope():
    # -3 .. 1 and -1 .. 2.
    join = Join(nn.Conv2d(3, 2, 5, padding=3), nn.Conv2d(3, 2, 4, padding=1))
    assert geometry_of(nn.Sequential(join)) == (1, -0.5, 6)


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x * self.excite(self.squeeze(x))


def test_global_context_is_left_out():
    assert geometry_of(nn.Sequential(nn.Conv2d(3, 3, 3), Gated())) == (1, 1, 3)


class Called(nn.Module):
    """What `call` makes of a map, through a convolution."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.call = nn.Conv2d(3, 6, 3), call

    def forward(self, x):
        return self.call(self.conv(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.cat([x.chunk(2, dim=1)[1], x], dim=1),
        lambda x: torch.cat([torch.split(x, [2, 4], dim=1)[k][:, :1] for k in range(2)], dim=1),
        lambda x: x[:, :3, :, :] + x[:, 3:, :, :],
        lambda x: nn.functional.silu(x.relu()) * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: x.mul(torch.ones(6, 1, 1)),
    ],
)
def test_calls_that_leave_every_cell_in_its_place(call):
    assert geometry_of(nn.Sequential(Called(call))) == (1, 1, 3)


class Conv2dSame(nn.Conv2d):
    """Called as timm's that is padded by the size of its input."""


class Viewed(nn.Module):
    def forward(self, x):
        return x.flip(2)


class Grown(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2)


@pytest.mark.parametrize(
    "layer",
    [
        Join(nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3, stride=2)),
        nn.Conv2d(3, 4, (3, 5)),
        Conv2dSame(3, 4, 3),
        Called(lambda x: x[:, :, 1:]),
        Called(lambda x: x.chunk(2, dim=2)[0]),
        Called(lambda x: x.mean(2, keepdim=True)),
        Called(lambda x: x.sum((2, 3))),
        Called(lambda x: sum(x)),
        nn.ConvTranspose2d(3, 4, 3),
        nn.Upsample(scale_factor=2),
        Viewed(),
        Grown(),
    ],
)
def test_what_is_not_known_is_an_error_of_one_line(layer):
    with pytest.raises(UsageError) as caught:
        geometry_of(nn.Sequential(nn.Conv2d(3, 3, 3), layer))
    assert "\n" not in str(caught.value)
