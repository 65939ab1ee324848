"""`earwitness scenes`: a page of training scenes, to judge by ear and eye."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earwitness.errors import ConfigError, DataError

if TYPE_CHECKING:
    from earwitness_lab.scenes.mixing import Scene
    from earwitness_lab.scenes.soundbank import SoundBank


def scenes(
    sounds: Annotated[
        Path, typer.Argument(help="Folder of labeled sounds with a manifest.csv (path, label).")
    ],
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Captions to build scenes from: text, one per line, or CSV with a column caption. "
            "Without it, scenes are mixed at random."
        ),
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Lexicon (TOML) to use instead of the one that ships.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.")] = Path(
        "scenes.html"
    ),
    count: Annotated[int, typer.Option(min=1, help="Number of scenes on the page.")] = 20,
    seconds: Annotated[
        float, typer.Option(min=0.5, max=60.0, help="Length of a scene in seconds.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed for all random draws.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder to cache decoded sounds in.")] = None,
) -> None:
    """Mixes training scenes and writes a listening sheet: a player, the caption and a bar for every
    sound.

        earwitness scenes sounds --captions captions.csv --count 20 -o scenes.html

    Says how many captions can be mixed from these sounds, and why others cannot.
    """
    from earwitness_lab.scenes.listening_sheet import write_listening_sheet
    from earwitness_lab.scenes.soundbank import SoundBank

    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist")
    bank = SoundBank.load(sounds, cache=cache)
    if captions is None:
        found = _random(bank, count, seconds, seed)
    else:
        found = _along(read_captions(captions), lexicon, bank, count, seconds, seed)
    write_listening_sheet(found, out, bank.rate, title=f"Scenes of {sounds.name}")
    typer.echo(f"{out}: {len(found)} scenes")


def read_captions(path: Path) -> list[str]:
    """The captions of a text file, one per line, or of a table's column `caption`.

    Raises:
        DataError: the file cannot be read, has no such column, or holds no caption.
    """
    from earwitness.io.tables import KINDS, cell, read_table
    from earwitness.io.text_files import read_text

    if path.suffix.lower() in KINDS:
        table = read_table(path).need(["caption"], "a table of captions")
        texts = [cell(row, "caption") for row in table.rows]
    else:
        texts = read_text(path, expected="captions as text or as a table").text.splitlines()
    found = [" ".join(text.split()) for text in texts if text.strip()]
    if not found:
        raise DataError(f"{path}: holds no caption")
    return found


def _random(bank: "SoundBank", count: int, seconds: float, seed: int) -> list["Scene"]:
    import numpy as np
    from rich.progress import track

    from earwitness_lab.scenes.mixing import random_scene

    numbers = track(range(count), "mixing", transient=True)
    return [random_scene(bank, np.random.default_rng((seed, i)), seconds) for i in numbers]


def _along(
    captions: list[str],
    lexicon_file: Path | None,
    bank: "SoundBank",
    count: int,
    seconds: float,
    seed: int,
) -> list["Scene"]:
    import numpy as np
    from rich.progress import track

    from earwitness_lab.scenes.lexicon import Lexicon
    from earwitness_lab.scenes.mixing import SceneSet

    lexicon = Lexicon.load(lexicon_file) if lexicon_file else Lexicon.load()
    found = SceneSet(captions, lexicon, bank, seed, seconds)
    typer.echo(f"{len(found)} of {len(captions)} captions can be mixed from these sounds", err=True)
    left_out = sorted(set(range(len(captions))) - set(found.indices))
    for index in left_out[:5]:
        reason = lexicon.refusal(captions[index]) or "one of its sounds is not in this folder"
        typer.echo(f"  left out: {captions[index]!r}: {reason}", err=True)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(found))[:count]
    return [found.scene(int(row)) for row in track(rows, "mixing", transient=True)]
