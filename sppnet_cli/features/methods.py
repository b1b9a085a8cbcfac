"""The detection methods by name.  A new one is a file with its `Extractor` and a line here."""

from sppnet_cli.features.method import Extractor
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import MappingRules

METHODS: dict[str, type[Extractor]] = {extractor.method: extractor for extractor in (SppWindows, RcnnWindows)}


def make_extractor(
    method: str,
    network: SPPNet,
    mapping: MappingRules,
    scales: tuple[int, ...],
    device: str,
    precision: Precision = "fp32",
) -> Extractor:
    """The extractor of a method in `METHODS`; one without scales ignores them."""
    return METHODS[method](network, mapping, scales, device, precision)
