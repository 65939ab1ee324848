"""`earwitness prepare`: turns data sets on disk into training manifests, one command per layout."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from earwitness.data.prepare.audio_files import AudioFiles
    from earwitness.data.prepare.entries import Reading

Item = TypeVar("Item")

app = typer.Typer(
    name="prepare",
    help="Turns data sets on disk into training manifests.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ShardFormat(StrEnum):
    """How shards are written."""

    webdataset = "webdataset"
    parquet = "parquet"


def _split(text: str | None) -> str | None:
    """The name of a split as in manifests: train, validation, test, or the user's own."""
    from earwitness.data.prepare.entries import split_name

    return None if text is None else split_name(text) or text


_CHECKS, _SPLITS, _SHARDS = "Checks", "Splits", "Shards"

Output = Annotated[
    Path, typer.Option("--output", "-o", help="The manifest: .csv, .jsonl or .parquet.")
]
Audio = Annotated[Path, typer.Option("--audio", help="Folder with the sounds, at any depth.")]
Split = Annotated[
    str | None,
    typer.Option(
        help="Name of the split, instead of the one in the files.",
        rich_help_panel=_SPLITS,
        callback=_split,
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        "--random-split",
        help="Share of the clips for validation; a recording is never split.",
        rich_help_panel=_SPLITS,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed for --random-split.", rich_help_panel=_SPLITS)]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        help="Ids to keep out of training: AudioCaps, Clotho or AudioSet CSV, WavCaps blacklist, "
        "manifest, list of ids. Repeatable.",
        rich_help_panel=_SPLITS,
    ),
]
Metadata = Annotated[
    list[Path] | None,
    typer.Option(
        help="Clotho's metadata CSV, for Freesound numbers. Repeatable.", rich_help_panel=_SPLITS
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Fail unless the counts match the published ones.", rich_help_panel=_CHECKS
    ),
]
Decode = Annotated[
    bool,
    typer.Option(
        "--decode",
        help="Decode every clip instead of only reading its header.",
        rich_help_panel=_CHECKS,
    ),
]
TrustIds = Annotated[
    bool,
    typer.Option(
        "--trust-ids", help="Skip the check for captions shifted by a row.", rich_help_panel=_CHECKS
    ),
]
Shards = Annotated[
    Path | None,
    typer.Option(
        "--shards",
        help="Pack the clips into shards in this folder, which must be new.",
        rich_help_panel=_SHARDS,
    ),
]
Size = Annotated[
    int, typer.Option("--shard-size", help="Clips per shard.", rich_help_panel=_SHARDS)
]
Kind = Annotated[
    ShardFormat,
    typer.Option("--shard-format", help="Format of the shards.", rich_help_panel=_SHARDS),
]


@app.callback()
def _prepare() -> None:
    """Turns data sets on disk into training manifests.

    Each command finds the sounds, reads their headers, and writes a manifest
    (one row per clip), a report with all counts, and a list of the clips that are
    missing, broken or excluded. Nothing is downloaded.
    """


@app.command()
def audiocaps(
    captions: Annotated[list[Path], typer.Argument(help="CSV files, or folders with them.")],
    audio: Audio,
    output: Output,
    split: Split = None,
    exclude: Exclude = None,
    strict: Strict = False,
    decode: Decode = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """AudioCaps 1.0 and 2.0, clips named by YouTube id, with or without times, or by caption id.

    Several files give one manifest per split (audiocaps.train.csv, ...).

    Example:

      earwitness prepare audiocaps train.csv val.csv --audio clips -o audiocaps.csv
    """
    from earwitness.data.prepare import audiocaps as layout
    from earwitness.data.prepare.audio_files import AudioFiles

    reading = layout.read(captions, split)
    files = AudioFiles.below(audio)
    located = layout.locate(reading, files)
    _finish(
        reading, located, output, exclude, strict=strict, decode=decode,
        shards=shards, shard_size=shard_size, shard_format=shard_format,
    )  # fmt: skip


@app.command()
def clotho(
    captions: Annotated[
        list[Path], typer.Argument(help="Folder of the release, or caption CSV files.")
    ],
    output: Output,
    audio: Annotated[
        Path | None, typer.Option(help="Folder with the sounds; default: the folder given.")
    ] = None,
    split: Split = None,
    exclude: Exclude = None,
    metadata: Metadata = None,
    strict: Strict = False,
    decode: Decode = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """Clotho: development, validation and evaluation, five captions per clip.

    Metadata CSV files next to the captions are found automatically.

    Example:

      earwitness prepare clotho CLOTHO_v2.1 -o clotho.csv
    """
    from earwitness.data.prepare import clotho as layout
    from earwitness.data.prepare.audio_files import AudioFiles
    from earwitness.data.prepare.build import find_all

    reading = layout.read(captions, split, metadata or [])
    files = AudioFiles.below(_folder(audio, captions))
    _finish(
        reading, find_all(reading.entries, files), output, exclude, metadata, strict=strict,
        decode=decode, shards=shards, shard_size=shard_size, shard_format=shard_format,
    )  # fmt: skip


@app.command()
def wavcaps(
    captions: Annotated[
        list[Path], typer.Argument(help="JSON files (as_final.json, ...), or their folder.")
    ],
    audio: Audio,
    output: Output,
    exclude: Exclude = None,
    metadata: Metadata = None,
    random_split: Share = None,
    seed: Seed = 0,
    strict: Strict = False,
    decode: Decode = False,
    trust_ids: TrustIds = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """WavCaps: AudioSet_SL, BBC_Sound_Effects, FreeSound, SoundBible.

    AudioSet_SL contains clips of AudioCaps' test set, and FreeSound clips of
    Clotho's: exclude them with --exclude.

    Example:

      earwitness prepare wavcaps json_files --audio waveforms -o wavcaps.csv
      --exclude audiocaps/test.csv --exclude audiocaps/val.csv
      --exclude clotho_metadata_evaluation.csv
    """
    from earwitness.data.prepare import wavcaps as layout
    from earwitness.data.prepare.audio_files import AudioFiles

    reading = layout.read(captions, None)
    files = AudioFiles.below(audio)
    located = layout.locate(reading, files)
    _finish(
        reading, located, output, exclude, metadata, random_split=random_split, seed=seed,
        strict=strict, decode=decode, trust_ids=trust_ids, shards=shards, shard_size=shard_size,
        shard_format=shard_format,
    )  # fmt: skip


@app.command()
def macs(
    captions: Annotated[Path, typer.Argument(help="MACS.yaml, or its folder.")],
    audio: Audio,
    output: Output,
    split: Split = None,
    exclude: Exclude = None,
    random_split: Share = None,
    seed: Seed = 0,
    strict: Strict = False,
    decode: Decode = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """MACS: captions by several people for clips of TAU Urban Acoustic Scenes 2019.

    --random-split keeps the clips of one place together.

    Example:

      earwitness prepare macs MACS.yaml --audio TAU/audio -o macs.csv
    """
    from earwitness.data.prepare import macs as layout
    from earwitness.data.prepare.audio_files import AudioFiles
    from earwitness.data.prepare.build import find_all

    reading = layout.read(captions, split)
    files = AudioFiles.below(audio)
    _finish(
        reading, find_all(reading.entries, files), output, exclude, random_split=random_split,
        seed=seed, strict=strict, decode=decode, shards=shards, shard_size=shard_size,
        shard_format=shard_format,
    )  # fmt: skip


@app.command()
def folder(
    sounds: Annotated[Path, typer.Argument(help="Folder with sounds and caption files.")],
    output: Output,
    split: Split = None,
    exclude: Exclude = None,
    random_split: Share = None,
    seed: Seed = 0,
    decode: Decode = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """Your own sounds: dog.wav, with dog.txt (one caption per line) or dog.json next to it.

    Subfolders train, val and test become the splits.

    Example:

      earwitness prepare folder recordings -o mine.csv --random-split 0.1
    """
    from earwitness.data.prepare.folder import read

    reading = read(sounds, split)
    _finish(
        reading, {}, output, exclude, random_split=random_split, seed=seed, decode=decode,
        shards=shards, shard_size=shard_size, shard_format=shard_format,
    )  # fmt: skip


@app.command("csv")
def table(
    tables: Annotated[list[Path], typer.Argument(help="CSV, TSV, JSONL, JSON or parquet files.")],
    output: Output,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the sounds; default: that of the table.")
    ] = None,
    audio_column: Annotated[str | None, typer.Option(help="Column of the sound.")] = None,
    caption_column: Annotated[
        list[str] | None, typer.Option(help="Column of a caption. Repeatable.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of a clip's id.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of the recording that a clip is cut from.")
    ] = None,
    split: Split = None,
    exclude: Exclude = None,
    random_split: Share = None,
    seed: Seed = 0,
    decode: Decode = False,
    trust_ids: TrustIds = False,
    shards: Shards = None,
    shard_size: Size = 1000,
    shard_format: Kind = ShardFormat.webdataset,
) -> None:
    """Your own table: one caption per row, or several columns of captions.

    Unless given, columns are guessed from their names (audio, path, file_name,
    ...; caption, caption_1, text, ...; split); the guess is printed.

    Example:

      earwitness prepare csv list.csv --audio wavs --group-column tape -o mine.csv
      --random-split 0.1 --seed 0
    """
    from earwitness.data.prepare import shifts
    from earwitness.data.prepare.audio_files import AudioFiles
    from earwitness.data.prepare.build import find_all
    from earwitness.data.prepare.table import read

    reading, used = read(
        tables, split, audio=audio_column, captions=caption_column or (), id_column=id_column,
        group=group_column,
    )  # fmt: skip
    for one, columns in used:
        if not trust_ids:
            shifts.check_columns(one, columns)
        reading.notes += filter(None, [shifts.gap_in_index(one, columns)])
    root = _folder(audio, tables)
    absolute = all(Path(entry.names[0]).is_absolute() for entry in reading.entries)
    files = AudioFiles(root, ()) if absolute and audio is None else AudioFiles.below(root)
    _finish(
        reading, find_all(reading.entries, files), output, exclude, files=files,
        random_split=random_split, seed=seed, decode=decode, trust_ids=trust_ids, shards=shards,
        shard_size=shard_size, shard_format=shard_format,
    )  # fmt: skip


def _finish(
    reading: "Reading",
    located: dict[int, list[Path]],
    output: Path,
    exclude: Sequence[Path] | None,
    metadata: Sequence[Path] | None = None,
    files: "AudioFiles | None" = None,
    *,
    shard_format: ShardFormat,
    **settings: Any,
) -> None:
    from earwitness.data.prepare.build import PrepareOptions, prepare
    from earwitness.data.prepare.exclude import read_black_list
    from earwitness.data.prepare.summary import summary

    black_lists = [read_black_list(path, metadata or []) for path in exclude or []]
    chosen = PrepareOptions(output, shard_format=shard_format.value, **settings)
    done = prepare(reading, located, chosen, black_lists, files, _progress)
    typer.echo(summary(done))


def _folder(audio: Path | None, given: Sequence[Path]) -> Path:
    if audio is not None:
        return audio
    return given[0] if given[0].is_dir() else given[0].parent


def _progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track

    return iter(
        track(
            items,
            what,
            total=total,
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
    )
