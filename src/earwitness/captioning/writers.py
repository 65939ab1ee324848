"""Results as text, JSON, CSV, parquet and subtitles, each file written atomically.

A record is one flat JSON object: `file`, `caption`, `score`, `model`, `seconds`; `segments` if the
sound was cut, `captions` for the n-best, `gate` if a gate rejected it.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from earwitness.captioning.segments import NOTHING
from earwitness.captioning.subtitles import Cue, Placement, Subtitles, add_sounds, to_srt, to_vtt
from earwitness.errors import ConfigError, DataError
from earwitness.io.atomic import replacing
from earwitness.io.batches import batched
from earwitness.io.names import on_one_line, readable_name
from earwitness.io.parquet import need_parquet

Format = Literal["text", "jsonl", "json", "csv", "parquet", "srt", "vtt", "parts"]
Record: TypeAlias = dict[str, Any]

ENDINGS: dict[str, Format] = {
    ".txt": "text",
    ".tsv": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".srt": "srt",
    ".vtt": "vtt",
}
"""the format for each extension of an output file"""

COLUMNS = ("file", "caption", "score", "model", "start", "end", "rank")
"""columns of CSV and parquet: one row per segment and rank"""


def format_of(path: Path) -> Format:
    """The format of an output file by its extension. Raises ConfigError for an unknown one."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{path}: no format has the extension {path.suffix!r}; expected "
            f"{', '.join(ENDINGS)}, or any extension with --format"
        )
    return ENDINGS[path.suffix.lower()]


def rows(record: Record) -> Iterator[dict[str, Any]]:
    """One row per segment and rank: the keys `COLUMNS`, and `rerank` if it is set."""
    whole = {**record, "start": 0.0, "end": record["seconds"]}
    for part in record.get("segments", [whole]):
        for rank, one in enumerate(part.get("captions", [part]), start=1):
            row = {
                "file": record["file"],
                "caption": one["caption"],
                "score": one["score"],
                "model": record["model"],
                "start": part["start"],
                "end": part["end"],
                "rank": rank,
            }
            yield row | ({"rerank": one["rerank"]} if "rerank" in one else {})


def as_lines(record: Record, named: bool) -> list[str]:
    """Text to read: [file,] [start - end,] [score,] caption, separated by tabs; one line per row.

    Control characters in the name are escaped. Times are shown if the sound was cut, scores if more
    than one caption was requested.
    """
    lines: list[str] = []
    several = [part for part in record.get("segments", [record]) if "captions" in part]
    for row in rows(record):
        cells = [on_one_line(row["file"])] if named else []
        if "segments" in record:
            cells.append(f"{_clock(row['start'])} - {_clock(row['end'])}")
        if several:
            cells.append("" if row["score"] is None else f"{row['score']:.4f}")
        lines.append("\t".join([*cells, row["caption"]]))
    return lines


def as_json(record: Record) -> str:
    """The record as one line of JSON.

    Control characters and non-UTF-8 bytes in a name are escaped, so that Python's JSON reader
    returns the name as the operating system has it.
    """
    line = json.dumps(record, ensure_ascii=False)
    return line if line.isprintable() else json.dumps(record)


def csv_text(records: Iterable[Record], header: bool = True) -> str:
    """The rows of the records as CSV."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # The csv module does not quote a carriage return, which readers take for the end of a row.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if header:
        plain.writerow(COLUMNS)
    for record in records:
        writer = quoted if "\r" in record["file"] else plain
        writer.writerows([row[name] for name in COLUMNS] for row in rows(record))
    return text.getvalue()


def subtitle_text(
    record: Record,
    kind: Literal["srt", "vtt"],
    speech: Subtitles | None = None,
    placement: Placement | None = None,
) -> tuple[str, int]:
    """A sound as subtitles, and how many captions fit no gap between the cues of `speech`.

    Stretches without a distinct sound get no cue.
    """
    cues = [
        Cue(row["start"], row["end"], row["caption"])
        for row in rows(record)
        if row["rank"] == 1 and row["caption"] != NOTHING
    ]
    subtitles, without_gap = Subtitles(tuple(cues)), 0
    if speech is not None:
        subtitles, without_gap = add_sounds(speech, cues, placement)
    return (to_srt if kind == "srt" else to_vtt)(subtitles), without_gap


def write(
    path: Path,
    kind: Format,
    records: Iterable[Record],
    *,
    named: bool = True,
    exact: bool = False,
) -> None:
    """Writes the records to `path` atomically: a reader never sees half a file.

    `exact` adds a column `file_bytes` with the original names to parquet, whose text is UTF-8.

    Raises:
        ConfigError: subtitles of more than one sound.
        MissingDependencyError: parquet without pyarrow.
    """
    with replacing(path, DataError) as file:
        if kind == "parquet":
            _write_parquet(file, records, exact)
        elif kind in ("srt", "vtt"):
            found = list(records)
            if len(found) != 1:
                raise ConfigError(f"{path}: subtitles of {len(found)} sounds; expected one sound")
            file.write(_bytes(subtitle_text(found[0], kind)[0]))
        else:
            for text in _texts(kind, records, named):
                file.write(_bytes(text))


def sidecar_paths(names: list[str], ending: str, folder: Path | None) -> dict[str, Path]:
    """Where the sidecar of each sound goes: next to it, or at the same place below `folder`.

    `clip.wav` gives `clip.txt`; sounds that would share one keep their extension (`clip.wav.txt`).
    """
    short = {name: _with_ending(_inside(name), ending) for name in names}
    uses: dict[Path, int] = {}
    for path in short.values():
        uses[path] = uses.get(path, 0) + 1
    chosen = {
        name: path if uses[path] == 1 else Path(_inside(name) + ending)
        for name, path in short.items()
    }
    if folder is None:
        return chosen
    roots = [Path(name).parent for name in names]
    root = Path(os.path.commonpath(roots)) if len({r.is_absolute() for r in roots}) == 1 else Path()
    return {name: folder / os.path.relpath(path, root) for name, path in chosen.items()}


def _inside(name: str) -> str:
    """The name of a sound in a shard, made safe so that it cannot escape the shard's folder."""
    shard, mark, member = name.rpartition("#")
    if not mark or ".." not in member.split("/"):
        return name
    return shard + mark + os.path.normpath(f"/{member}").lstrip("/")


def _with_ending(name: str, ending: str) -> Path:
    return Path(name).with_suffix(ending) if Path(name).name else Path(name + ending)


def _texts(kind: Format, records: Iterable[Record], named: bool) -> Iterator[str]:
    if kind == "csv":
        yield csv_text([])
        yield from (csv_text([record], header=False) for record in records)
    elif kind == "json":
        separator = "[\n"
        for record in records:
            for row in rows(record):
                yield separator + as_json(row)
                separator = ",\n"
        yield "\n]\n" if separator == ",\n" else "[]\n"
    elif kind == "jsonl":
        yield from (as_json(record) + "\n" for record in records)
    else:
        yield from ("\n".join(as_lines(record, named)) + "\n" for record in records)


def _write_parquet(file: BinaryIO, records: Iterable[Record], exact: bool) -> None:
    arrow, parquet = need_parquet("--format parquet")
    kinds = {"score": arrow.float64(), "start": arrow.float64(), "end": arrow.float64()}
    kinds["rank"] = arrow.int32()
    kinds["file_bytes"] = arrow.binary()
    columns = (*COLUMNS, "file_bytes") if exact else COLUMNS
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    with parquet.ParquetWriter(file, schema) as writer:
        for part in batched((row for record in records for row in rows(record)), 10_000):
            for row in part:
                row["file_bytes"] = os.fsencode(row["file"])
                row["file"] = readable_name(row["file"])
                row.pop("rerank", None)
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 10:02}.{rest % 10}"
