"""Features of whole images for transfer (paper sections 3.2 and 3.3): several layers from one forward pass."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.console import track
from sppnet_cli.data.ahead import ahead
from sppnet_cli.data.images import read_image
from sppnet_cli.distributed import world
from sppnet_cli.errors import UsageError
from sppnet_cli.features.store import FeatureStore
from sppnet_cli.names import FC_LAYERS, IMAGE_LAYERS, IMAGE_VIEWS, MAP_LAYERS
from sppnet_cli.network.backbones import conv4_part
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.preprocessing import bilinear, resize_short
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

_AHEAD = 4  # images per thread that are read before the network is ready for them


def whole_image(image: NDArray[np.uint8], size: int, view: str) -> NDArray[np.uint8]:
    """A view of an RGB image, uint8 (h, w, 3), resized bilinearly.

    `full`: all of it, its short side `size`; `crop`: the 224x224 centre of that; `warp`: all of it as
    `size` x `size`, whatever its shape was (journal edition).
    """
    if view == "warp":
        return bilinear(image, (size, size))
    resized = resize_short(image, size)
    if view == "full":
        return resized
    height, width = resized.shape[:2]
    top, left = (height - CROP) // 2, (width - CROP) // 2
    return np.ascontiguousarray(resized[top : top + CROP, left : left + CROP])


class ImageFeatures:
    """Layers of one view of whole images.

    Layers are conv4 and conv5 (the maps, as c, row, column), pool5 (the finest level of the pyramid: 6x6; the whole
    pool5 of the plain net), SPP pool5 (all levels), fc6 and fc7; all after ReLU.  Raises `UsageError` for layers, views
    and sizes that the network does not have.
    """

    def __init__(
        self, network: SPPNet, layers: Sequence[str], view: str, size: int, device: str = "cpu"
    ) -> None:
        require_possible(layers, view, size)
        require_supported(network.spec, layers, view, size)
        self.network = network.to(device).eval()
        self.layers = tuple(layers)
        self.view = view
        self.size = size
        self.device = device
        self._end_of_conv4 = conv4_part(network.trunk)[-1] if "conv4" in layers else None

    def dimensions(self) -> dict[str, int]:
        """Length of every layer's feature."""
        black = np.zeros((self.size, self.size, 3), np.uint8)
        return {layer: len(feature) for layer, feature in self(black).items()}

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The view of an image file.  Raises `DataError` for one that cannot be read."""
        return whole_image(read_image(path), self.size, self.view)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Feature `(D,)` of each layer, of a view `(h, w, 3)` from `whole_image`."""
        network = self.network
        images = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None]
        layers: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            if self._end_of_conv4 is not None:
                hook = self._end_of_conv4.register_forward_hook(lambda *call: layers.update(conv4=call[2]))
                hooks.enter_context(hook)
            layers["conv5"] = network.maps(images, "conv5")
        pooled = layers["SPP pool5"] = network.pool(layers["conv5"])
        finest = 36 if network.spec.levels is None else max(network.spec.levels) ** 2
        layers["pool5"] = pooled[:, -finest * network.channels :]
        if not set(FC_LAYERS).isdisjoint(self.layers):
            head = network.require_head()
            layers["fc6"] = head.features(pooled, "fc6")
            if "fc7" in self.layers:
                layers["fc7"] = head.relu(head.fc7(layers["fc6"]))  # fc6, the larger one, only once
        return {layer: layers[layer].flatten().cpu().numpy() for layer in self.layers}


def extract_features(
    network: SPPNet,
    paths: Sequence[Path],
    layers: Sequence[str],
    view: str,
    size: int,
    out: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Write `<layer>.npy` (N, D) float32 into `out` for every layer, row n for `paths[n]`; to be memory-mapped.

    Features are not normalised.  Images go through the network one by one, so that none depends on the others, while
    `workers` threads read and resize the next ones.  A call that was cut off is continued by the next one with the same
    `out`; several processes share the images.
    """
    if not paths:
        raise UsageError("no images to extract features from")
    features = ImageFeatures(network, layers, view, size, device)
    store = FeatureStore(out, len(paths), features.dimensions())
    here = world()
    rows = [row for row in range(here.rank, len(paths), here.size) if not store.done[row]]
    threads = max(workers, 1)
    with (
        store,
        warnings.catch_warnings(action="ignore"),  # here, since all threads have the same filters
        ThreadPoolExecutor(threads) as pool,
    ):
        images = ahead(pool, lambda row: features.read(paths[row]), rows, _AHEAD * threads)
        for row, image in zip(rows, track(images, f"extracting {', '.join(layers)}", len(rows)), strict=True):
            store.write(row, features(image.result()))
    store.finish()


def require_possible(layers: Sequence[str], view: str, size: int) -> None:
    """Raise `UsageError` for unknown layers and views, and for combinations that no network has."""
    unknown = [layer for layer in layers if layer not in IMAGE_LAYERS]
    if unknown or not layers:
        raise UsageError(f"unknown layer {(unknown or [''])[0]!r}; layers are {', '.join(IMAGE_LAYERS)}")
    if len(set(layers)) < len(layers):
        raise UsageError(f"layers {', '.join(layers)}: name each once")
    if view not in IMAGE_VIEWS:
        raise UsageError(f"unknown view {view!r}; views are {', '.join(IMAGE_VIEWS)}")
    if view == "crop" and size < CROP:
        raise UsageError(f"size {size}: a crop of {CROP} px does not fit; take {CROP} or more")
    maps = [layer for layer in layers if layer in MAP_LAYERS]
    if maps and view == "full":
        raise UsageError(f"{maps[0]} has another length for each shape of image; take view crop or warp")


def require_supported(spec: NetworkSpec, layers: Sequence[str], view: str, size: int) -> None:
    """Raise `UsageError` for layers, views and sizes that this network does not have."""
    if not spec.fc and (fc := [layer for layer in layers if layer in FC_LAYERS]):
        raise UsageError(
            f"{spec.arch} has no {fc[0]}, for it has no fc layers: take SPP pool5, pool5 or conv5"
        )
    if spec.levels is None:
        if "SPP pool5" in layers:
            raise UsageError("the plain net has no SPP pool5; its pool5 is `pool5`")
        if view == "full" or (view == "warp" and size != CROP):
            raise UsageError(f"the plain net takes {CROP}x{CROP} only: view crop, or view warp at {CROP}")
