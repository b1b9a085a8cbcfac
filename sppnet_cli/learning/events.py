"""Training curves for TensorBoard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppnet_cli.errors import DataError


def event_writer(folder: Path) -> Callable[[dict[str, Any]], None]:
    """A function that writes an epoch's numbers as TensorBoard events into `folder`.

    Raises `DataError` if the optional package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DataError("--tensorboard needs an optional package: pip install tensorboard") from None

    def write(record: dict[str, Any]) -> None:
        with SummaryWriter(str(folder)) as writer:
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name, value, record["epoch"])

    return write
