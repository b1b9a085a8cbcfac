"""Writers of one labelled set in the layouts of labelling tools, each as the tool itself has it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Photo:
    """An image file, its size (width, height), and its objects: name, then x1, y1, x2, y2, 0-based inclusive."""

    path: Path
    size: tuple[int, int]
    objects: tuple[tuple[str, int, int, int, int], ...]


def names_of(photos):
    return sorted({item[0] for photo in photos for item in photo.objects})


def put(photo, folder, name=None):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo.path, folder / (name or photo.path.name))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def parts(photos):
    """Three parts, of 6, 2 and 2 in ten."""
    return {
        "train": [photo for k, photo in enumerate(photos) if k % 10 < 6],
        "valid": [photo for k, photo in enumerate(photos) if k % 10 in (6, 7)],
        "test": [photo for k, photo in enumerate(photos) if k % 10 > 7],
    }


def xml(photo, name, corners, *, extra="<difficult>0</difficult>", order=(0, 1, 2, 3), size=True):
    """`corners(x1, y1, x2, y2)` makes of 0-based inclusive pixels what the tool writes."""
    tags = ("xmin", "ymin", "xmax", "ymax")
    items = []
    for label, *box in photo.objects:
        values = corners(*box)
        inside = "".join(f"<{tags[k]}>{values[k]}</{tags[k]}>" for k in order)
        items.append(f"<object><name>{label}</name>{extra}<bndbox>{inside}</bndbox></object>")
    width, height = photo.size
    sized = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>" if size else ""
    return (
        f"<annotation><folder>photos</folder><filename>{name}</filename><path>C:\\Users\\me\\{name}</path>"
        f"{sized}<segmented>0</segmented>{''.join(items)}</annotation>"
    )


def one_based(x1, y1, x2, y2):
    return x1 + 1, y1 + 1, x2 + 1, y2 + 1


def zero_based(x1, y1, x2, y2):
    return x1, y1, x2, y2


def edges(x1, y1, x2, y2):
    return f"{x1:.2f}", f"{y1:.2f}", f"{x2 + 1:.2f}", f"{y2 + 1:.2f}"


def labelimg(photos, root):
    """XML beside the images."""
    for photo in photos:
        put(photo, root)
        write(root / f"{photo.path.stem}.xml", xml(photo, photo.path.name, one_based))


def apart(photos, root):
    """XML in a folder of its own, without `<difficult>`, pixels from 0."""
    for photo in photos:
        put(photo, root / "images")
        text = xml(photo, photo.path.name, zero_based, extra="")
        write(root / "annotations" / f"{photo.path.stem}.xml", text)


def cvat(photos, root):
    """Edges as fractions, a list named default, a map of colours."""
    for photo in photos:
        put(photo, root / "JPEGImages")
        text = xml(photo, photo.path.name, edges, extra="<occluded>0</occluded>")
        write(root / "Annotations" / f"{photo.path.stem}.xml", text)
    write(root / "ImageSets/Main/default.txt", "".join(f"{photo.path.stem}\n" for photo in photos))
    for name in names_of(photos):
        lines = (f"{p.path.stem}  {1 if name in [o[0] for o in p.objects] else -1}\n" for p in photos)
        write(root / f"ImageSets/Main/{name.replace('/', '_')}_default.txt", "".join(lines))
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n")


def _roboflow_name(photo):
    return f"{photo.path.stem}_{photo.path.suffix[1:]}.rf.{hash(photo.path.stem) & 0xFFFFFFFF:08x}.jpg"


def roboflow_voc(photos, root):
    for part, own in parts(photos).items():
        for photo in own:
            name = _roboflow_name(photo)
            put(photo, root / part, name)
            text = xml(photo, name, one_based, order=(0, 2, 1, 3))
            write(root / part / f"{name.removesuffix('.jpg')}.xml", text)
    write(root / "README.roboflow.txt", "photos - v1\nProvided by a Roboflow user\n")


def coco_json(photos, names, file_name):
    images, annotations = [], []
    for number, photo in enumerate(photos, 100):
        images.append(
            {
                "id": number,
                "file_name": file_name(photo),
                "width": photo.size[0],
                "height": photo.size[1],
                "license": 0,
            }
        )
        for name, x1, y1, x2, y2 in photo.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(name) + 1,
                    "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
                    "area": (x2 - x1 + 1) * (y2 - y1 + 1),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    categories = [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(photos, root):
    """One JSON, as CVAT writes it."""
    for photo in photos:
        put(photo, root / "images/default")
    content = coco_json(photos, names_of(photos), lambda photo: photo.path.name)
    write(root / "annotations/instances_default.json", json.dumps(content))


def coco_parts(photos, root):
    """A JSON for each part, as the set itself has it: train2017 beside annotations/instances_train2017.json."""
    for part, own in parts(photos).items():
        year = f"{part.replace('valid', 'val')}2017"
        for photo in own:
            put(photo, root / year)
        content = coco_json(own, names_of(photos), lambda photo: photo.path.name)
        write(root / f"annotations/instances_{year}.json", json.dumps(content))


def roboflow_coco(photos, root):
    """A JSON in the folder of each part, and a category 0 that no object has."""
    for part, own in parts(photos).items():
        for photo in own:
            put(photo, root / part, _roboflow_name(photo))
        content = coco_json(own, names_of(photos), _roboflow_name)
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        write(root / part / "_annotations.coco.json", json.dumps(content))


def yolo_lines(photo, names, segments=False):
    width, height = photo.size
    lines = []
    for name, x1, y1, x2, y2 in photo.objects:
        left, top, right, bottom = x1 / width, y1 / height, (x2 + 1) / width, (y2 + 1) / height
        if segments:
            numbers = (
                left,
                (top + bottom) / 2,
                (left + right) / 2,
                top,
                right,
                top,
                (left + right) / 2,
                bottom,
            )
        else:
            numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(f"{names.index(name)} {' '.join(f'{number:.6f}' for number in numbers)}\n")
    return "".join(lines)


def ultralytics(photos, root):
    """images/ and labels/ with a folder for each part, and data.yaml with names by index."""
    names = names_of(photos)
    for part, own in parts(photos).items():
        for photo in own:
            put(photo, root / "images" / part)
            write(root / "labels" / part / f"{photo.path.stem}.txt", yolo_lines(photo, names))
    content = {
        "path": "../datasets/photos",
        "train": "images/train",
        "val": "images/valid",
        "test": "images/test",
        "names": dict(enumerate(names)),
    }
    write(root / "data.yaml", yaml.safe_dump(content))


def roboflow_yolo(photos, root):
    """A folder for each part with images/ and labels/ in it; polygons; paths that lead outside, as it writes them."""
    names = names_of(photos)
    for part, own in parts(photos).items():
        for photo in own:
            name = _roboflow_name(photo)
            put(photo, root / part / "images", name)
            text = yolo_lines(photo, names, segments=True)
            write(root / part / "labels" / f"{name.removesuffix('.jpg')}.txt", text)
    content = {
        "train": "../train/images",
        "val": "../valid/images",
        "test": "../test/images",
        "nc": len(names),
        "names": names,
    }
    write(root / "data.yaml", yaml.safe_dump(content))


def labelimg_yolo(photos, root):
    """Labels and classes.txt beside the images."""
    names = ["never used", *names_of(photos)]
    for photo in photos:
        put(photo, root)
        write(root / f"{photo.path.stem}.txt", yolo_lines(photo, names))
    write(root / "classes.txt", "\n".join(names))


def cvat_yolo(photos, root):
    """Darknet's: obj.names, obj.data, train.txt."""
    names = names_of(photos)
    for photo in photos:
        put(photo, root / "obj_train_data")
        write(root / "obj_train_data" / f"{photo.path.stem}.txt", yolo_lines(photo, names))
    write(root / "obj.names", "".join(f"{name}\n" for name in names))
    write(root / "obj.data", f"classes = {len(names)}\ntrain = data/train.txt\nnames = data/obj.names\n")
    write(root / "train.txt", "".join(f"data/obj_train_data/{photo.path.name}\n" for photo in photos))


FORMATS = {
    labelimg: "voc",
    apart: "voc",
    cvat: "voc",
    roboflow_voc: "voc",
    coco: "coco",
    coco_parts: "coco",
    roboflow_coco: "coco",
    ultralytics: "yolo",
    roboflow_yolo: "yolo",
    labelimg_yolo: "yolo",
    cvat_yolo: "yolo",
}
WITH_PARTS = {roboflow_voc, coco_parts, roboflow_coco, ultralytics, roboflow_yolo}
