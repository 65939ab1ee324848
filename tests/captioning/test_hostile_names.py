"""File names that are not UTF-8 or hold control characters, from the folder to each output."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from builders import noise, tiny_captioner, tiny_exported_folder
from heard import tone, write_sound

from earwitness.captioning.local import caption_files
from earwitness.captioning.pipeline import CaptionSettings
from earwitness.captioning.sources import Source
from earwitness.captioning.writers import as_json, as_lines, csv_text, sidecar_paths, write
from earwitness.io.names import for_terminal, on_disk, on_one_line

NAMES = [b"caf\xe9.wav", b"a\nb.wav", b"t\tb.wav", b"r\rb.wav", b"e\x1b[31m.wav", b"\xff\x9b.wav"]
RECORD = {"caption": "rain", "score": 0.5, "model": "m", "seconds": 1.0}


def record(name: str) -> dict:
    return RECORD | {"file": name}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_exported_folder(tmp_path_factory.mktemp("model")))


def caption(model: str, place: Path, *arguments: str, **options):
    command = [sys.executable, "-m", "earwitness", "caption", "--model", model, *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, **options)


def test_folder_of_hostile_names_is_captioned_and_continued(model, tmp_path):
    for number, name in enumerate(NAMES):
        sound = write_sound(tmp_path / "x.wav", noise(1.0, number))
        os.makedirs(tmp_path / "n", exist_ok=True)
        sound.rename(os.fsdecode(os.fsencode(tmp_path / "n") + b"/" + name))
    done = caption(model, tmp_path, "n", "-o", "x.csv")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "x.csv").read_bytes().decode(errors="surrogateescape")
    found = [row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert sorted(map(os.fsencode, found)) == sorted(b"n/" + name for name in NAMES)
    again = caption(model, tmp_path, "n", "-o", "x.csv")
    assert again.returncode == 0
    assert b"6 of 6 already captioned; nothing left to do" in again.stderr
    listed = b"n/caf\xe9.wav\nn/\xff\x9b.wav\nn/gone\x1b[2J.wav\n"
    printed = caption(model, tmp_path, "--manifest", "-", input=listed)
    assert printed.returncode == 1
    assert [line.partition(b"\t")[0] for line in printed.stdout.splitlines()] == [
        b"n/caf\xe9.wav",
        b"n/\xff\x9b.wav",
    ]
    assert b"Traceback" not in printed.stderr
    assert b"\x1b" not in printed.stderr


@pytest.mark.parametrize("raw", NAMES)
def test_name_comes_back_from_each_format(tmp_path, raw):
    name = os.fsdecode(raw)
    lines = as_lines(record(name), named=True)
    assert len(lines) == len(lines[0].splitlines()) == 1
    assert lines[0].count("\t") == 1
    assert "\x1b" not in lines[0]
    line = as_json(record(name))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["file"] == name
    assert [row[0] for row in csv.reader(io.StringIO(csv_text([record(name)]), newline=""))] == [
        "file",
        name,
    ]
    write(tmp_path / "x.parquet", "parquet", [record(name)], exact=True)
    row = parquet.read_table(tmp_path / "x.parquet").to_pylist()[0]
    assert row["file_bytes"] == raw


def test_terminal_gets_no_control_character():
    name = os.fsdecode(b"caf\xe9 \x1b[2J\n\x07") + "\u009b\u202e"
    assert for_terminal(name) == r"caf\xe9 \x1b[2J\n\x07\x9b\u202e"
    assert on_one_line("a\tb\u2028é") == r"a\tb\u2028é"


def test_listed_name_of_latin_1_bytes_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path := Path(os.fsdecode(b"\x81.wav"))).touch()
    assert on_disk(Path("\x81.wav")) == path
    assert on_disk(Path("é" * 300)) == Path("é" * 300)


def test_fault_in_one_batch_is_the_error_of_one_sound():
    captioner = tiny_captioner()
    whole = captioner.caption_waveforms

    def faulty(waveforms, *rest):
        if any(len(waveform) == 16000 for waveform in waveforms):
            raise ZeroDivisionError("a fault\nof the program")
        return whole(waveforms, *rest)

    captioner.caption_waveforms = faulty
    sources = [Source(str(i), (tone(200, 1.0 + (i != 2)), 16000)) for i in range(5)]
    results = [
        one
        for done in caption_files(captioner, sources, CaptionSettings(), batch_size=3)
        for one in done
    ]
    assert [one.name for one in results] == list("01234")
    assert [str(one.error) for one in results if one.error] == [
        "2: unexpected ZeroDivisionError (a fault of the program)"
    ]


def test_sidecar_of_a_shard_stays_beside_it():
    paths = sidecar_paths(["d/x.tar#../../../etc/a.wav", "."], ".txt", None)
    assert list(paths.values()) == [Path("d/x.tar#etc/a.txt"), Path("..txt")]
