"""Edges of an image for EdgeBoxes: where colours change, how strongly and in which direction."""

import numpy as np

_SMOOTHING = 1.5  # pixels, deviation of the Gaussian before the gradient
_SURROUNDINGS = 20.0  # pixels, deviation of the Gaussian that averages the strength of the edges around
_NOISE = 0.02  # strength below which an edge does not count the more for standing alone, of Lab in hundreds
_STRONGEST = 99.0  # percentile of the strengths that becomes 1
_RADIUS = 2  # pixels to either side in which an edge must be the strongest


def edge_map(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thin edges of an RGB image (H, W, 3) uint8: strength (H, W) float32 in [0, 1] and direction (H, W) float32.

    The strength is that of the gradient of the smoothed Lab colours (largest singular value of its Jacobian, Di Zenzo
    1986) over its average around, 0 where it is not the largest across the edge.  The direction is the edge's normal,
    in radians, [0, pi), from x towards y.  They stand in for the learnt edges of EdgeBoxes, whose model is no part of
    OpenCV.
    """
    import cv2

    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) / 100
    lab = cv2.GaussianBlur(lab, (0, 0), _SMOOTHING)
    dx, dy = (cv2.Sobel(lab, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = ((a * b).sum(axis=2) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    difference = np.hypot(xx - yy, 2 * xy)
    strength = np.sqrt((xx + yy + difference) / 2)
    normal = np.arctan2(2 * xy, xx - yy) / 2
    strength /= cv2.GaussianBlur(strength, (0, 0), _SURROUNDINGS) + _NOISE
    top = max(float(np.percentile(strength, _STRONGEST)), np.finfo(np.float32).tiny)
    thin = np.where(_is_ridge(strength, normal), np.minimum(strength / top, 1), 0)
    return thin.astype(np.float32), np.mod(normal, np.pi).astype(np.float32)


def _is_ridge(strength: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Whether no pixel along the normal, up to `_RADIUS` away, is stronger."""
    import cv2

    y, x = np.indices(strength.shape, dtype=np.float32)
    step_x, step_y = np.cos(normal), np.sin(normal)
    ridge = np.ones(strength.shape, dtype=bool)
    for distance in range(-_RADIUS, _RADIUS + 1):
        if distance:
            along = (x + distance * step_x, y + distance * step_y)
            beside = cv2.remap(strength, *along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            ridge &= strength >= beside
    return ridge
