"""A network and a detector from pixels to results in plain torch, traceable by `torch.export` with dynamic sizes."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_pool

from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.nms import nms as nms_of_one
from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.pooling import plan_of
from sppnet_cli.network.sppnet import SPPNet

_MOST_CELLS = 1 << 14  # along a map: a window's cells and its scale are packed into 64 bits


class NetworkGraph(nn.Module):
    """Images `(N, H, W, 3)` uint8 RGB to class scores `(N, K)` before the softmax, as ImageNet's; of a network without
    fc layers, to pooled vectors `(N, D)`, as of all other images."""

    def __init__(self, network: SPPNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        self.output = "scores" if network.head is not None else "features"
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Scores or pooled vectors."""
        network, pixels = self.network, images.permute(0, 3, 1, 2)
        if network.head is not None:
            return network(pixels)
        return network.pool(network.trunk(network.preprocessing(pixels)))


class DetectorGraph(nn.Module):
    """An image `(H, W, 3)` uint8 RGB and windows `(N, 4)` float32 to the detector's scores and moved windows.

    Windows are x1, y1, x2, y2 in 0-based inclusive pixels of the image.  Everything else is inside: resizing to every
    scale, preprocessing, the choice of each window's scale and cells, pooling, fc layers, SVMs, box regression and
    clipping.  Windows with the same cells are pooled and scored once, as in `Detector`, so that their scores tie.

    Without `nms` it returns scores `(N, K)` float32 and windows `(N, K, 4)` float32 as each class moves them.  With it, it
    returns the detections, best first: labels `(M,)` int64, scores `(M,)` and boxes `(M, 4)` float32.

    Raises `UsageError` for R-CNN and for a protocol that pools over all scales.
    """

    weights: Tensor
    bias: Tensor
    bbox_weights: Tensor
    bbox_bias: Tensor

    def __init__(self, detector: Detector, *, nms: bool = False) -> None:
        super().__init__()
        extractor = detector.extractor
        levels = extractor.network.spec.levels
        if extractor.per_window or levels is None:
            raise UsageError(
                f"method {extractor.method} works on every window in Python: export a detector of SPP-net"
            )
        if extractor.mapping.scale_rule == "all":
            raise UsageError(f"protocol {detector.protocol} is an ablation, which is not exported")
        if nms and detector.rules.nms_ties == "last":
            raise UsageError(
                f"protocol {detector.protocol} breaks ties of NMS as ONNX cannot: export without --nms"
            )
        self.nms = nms
        self.mapping, self.rules = extractor.mapping, detector.rules
        self.scales, self.levels = extractor.scales, levels
        network = copy.deepcopy(extractor.network).cpu().eval()
        self.geometry, self.preprocessing, self.trunk = network.geometry, network.preprocessing, network.trunk
        self.layer = detector.layer.name
        self.head = (
            copy.deepcopy(detector.layer.head).cpu().eval() if detector.layer.head is not None else None
        )
        svms, bbox = detector.svms, detector.bbox
        self.register_buffer("weights", torch.from_numpy(svms.weights * svms.scale).T.contiguous())
        self.register_buffer("bias", torch.from_numpy(svms.bias))
        self.regressed = bbox is not None
        if bbox is not None:
            by_feature = torch.from_numpy(bbox.weights).permute(1, 0, 2).flatten(1)  # (D, K * 4)
            self.register_buffer("bbox_weights", by_feature * bbox.scale)
            self.register_buffer("bbox_bias", torch.from_numpy(bbox.bias).flatten())
        self.eval()

    def forward(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        """Scores and windows, or detections."""
        windows, size = boxes.double(), _numbers(image.shape[:2])
        maps, extents = self._maps(image)
        keys = self._keys(windows, size, extents)
        distinct, rows = torch.unique(keys, return_inverse=True)
        vectors = self._pool(maps, distinct)
        features = (
            vectors if self.layer == "pool5" or self.head is None else self.head.features(vectors, self.layer)
        )
        scores = torch.addmm(self.bias, features, self.weights)[rows]
        moved = self._move(windows, vectors, rows, size)
        return self._detections(windows, scores, moved) if self.nms else (scores, moved.float())

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """conv5 maps of all scales, filled up to the largest, `(S, C, h, w)`, and their own `(S, 2)` heights and widths."""
        height, width = image.shape[:2]
        short = torch.sym_min(height, width)
        pixels = image.permute(2, 0, 1)[None].float()
        maps = []
        for scale in self.scales:
            # ONNX's division of integers truncates, so that `-(-a // b)` is no ceiling there.
            resized = ((height * scale + short - 1) // short, (width * scale + short - 1) // short)
            pixels_at_scale = F.interpolate(pixels, resized, mode="bilinear", align_corners=False)  # type: ignore[arg-type]
            maps.append(self.trunk(self.preprocessing(pixels_at_scale)))
        extents = torch.stack([_numbers(each.shape[2:]) for each in maps])
        tallest, widest = maps[-1].shape[2:]
        filled = [F.pad(m, (0, widest - m.shape[3], 0, tallest - m.shape[2])) for m in maps[:-1]]
        return torch.cat([*filled, maps[-1]]), extents

    def _keys(self, windows: Tensor, size: Tensor, extents: Tensor) -> Tensor:
        """Scale and cells of every window, packed: `choose_scales` and `window_cells` on tensors."""
        short = size.amin(dim=0)
        scales = torch.tensor(self.scales, dtype=torch.float64)
        factors = (scales - 1) / (short - 1).clamp(min=1)
        extent = windows[:, 2:] - windows[:, :2]
        if self.mapping.scale_rule == "closest-area":
            distance = ((extent[:, None, :] * factors[:, None] + 1).prod(dim=2) - 224.0**2).abs()
        else:
            wanted = torch.floor(13 * 16 * short / torch.sqrt((extent + 1).prod(dim=1)) + 0.5)
            distance = (scales - wanted[:, None]).abs()
        choice = distance.argmin(dim=1)
        scaled = windows * factors[choice][:, None]
        stride, offset = self.geometry.stride, self.geometry.offset
        slack = self.mapping.cell_slack * stride
        first = torch.floor((scaled[:, :2] - slack - offset) / stride) + 1
        last = torch.ceil((scaled[:, 2:] + slack - offset) / stride) - 1
        middle = torch.floor((first + last) / 2)
        empty = first > last
        limit = extents[choice].flip(1) - 1
        corners = [torch.where(empty, middle, corner).clamp(min=0).minimum(limit) for corner in (first, last)]
        key = choice
        for column in torch.cat(corners, dim=1).long().unbind(1):
            key = key * _MOST_CELLS + column
        return key

    def _pool(self, maps: Tensor, keys: Tensor) -> Tensor:
        """Pyramid vectors `(U, D)` of packed windows."""
        columns = []
        for _ in range(4):
            columns.append(keys % _MOST_CELLS)
            keys = keys // _MOST_CELLS
        rois = torch.stack([keys, *columns[::-1]], dim=1).float()
        of_level: dict[int, Tensor] = {}
        for n, parent, _, _ in plan_of(self.levels).tolist():
            # Integer cells and a scale of 1: these are the bins of the definition (see `pool_windows`).
            pooled = F.max_pool2d(of_level[parent], parent // n) if parent else roi_pool(maps, rois, n)
            of_level[n] = pooled
        return torch.cat([of_level[n].flatten(1) for n in self.levels], dim=1)

    def _move(self, windows: Tensor, vectors: Tensor, rows: Tensor, size: Tensor) -> Tensor:
        """Windows `(N, K, 4)` float64 as the classes' regressors move them (see `BoxRegressors`)."""
        classes = self.bias.shape[0]
        if not self.regressed:
            return windows[:, None].expand(-1, classes, -1)
        deltas = torch.addmm(self.bbox_bias, vectors, self.bbox_weights).double()
        deltas = deltas.unflatten(1, (classes, 4))[rows]
        extent = (windows[:, 2:] - windows[:, :2])[:, None]
        centre = windows[:, None, :2] + extent / 2 + deltas[..., :2] * extent
        half = extent * torch.exp(deltas[..., 2:]) / 2
        limit = (size.flip(0) - 1).repeat(2)
        return torch.cat([centre - half, centre + half], dim=2).clamp(min=0).minimum(limit)

    def _detections(self, windows: Tensor, scores: Tensor, moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `detect_together`: threshold, NMS, the best of each class, regression, NMS once more."""
        rule = self.rules
        picked = select(
            _edges(windows)[None], scores.T[None], rule.max_per_image, rule.nms_iou, rule.score_threshold
        )
        label, row = picked[:, 1], picked[:, 2]
        if self.regressed:
            kept = torch.full_like(scores.T, -torch.inf).index_put((label, row), scores[row, label])
            boxes = _edges(moved.transpose(0, 1))
            picked = select(boxes, kept[:, None], rule.max_per_image, rule.nms_iou, rule.score_threshold)
            label, row = picked[:, 0], picked[:, 2]
        best, order = scores[row, label].sort(descending=True, stable=True)
        label, row = label[order], row[order]
        return label, best, moved[row, label].float()


def _numbers(extents: "torch.Size | tuple[int, ...]") -> Tensor:
    return torch.stack([torch.scalar_tensor(extent, dtype=torch.float64) for extent in extents])


def _edges(boxes: Tensor) -> Tensor:
    """Boxes `(..., 4)` of inclusive pixels as the edges of their pixels, float32: areas without a +1."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] + 1], dim=-1).float()


@torch.library.custom_op("sppnet::select", mutates_args=())
def select(edges: Tensor, scores: Tensor, most: int, iou: float, threshold: float) -> Tensor:
    """ONNX's NonMaxSuppression of boxes `(B, N, 4)` with scores `(B, K, N)`: rows (batch, class, box) `(M, 3)` int64.

    Boxes are given by their edges.  Of each batch and class at most `most` boxes whose scores are above the threshold
    survive, best first.
    """
    found = [torch.empty(0, 3, dtype=torch.int64)]
    for batch in range(scores.shape[0]):
        pixels = edges[batch].double().numpy().copy()
        pixels[:, 2:] -= 1
        for label in range(scores.shape[1]):
            above = (scores[batch, label] > threshold).nonzero()[:, 0].numpy()
            kept = nms_of_one(pixels[above], scores[batch, label].numpy()[above], iou, "first")[:most]
            rows = torch.from_numpy(above[kept])
            found.append(
                torch.stack([torch.full_like(rows, batch), torch.full_like(rows, label), rows], dim=1)
            )
    return torch.cat(found)


@select.register_fake
def _(edges: Tensor, scores: Tensor, most: int, iou: float, threshold: float) -> Tensor:
    survivors = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty(survivors, 3, dtype=torch.int64)
