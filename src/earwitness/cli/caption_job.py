"""A captioning job as given on the command line: its input, its output, and running it.

The heavy modules are imported inside the functions, so that `earwitness --help` stays fast.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from earwitness.captioning.options import CaptionOptions
from earwitness.cli.caption_kinds import OutputFormat, Sidecar
from earwitness.cli.caption_progress import Progress
from earwitness.errors import AudioError, ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from earwitness.captioning.choice import ModelChoice
    from earwitness.captioning.duplicates import Duplicates
    from earwitness.captioning.journal import Failures
    from earwitness.captioning.pipeline import Outcome
    from earwitness.captioning.ray import Cluster
    from earwitness.captioning.sinks import Sink, Speech
    from earwitness.captioning.sources import Source
    from earwitness.captioning.writers import Format

_LONG = 60.0
"""a single sound of at least this many seconds shows its own progress"""


@dataclass(frozen=True)
class Input:
    """Which sounds are captioned."""

    files: tuple[str, ...] = ()
    manifest: str | None = None
    column: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: str | None = None

    def check(self) -> None:
        """Raises BadParameter for options that do not fit together."""
        if bool(self.files) == bool(self.manifest):
            raise typer.BadParameter("give files or --manifest", param_hint="FILE")
        if self.column and not self.manifest:
            raise typer.BadParameter("needs --manifest", param_hint="--column")

    def sources(self, anywhere: bool = False) -> "list[Source]":
        """All sounds, including those of other shards; `anywhere`: including those at URLs.

        Raises:
            DataError: the manifest cannot be read, or nothing is left to caption.
        """
        from earwitness.captioning.sources import find, read_manifest

        if anywhere:
            from earwitness.captioning.ray import find_anywhere as find
            from earwitness.captioning.ray import manifest_anywhere as read_manifest
        if self.manifest is not None:
            return read_manifest(self.manifest, self.column)
        found = find(self.files, self.include, self.exclude)
        if not found:
            raise DataError(f"--exclude leaves none of {', '.join(self.files)}")
        return found

    def of_shard(self, sources: "list[Source]") -> "list[Source]":
        """The sounds of the requested shard. Raises ConfigError."""
        from earwitness.captioning.sources import shard

        return shard(sources, self.shard) if self.shard else sources


@dataclass(frozen=True)
class Output:
    """Where results go, and in which format."""

    path: Path | None = None
    kind: OutputFormat | None = None
    as_json: bool = False
    sidecar: Sidecar | None = None
    overwrite: bool = False
    failures: Path | None = None
    merge: Path | None = None
    speech_model: str | None = None
    part_rows: int = 10_000

    @property
    def between(self) -> str | None:
        """The option that places the sounds between speech cues; None if neither is given."""
        if self.speech_model is not None:
            return "--speech"
        return "--merge" if self.merge is not None else None

    def check(self, given: Input) -> None:
        """Raises BadParameter for options that do not fit together."""
        if self.as_json and (self.kind or self.sidecar):
            raise typer.BadParameter("means --format jsonl; give only one", param_hint="--json")
        if self.sidecar and self.kind:
            raise typer.BadParameter("and --sidecar both set a format", param_hint="--format")
        if self.merge and self.speech_model:
            raise typer.BadParameter("and --merge exclude each other", param_hint="--speech")
        if self.between and (
            self.as_json
            or (self.kind and self.kind.value not in ("srt", "vtt"))
            or (self.sidecar and self.sidecar.value not in ("srt", "vtt"))
        ):
            raise typer.BadParameter("writes only srt or vtt", param_hint=self.between)
        if self.sidecar and self.merge:
            raise typer.BadParameter(
                "is the speech of one sound; with --sidecar, use --speech instead",
                param_hint="--merge",
            )
        if self.sidecar and "-" in given.files:
            raise typer.BadParameter("does not work with standard input", param_hint="--sidecar")
        if self.sidecar and self.path and self.path.is_file():
            raise typer.BadParameter(
                f"{self.path} is a file; expected a folder", param_hint="--output"
            )
        if self.failures and self.path and _same(self.failures, self.path):
            raise typer.BadParameter("and --output name the same file", param_hint="--failures")

    def of_shard(self, part: str | None) -> "Output":
        """With the shard in the name of the output file. Raises ConfigError."""
        from earwitness.captioning.sources import parse_shard

        if not part or self.path is None or self.sidecar:
            return self
        i, n = parse_shard(part)
        name = f"{self.path.stem}-{i}-of-{n}{self.path.suffix}"
        return replace(self, path=self.path.with_name(name))

    @property
    def format(self) -> "Format":
        """The format of the output or the sidecars. Raises ConfigError for an unknown one."""
        from earwitness.captioning.writers import format_of

        if self.sidecar is not None:
            return "text" if self.sidecar is Sidecar.txt else self.sidecar.value
        if self.as_json:
            return "jsonl"
        chosen = self.kind.value if self.kind else format_of(self.path) if self.path else None
        if self.between is None:
            return chosen or "text"
        if chosen is None:
            return "vtt" if self.merge and self.merge.suffix.lower() == ".vtt" else "srt"
        if chosen not in ("srt", "vtt"):
            raise ConfigError(
                f"{self.path}: {self.between} writes subtitles; expected a .srt or .vtt file"
            )
        return chosen

    def check_sources(self, sources: "list[Source]") -> None:
        """Raises ConfigError if several sounds would share one subtitle file."""
        if self.format in ("srt", "vtt") and not self.sidecar and len(sources) > 1:
            raise ConfigError(
                f"{self.format} holds the subtitles of one sound, got {len(sources)}; "
                f"--sidecar {self.format} writes one file per sound"
            )

    def speech(
        self, sources: "list[Source]", model: "ModelChoice", progress: Progress
    ) -> "Speech | None":
        """The source of speech subtitles: those of --merge, which are read now, or those that
        --speech transcribes from each sound once it is captioned; None without either.

        Raises DataError, CheckpointError and MissingDependencyError.
        """
        from earwitness.captioning.sinks import Speech
        from earwitness.captioning.subtitles import read

        if self.speech_model is not None:
            from earwitness.captioning.speech_lines import ReadablePlacement
            from earwitness.cli.transcription import transcription

            track = model.options.track
            lines = transcription(self.speech_model, sources, model.device, track, progress.say)
            return Speech(lines, progress.say, ReadablePlacement())
        if self.merge is None:
            return None
        try:
            found = read(self.merge.read_bytes(), str(self.merge))
        except OSError as error:
            raise DataError(
                f"{self.merge}: cannot be read ({error.strerror}); expected SRT or WebVTT"
            ) from None
        return Speech(lambda name: found, progress.say)

    def open(
        self,
        sources: "list[Source]",
        speech: "Speech | None",
        fingerprint: str,
    ) -> "Sink":
        """The sink for the results of `sources`. Raises DataError if it cannot be written."""
        from earwitness.captioning.sinks import JournalledFile, Printer, Sidecars, SubtitleOutput
        from earwitness.captioning.writers import sidecar_paths

        if self.sidecar is not None:
            names = [source.name for source in sources]
            paths = sidecar_paths(names, f".{self.sidecar.value}", self.path)
            return Sidecars(paths, self.format, self.overwrite, speech)
        if self.format in ("srt", "vtt"):
            return SubtitleOutput(self.path, self.format, speech, self.overwrite)
        if self.format == "parts":
            return self._parts(fingerprint)
        if self.path is not None:
            return JournalledFile(self.path, self.format, fingerprint, self.overwrite)
        return Printer(self.format, named=len(sources) > 1)

    def _parts(self, fingerprint: str) -> "Sink":
        from earwitness.captioning.parts import Parts

        if self.path is None:
            raise ConfigError("parts need a folder; give one with --output")
        return Parts(self.path, fingerprint, self.overwrite, self.part_rows)

    def open_failures(self) -> "Failures | None":
        """The record of the sounds that fail; None if results are printed. Raises DataError."""
        from earwitness.captioning.journal import Failures

        if self.failures is not None:
            return Failures(self.failures)
        if self.path is None or self.format == "parts":
            return None
        beside = self.path / "failed.jsonl" if self.sidecar else f"{self.path}.failed.jsonl"
        return Failures(Path(beside))


def check_options(options: "CaptionOptions") -> None:
    """Raises BadParameter for options that do not fit together."""
    conflict = options.conflict()
    if conflict is None:
        return
    option, other = (f"--{name.replace('_', '-')}" for name in conflict[:2])
    said = f"and {other} exclude each other" if conflict.excludes else f"needs {other}"
    raise typer.BadParameter(said, param_hint=option)


def _same(one: Path, other: Path) -> bool:
    from os.path import realpath

    return realpath(one) in (realpath(other), realpath(f"{other}.journal.jsonl"))


def long_sound(sources: "list[Source]") -> float | None:
    """Seconds of a single sound that is long enough to show its progress; else None."""
    from earwitness import audio

    if (
        len(sources) > 1
        or sources[0].problem is not None
        or not isinstance(sources[0].audio, str | Path)
    ):
        return None
    with suppress(AudioError):
        seconds = audio.duration(sources[0].audio)
        return seconds if seconds >= _LONG else None
    return None


def run(
    model: "ModelChoice",
    given: Input,
    output: Output,
    quiet: bool,
    cluster: "Cluster | None" = None,
) -> int:
    """Captions the sounds into the output, on this machine or on `cluster`; returns the number of
    sounds that failed.
    """
    output = output.of_shard(given.shard)
    sources = given.sources(anywhere=cluster is not None)
    output.check_sources(sources)
    timed = output.format in ("srt", "vtt")
    prints = output.path is None and output.sidecar is None
    progress = Progress(quiet, len(sources), prints, None if quiet else long_sound(sources))
    speech = output.speech(sources, model, progress)
    sink = output.open(sources, speech, model.fingerprint(timed))
    failures: Failures | None = None
    failed = 0
    try:
        failures = output.open_failures()
        sources = given.of_shard(sources)
        left = [source for source in sources if source.name not in sink.done]
        progress.begin(len(left), len(sources) - len(left))
        if left:
            told = {"on_ready": progress.ready, "on_seconds": progress.sound}
            marks = _marks(cluster, sink)
            job = Job(_engine(cluster)(model, left, timed, **told), sink, failures, progress, marks)
            failed = job.run()
        sink.finish()
    finally:
        progress.close()
        sink.close()
        if failures is not None:
            failures.close()
    progress.end(failures.path if failures else None, output.path)
    return failed


def _engine(cluster: "Cluster | None") -> "Callable[..., Generator[list[Outcome], None, None]]":
    if cluster is None:
        from earwitness.captioning.local import outcomes

        return outcomes
    from functools import partial

    from earwitness.captioning.ray import outcomes

    return partial(outcomes, cluster)


def _marks(cluster: "Cluster | None", sink: "Sink") -> "Duplicates | None":
    """Marks the same sound under another name, including sounds of earlier runs."""
    from earwitness.captioning.duplicates import Duplicates

    if cluster is None or not cluster.extras.duplicates:
        return None
    marks = Duplicates()
    for record in sink.earlier():
        marks.remember(record)
    return marks


@dataclass(frozen=True)
class Job:
    """An engine at work, and where its results go."""

    arriving: "Generator[list[Outcome], None, None]"
    sink: "Sink"
    failures: "Failures | None"
    progress: Progress
    marks: "Duplicates | None" = None

    def run(self) -> int:
        """Handles outcomes as they arrive; returns the number of sounds that failed."""
        failed = 0
        try:
            for outcomes in self.arriving:
                self.progress.before_output()
                failed_now = self._take(outcomes)
                failed += failed_now
                self.progress.done(len(outcomes), failed_now)
        except KeyboardInterrupt:
            self.progress.stopped()
            raise typer.Exit(130) from None
        finally:
            self.arriving.close()
        return failed

    def _take(self, outcomes: "list[Outcome]") -> int:
        records = [one.record for one in outcomes if one.record is not None]
        self.sink.add([self.marks.mark(one) for one in records] if self.marks else records)
        failed = 0
        for one in outcomes:
            for note in one.notes:
                self.progress.say(note)
            problem = one.error or self.sink.refused.get(one.name)
            if problem is not None:
                failed += 1
                self.sink.failed(one.name, problem)
                self._note_failure(one.name, problem)
        return failed

    def _note_failure(self, name: str, sentence: str) -> None:
        self.progress.problem(sentence)
        if self.failures is None or self.failures.broken:
            return
        try:
            self.failures.add(name, sentence)
        except DataError as error:
            # The captions matter more than this list: report it once and continue.
            self.failures.broken = True
            self.progress.problem(str(error))
