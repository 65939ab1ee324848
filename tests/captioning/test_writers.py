"""Formats, the journal that outlives a kill, failures, sidecars, and lists of sources."""

import csv
import io
import json
import os
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from earwitness.captioning.journal import Failures, Journal
from earwitness.captioning.sources import Source, find, parse_shard, read_manifest, shard
from earwitness.captioning.subtitles import parse
from earwitness.captioning.writers import (
    COLUMNS,
    ENDINGS,
    as_json,
    as_lines,
    csv_text,
    format_of,
    rows,
    sidecar_paths,
    subtitle_text,
    write,
)
from earwitness.errors import AudioError, ConfigError, DataError

SHORT = {"file": "a.wav", "caption": "a dog, barking", "score": 0.5, "model": "m", "seconds": 2.5}
LONG = {
    "file": "b.wav",
    "caption": "rain falls; no distinct sound",
    "score": 0.4,
    "model": "m",
    "seconds": 40.0,
    "segments": [
        {"start": 0.0, "end": 20.0, "caption": "rain falls", "score": 0.4},
        {
            "start": 20.0,
            "end": 40.0,
            "caption": "no distinct sound",
            "score": None,
            "gate": "silence",
        },
    ],
}
BEST = SHORT | {"captions": [{"caption": "one", "score": 0.5}, {"caption": "two", "score": 0.25}]}


def record(name: str) -> dict:
    return SHORT | {"file": name}


@pytest.mark.parametrize(
    ("given", "named", "lines"),
    [
        (SHORT, False, ["a dog, barking"]),
        (SHORT, True, ["a.wav\ta dog, barking"]),
        (
            LONG,
            False,
            [
                "00:00:00.0 - 00:00:20.0\train falls",
                "00:00:20.0 - 00:00:40.0\tno distinct sound",
            ],
        ),
        (BEST, True, ["a.wav\t0.5000\tone", "a.wav\t0.2500\ttwo"]),
    ],
    ids=["alone", "named", "long", "n-best"],
)
def test_text_holds_what_there_is_to_tell(given, named, lines):
    assert as_lines(given, named) == lines


def test_every_table_has_the_same_rows(tmp_path):
    records = [SHORT, LONG, BEST]
    expected = [row for one in records for row in rows(one)]
    assert [tuple(row) for row in expected] == [COLUMNS] * 5
    write(tmp_path / "x.parquet", "parquet", records)
    write(tmp_path / "x.json", "json", records)
    write(tmp_path / "x.csv", "csv", records)
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == expected
    assert json.loads((tmp_path / "x.json").read_text()) == expected
    read = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [row["caption"] for row in read] == [row["caption"] for row in expected]
    assert read[2]["score"] == ""
    assert [row["rank"] for row in read] == ["1", "1", "1", "1", "2"]


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "text", "jsonl"])
def test_tables_of_nothing_are_readable(tmp_path, kind):
    write(tmp_path / "x", kind, [])
    text = (tmp_path / "x").read_bytes()
    assert text == {"json": b"[]\n", "csv": csv_text([]).encode()}.get(kind, text[: len(text)])


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_have_no_cue_for_silence(kind):
    cues = parse(subtitle_text(LONG, kind)[0]).cues
    assert [(c.start, c.end, c.text) for c in cues] == [(0.0, 20.0, "rain falls")]


def test_subtitles_between_speech_leave_out_what_is_not_heard():
    speech = parse("1\n00:00:05,000 --> 00:00:30,000\nWords.\n")
    text, homeless = subtitle_text(LONG, "vtt", speech)
    assert [c.text for c in parse(text).cues] == ["[rain falls]", "Words."]
    assert homeless == 0


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")

    def broken():
        yield SHORT
        raise AudioError("no more")

    with pytest.raises(AudioError):
        write(path, "csv", broken())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_file_name_that_is_no_text_survives(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    assert json.loads(as_json(record(name)))["file"] == name
    assert "\u00e9" in as_json(record("caf\u00e9.wav"))
    for kind in ("csv", "text", "jsonl", "json", "parquet"):
        write(tmp_path / "x", kind, [record(name)])
    with closing(Journal(tmp_path / "j.jsonl", "s")) as journal:
        journal.add([record(name)])
    with closing(Journal(tmp_path / "j.jsonl", "s")) as journal:
        assert journal.done == {name}


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending_names_the_format(ending):
    assert format_of(Path("x" + ending.upper())) == ENDINGS[ending]


def test_unknown_ending_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no format has the extension '.xls'; expected .txt"):
        format_of(Path("x.xls"))


def test_subtitles_of_several_sounds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="subtitles of 2 sounds; expected one sound"):
        write(tmp_path / "x.srt", "srt", [SHORT, LONG])


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_journal_torn_anywhere_goes_on_after_its_last_whole_line(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    with closing(Journal(path, "s")) as journal:
        journal.add([record("a"), record("b")])
    content = path.read_bytes()
    path.write_bytes(content + content[:cut])
    with closing(Journal(path, "s")) as journal:
        assert journal.done == {"a", "b"}
        journal.add([record("c")])
        assert [one["file"] for one in journal.records()] == ["a", "b", "c"]
    assert path.read_bytes().startswith(content)


def test_journal_of_one_torn_line_starts_anew(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"file": "a", "capt')
    with closing(Journal(path, "s")) as journal:
        assert journal.done == set()
        journal.add([record("a")])
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"my notes\n", "line 1 is not a result"),
        (b"my notes", "is not a result"),
        (b'{"file": "a"}\n', "line 1 is not a result"),
        (b"[1, 2]\n", "line 1 is not a result"),
    ],
)
def test_journal_never_touches_a_file_that_is_not_its_own(tmp_path, content, sentence):
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        Journal(path, "s")
    assert path.read_bytes() == content


def test_journal_refuses_other_settings_and_a_second_writer(tmp_path):
    path = tmp_path / "j.jsonl"
    with closing(Journal(path, "s")) as journal:
        journal.add([record("a")])
        with pytest.raises(DataError, match="another run is writing to it"):
            Journal(path, "s")
    with pytest.raises(DataError, match="another model or other settings"):
        Journal(path, "t")


def test_failures_of_an_earlier_run_are_forgotten(tmp_path):
    path = tmp_path / "f.jsonl"
    first = Failures(path)
    first.add("a", "why")
    first.close()
    assert json.loads(path.read_text()) == {"file": "a", "error": "why"}
    Failures(path).close()
    assert not path.exists()


def test_sidecars_stand_beside_their_sounds_and_never_share():
    names = ["x/a.wav", "x/a.mp3", "x/y/b.wav"]
    assert [str(p) for p in sidecar_paths(names, ".txt", None).values()] == [
        "x/a.wav.txt",
        "x/a.mp3.txt",
        "x/y/b.txt",
    ]
    below = sidecar_paths(names, ".txt", Path("out"))
    assert [str(p) for p in below.values()] == ["out/a.wav.txt", "out/a.mp3.txt", "out/y/b.txt"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in (
        "b.wav",
        "a.FLAC",
        "notes.txt",
        "sub/c.mp4",
        "sub/.c.wav",
        ".git/d.wav",
        "old/e.wav",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "options", "names"),
    [
        (["in"], {}, ["in/a.FLAC", "in/b.wav", "in/old/e.wav", "in/sub/c.mp4"]),
        (["in"], {"exclude": ["old", "*.mp4"]}, ["in/a.FLAC", "in/b.wav"]),
        (["in"], {"exclude": ["old/"]}, ["in/a.FLAC", "in/b.wav", "in/sub/c.mp4"]),
        (["in"], {"include": ["*.txt"]}, ["in/notes.txt"]),
        (["in"], {"include": ["sub/*"]}, ["in/sub/c.mp4"]),
        (["in/*.wav"], {}, ["in/b.wav"]),
        (["in/**/*.wav"], {}, ["in/b.wav", "in/old/e.wav"]),
        (["in/b.wav", "in", "./in/b.wav"], {"exclude": ["s*"]}, None),
        (["in/b.wav", "nowhere.wav"], {}, ["in/b.wav", "nowhere.wav"]),
    ],
)
def test_files_folders_and_globs_become_sorted_sources(tree, arguments, options, names):
    found = [source.name for source in find(arguments, **options)]
    assert found == (names or ["in/b.wav", "in/a.FLAC", "in/old/e.wav"])


def test_nothing_found_is_a_problem_of_that_source_alone(tree):
    (tree / "empty").mkdir()
    found = find(["in/b.wav", "empty", "in/*.xyz"])
    assert [source.problem for source in found] == [
        None,
        "the folder 'empty' holds no sound with a known extension (see --include)",
        "no file matches 'in/*.xyz'; expected a sound",
    ]


def test_name_with_brackets_is_a_file_not_a_pattern(tree):
    (tree / "a[1].wav").touch()
    assert find(["a[1].wav"]) == [Source("a[1].wav", "a[1].wav")]


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("m.csv", "clip,path\n1,b.wav\n2,sub/c.mp4\n1,b.wav\n", None),
        ("m.tsv", "file\tx\nb.wav\t1\nsub/c.mp4\t2\n", None),
        ("m.csv", "\ufeffsound\nb.wav\nsub/c.mp4\n", "sound"),
        ("m.jsonl", '{"audio": "b.wav"}\n\n{"audio": "sub/c.mp4"}\n', None),
        ("m.txt", "b.wav\n\nsub/c.mp4\n", None),
    ],
)
def test_manifest_names_files_below_its_folder(tree, name, content, column):
    (tree / "in" / name).write_text(content)
    assert read_manifest(f"in/{name}", column) == [
        Source("b.wav", Path("in/b.wav")),
        Source("sub/c.mp4", Path("in/sub/c.mp4")),
    ]


def test_parquet_is_a_manifest(tree):
    write(Path("in/m.parquet"), "parquet", [record("b.wav"), record("sub/c.mp4")])
    assert [source.name for source in read_manifest("in/m.parquet")] == ["b.wav", "sub/c.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.csv", "clip\n1\n", "row 1 has none of file, path, .*its columns are clip"),
        ("m.csv", "file\n", "names no file"),
        ("m.csv", "file,x\n,1\n", "row 1 has no file name in column 'file'"),
        ("m.jsonl", "[1]\n", "line 1: expected an object"),
        ("m.jsonl", '{"file": 3}\n', "row 1 has no file name"),
        ("m.parquet", "no", "not a readable parquet file"),
        ("m.txt", "", "names no file"),
    ],
)
def test_unusable_manifest_is_one_sentence(tree, name, content, sentence):
    Path(name).write_text(content)
    with pytest.raises(DataError, match=sentence):
        read_manifest(name)


def test_missing_manifest_is_one_sentence():
    with pytest.raises(DataError, match="no such file; expected a manifest as .csv"):
        read_manifest("nowhere.csv")


@pytest.mark.parametrize("parts", [1, 3, 7, 20])
def test_shards_are_equal_parts_of_the_whole(parts):
    sources = [Source(str(i), str(i)) for i in range(17)]
    found = [shard(sources, f"{i}/{parts}") for i in range(1, parts + 1)]
    assert sorted(s.name for part in found for s in part) == sorted(s.name for s in sources)
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_shard_out_of_range_is_refused(text):
    with pytest.raises(ConfigError, match="expected i/n with i from 1 to n"):
        parse_shard(text)
