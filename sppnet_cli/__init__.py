"""SPP-net: reproduce, trust and use spatial pyramid pooling (He, Zhang, Ren, Sun 2014).

The public API is what `__all__` names; docs/api.md shows it in use.  Each name is imported when it is first asked for,
and importing the package changes nothing of the process.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sppnet_cli.api import average_precision, pool_windows, propose, read_image
    from sppnet_cli.detection.detector import Detector
    from sppnet_cli.kernels.pyramid import SpatialPyramidPooling

__all__ = [
    "Detector",
    "SpatialPyramidPooling",
    "__version__",
    "average_precision",
    "pool_windows",
    "propose",
    "read_image",
    "tune_process",
]

__version__ = "0.2.0"

_HOMES = {
    "Detector": "sppnet_cli.detection.detector",
    "SpatialPyramidPooling": "sppnet_cli.kernels.pyramid",
    "average_precision": "sppnet_cli.api",
    "pool_windows": "sppnet_cli.api",
    "propose": "sppnet_cli.api",
    "read_image": "sppnet_cli.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sppnet_cli' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def tune_process() -> None:
    """Set three variables of the environment that make detection quicker and smaller; call it before torch is imported.

    The command line does so.  What is set already stays; no result depends on them.
    """
    # oneDNN keeps buffers for each of the last 1,024 input shapes; in detection every image and scale has its own, and
    # they add up to gigabytes.  Read when torch first convolves.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    # Between its products torch's threads would go on spinning, on the cores that our kernels and other processes want.
    # Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Maps of tens of megabytes are made anew for every image; with pages of 4 KB a fifth of the time goes into getting
    # them.  Read when torch first asks for memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
