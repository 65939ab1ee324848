"""`earwitness prepare`: bad input in one sentence, captions one row off, nothing half written."""

import csv
import json
from pathlib import Path

import pytest
from data_sets import (
    YOUTUBE,
    audiocaps,
    manifest,
    prepared,
    problems,
    refused,
    sound,
    wavcaps,
    write_csv,
)
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.data.manifest import read_manifest
from earwitness.data.prepare.entries import Entry
from earwitness.data.prepare.splits import random_split
from earwitness.errors import DataError
from earwitness.io.atomic import replacing
from earwitness.io.tables import read_table

WAVES = ("rain", "wind", "dog", "bell", "door", "frog")


def _sounds(folder: Path, names: tuple[str, ...] = WAVES) -> Path:
    for position, name in enumerate(names):
        sound(folder / f"{name}.wav", 0.2 + 0.7 * position, rate=8000)
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("91139,r1nicOVtvkQ,130,A woman\n1,Yabc-_12345,10,x\n", "is not the header of AudioCaps"),
        ("youtube_id,start_time,caption\nr1nicOVtvkQ,130,x\n", "no column 'audiocap_id'"),
        ("audiocap_id,youtube_id,start_time,caption\n", "no rows"),
        ("audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,3,a, b\n", "line 2: 5 cells"),
        ("audiocap_id,youtube_id,start_time,caption\n1,,3,a\n", "line 2: youtube_id ''"),
        ('audiocap_id,youtube_id,start_time,caption\n1,"r1n', "not a readable table"),
    ],
)
def test_bad_audiocaps_table_is_one_sentence(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    audio = _sounds(tmp_path / "clips")
    said = refused("audiocaps", tmp_path / "train.csv", "--audio", audio, "-o", tmp_path / "m.csv")
    assert message in said
    assert str(tmp_path / "train.csv") in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audiocaps", "caps.csv", "--audio", "a", "-o", "m.csv"], "gives no split"),
        (["audiocaps", "train.csv", "--audio", "a", "-o", "m.csv"], "train.csv: no such file"),
        (["macs", "a.wav", "--audio", ".", "-o", "m.csv"], "not a readable YAML file"),
        (["macs", "MACS.yaml", "--audio", ".", "-o", "m.csv"], "no such file"),
        (["wavcaps", "x.json", "--audio", ".", "-o", "m.csv"], "gives the source"),
        (["wavcaps", "sb_final.json", "--audio", ".", "-o", "m.csv"], "no such file"),
        (["folder", "nowhere", "-o", "m.csv"], "nowhere: no such folder"),
        (["folder", ".", "-o", "m.xlsx"], "expected a manifest ending in .csv, .jsonl, .parquet"),
        (["folder", ".", "-o", "no/m.csv"], "no folder no"),
        (["folder", ".", "-o", "m.csv", "--random-split", "1.5"], "--random-split 1.5"),
        (["folder", ".", "-o", "m.csv", "--random-split", "0.5"], "from one recording"),
        (["folder", ".", "-o", "m.csv", "--exclude", "none.txt"], "none.txt: no such file"),
        (["folder", ".", "-o", "m.csv", "--shards", "s", "--shard-size", "0"], "--shard-size 0"),
        (["folder", ".", "-o", "m.csv", "--shards", "."], ".: is not empty"),
        (["csv", "list.csv", "-o", "list.csv"], "is one of the input files"),
        (["csv", "list.csv", "-o", "m.csv", "--audio-column", "x"], "no column 'x'"),
        (["csv", "odd.csv", "-o", "m.csv"], "no column looks like sounds"),
        (["csv", "gone.csv", "-o", "m.csv"], "no clip is left of 1 (1 missing"),
    ],
)
def test_bad_request_is_one_sentence(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "a.wav")
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes() + b"\x00: {[")
    write_csv(tmp_path / "list.csv", ["audio", "caption"], [["a.wav", "x"]])
    audiocaps(tmp_path / "caps.csv", [(1, YOUTUBE[0], 0, "x")])
    write_csv(tmp_path / "odd.csv", ["colour", "size"], [["red", "3"]])
    write_csv(tmp_path / "gone.csv", ["audio", "caption"], [["b.wav", "x"]])
    before = sorted(p.name for p in tmp_path.iterdir())
    assert message in refused(*words)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_headers_among_the_rows_are_left_out_and_told(tmp_path):
    _sounds(tmp_path)
    rows = [["rain.wav", "a"], ["audio", "caption"], ["dog.wav", "b"]]
    table = write_csv(tmp_path / "list.csv", ["audio", "caption"], rows)
    said = prepared("csv", table, "-o", tmp_path / "m.csv")
    assert "skipped 1 header line(s) among the rows" in said
    assert [row["id"] for row in manifest(tmp_path / "m.csv")] == ["rain.wav", "dog.wav"]


def test_table_of_full_paths_needs_no_folder_of_sounds(tmp_path):
    (tmp_path / "tables").mkdir()
    waves = sound(tmp_path / "elsewhere" / "rain.wav")
    header = ["audio", "caption"]
    table = write_csv(tmp_path / "tables" / "list.csv", header, [[waves, "rain"]])
    prepared("csv", table, "-o", tmp_path / "m.csv")
    assert [clip.audio for clip in read_manifest(tmp_path / "m.csv")] == [waves]
    write_csv(table, header, [["rain.wav", "rain"]])
    assert "tables: no sound files here" in refused("csv", table, "-o", tmp_path / "n.csv")


def test_ids_beside_the_next_rows_sound_are_refused(tmp_path):
    _sounds(tmp_path)
    right = [[name, f"{name}.wav", f"a {name}"] for name in WAVES]
    wrong = [[name, f"{WAVES[i - 1]}.wav", f"a {name}"] for i, name in enumerate(WAVES)][1:]
    header = ["id", "audio", "caption"]
    prepared("csv", write_csv(tmp_path / "r.csv", header, right), "-o", tmp_path / "m.csv")
    table = write_csv(tmp_path / "w.csv", header, wrong)
    said = refused("csv", table, "-o", tmp_path / "n.csv")
    assert "the sound whose id is in the previous row's 'id' ('dog' next to 'wind')" in said
    prepared("csv", table, "-o", tmp_path / "n.csv", "--trust-ids")


@pytest.mark.parametrize(("first_clip", "first_file"), [(0, 1), (1, 0)])
def test_clips_numbered_from_another_number_than_files_are_refused(
    tmp_path, first_clip, first_file
):
    for number in range(6):
        sound(tmp_path / "wavs" / f"{first_file + number}.wav", 0.02)
    rows = [[first_clip + number, f"caption {number}"] for number in range(6)]
    table = write_csv(tmp_path / "t.csv", ["clip_id", "caption"], rows)
    words = ("csv", table, "--audio", tmp_path / "wavs", "-o", tmp_path / "m.csv")
    said = refused(*words)
    assert f"numbered {first_clip} to {first_clip + 5} but the files {first_file} to" in said
    prepared(*words, "--trust-ids")


def test_one_clip_missing_in_the_middle_is_no_shift(tmp_path):
    for number in (1, 2, 4, 5, 6):
        sound(tmp_path / "wavs" / f"{number}.wav", 0.02)
    table = write_csv(
        tmp_path / "t.csv", ["clip_id", "caption"], [[n, f"c {n}"] for n in range(1, 7)]
    )
    prepared("csv", table, "--audio", tmp_path / "wavs", "-o", tmp_path / "m.csv")
    assert problems(tmp_path / "m.csv") == {"3": "missing"}


def test_lengths_that_fit_the_neighbour_are_refused(tmp_path):
    audio = _sounds(tmp_path / "SoundBible")
    seconds = [0.2 + 0.7 * position for position in range(len(WAVES))]
    items = [
        {"id": name, "caption": f"a {name}", "duration": length}
        for name, length in zip(WAVES, seconds, strict=True)
    ]
    words = ("--audio", audio.parent, "-o", tmp_path / "m.csv")
    good = wavcaps(tmp_path / "json" / "sb_final.json", items)
    assert "not as long" not in prepared("wavcaps", good, *words)
    for item, length in zip(items[1:], seconds, strict=False):
        item["duration"] = length
    bad = wavcaps(tmp_path / "json" / "sb_final.json", items)
    said = refused("wavcaps", bad, *words)
    assert "durations of 5 of 5 sounds match the next row" in said
    assert "5 of 6 clips differ in duration from their row" in prepared(
        "wavcaps", bad, *words, "--trust-ids"
    ) or read_manifest(tmp_path / "m.csv")


def test_jump_in_a_column_that_counts_the_rows_is_told(tmp_path):
    names = tuple(f"s{number:02d}" for number in range(20))
    for name in names:
        sound(tmp_path / f"{name}.wav", 0.02)
    rows = [[n + (n > 7), f"{name}.wav", "x"] for n, name in enumerate(names)]
    table = write_csv(tmp_path / "t.csv", ["", "audio", "caption"], rows)
    said = prepared("csv", table, "-o", tmp_path / "m.csv")
    assert "line 10: column 'column 1' jumps from 7 to 9" in said


def test_one_file_for_two_clips_is_left_out(tmp_path):
    rows = [(1, YOUTUBE[0], 0, "x"), (2, YOUTUBE[0], 30, "y"), (3, YOUTUBE[1], 0, "z")]
    table = audiocaps(tmp_path / "train.csv", rows)
    for youtube in YOUTUBE[:2]:
        sound(tmp_path / "clips" / f"{youtube}.wav")
    out = tmp_path / "m.csv"
    prepared("audiocaps", table, "--audio", tmp_path / "clips", "-o", out)
    assert problems(out) == {f"{YOUTUBE[0]}_0": "ambiguous", f"{YOUTUBE[0]}_30": "ambiguous"}
    assert len(read_manifest(out)) == 1


def test_decoding_finds_damage_behind_the_header(tmp_path):
    path = sound(tmp_path / "rec" / "a.flac", 3.0)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2 :] = bytes(len(contents) - len(contents) // 2)
    path.write_bytes(contents)
    sound(tmp_path / "rec" / "b.flac")
    out = tmp_path / "m.csv"
    prepared("folder", tmp_path / "rec", "-o", out)
    assert problems(out) == {}
    prepared("folder", tmp_path / "rec", "-o", out, "--decode")
    assert problems(out) == {"a.flac": "broken"}


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_random_split_meets_the_share_as_well_as_whole_recordings_allow(share):
    sizes = [1 + (7 * number) % 11 for number in range(40)]
    entries = [
        Entry(f"{number}/{cut}", f"file:{number}", ("x",), "csv")
        for number, size in enumerate(sizes)
        for cut in range(size)
    ]
    drawn = random_split(entries, share, 3)
    held = {e.recording for e in drawn if e.split == "validation"}
    assert not held & {e.recording for e in drawn if e.split == "train"}
    count = sum(e.split == "validation" for e in drawn)
    assert abs(count - share * len(entries)) <= max(sizes) / 2
    assert [e.id for e in drawn] == [e.id for e in entries]


def test_random_split_of_data_with_splits_is_refused():
    entries = [Entry("a", "a", (), "csv"), Entry("b", "b", (), "csv", "test")]
    with pytest.raises(DataError, match=r"already split \(test, train\)"):
        random_split(entries, 0.5, 0)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_of_rows_are_counted_with_newlines_in_cells(tmp_path, ends):
    path = tmp_path / "t.csv"
    text = f'audio,caption{ends}a.wav,"one{ends}two"{ends}{ends}b.wav,x{ends}'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    table = read_table(path)
    assert table.columns == ("audio", "caption")
    assert [row["audio"] for row in table.rows] == ["a.wav", "b.wav"]
    assert table.lines == [2, 5]


def test_semicolons_and_windows_letters_are_read(tmp_path):
    (tmp_path / "t.csv").write_bytes("audio;caption\ncaf\xe9.wav;a, b\n".encode("cp1252"))
    table = read_table(tmp_path / "t.csv")
    assert table.rows == [{"audio": "caf\xe9.wav", "caption": "a, b"}]
    assert "not UTF-8" in table.notes()[0]


def test_every_command_teaches_with_an_example():
    for kind in ("audiocaps", "clotho", "wavcaps", "macs", "folder", "csv"):
        said = CliRunner().invoke(app, ["prepare", kind, "--help"]).output
        assert f"earwitness prepare {kind}" in said


def test_csv_of_captions_with_a_list_in_json_lines(tmp_path):
    _sounds(tmp_path)
    rows = [{"audio": f"{name}.wav", "captions": [name, f"a {name}"]} for name in WAVES]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared("csv", path, "-o", tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        assert next(csv.reader(file))[-2:] == ["caption_1", "caption_2"]
    assert read_manifest(tmp_path / "m.csv")[2].captions == ("dog", "a dog")


def test_linked_folder_of_sounds_stays_relative(tmp_path):
    _sounds(tmp_path / "disk")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "wavs").symlink_to(tmp_path / "disk")
    prepared("folder", tmp_path / "work" / "wavs", "-o", tmp_path / "work" / "m.csv")
    assert {row["audio"] for row in manifest(tmp_path / "work" / "m.csv")} == {
        f"wavs/{name}.wav" for name in WAVES
    }
