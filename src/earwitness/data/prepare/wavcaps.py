"""WavCaps: one JSON file per source; sounds are named by their ids.

Mei et al. 2023, arXiv 2303.17395: {"num_captions_per_audio": 1, "data": [{"id", "caption",
"duration", ...}]}; AudioSet ids read "Y<youtube_id>.wav", the sounds are FLAC.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earwitness.data.prepare.audio_files import AudioFiles, youtube_id
from earwitness.data.prepare.entries import Entry, Reading
from earwitness.errors import DataError
from earwitness.io.text_files import read_json

SOURCES = {
    "AudioSet_SL": ("audioset", "as_final"),
    "BBC_Sound_Effects": ("bbc", "bbc_final"),
    "FreeSound": ("freesound", "fsd_final"),
    "SoundBible": ("soundbible", "sb_final"),
}
"""the sources: the namespace of their recordings, and the name of their JSON file"""


def read(given: Sequence[Path], split: str | None) -> Reading:
    """The clips of WavCaps files; folders give the JSON files of the four sources below them.

    Raises:
        DataError: a file is missing, has another structure, or neither its name nor its folder
            gives the source.
    """
    reading = Reading("wavcaps")
    entries: list[Entry] = []
    for path in _json_files(given):
        source = source_of(path)
        items = _items(path)
        entries += [
            _entry(path, source, number, item, split or "train")
            for number, item in enumerate(items, start=1)
        ]
        reading.rows += len(items)
        reading.inputs.append(path)
        reading.releases.append((f"wavcaps/{source}", "train"))
    reading.take(entries)
    return reading


def locate(reading: Reading, files: AudioFiles) -> dict[int, list[Path]]:
    """The files of the entries by index; each source is searched in its own folder.

    Freesound, SoundBible and BBC may use the same numbers, so without folders named after the
    sources only one source can be recognized from the files.

    Raises:
        DataError: there are several sources, and one has no folder of its name.
    """
    sources = list(dict.fromkeys(entry.source for entry in reading.entries))
    names = {source: source.partition("/")[2] for source in sources}
    own = {source: files.within([names[source]]) for source in sources}
    if all(part is None for part in own.values()) and len(sources) == 1:
        own = {sources[0]: files}
    if len(sources) > 1 and all(part is None for part in own.values()):
        raise DataError(
            f"{files.root}: no folder named {', '.join(names.values())}; the sounds of several "
            "sources must be in separate folders, since they share numbers"
        )
    for source, part in own.items():
        if part is None:
            reading.notes.append(f"{source}: no folder '{names[source]}' below {files.root}")
    found: dict[int, list[Path]] = {}
    for position, entry in enumerate(reading.entries):
        part = own[entry.source]
        if part is not None and (paths := part.find(entry.names)):
            found[position] = paths
    return found


def source_of(path: Path) -> str:
    """The source named by a JSON file's folder or name. Raises DataError."""
    parts = {part.lower() for part in path.parts[:-1]}
    for source in SOURCES:
        if source.lower() in parts or source.lower() in path.stem.lower():
            return source
    for source, (_, stem) in SOURCES.items():
        if path.stem.startswith(stem):
            return source
    raise DataError(
        f"{path}: neither folder nor file name gives the source; expected one of "
        f"{', '.join(SOURCES)}"
    )


def _json_files(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        below = [
            p
            for p in sorted(path.rglob("*.json"))
            if p.stem in {stem for _, stem in SOURCES.values()}
        ]
        if not below:
            raise DataError(
                f"{path}: holds none of WavCaps' files; expected "
                + ", ".join(f"{stem}.json" for _, stem in SOURCES.values())
            )
        found += below
    return found


def _items(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    items = content.get("data") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: expected WavCaps' format, an object with a list 'data' of clips")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not item.get("id") or "caption" not in item:
            raise DataError(f"{path}, item {number}: expected an object with 'id' and 'caption'")
    return items


def _entry(path: Path, source: str, number: int, item: dict[str, Any], split: str) -> Entry:
    space, _ = SOURCES[source]
    name = str(item["id"])
    stem = name.removesuffix(".wav").removesuffix(".flac")
    youtube = youtube_id(name) if space == "audioset" else None
    captions = item["caption"] if isinstance(item["caption"], list) else [item["caption"]]
    seconds = item.get("duration")
    return Entry(
        f"{source}/{stem}",
        f"youtube:{youtube}" if youtube else f"{space}:{stem}",
        tuple(str(caption) for caption in captions if caption),
        f"wavcaps/{source}",
        split,
        names=(stem,) if youtube is None else (f"Y{youtube}", youtube, stem),
        promised_seconds=float(seconds) if isinstance(seconds, int | float) else None,
        place=f"{path}, item {number}",
    )
