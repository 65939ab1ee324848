"""What every layout is read into: the clips to find, and notes taken while reading."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from earwitness.errors import one_line

Item = TypeVar("Item")

SPLITS = {
    "train": "train",
    "training": "train",
    "development": "train",
    "dev": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""names of splits as found in data sets -> as written in manifests"""


@dataclass(frozen=True)
class Entry:
    """A clip listed in a data set, before its sound is searched for.

    `recording`, as "namespace:id", must not be on two sides of a split. `names` are files to look
    for, best first; `path` is the file if it is already known.
    """

    id: str
    recording: str
    captions: tuple[str, ...]
    source: str
    split: str = "train"
    names: tuple[str, ...] = ()
    path: Path | None = None
    promised_seconds: float | None = None
    place: str = ""
    """where the entry was read: the file, and its line or row"""


@dataclass(frozen=True)
class FoundClip:
    """An entry whose sound was found and can be read."""

    entry: Entry
    path: Path
    seconds: float


@dataclass(frozen=True)
class Problem:
    """A clip that is not in the manifest, and why."""

    id: str
    kind: str
    """missing, broken, ambiguous, without caption, or excluded"""
    reason: str
    place: str = ""


@dataclass(frozen=True)
class Count:
    """A number that can be compared with a published one."""

    what: str
    found: int
    published: int
    source: str
    binding: bool = True
    """whether --strict requires it to match"""

    @property
    def difference(self) -> int:
        return self.found - self.published


@dataclass
class Reading:
    """The clips listed in the files of a data set."""

    kind: str
    entries: list[Entry] = field(default_factory=list)
    rows: int = 0
    inputs: list[Path] = field(default_factory=list)
    duplicates: int = 0
    """captions that were listed twice for one clip"""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    releases: list[tuple[str, str]] = field(default_factory=list)
    """(part, split) pairs of the published counts to compare with"""
    captions_read: Counter[str] = field(default_factory=Counter)
    """by "source split", including repeated captions"""

    def take(self, entries: Iterable[Entry]) -> None:
        """Adds entries; those with the same id and split become one clip."""
        entries = list(entries)
        for entry in entries:
            self.captions_read[f"{entry.source} {entry.split}"] += len(entry.captions)
        self.entries, self.duplicates = merged(entries)


@runtime_checkable
class Tracker(Protocol):
    """Shows the progress of a long task as its items pass through."""

    def __call__(self, items: Iterable[Item], total: int, what: str, /) -> Iterator[Item]: ...


def untracked(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, without a display."""
    yield from items


def split_name(text: str) -> str | None:
    """The split that `text` names, as in `SPLITS`; None if it names none."""
    return SPLITS.get(text.strip().lower())


def named(values: Iterable[str], most: int = 3) -> str:
    """The first few values for a sentence, and how many more there are."""
    values = list(values)
    shown = ", ".join(f"'{value}'" for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"


def merged(entries: Iterable[Entry]) -> tuple[list[Entry], int]:
    """Entries with the same id and split, joined with all their captions; and the number of
    repeated captions.

    Entries are in order of first appearance.
    """
    first: dict[tuple[str, str], Entry] = {}
    captions: dict[tuple[str, str], dict[str, None]] = {}
    repeated = 0
    for entry in entries:
        key = (entry.split, entry.id)
        first.setdefault(key, entry)
        known = captions.setdefault(key, {})
        for caption in map(one_line, entry.captions):
            repeated += caption in known
            if caption:
                known[caption] = None
    whole = [replace(entry, captions=tuple(captions[key])) for key, entry in first.items()]
    return whole, repeated
