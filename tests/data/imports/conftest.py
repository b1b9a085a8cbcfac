import numpy as np
import pytest
from exporters import Photo
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Forty noisy pictures of odd sizes with one to three objects of three classes, some up to their borders."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    result = []
    for number in range(40):
        width, height = (int(side) for side in rng.integers(40, 120, 2))
        path = folder / f"{('Straße', 'photo', 'DSC')[number % 3]} {number:02d}.jpg"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        objects = []
        for k in range(1 + number % 3):
            x1, y1 = (int(rng.integers(0, side - 12)) for side in (width, height))
            x2, y2 = (int(rng.integers(low + 4, side)) for low, side in ((x1, width), (y1, height)))
            x1 = 0 if number % 4 == 0 else x1
            x2 = width - 1 if number % 5 == 0 else x2
            objects.append((("traffic light", "Köter", "van")[(number + k) % 3], x1, y1, x2, y2))
        result.append(Photo(path, (width, height), tuple(objects)))
    return result
