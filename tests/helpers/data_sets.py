"""Small data sets on disk in the published layouts, for the tests of `earwitness prepare`."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import soundfile
from typer.testing import CliRunner

from earwitness.cli import app

RATE = 16_000
YOUTUBE = ("r1nicOVtvkQ", "Yabc-_12345", "0-_xyzABC99", "UDGBjjwyaqE")


def sound(path: Path, seconds: float = 0.2, hertz: float = 300.0, rate: int = RATE) -> Path:
    """A tone in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * times), rate)
    return path


def write_csv(path: Path, header: list[str], rows: list[list[object]], **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=options.get("lineterminator", "\n"))
    writer.writerows([header, *rows])
    path.write_bytes(text.getvalue().encode(options.get("encoding", "utf-8")))
    return path


def audiocaps(path: Path, rows: list[tuple[object, ...]], **options: str) -> Path:
    header = ["audiocap_id", "youtube_id", "start_time", "caption"]
    return write_csv(path, header, [list(row) for row in rows], **options)


def clotho(path: Path, names: list[str]) -> Path:
    header = ["file_name", *(f"caption_{n}" for n in range(1, 6))]
    return write_csv(path, header, [[n, *(f"{n} said {k}" for k in range(5))] for n in names])


def clotho_metadata(path: Path, sounds: dict[str, str]) -> Path:
    header = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples"]
    rows = [[name, "caf\xe9;bar", number, "https://x", "[0, 1]"] for name, number in sounds.items()]
    return write_csv(path, header, rows, encoding="latin-1")


def wavcaps(path: Path, items: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": items}))
    return path


def run(*words: object) -> tuple[int, str]:
    """Exit code and output of `earwitness prepare ...`; an error's sentence counts as output."""
    result = CliRunner().invoke(app, ["prepare", *map(str, words)])
    said = "" if result.exception is None else f" {result.exception}"
    return result.exit_code, result.output + said


def prepared(*words: object) -> str:
    code, said = run(*words)
    assert code == 0, said
    return said


def refused(*words: object) -> str:
    """The one sentence of an expected error."""
    result = CliRunner().invoke(app, ["prepare", *map(str, words)])
    from earwitness.errors import EarwitnessError

    assert isinstance(result.exception, EarwitnessError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def manifest(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report(path: Path) -> dict:
    return json.loads(path.with_name(path.name + ".report.json").read_text(encoding="utf-8"))


def problems(path: Path) -> dict[str, str]:
    return {r["id"]: r["kind"] for r in manifest(path.with_name(path.name + ".problems.csv"))}


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)
