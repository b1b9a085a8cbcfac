import sys

import pytest

from sppnet_cli.errors import DataError
from sppnet_cli.learning.events import event_writer


def test_the_optional_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match="pip install tensorboard"):
        event_writer(tmp_path)


def test_every_epoch_is_written(tmp_path):
    pytest.importorskip("tensorboard")
    write = event_writer(tmp_path / "events")
    for epoch in (1, 2):
        write({"epoch": epoch, "size": 224, "loss": 1.0 / epoch})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
