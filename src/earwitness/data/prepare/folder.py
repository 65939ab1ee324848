"""A folder of sounds, each with its captions in a file with the same stem: .txt or .json."""

from pathlib import Path
from typing import Any

from earwitness.data.prepare.audio_files import AudioFiles
from earwitness.data.prepare.entries import Entry, Reading, split_name
from earwitness.errors import DataError
from earwitness.io.text_files import read_json, read_text


def read(root: Path, split: str | None) -> Reading:
    """All sounds below `root`; a .txt holds one caption per line, a .json one caption or a list.

    Sounds without such a file are kept, without captions. If every sound is in a folder named
    after a split (train, val, ...) directly below `root`, that is its split. The recording of a
    sound is its stem, or its path if the folders give the splits.

    Raises:
        DataError: there are no sounds, or a caption file cannot be read.
    """
    files = AudioFiles.below(root)
    reading = Reading("folder", inputs=[root], rows=len(files.paths))
    below = [path.relative_to(root) for path in files.paths]
    folders = [split_name(path.parts[0]) if len(path.parts) > 1 else None for path in below]
    by_folder = split is None and all(folders)
    for path, name, folder in zip(files.paths, below, folders, strict=True):
        reading.entries.append(
            Entry(
                name.as_posix(),
                f"file:{name.with_suffix('').as_posix() if by_folder else path.stem}",
                _captions(path),
                "folder",
                (folder if by_folder else split) or "train",
                path=path,
                place=str(path),
            )
        )
    if by_folder:
        reading.notes.append("splits taken from the folder names")
    silent = sum(not entry.captions for entry in reading.entries)
    if silent:
        reading.notes.append(
            f"{silent} of {len(below)} clips have no caption (no matching .txt or .json): "
            "usable for captioning and embedding, but not for training"
        )
    return reading


def _captions(sound: Path) -> tuple[str, ...]:
    found: list[str] = []
    for path in (sound.with_suffix(".txt"), sound.with_suffix(".json")):
        if not path.is_file():
            continue
        if path.suffix == ".txt":
            lines = read_text(path, "caption file").text.splitlines()
        else:
            lines = _listed(read_json(path), path)
        found += [" ".join(line.split()) for line in lines]
    return tuple(dict.fromkeys(line for line in found if line))


def _listed(content: Any, path: Path) -> list[str]:
    """The captions in a caption file's JSON."""
    if isinstance(content, dict):
        keys = ("captions", "caption", "text", *(f"caption_{n}" for n in range(1, 21)))
        texts = [content[key] for key in keys if content.get(key)]
        content = [text for part in texts for text in (part if isinstance(part, list) else [part])]
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise DataError(
            f"{path}: expected a caption, a list of captions, or an object with 'caption' or "
            "'captions'"
        )
    return content
