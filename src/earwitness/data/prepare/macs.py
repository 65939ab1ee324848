"""MACS: `MACS.yaml` with several people's annotations of clips from TAU Urban Acoustic Scenes.

Martin and Mesaros 2021. files: - filename, annotations: - sentence, tags, annotator_id.
"""

import re
from pathlib import Path
from typing import Any

from earwitness.data.prepare.entries import Entry, Reading
from earwitness.errors import DataError, MissingDependencyError, one_line
from earwitness.io.text_files import read_text

# scene-city-location-segment-device: segments of one location were cut from one recording.
_TAU = re.compile(r"([a-z_]+-[a-z]+-\d+)-\d+-\w+", re.ASCII)


def read(path: Path, split: str | None) -> Reading:
    """The clips of MACS.yaml, each with the sentences of all its annotators.

    The recording of a clip is its scene, city and location number, which TAU's own splits keep
    together.

    Raises:
        DataError: the file is missing, not YAML, or has another structure.
        MissingDependencyError: PyYAML is not installed.
    """
    if path.is_dir():
        path = path / "MACS.yaml"
    reading = Reading("macs", inputs=[path], releases=[("macs", "train")])
    entries = []
    for number, item in enumerate(_files(path), start=1):
        place = f"{path}, clip {number}"
        if not isinstance(item, dict) or not isinstance(item.get("filename"), str):
            raise DataError(f"{place}: expected 'filename' and 'annotations'")
        entries.append(_entry(item, place, split or "train"))
    reading.rows = sum(len(entry.captions) for entry in entries)
    reading.take(entries)
    return reading


def _entry(item: dict[str, Any], place: str, split: str) -> Entry:
    annotations = item.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise DataError(f"{place}: 'annotations' of '{item['filename']}' must be a list of objects")
    name = item["filename"].replace("\\", "/").rpartition("/")[2]
    location = _TAU.fullmatch(Path(name).stem)
    return Entry(
        name,
        f"tau:{location[1] if location else Path(name).stem}",
        tuple(str(annotation.get("sentence") or "") for annotation in annotations),
        "macs",
        split,
        names=(item["filename"], name),
        place=place,
    )


def _files(path: Path) -> list[Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError(
            f"{path}: YAML needs the package PyYAML; pip install pyyaml"
        ) from None
    # The base loader reads every scalar as text, so the sentence "No" stays a sentence.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    text = read_text(path, "YAML file", "MACS.yaml").text
    try:
        content = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not a readable YAML file ({one_line(error)})") from None
    files = content.get("files") if isinstance(content, dict) else content
    if not isinstance(files, list) or not files:
        raise DataError(f"{path}: expected MACS' form, a list 'files' of clips")
    return files
