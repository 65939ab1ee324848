"""Outcomes as rows of an Arrow table and back: for parquet parts, and for what workers return."""

# pyright: basic
# (pyarrow has no types.)

import os
from typing import TYPE_CHECKING, Any

from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.writers import Record
from earwitness.io.names import is_text, readable_name
from earwitness.io.parquet import need_parquet

if TYPE_CHECKING:
    import pyarrow

_ALWAYS = ("file", "caption", "score", "model", "seconds")
_IN_SEGMENT = ("start", "end", "caption", "score")


def schema() -> "pyarrow.Schema":
    """The columns of a table with one row per sound; null where a sound has no such value.

    `file_bytes` is the name if it is not valid UTF-8; `file` then shows it escaped.
    """
    pa, _ = need_parquet("a table of captions")
    text, number = pa.string(), pa.float64()
    candidate = pa.struct([("caption", text), ("score", number), ("rerank", number)])
    times = [("start", number), ("end", number)]
    own = [("rerank", number), ("gate", text), ("captions", pa.list_(candidate))]
    segment = pa.struct([*times, ("caption", text), ("score", number), *own])
    event = pa.struct([*times, ("event", text), ("probability", number)])
    return pa.schema(
        [
            *[("file", text), ("caption", text), ("score", number), ("model", text)],
            *[
                ("seconds", number),
                ("notes", pa.list_(text)),
                ("segments", pa.list_(segment)),
                *own,
            ],
            *[("events", pa.list_(event)), ("sha256", text), ("fingerprint", text)],
            *[("duplicate_of", text), ("similarity", number)],
            *[("error", text), ("file_bytes", pa.binary())],
        ]
    )


def row_of(outcome: Outcome) -> dict[str, Any]:
    """The outcome as a row of `schema`."""
    row = dict(outcome.record or {}) | {"file": readable_name(outcome.name)}
    row |= {"error": outcome.error, "notes": [*outcome.notes] or None}
    return row if is_text(outcome.name) else row | {"file_bytes": os.fsencode(outcome.name)}


def outcome_of(row: dict[str, Any]) -> Outcome:
    """The outcome that a row of `schema` represents."""
    name, notes = name_of(row), tuple(row["notes"] or ())
    if row["error"] is not None:
        return Outcome(name, None, row["error"], notes)
    left = {k: v for k, v in row.items() if k not in ("error", "file_bytes")}
    record: Record = _without_nulls(left, _ALWAYS) | {"file": name}
    for part in record.get("segments", []):
        part |= {"captions": _candidates(part)} if part.get("captions") else {}
    if "captions" in record:
        record["captions"] = _candidates(record)
    if "segments" in record:
        record["segments"] = [_without_nulls(part, _IN_SEGMENT) for part in record["segments"]]
    return Outcome(name, record, None, notes)


def name_of(row: dict[str, Any]) -> str:
    """The name of a row's sound as the operating system has it."""
    return row["file"] if row["file_bytes"] is None else os.fsdecode(row["file_bytes"])


def _candidates(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [_without_nulls(one, ("caption", "score")) for one in part["captions"]]


def _without_nulls(fields: dict[str, Any], always: tuple[str, ...]) -> dict[str, Any]:
    return {name: v for name, v in fields.items() if v is not None or name in always}
