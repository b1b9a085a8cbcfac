import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pooling import pool_windows
from sppnet_cli.network import self_test
from sppnet_cli.network.self_test import require_exact_pooling


@pytest.fixture(autouse=True)
def untested():
    require_exact_pooling.cache_clear()
    yield
    require_exact_pooling.cache_clear()


def test_the_cpu_is_exact_and_is_asked_once(monkeypatch):
    require_exact_pooling("cpu")
    monkeypatch.delattr(F, "adaptive_max_pool2d")
    require_exact_pooling("cpu")


def first_only(maps, bins):
    """Right where the bins divide the cells."""
    side = max(1, maps.shape[2] // bins)
    return F.max_pool2d(maps, side)[:, :, :bins, :bins]


@pytest.mark.parametrize("wrong_at", [10, 13, 5, 2])
def test_wrong_numbers_are_refused(monkeypatch, wrong_at):
    right = F.adaptive_max_pool2d
    monkeypatch.setattr(
        F,
        "adaptive_max_pool2d",
        lambda maps, bins: (first_only if maps.shape[2] == wrong_at else right)(maps, bins),
    )
    message = rf"--device cpu: torch {torch.__version__.split('+')[0]}.*pooling of {wrong_at} to \d cells gives wrong"
    with pytest.raises(DataError, match=message):
        require_exact_pooling("cpu")


def test_wrong_windows_are_refused(monkeypatch):
    monkeypatch.setattr(self_test, "pool_windows", lambda *given: pool_windows(*given).add(1))
    with pytest.raises(DataError, match=r"self-test \(window pooling of 10 to 6 cells gives wrong numbers\)"):
        require_exact_pooling("cpu")


def test_a_missing_operator_is_refused(monkeypatch):
    def missing(maps, bins):
        raise NotImplementedError("not implemented for MPS\nlong story")

    monkeypatch.setattr(F, "adaptive_max_pool2d", missing)
    with pytest.raises(DataError, match=r"self-test \(not implemented for MPS\)") as caught:
        require_exact_pooling("cpu")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("use --device cpu, or torch 2.14 or later")
