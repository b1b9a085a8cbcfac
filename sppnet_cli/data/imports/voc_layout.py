"""Writing of a VOC set: images, annotations, lists of the parts and lists of the classes."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from sppnet_cli.console import track
from sppnet_cli.data.imports.placing import PlacedObject

YEAR = "VOC2007"  # the name that every reader of the layout knows


@dataclass(frozen=True)
class ImportedImage:
    """One image of the set.  source: its file; size: (width, height), upright."""

    source: Path
    size: tuple[int, int]
    objects: tuple[PlacedObject, ...]


def write_voc_set(
    devkit: Path, images: Mapping[str, ImportedImage], splits: Mapping[str, Sequence[str]], copy: bool
) -> None:
    """Write `devkit`/VOC2007 of images by id: JPEGImages, Annotations (1-based) and ImageSets/Main.

    Images are symbolic links, or copies where `copy` says so or links cannot be made; they keep their suffix, in lower
    case, .jpeg as .jpg.  A split without images gets no list.  Raises `OSError` when something cannot be written.
    """
    root = devkit / YEAR
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for image_id, image in track(images.items(), "write images", len(images)):
        suffix = image.source.suffix.lower()
        name = f"{image_id}{'.jpg' if suffix == '.jpeg' else suffix}"
        copy = _put(image.source, root / "JPEGImages" / name, copy)
        xml = annotation_xml(name, image.size, image.objects)
        (root / "Annotations" / f"{image_id}.xml").write_text(xml, encoding="utf-8")
    names = sorted({item.name for image in images.values() for item in image.objects})
    difficult = {
        image_id: {
            name: all(item.difficult for item in image.objects if item.name == name)
            for name in {item.name for item in image.objects}
        }
        for image_id, image in images.items()
    }
    lists = root / "ImageSets" / "Main"
    for split, ids in splits.items():
        if not ids:
            continue
        _write_list(lists / f"{split}.txt", ids)
        for name in names:
            labels = {False: " 1", True: " 0", None: "-1"}
            _write_list(lists / f"{name}_{split}.txt", [f"{i} {labels[difficult[i].get(name)]}" for i in ids])


def annotation_xml(
    filename: str, size: tuple[int, int], objects: Sequence[PlacedObject], scores: Sequence[float] = ()
) -> str:
    """A VOC annotation file of boxes in 0-based inclusive pixels, which it holds 1-based; size: (width, height).

    scores: one for each object, which becomes its `<confidence>`.
    """
    lines = [
        "<annotation>",
        f"\t<folder>{YEAR}</folder>",
        f"\t<filename>{escape(filename)}</filename>",
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for number, item in enumerate(objects):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), item.box, strict=True)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(item.name)}</name>",
            "\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{int(item.truncated)}</truncated>",
            f"\t\t<difficult>{int(item.difficult)}</difficult>",
            *([f"\t\t<confidence>{scores[number]!r}</confidence>"] if scores else []),
            "\t\t<bndbox>",
            *(f"\t\t\t<{corner}>{value + 1}</{corner}>" for corner, value in corners),
            "\t\t</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>"]) + "\n"


def _put(source: Path, target: Path, copy: bool) -> bool:
    """Link or copy a file; returns whether the next one is to be copied."""
    if not copy:
        try:
            target.symlink_to(source)
            return False
        except (OSError, NotImplementedError):  # a file system without links
            pass
    shutil.copyfile(source, target)
    os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    return True


def _write_list(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
