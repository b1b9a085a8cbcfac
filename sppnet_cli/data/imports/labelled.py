"""What the readers of all formats return: images with their objects, as the export has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["train", "val", "trainval", "test"]
Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class ExportedObject:
    """One object.  edges: left, top, right, bottom, so that a box of one pixel is 1 wide; see `Labelled.frame`."""

    name: str
    edges: Edges
    difficult: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Labelled:
    """One image of an export and its objects.

    image: path relative to the export, with slashes.
    frame: (width, height) of the picture in whose pixels the edges are, (0, 0) where the export does not say;
        None: the edges are fractions of the upright picture.
    roles: the parts of the export's own split that list the image.
    image_id: COCO's.
    """

    image: str
    objects: tuple[ExportedObject, ...]
    frame: tuple[int, int] | None
    roles: frozenset[Role] = frozenset()
    image_id: int | None = None


@dataclass(frozen=True)
class Reading:
    """All images that an export labels; `source` names the files that were read, `category_ids` are COCO's."""

    images: list[Labelled]
    source: str
    category_ids: Mapping[str, int] = field(default_factory=dict)
    unused_classes: tuple[str, ...] = ()  # declared, but without objects
