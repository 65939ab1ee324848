"""Manifests, reports and lists of problems on disk, each written atomically."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from earwitness.data.prepare.entries import FoundClip, Problem
from earwitness.errors import ConfigError
from earwitness.io.atomic import replacing
from earwitness.io.parquet import need_parquet

ENDINGS = (".csv", ".jsonl", ".parquet")
_FIRST = ("id", "audio", "split", "source", "recording", "seconds")


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Raises ConfigError for an unknown extension, a missing folder, or one of the inputs."""
    if output.suffix not in ENDINGS:
        raise ConfigError(f"{output}: expected a manifest ending in {', '.join(ENDINGS)}")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: no folder {output.parent}; create it first")
    for path in inputs:
        if path.exists() and output.exists() and path.samefile(output):
            raise ConfigError(f"{output}: is one of the input files; choose another --output")


def split_files(output: Path, splits: Sequence[str]) -> dict[str, Path]:
    """The manifest of each split: `output` for a single one, else with the split in its name."""
    if len(splits) == 1:
        return {splits[0]: output}
    return {split: output.with_name(f"{output.stem}.{split}{output.suffix}") for split in splits}


def manifest_row(clip: FoundClip, audio: str) -> dict[str, Any]:
    """The row of a clip, with its captions as a list."""
    entry = clip.entry
    return {
        "id": entry.id,
        "audio": audio,
        "split": entry.split,
        "source": entry.source,
        "recording": entry.recording,
        "seconds": round(clip.seconds, 3),
        "captions": list(entry.captions),
    }


def write_clips(path: Path, clips: Sequence[FoundClip]) -> None:
    """Writes the manifest of clips that are files, with relative paths for those below its folder.

    Links are not resolved: a linked folder of sounds counts as being where the link is.
    """
    folder = Path(os.path.abspath(path.parent))
    rows = []
    for clip in clips:
        sound = Path(os.path.abspath(clip.path))
        below = sound.relative_to(folder) if sound.is_relative_to(folder) else sound
        rows.append(manifest_row(clip, str(below)))
    write_rows(path, rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as CSV (caption_1, caption_2, ...), JSONL or parquet (a list), by extension."""
    with replacing(path) as file:
        if path.suffix == ".parquet":
            arrow, parquet = need_parquet(path)
            parquet.write_table(arrow.Table.from_pylist(list(rows)), file)
        elif path.suffix == ".jsonl":
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        else:
            most = max([1, *(len(row["captions"]) for row in rows)])
            numbered = [f"caption_{n}" for n in range(1, most + 1)]
            others = [name for name in rows[0] if name not in (*_FIRST, "captions")]
            flat = ({**row, **dict(zip(numbered, row["captions"], strict=False))} for row in rows)
            _write_csv(file, [*_FIRST, *others, *numbered], flat)


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Writes the clips that are not in the manifest, as CSV."""
    columns = ("id", "kind", "reason", "place")
    with replacing(path) as file:
        _write_csv(file, columns, (vars(problem) for problem in problems))


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON."""
    with replacing(path) as file:
        file.write((json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())


def _write_csv(file: BinaryIO, columns: Sequence[str], rows: Any) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text.detach()
