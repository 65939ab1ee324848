"""The sound files below a folder, found by path, name, stem, or a name altered by copying."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from earwitness.errors import DataError
from earwitness.io.names import key_of
from earwitness.io.suffixes import SOUND_SUFFIXES

_YOUTUBE = re.compile(r"(Y?)([\w-]{11})(?:_(\d+(?:\.\d+)?))?(?:_(\d+(?:\.\d+)?))?", re.ASCII)
# Among files with the same stem in one folder, lossless formats come first.
_LOSSLESS = {".wav": 0, ".flac": 1}


@dataclass(frozen=True)
class AudioFiles:
    """Sound files in sorted order; `root` is the folder that was searched."""

    root: Path
    paths: tuple[Path, ...]

    @classmethod
    def below(cls, root: Path) -> "AudioFiles":
        """All sound files below `root`, except hidden ones.

        Raises:
            DataError: `root` is not a folder, or holds none.
        """
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; expected one that holds the sounds")
        paths = tuple(sorted(_walk(root)))
        if not paths:
            raise DataError(
                f"{root}: no sound files here (wav, flac, mp3, ...); --audio names their folder"
            )
        return cls(root, paths)

    def within(self, folders: Iterable[str]) -> "AudioFiles | None":
        """The files in a folder with one of the names `folders`, at any depth; None if there are
        none.

        Case does not matter.
        """
        wanted = {name.lower() for name in folders}
        kept = tuple(path for path, parts in self._parts if parts & wanted)
        return AudioFiles(self.root, kept) if kept else None

    def find(self, names: Sequence[str], hints: Sequence[str] = ()) -> list[Path]:
        """The files for the first of `names` that matches; more than one file is ambiguous.

        A name is an absolute path, a path below the root, a file name, or a stem (any extension).
        If copying has changed characters (":" to "_", two spaces to one), a name matches if it is
        unique apart from these. Of several files, those in a folder with one of the names `hints`
        are preferred and, for one stem in one folder, the lossless one.
        """
        for path in map(Path, names):
            if path.is_absolute() and path.is_file():
                return [path]
        for name in map(key_of, names):
            for index in (self._by_path, self._by_name, self._by_stem):
                if name in index:
                    return _preferred(index[name], hints)
        for name in names:
            if found := self._by_simplified.get(simplified(stem_of(name))):
                return _preferred(found, hints)
        return []

    @cached_property
    def stems(self) -> dict[str, list[Path]]:
        """Files by name without extension."""
        return self._by_stem

    @cached_property
    def youtube(self) -> dict[tuple[bool, str, float | None, bool], list[Path]]:
        """Files by YouTube name, parsed: (starts with Y, id, start as written, has an end)."""
        index: dict[tuple[bool, str, float | None, bool], list[Path]] = defaultdict(list)
        for path in self.paths:
            for key in _youtube_readings(path.stem):
                index[key].append(path)
        return index

    @cached_property
    def _parts(self) -> list[tuple[Path, set[str]]]:
        return [
            (path, {part.lower() for part in path.relative_to(self.root).parts[:-1]})
            for path in self.paths
        ]

    @cached_property
    def _by_path(self) -> dict[str, list[Path]]:
        return {key_of(path.relative_to(self.root).as_posix()): [path] for path in self.paths}

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _index((path.name, path) for path in self.paths)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _index((path.stem, path) for path in self.paths)

    @cached_property
    def _by_simplified(self) -> dict[str, list[Path]]:
        return _index((simplified(path.stem), path) for path in self.paths)


def simplified(stem: str) -> str:
    """`stem` in normalized Unicode, with every run of non-alphanumeric characters as _."""
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", stem)).strip("_").casefold()


def youtube_id(name: str) -> str | None:
    """The YouTube id in `id`, `Yid`, `id_start` or `id_start_end`, ignoring an audio extension."""
    match = _YOUTUBE.fullmatch(stem_of(name))
    return match[2] if match else None


def _youtube_readings(stem: str) -> Iterator[tuple[bool, str, float | None, bool]]:
    for text, with_y in ((stem, False), (stem[1:], True)):
        if with_y and not stem.startswith("Y"):
            continue
        match = _YOUTUBE.fullmatch(text)
        if match and not match[1]:
            start = None if match[3] is None else float(match[3])
            yield with_y, match[2], start, match[4] is not None


def stem_of(name: str) -> str:
    """The last part of a path without a sound file's extension; other extensions stay."""
    last = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    return stem if dot and f".{ending.lower()}" in SOUND_SUFFIXES else last


def _walk(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SOUND_SUFFIXES:
                yield Path(place, name)


def _index(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    index: dict[str, list[Path]] = defaultdict(list)
    for key, path in pairs:
        index[key_of(key)].append(path)
    return dict(index)


def _preferred(paths: Sequence[Path], hints: Sequence[str]) -> list[Path]:
    """`paths` narrowed to those in hinted folders, and to one per folder and stem."""
    wanted = {hint.lower() for hint in hints}
    hinted = [path for path in paths if wanted & {part.lower() for part in path.parts[:-1]}]
    best: dict[tuple[Path, str], Path] = {}
    for path in sorted(hinted or paths, key=lambda p: _LOSSLESS.get(p.suffix.lower(), 2)):
        best.setdefault((path.parent, path.stem), path)
    return sorted(best.values())
