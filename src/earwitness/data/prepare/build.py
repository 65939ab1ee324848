"""From the clips of a data set to its manifests: find, check, exclude, split, write."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earwitness import audio
from earwitness.data.prepare import counts, output, shards, shifts
from earwitness.data.prepare.audio_files import AudioFiles
from earwitness.data.prepare.entries import (
    Count,
    Entry,
    FoundClip,
    Problem,
    Reading,
    Tracker,
    named,
    untracked,
)
from earwitness.data.prepare.exclude import BlackList
from earwitness.data.prepare.shards import Format
from earwitness.data.prepare.splits import check_apart, random_split
from earwitness.errors import DataError, EarwitnessError

_DECODING_RATE = 16_000


@dataclass(frozen=True)
class PrepareOptions:
    """What to do with the clips; `strict`: fail if the counts differ from the published ones."""

    output: Path
    strict: bool = False
    decode: bool = False
    trust_ids: bool = False
    random_split: float | None = None
    seed: int = 0
    shards: Path | None = None
    shard_size: int = 1000
    shard_format: Format = "webdataset"


@dataclass
class Prepared:
    """The result: the clips, those that were left out, the files written, and all counts."""

    reading: Reading
    clips: list[FoundClip] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    found: int = 0
    manifests: dict[str, Path] = field(default_factory=dict)
    shards: dict[str, Path] = field(default_factory=dict)
    problem_file: Path | None = None
    report_file: Path | None = None

    def report(self) -> dict[str, Any]:
        """All counts as a JSON object."""
        kinds = Counter(problem.kind for problem in self.problems)
        splits = Counter(clip.entry.split for clip in self.clips)
        return {
            "kind": self.reading.kind,
            "inputs": [str(path) for path in self.reading.inputs],
            "rows_read": self.reading.rows,
            "clips_named": len(self.reading.entries),
            "clips_found": self.found,
            "clips_written": len(self.clips),
            "captions_written": sum(len(clip.entry.captions) for clip in self.clips),
            "hours": round(sum(clip.seconds for clip in self.clips) / 3600, 3),
            "clips_by_split": dict(splits),
            "duplicate_captions": self.reading.duplicates,
            "problems": dict(kinds),
            "excluded_by_file": self.excluded,
            "published": [{**vars(c), "difference": c.difference} for c in self.counts],
            "notes": self.reading.notes,
            "manifests": {split: str(path) for split, path in self.manifests.items()},
            "shards": {split: str(path) for split, path in self.shards.items()},
            "problem_file": str(self.problem_file) if self.problem_file else None,
        }


def prepare(
    reading: Reading,
    located: dict[int, list[Path]],
    settings: PrepareOptions,
    black_lists: Sequence[BlackList] = (),
    files: AudioFiles | None = None,
    track: Tracker = untracked,
) -> Prepared:
    """Writes the manifests, the report and the list of problems for a reading.

    `located` holds the files that were found for the entries, by index. Nothing is written until
    everything has been checked.

    Raises:
        DataError: captions are off by one row, a recording is in two splits, a count differs under
            `strict`, or no clip is left.
        ConfigError: the output cannot be written.
    """
    output.check_output(settings.output, [*reading.inputs, *(b.path for b in black_lists)])
    if settings.shards is not None:
        shards.check_folder(settings.shards, settings.shard_size)
    if files is not None and not settings.trust_ids:
        shifts.check_numbers(reading.entries, located, files)
    done = Prepared(reading, problems=list(reading.problems))
    kept = _without(reading.entries, located, black_lists, done)
    if settings.random_split is not None:
        drawn = random_split([e for e, _ in kept], settings.random_split, settings.seed)
        kept = [(entry, path) for entry, (_, path) in zip(drawn, kept, strict=True)]
    else:
        check_apart([entry for entry, _ in kept])
    done.clips = _probed(kept, done, settings.decode, track)
    _compare(done, located, settings.strict)
    if not settings.trust_ids:
        reading.notes += filter(None, [shifts.check_seconds(done.clips)])
    if not done.clips:
        raise DataError(_nothing(done))
    _write(done, settings, track)
    return done


def find_all(entries: Sequence[Entry], files: AudioFiles) -> dict[int, list[Path]]:
    """The files of the entries by index, found by path, name, stem or simplified name."""
    return {
        position: paths
        for position, entry in enumerate(entries)
        if (paths := files.find(entry.names, _hints(entry)))
    }


def _hints(entry: Entry) -> tuple[str, ...]:
    words = {"train": ("train", "development", "dev"), "validation": ("validation", "val", "valid")}
    return words.get(entry.split, ("test", "evaluation", "eval", entry.split))


def _without(
    entries: Sequence[Entry],
    located: dict[int, list[Path]],
    black_lists: Sequence[BlackList],
    done: Prepared,
) -> list[tuple[Entry, Path]]:
    """Entries that have their own file and are not excluded; the rest become problems."""
    uses = Counter(path for paths in located.values() for path in paths if len(paths) == 1)
    done.excluded = {str(black.path): 0 for black in black_lists}
    kept = []
    for position, entry in enumerate(entries):
        paths = [entry.path] if entry.path else located.get(position, [])
        black = None
        if entry.split == "train":
            black = next((b for b in black_lists if b.names(entry)), None)
        if black is not None:
            done.excluded[str(black.path)] += 1
            done.problems.append(
                Problem(entry.id, "excluded", f"listed in {black.path}", entry.place)
            )
        elif problem := _unusable(entry, paths, uses):
            done.problems.append(problem)
        else:
            kept.append((entry, paths[0]))
    done.reading.notes += [note for black in black_lists for note in black.notes]
    return kept


def _unusable(entry: Entry, paths: Sequence[Path], uses: Counter[Path]) -> Problem | None:
    def problem(kind: str, reason: str) -> Problem:
        return Problem(entry.id, kind, reason, entry.place)

    if not paths:
        return problem("missing", "no such sound file")
    if len(paths) > 1:
        return problem("ambiguous", f"several files: {named(map(str, paths))}")
    if uses[paths[0]] > 1:
        return problem("ambiguous", f"{paths[0]} belongs to {uses[paths[0]]} clips")
    if not entry.captions and entry.source != "folder":
        return problem("without caption", "no caption in its row")
    try:
        f"{entry.id}{paths[0]}".encode()
    except UnicodeEncodeError:
        return problem("broken", "the file's name is not UTF-8")
    return None


def _probed(
    kept: Sequence[tuple[Entry, Path]], done: Prepared, decode: bool, track: Tracker
) -> list[FoundClip]:
    """Clips with their durations; unreadable ones become problems."""

    def probe(pair: tuple[Entry, Path]) -> FoundClip | Problem:
        entry, path = pair
        try:
            return FoundClip(entry, path, _seconds(path, decode))
        except EarwitnessError as error:
            return Problem(entry.id, "broken", str(error), entry.place)

    what = "decoding" if decode else "reading headers"
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as threads:
        results = list(track(threads.map(probe, kept), len(kept), what))
    done.problems += [result for result in results if isinstance(result, Problem)]
    return [result for result in results if isinstance(result, FoundClip)]


def _seconds(path: Path, decode: bool) -> float:
    if not decode:
        return audio.duration(path)
    blocks = audio.stream(path, _DECODING_RATE, 30.0)
    return sum(len(block) for block in blocks) / _DECODING_RATE


def _compare(done: Prepared, located: dict[int, list[Path]], strict: bool) -> None:
    there: Counter[str] = Counter()
    for position, entry in enumerate(done.reading.entries):
        there[f"{entry.source} {entry.split}"] += bool(entry.path or located.get(position))
    done.found = there.total()
    done.counts = counts.compare(done.reading, done.reading.captions_read, there)
    wrong = [count for count in done.counts if count.binding and count.difference]
    if strict and wrong:
        first = wrong[0]
        raise DataError(
            f"--strict: {first.what} {first.found:,}, published {first.published:,} "
            f"({first.source}), difference {first.difference:+,}"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        )


def _nothing(done: Prepared) -> str:
    kinds = Counter(problem.kind for problem in done.problems)
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "none named"
    first = next((f"; the first: {p.id}: {p.reason}" for p in done.problems), "")
    notes = "; ".join(done.reading.notes[-1:])
    reasons = f"{listed}{first}{'; ' * bool(notes)}{notes}"
    return f"no clip is left of {len(done.reading.entries)} ({reasons})"


def _write(done: Prepared, settings: PrepareOptions, track: Tracker) -> None:
    splits = list(dict.fromkeys(clip.entry.split for clip in done.clips))
    if settings.shards is not None:
        done.shards = shards.write_shards(
            settings.shards, done.clips, settings.shard_size, settings.shard_format, track
        )
    done.manifests = output.split_files(settings.output, splits)
    for split, path in done.manifests.items():
        output.write_clips(path, [clip for clip in done.clips if clip.entry.split == split])
    base = settings.output.name
    done.problem_file = settings.output.with_name(f"{base}.problems.csv")
    output.write_problems(done.problem_file, done.problems)
    done.report_file = settings.output.with_name(f"{base}.report.json")
    output.write_report(done.report_file, done.report())
