"""YOLO exports: a text file of labels for each image, and the class names in a YAML or a list."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from sppnet_cli.console import track
from sppnet_cli.data.imports.files import Export, Lookup, listed_roles, role_of_folder, role_of_name
from sppnet_cli.data.imports.labelled import Edges, ExportedObject, Labelled, Reading, Role
from sppnet_cli.data.imports.tally import Tally

_NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "classes.names", "data.names")
_MOST_YAML = 1_000_000  # bytes
_LARGEST = 2.0  # fractions: a coordinate beyond it is in pixels


def find_yolo_labels(export: Export) -> str | None:
    """A file of labels of one of the export's images, or None."""
    texts = export.with_suffix(".txt")
    stems = {PurePosixPath(path).stem for path in export.images.paths} if texts else set()
    for path in texts:
        if PurePosixPath(path).stem in stems and _is_label(export, path):
            return path
    return None


def find_yolo_names(export: Export) -> str | None:
    """A YAML or a list of class names, or None."""
    return next(iter([*_yamls(export), *_name_lists(export)]), None)


def read_yolo(export: Export, tally: Tally) -> Reading:
    """All images; one without a file of labels has no objects, as YOLO has it, and is counted.

    Parts are those of the YAML's train, val and test, else of lists such as train.txt, else of the folders.
    """
    yamls = _yamls(export)
    settings = yamls[_best(yamls)] if yamls else {}
    names_of, name_lists = _names(export, settings)
    keypoints = "kpt_shape" in settings
    texts = [path for path in export.paths if path.endswith((".txt", ".TXT")) and path not in name_lists]
    labels = Lookup(texts)
    roles = _yaml_roles(export, settings) or listed_roles(
        export, [path for path in texts if path.count("/") < 2]
    )
    images = []
    used: set[str] = set()
    for image in track(export.images.paths, "read labels"):
        found = labels.find(image, image)
        used.update(found)
        if len(found) > 1:
            tally.leave_out("labels_ambiguous", f"{image}: {found[0]} or {found[1]}")
            continue
        if not found:
            tally.mend("images_without_label_file", image)
        objects = _read_labels(export, found[0], names_of(found[0]), keypoints, tally) if found else []
        if objects is None:
            continue
        folder_role = role_of_folder(image)
        own = roles.get(image, set()) if roles else {folder_role} if folder_role else set()
        images.append(Labelled(image, tuple(objects), None, frozenset(own)))
    for path in texts:
        if path not in used and _is_label(export, path):
            tally.leave_out("images_missing", f"{path} labels an image that is not there")
    source = (
        f"YOLO, names of {_best(yamls)}"
        if yamls
        else "YOLO, " + (f"names of {name_lists[0]}" if name_lists else "classes without names")
    )
    declared = names_of("")
    seen = {item.name for labelled in images for item in labelled.objects}
    unused = tuple(name for name in declared.values() if name not in seen)
    return Reading(images, source, unused_classes=unused)


def _read_labels(
    export: Export, path: str, names: Mapping[int, str], keypoints: bool, tally: Tally
) -> list[ExportedObject] | None:
    """The objects of a file; None where not one of its lines is a label."""
    objects, read = [], 0
    lines = [line.split() for line in export.text(path).splitlines()]
    lines = [line for line in lines if line]
    for line in lines:
        label = _label(line, keypoints)
        if label is None:
            tally.leave_out("label_lines_unreadable", path)
            continue
        read += 1
        index, edges = label
        name = names.get(index) if names else f"class_{index}"
        if name is None:
            tally.leave_out("objects_of_unknown_classes", f"{path}: class {index} of {len(names)}")
        else:
            objects.append(ExportedObject(name, edges))
    if lines and not read:
        tally.leave_out("annotations_unreadable", path)
        return None
    return objects


def _label(words: Sequence[str], keypoints: bool = False) -> tuple[int, Edges] | None:
    """Class and edges of `<class> <x> <y> <width> <height>`, with a score or keypoints after, or of a polygon."""
    try:
        index, *numbers = map(float, words)
    except ValueError:
        return None
    if index < 0 or index % 1 or not all(math.isfinite(number) for number in numbers):
        return None
    if len(numbers) in (4, 5) or (keypoints and len(numbers) > 4):
        x, y, width, height = numbers[:4]
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    return (int(index), edges) if max(map(abs, edges)) <= _LARGEST else None


def _is_label(export: Export, path: str) -> bool:
    try:
        with (export.root / path).open("rb") as file:
            line = file.readline(10_000).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return _label(line.split()) is not None


def _yamls(export: Export) -> dict[str, dict[str, Any]]:
    """The YAML files with class names; that alone which the user named."""
    found: dict[str, dict[str, Any]] = {}
    paths = export.with_suffix(".yaml", ".yml")
    for path in [export.named] if export.named in paths else paths:
        content = _load_yaml(export, path)
        if isinstance(content, dict) and ("names" in content or "nc" in content):
            found[path] = content
    return found


def _load_yaml(export: Export, path: str) -> Any:
    try:
        text = export.text(path)
        # BaseLoader is safe_load without the guesses: a class `no` or `null` stays a word.
        return yaml.load(text, Loader=yaml.BaseLoader) if len(text) <= _MOST_YAML else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _best(yamls: Mapping[str, Any]) -> str:
    """Of several the one that is named data or dataset, or lies highest."""
    usual = [path for path in yamls if PurePosixPath(path).stem.casefold() in ("data", "dataset")]
    return min(usual or yamls, key=lambda path: (path.count("/"), path))


class _NamesByFolder:
    """The class names that hold for a file of labels: those of its folder, else of the nearest one around it."""

    def __init__(self, by_folder: dict[str, dict[int, str]]) -> None:
        self._by_folder = by_folder

    def __call__(self, path: str) -> dict[int, str]:
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self._by_folder:
                return self._by_folder[folder]
        shallowest = sorted(self._by_folder, key=lambda name: (name.count("/"), name))
        return self._by_folder[shallowest[0]] if shallowest else {}


def _names(export: Export, settings: Mapping[str, Any]) -> tuple[_NamesByFolder, list[str]]:
    """The names by folder of labels, and the lists that they are from; a YAML's hold everywhere."""
    lists = _name_lists(export)
    given = settings.get("names")
    if isinstance(given, str) and given.strip():  # a file of names, as darknet's
        lists = [path for path in export.paths if PurePosixPath(path).name == PurePosixPath(given).name]
        given = None
    if isinstance(given, dict):
        return _NamesByFolder({"": {int(k): _word(v, k) for k, v in given.items() if _is_index(k)}}), []
    if isinstance(given, list):
        return _NamesByFolder({"": {k: _word(v, k) for k, v in enumerate(given)}}), []
    if settings and not lists:
        count = settings.get("nc")
        if _is_index(count) and 0 < int(str(count)) <= 10_000:
            return _NamesByFolder({"": {k: f"class_{k}" for k in range(int(str(count)))}}), []
    by_folder = {}
    for path in reversed(lists):
        words = export.text(path).splitlines()
        while words and not words[-1].strip():
            words.pop()
        by_folder[path.rpartition("/")[0]] = {k: _word(word, k) for k, word in enumerate(words)}
    return _NamesByFolder(by_folder), lists


def _name_lists(export: Export) -> list[str]:
    found = [path for path in export.paths if PurePosixPath(path).name.casefold() in _NAME_LISTS]
    return [export.named] if export.named in found else found


def _word(value: Any, index: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text or f"class_{index}"


def _is_index(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) is not None


def _yaml_roles(export: Export, settings: Mapping[str, Any]) -> dict[str, set[Role]]:
    """For each image the parts of the YAML that hold it: folders, lists of images, or several of these."""
    folders = {str(parent) for path in export.images.paths for parent in PurePosixPath(path).parents} - {"."}
    roles: dict[str, set[Role]] = defaultdict(set)
    for key in ("train", "val", "valid", "validation", "test"):
        role = role_of_name(key)
        given = settings.get(key)
        for text in given if isinstance(given, list) else [given]:
            if role is None or not isinstance(text, str) or not text.strip():
                continue
            for image in _images_of(export, text.strip(), folders):
                roles[image].add(role)
    return dict(roles)


def _images_of(export: Export, text: str, folders: set[str]) -> list[str]:
    """The images of a list, or in the folder whose path ends as `text` does; parts that lead outside are dropped."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    wanted = "/".join(parts)
    if wanted.endswith(".txt"):
        found = [path for path in export.paths if path == wanted or path.endswith(f"/{parts[-1]}")]
        lines = export.text(found[0]).splitlines() if found else []
        return [
            image for line in lines if line.strip() for image in export.images.find(line.strip(), found[0])
        ]
    if not parts:
        return list(export.images.paths)
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        fitting = sorted(
            (f for f in folders if f == tail or f.endswith(f"/{tail}")), key=lambda f: f.count("/")
        )
        if fitting:
            return [path for path in export.images.paths if path.startswith(f"{fitting[0]}/")]
    return []
