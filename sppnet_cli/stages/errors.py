"""Stage: which images of a validation set a network gets wrong."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.top_k import TopKErrors
from sppnet_cli.runs import fingerprint, run_stage
from sppnet_cli.stages.evaluate import evaluate_network, validation_folder

ERRORS_FILE = "errors.npz"


@dataclass(frozen=True)
class ErrorsConfig:
    """`sppnet evaluate --network`, kept."""

    views: str
    limit: int | None = None


def errors_stage(
    config: ErrorsConfig, network: Path, data: Path, out: Path, *, device: str = "cpu", workers: int = 0
) -> Path:
    """`errors.npz`: `wrong1` and `wrong5` (n,) bool, in the order of the images.  All processes share the images."""

    def build(folder: Path) -> None:
        errors = evaluate_network(
            network, data, config.views, device=device, limit=config.limit, workers=workers
        )
        if world().first:
            np.savez_compressed(folder / ERRORS_FILE, wrong1=errors.wrong1, wrong5=errors.wrong5)

    inputs = {"network": fingerprint(network), "data": fingerprint(validation_folder(data))}
    return run_stage(out, "evaluate", config, inputs, build, together=True)


def read_errors(run: Path) -> TopKErrors:
    """What `errors_stage` wrote.  Raises `DataError` where it is missing or broken."""
    try:
        with np.load(run / ERRORS_FILE, allow_pickle=False) as archive:
            return TopKErrors(archive["wrong1"], archive["wrong5"])
    except (OSError, ValueError, KeyError):
        raise DataError(f"{run / ERRORS_FILE}: missing or broken; remove {run} and evaluate again") from None
