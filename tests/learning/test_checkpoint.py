"""Checkpoints that are not what was saved."""

import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.learning.checkpoint import (
    load_checkpoint,
    require_like,
    restore_optimizer,
    restoring,
    save_checkpoint,
)

STATE = {"model": {"weight": torch.ones(2)}, "batches": 3}


def test_what_is_saved_is_loaded(tmp_path):
    assert load_checkpoint(tmp_path / "a.pt", "batches", 5) is None
    save_checkpoint(tmp_path / "a.pt", STATE)
    found = load_checkpoint(tmp_path / "a.pt", "batches", 3)
    assert found["batches"] == 3
    assert found["model"]["weight"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"weight": torch.tensor([1, torch.nan])}},
        {"model": {"weight": torch.tensor([1, torch.inf])}},
        {"model": [{"inside": (torch.tensor(-torch.inf),)}]},
        {"model": torch.ones(2, dtype=torch.complex64)},
        {"batches": -1},
        {"batches": 10**9},
        {"batches": 4},
        {"batches": 1.0},
        {"batches": True},
        {"batches": "1"},
        {"batches": torch.tensor(1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("mmap", [False, True])
def test_numbers_that_are_none_are_refused(tmp_path, change, mmap):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE | change)
    with pytest.raises(DataError, match=r"a\.pt: broken checkpoint; remove it to start over"):
        load_checkpoint(path, "batches", 3, mmap=mmap)


def test_integers_and_empty_tensors_are_finite(tmp_path):
    save_checkpoint(tmp_path / "a.pt", STATE | {"bits": torch.tensor([65535], dtype=torch.uint16)})
    assert load_checkpoint(tmp_path / "a.pt", "batches", 3, mmap=True)["bits"].dtype == torch.uint16
    save_checkpoint(tmp_path / "a.pt", STATE | {"rows": torch.empty(0)})
    assert load_checkpoint(tmp_path / "a.pt", "batches", 3)["rows"].shape == (0,)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04" + bytes(50)])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match="broken checkpoint"):
        load_checkpoint(tmp_path / "a.pt", "batches", 3)


@pytest.mark.parametrize("saved", [{"model": {}}, [1, 2], 3])
def test_a_checkpoint_without_a_counter(tmp_path, saved):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(DataError, match="broken checkpoint"):
        load_checkpoint(tmp_path / "a.pt", "batches", 3)


def test_what_goes_wrong_while_it_is_put_back_names_the_file(tmp_path):
    for wrong in (KeyError("model"), RuntimeError("size mismatch\nfor weight"), TypeError("int")):
        with (
            pytest.raises(DataError, match=r"a\.pt: broken checkpoint") as caught,
            restoring(tmp_path / "a.pt"),
        ):
            raise wrong
        assert "\n" not in str(caught.value)
    with pytest.raises(SppnetError, match=r"^rows$"), restoring(tmp_path / "a.pt"):
        raise SppnetError("rows")  # a matter of --max-memory, not of the file


def trained(momentum=0.9, size=3):
    layer = nn.Linear(size, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=momentum)
    layer(torch.ones(1, size)).sum().backward()
    optimizer.step()
    return optimizer


def test_an_optimizer_is_restored_with_its_rate():
    saved = trained().state_dict()
    saved["param_groups"][0]["lr"] = 0.01
    optimizer = trained()
    restore_optimizer(optimizer, saved)
    assert optimizer.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("other", [trained(momentum=0.5), trained(size=4)], ids=["settings", "shapes"])
def test_the_state_of_another_optimizer(other):
    with pytest.raises(ValueError, match="the optimizer"):
        restore_optimizer(trained(), other.state_dict())


def test_a_schedule_of_another_kind():
    own = {"best": np.inf, "bad": 0}
    require_like({"best": 0.5, "bad": 3}, own)
    for other in ({"best": 0.5}, {"best": "0.5", "bad": 3}, {"best": 0.5, "bad": 3, "more": 1}):
        with pytest.raises(ValueError, match="the schedule"):
            require_like(other, own)
