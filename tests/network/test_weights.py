import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import (
    load_head,
    load_network,
    load_spec,
    load_trunk_weights,
    read_state_dict,
    save_head,
    save_network,
    save_tensors,
)


def narrow(levels=SPP6, fc=16, classes=5):
    return SPPNet(NetworkSpec("zf5", 0.0625, levels, fc, classes))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("levels", "fc", "classes"), [(SPP6, 16, 5), (SPP4, 16, 5), (None, 16, 5), (SPP6, 0, 0)]
)
def test_a_network_comes_back(tmp_path, levels, fc, classes):
    network = narrow(levels, fc, classes)
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert loaded.spec == network.spec == load_spec(tmp_path)
    assert not any(module.training for module in loaded.modules())
    assert_same(loaded.state_dict(), network.state_dict())
    if fc:
        images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
        with torch.inference_mode():
            assert torch.equal(loaded(images), network.eval()(images))


def test_a_mean_image_comes_back(tmp_path):
    network = narrow()
    network.mean_image = torch.rand(3, 224, 224) * 255
    save_network(network, tmp_path)
    assert torch.equal(load_network(tmp_path).mean_image, network.mean_image)
    (tmp_path / "mean.safetensors").unlink()
    assert load_network(tmp_path).mean_image is None  # as in networks that were saved without one


@pytest.mark.parametrize(
    "state",
    [
        {"other": torch.zeros(3, 224, 224)},
        {"mean": torch.zeros(3, 227, 227)},
        {"mean": torch.zeros(3, 224, 224, dtype=torch.float64)},
    ],
)
def test_a_broken_mean_image(tmp_path, state):
    save_network(narrow(), tmp_path)
    save_file(state, tmp_path / "mean.safetensors")
    with pytest.raises(DataError, match=r"mean.safetensors: holds no mean image"):
        load_network(tmp_path)


def test_a_mean_image_of_nan(tmp_path):
    save_network(narrow(), tmp_path)
    save_file({"mean": torch.full((3, 224, 224), torch.nan)}, tmp_path / "mean.safetensors")
    with pytest.raises(DataError, match=r"mean.safetensors: mean holds NaN"):
        load_network(tmp_path)


def test_weights_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    model = timm.create_model("resnet10t").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = SPPNet(NetworkSpec("timm/resnet10t")).eval()
    load_trunk_weights(network, str(tmp_path / "weights.pth"))
    image = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.trunk(image), model.forward_features(image))
    save_network(network, tmp_path)
    assert_same(load_network(tmp_path).state_dict(), network.state_dict())
    torch.save(timm.create_model("resnet14t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(DataError, match="weights of another architecture"):
        load_trunk_weights(network, str(tmp_path / "other.pth"))


def test_timm_without_a_network(monkeypatch):
    timm = pytest.importorskip("timm")

    def fails(name, pretrained):
        if pretrained:
            raise RuntimeError("no\nnetwork")
        return create(name)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(
        DataError, match=r"timm/resnet10t DEFAULT: the download failed .no network.; give a file"
    ):
        load_trunk_weights(SPPNet(NetworkSpec("timm/resnet10t")), "DEFAULT")


def test_a_head_comes_back(tmp_path):
    head = Head(40, 8, 3, input_scale=0.25)
    save_head(head, tmp_path)
    loaded = load_head(tmp_path)
    assert not loaded.training
    assert loaded.input_scale == 0.25
    assert_same(loaded.state_dict(), head.state_dict())


def test_a_head_without_fc6(tmp_path):
    save_file({"fc7.weight": torch.zeros(2, 2)}, tmp_path / "head.safetensors")
    with pytest.raises(DataError, match=r"head\.safetensors: holds no fc6.*sppnet finetune"):
        load_head(tmp_path)


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"width": "wide"}', '{"levels": [1], "breadth": 3}', "\x00"]
)
def test_a_broken_spec_is_no_network_folder(tmp_path, text):
    if text is not None:
        (tmp_path / "network.json").write_text(text)
    with pytest.raises(DataError, match=r"not a network folder"):
        load_network(tmp_path)


def test_weights_of_another_spec_are_named_by_their_differences(tmp_path):
    network = narrow()
    save_network(network, tmp_path)
    path = tmp_path / "network.safetensors"
    state = load_file(path)
    state["extra"] = state.pop("trunk.conv3.weight")
    state["trunk.conv1.bias"] = torch.zeros(9)
    save_file(state, path)
    with pytest.raises(DataError) as caught:
        load_network(tmp_path)
    assert str(caught.value) == (
        f"{path}: weights of another architecture: trunk.conv3.weight is missing; extra is unknown; "
        "trunk.conv1.bias is (9,), not (8,)"
    )


def test_of_many_differences_three_are_named(tmp_path):
    save_network(narrow(), tmp_path)
    spec = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(spec | {"width": 0.25}))
    # All ten tensors of the trunk and fc6.weight; only fc6.bias, fc7 and fc8 agree.
    with pytest.raises(DataError, match=r"\(and 8 more\)$") as caught:
        load_network(tmp_path)
    assert str(caught.value).count(" is (") == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_numbers_that_are_none(tmp_path, suffix, number):
    path = tmp_path / f"net{suffix}"
    state = {"a": torch.zeros(3), "b": torch.tensor([0, number], dtype=torch.float64)}
    (torch.save if suffix == ".pth" else save_file)(state, path)
    with pytest.raises(DataError, match=r"net\..*: b holds NaN, infinity or what float32 cannot hold"):
        read_state_dict(path)


def test_a_network_and_a_head_with_nan(tmp_path):
    network = narrow()
    with torch.no_grad():
        network.trunk.conv3.bias[1] = torch.nan
        network.head.fc7.weight[0, 0] = torch.inf
    save_network(network, tmp_path)
    save_head(network.head, tmp_path)
    with pytest.raises(
        DataError, match=r"network\.safetensors: (trunk\.conv3\.bias|head\.fc7\.weight) holds NaN"
    ):
        load_network(tmp_path)
    with pytest.raises(DataError, match=r"head\.safetensors: fc7\.weight holds NaN"):
        load_head(tmp_path)


def test_minus_infinity_where_it_means_never(tmp_path):
    save_file({"bias": torch.tensor([0, -torch.inf])}, tmp_path / "x.safetensors")
    assert read_state_dict(tmp_path / "x.safetensors", bottomless=("bias",))["bias"][1] == -torch.inf
    for number in (torch.nan, torch.inf):
        save_file({"bias": torch.tensor([0, number])}, tmp_path / "x.safetensors")
        with pytest.raises(DataError, match="bias holds NaN"):
            read_state_dict(tmp_path / "x.safetensors", bottomless=("bias",))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, dtype=torch.complex64), "a is complex64"),
        (torch.zeros(3).to_sparse(), "a is sparse, quantised or without values"),
        (torch.zeros(3, device="meta"), "a is sparse, quantised or without values"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path, tensor, message):
    torch.save({"a": tensor}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=message):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint8])
def test_integers_for_weights(tmp_path, dtype):
    network = narrow()
    state = {name: value.to(dtype).contiguous() for name, value in network.state_dict().items()}
    save_network(network, tmp_path)
    save_file(state, tmp_path / "network.safetensors")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(DataError, match=f"trunk.conv1.weight is {name}, not float32"):
        load_network(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_is_taken(tmp_path, dtype):
    network = narrow()
    save_network(network, tmp_path)
    save_file(
        {k: v.to(dtype).contiguous() for k, v in network.state_dict().items()},
        tmp_path / "network.safetensors",
    )
    assert load_network(tmp_path).trunk.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1e9}, {"width": -1.0}, {"width": None}, {"fc": -1}, {"fc": 10**12}, {"classes": "5"}, {"levels": []},
        {"levels": [0]}, {"levels": [10**6]}, {"levels": [1] * 100}, {"levels": "1236"}, {"arch": "nonsense"},
        {"arch": 3}, {"arch": None}, {"arch": "../zf5"},
    ],
)  # fmt: skip
def test_a_spec_that_no_network_has(tmp_path, change):
    save_network(narrow(), tmp_path)
    path = tmp_path / "network.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"network\.json: .*") as caught:
        load_spec(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_a_head_of_another_rank(tmp_path, shape):
    state = Head(40, 8, 3).state_dict() | {"fc6.weight": torch.zeros(shape)}
    save_file(state, tmp_path / "head.safetensors")
    with pytest.raises(DataError, match=r"head\.safetensors: holds no fc6"):
        load_head(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_of_a_weights_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_network(narrow(), tmp_path)
        save_head(Head(4, 2, 1), tmp_path)
    finally:
        os.umask(before)
    for name in ("network.safetensors", "head.safetensors", "network.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_a_full_disk_is_said_with_the_files_name(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("sppnet_cli.network.weights.save_file", full)
    with pytest.raises(SppnetError, match=r"x\.safetensors: cannot be written .*No space left on device"):
        save_tensors({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_permission_is_called_a_permission(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"x\.pth: cannot be read \(Permission denied\)"):
        read_state_dict(tmp_path / "x.pth")
