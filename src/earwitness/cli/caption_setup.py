"""The options of `earwitness caption` turned into the parts of a job; each imports late."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.cli.caption_talk import Talk
from earwitness.errors import ConfigError, DataError

if TYPE_CHECKING:
    from earwitness.captioning.captioner import Captioner
    from earwitness.captioning.journal import Failures
    from earwitness.captioning.local import Listening
    from earwitness.captioning.rerank import Reranker
    from earwitness.captioning.sinks import Sink
    from earwitness.captioning.sources import Source
    from earwitness.captioning.subtitles import Subtitles
    from earwitness.captioning.writers import Format


class OutputFormat(str, Enum):
    """What is written."""

    text = "text"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    srt = "srt"
    vtt = "vtt"


class Sidecar(str, Enum):
    """What is written beside each sound."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"


class Precision(str, Enum):
    """Number format of the model's arithmetic."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def output_format(
    output: Path | None,
    kind: OutputFormat | None,
    as_json: bool,
    sidecar: Sidecar | None,
    merge: Path | None,
) -> "Format":
    """The format of the output; that of sidecars where there are some."""
    from earwitness.captioning.writers import format_of

    if sidecar is not None:
        return "text" if sidecar is Sidecar.txt else sidecar.value
    if as_json:
        return "jsonl"
    chosen = kind.value if kind else format_of(output) if output else None
    if merge is None:
        return chosen or "text"
    if chosen is None:
        return "vtt" if merge.suffix.lower() == ".vtt" else "srt"
    if chosen not in ("srt", "vtt"):
        raise ConfigError(f"{output}: --merge gives subtitles; expected a file .srt or .vtt")
    return chosen


def list_sources(
    files: list[str] | None,
    manifest: str | None,
    column: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
) -> "list[Source]":
    from earwitness.captioning.sources import find, read_manifest

    if manifest is not None:
        return read_manifest(manifest, column)
    found = find(files or [], include or [], exclude or [])
    if not found:
        raise DataError(f"nothing is left of {', '.join(files or [])} after --exclude")
    return found


def read_speech(path: Path | None) -> "Subtitles | None":
    """The subtitles in the file `path`. Raises DataError."""
    from earwitness.captioning.subtitles import read

    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected SRT or WebVTT"
        ) from None
    return read(content, str(path))


def listening_of(
    timed: bool,
    window: float | None,
    hop: float | None,
    whole: float | None,
    silence: float,
    min_score: float | None,
    precision: Precision,
) -> "Listening":
    from earwitness.captioning.local import Listening
    from earwitness.captioning.segments import Windows

    timed = timed or window is not None or hop is not None
    length = 10.0 if window is None else window
    if whole is None:
        whole = 1.5 * length if timed else max(30.0, length)
    windows = Windows(length, length if hop is None else hop, whole)
    return Listening(windows, timed, silence, min_score or 0.0, precision=precision.value)


def fingerprint(
    model: str,
    listening: "Listening",
    changes: dict[str, Any],
    min_score: float | None,
    rerank: str | None,
    rerank_weight: float | None,
) -> str:
    """Eight hex digits for all that a caption depends on besides the sound."""
    from hashlib import blake2b

    from earwitness.captioning.captioner import captioner_folder
    from earwitness.captioning.rerank import reranker_files

    # A lowest score of 0 is not the same as none given, which leaves the choice to the model.
    asked = (listening, sorted(changes.items()), min_score, rerank, rerank_weight)
    digest = blake2b(repr(asked).encode(), digest_size=4)
    names = ("earwitness.json", "prefix.safetensors", "lora/adapter_model.safetensors")
    paths = [captioner_folder(model) / name for name in names]
    if rerank is not None:
        paths += reranker_files(rerank)
    for path in paths:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def open_sink(
    written: "Format",
    output: Path | None,
    sidecar: Sidecar | None,
    overwrite: bool,
    sources: "list[Source]",
    speech: "Subtitles | None",
    settings: str,
    talk: Talk,
) -> "Sink":
    from earwitness.captioning.sinks import JournalledFile, Printer, Sidecars, SubtitleOutput
    from earwitness.captioning.writers import sidecar_paths

    if sidecar is not None:
        names = [source.name for source in sources]
        paths = sidecar_paths(names, f".{sidecar.value}", output)
        return Sidecars(paths, written, overwrite)
    if written in ("srt", "vtt"):
        return SubtitleOutput(output, written, speech, overwrite, talk.say)
    if output is not None:
        return JournalledFile(output, written, settings, overwrite)
    return Printer(written, named=len(sources) > 1)


def open_failures(
    failures: Path | None, output: Path | None, sidecar: Sidecar | None
) -> "Failures | None":
    from earwitness.captioning.journal import Failures

    if failures is None and output is not None:
        place = output / "failed.jsonl" if sidecar else Path(f"{output}.failed.jsonl")
        return Failures(place)
    return None if failures is None else Failures(failures)


def load_model(model: str, device: str) -> "Captioner":
    """The model on the device. Raises ConfigError for a device that this machine lacks."""
    from earwitness.captioning.captioner import Captioner

    return Captioner.load(model, device)


def load_reranker(
    name: str | None, weight: float | None, captioner: "Captioner"
) -> "Reranker | None":
    """The reranker called `name` on the captioner's device; None for None."""
    from earwitness.captioning.rerank import Reranker

    return None if name is None else Reranker.load(name, weight, str(captioner.device))


def completed(
    listening: "Listening",
    captioner: "Captioner",
    changes: dict[str, Any],
    min_score: float | None,
    reranker: "Reranker | None" = None,
) -> "Listening":
    """The settings filled up with the model's own: its search, and its lowest score."""
    from dataclasses import replace

    from earwitness.caption import Decoding
    from earwitness.config import validate

    own = captioner.decoding.model_dump()
    decoding = validate(Decoding, own | changes, "the caption search")
    if min_score is None:
        min_score = captioner.min_score
    return replace(listening, decoding=decoding, min_score=min_score, reranker=reranker)
