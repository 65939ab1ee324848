"""`earwitness prepare`: each published layout, found and counted by hand."""

import csv
import json

import pytest
from data_sets import (
    YOUTUBE,
    audiocaps,
    clotho,
    clotho_metadata,
    manifest,
    plain,
    prepared,
    problems,
    refused,
    report,
    sound,
    wavcaps,
    write_csv,
)

from earwitness.data.manifest import read_manifest
from earwitness.data.prepare.audio_files import simplified, youtube_id

STARTS = (130, 20, 0, 30)
ROWS = [(900 + i, y, s, f"sound {i}") for i, (y, s) in enumerate(zip(YOUTUBE, STARTS, strict=True))]


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("<youtube_id>", "{y}.wav"),
        ("Y<youtube_id>", "sub/Y{y}.flac"),
        ("<youtube_id>_<start>", "{y}_{s}.wav"),
        ("<youtube_id>_<start in ms>", "{y}_{ms}.ogg"),
        ("<youtube_id>_<start>_<end>", "a/b/{y}_{s}_{e}.flac"),
        ("<youtube_id>_<start in ms>_<end>", "{y}_{ms}_{ems}.wav"),
        ("Y<youtube_id>_<start>_<end>", "Y{y}_{s}.000_{e}.000.wav"),
        ("<audiocap_id>", "{a}.wav"),
    ],
)
def test_audiocaps_naming_scheme_is_found_and_told(tmp_path, scheme, name):
    for a, y, s, _ in ROWS:
        sound(
            tmp_path
            / "clips"
            / name.format(a=a, y=y, s=s, e=s + 10, ms=s * 1000, ems=(s + 10) * 1000)
        )
    table, out = audiocaps(tmp_path / "train.csv", ROWS), tmp_path / "m.csv"
    said = prepared("audiocaps", table, "--audio", tmp_path / "clips", "-o", out)
    assert f"named {scheme} (4 of 4 found" in said
    rows = manifest(out)
    assert [(r["id"], r["caption_1"], r["recording"]) for r in rows] == [
        (f"{y}_{s}", caption, f"youtube:{y}") for _, y, s, caption in ROWS
    ]
    assert all(float(row["seconds"]) == pytest.approx(0.2) for row in rows)


def test_audiocaps_splits_windows_ends_and_newlines_in_cells(tmp_path):
    train = [(1, YOUTUBE[0], 10, "rain,\r\nthen wind"), (2, YOUTUBE[1], 10, "a dog")]
    val = [(n, YOUTUBE[2], 20, f"bell {n}") for n in range(3, 8)]
    val += [(9, YOUTUBE[2], 20, "bell 3")]
    folder = tmp_path / "csv"
    audiocaps(folder / "train.csv", train, lineterminator="\r\n", encoding="utf-8-sig")
    audiocaps(folder / "val.csv", val)
    for youtube in YOUTUBE[:3]:
        sound(tmp_path / "clips" / f"{youtube}.wav")
    out = tmp_path / "ac.csv"
    said = prepared("audiocaps", folder, "--audio", tmp_path / "clips", "-o", out)
    assert not out.exists()
    clips = read_manifest(tmp_path / "ac.train.csv")
    assert clips[0].captions == ("rain, then wind",)
    assert clips[0].audio == tmp_path / "clips" / f"{YOUTUBE[0]}.wav"
    (bell,) = read_manifest(tmp_path / "ac.validation.csv")
    assert bell.captions == tuple(f"bell {n}" for n in range(3, 8))
    found = report(out)
    assert (found["rows_read"], found["clips_written"], found["captions_written"]) == (8, 3, 7)
    assert found["duplicate_captions"] == 1
    assert "captions in the files 6; AudioCaps 1.0 and 2.0 2,475; difference -2,469" in said
    assert "LAMB, arXiv 2601.04658 48,595; difference -48,593" in said


def test_missing_and_broken_clips_are_listed_with_their_row(tmp_path):
    table = audiocaps(tmp_path / "train.csv", [*ROWS[:3], (5, YOUTUBE[3], 30, "  ")])
    for youtube in (YOUTUBE[0], YOUTUBE[3]):
        sound(tmp_path / "clips" / f"{youtube}.wav")
    (tmp_path / "clips" / f"{YOUTUBE[1]}.wav").write_bytes(b"no sound at all")
    out = tmp_path / "m.csv"
    said = prepared("audiocaps", table, "--audio", tmp_path / "clips", "-o", out)
    assert problems(out) == {
        f"{YOUTUBE[1]}_20": "broken",
        f"{YOUTUBE[2]}_0": "missing",
        f"{YOUTUBE[3]}_30": "without caption",
    }
    listed = manifest(tmp_path / "m.csv.problems.csv")
    assert {r["id"]: r["place"] for r in listed}[f"{YOUTUBE[2]}_0"] == f"{table}, line 4"
    assert "clips named 4, found 3 clips written 1" in plain(said)


def test_strict_refuses_another_count_and_writes_nothing(tmp_path):
    table = audiocaps(tmp_path / "train.csv", ROWS)
    sound(tmp_path / "clips" / f"{YOUTUBE[0]}.wav")
    said = refused(
        *("audiocaps", table, "--audio", tmp_path / "clips", "-o", tmp_path / "m.csv", "--strict")
    )
    assert "captions in the files 4, published 49,838 (AudioCaps 1.0), difference -49,834" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips", "train.csv"]


def test_recording_in_two_splits_is_named(tmp_path):
    audiocaps(tmp_path / "train.csv", ROWS)
    audiocaps(tmp_path / "test.csv", [(1, YOUTUBE[1], 40, "another cut")])
    for y, s in [*zip(YOUTUBE, STARTS, strict=True), (YOUTUBE[1], 40)]:
        sound(tmp_path / "clips" / f"{y}_{s}.wav")
    both = [tmp_path / "train.csv", tmp_path / "test.csv"]
    out = tmp_path / "m.csv"
    words = ["audiocaps", *both, "--audio", tmp_path / "clips", "-o", out]
    said = refused(*words)
    assert f"youtube:{YOUTUBE[1]} in train ('{YOUTUBE[1]}_20') and test ('{YOUTUBE[1]}_40')" in said
    assert list(tmp_path.glob("m.*")) == []
    prepared(*words, "--exclude", tmp_path / "test.csv")
    assert [c.id for c in read_manifest(tmp_path / "m.test.csv")] == [f"{YOUTUBE[1]}_40"]
    assert len(read_manifest(tmp_path / "m.train.csv")) == 3


@pytest.mark.parametrize(
    ("name", "youtube"),
    [
        ("Yabc-_12345", "Yabc-_12345"),
        ("YYabc-_12345.wav", "Yabc-_12345"),
        ("Yabc-_12345_30.000_40.flac", "Yabc-_12345"),
        ("123456", None),
    ],
)
def test_youtube_id_of_a_file_name(name, youtube):
    assert youtube_id(name) == youtube


def test_clotho_odd_names_and_freesound_numbers(tmp_path):
    root = tmp_path / "CLOTHO_v2.1"
    names = [" e ieio  ieai.wav", "rain: on a tin roof.wav", "caf\xe9 #2, (night).wav"]
    clotho(root / "clotho_csv_files" / "clotho_captions_development.csv", names)
    clotho(root / "clotho_csv_files" / "clotho_captions_validation.csv", ["same.wav", "b.wav"])
    clotho_metadata(
        root / "clotho_csv_files" / "clotho_metadata_development.csv",
        {names[0]: "51", names[1]: "52", names[2]: "Not found"},
    )
    audio = root / "clotho_audio_files"
    sound(audio / "development" / names[0])
    sound(audio / "development" / "rain_ on a tin roof.wav")
    sound(audio / "development" / "cafe\u0301 #2, (night).wav")
    sound(audio / "validation" / "same.wav")
    sound(audio / "development" / "same.wav")
    sound(audio / "validation" / "b.wav")
    out = tmp_path / "clotho.jsonl"
    said = prepared("clotho", root, "-o", out)
    clips = read_manifest(tmp_path / "clotho.train.jsonl")
    assert [clip.id for clip in clips] == names
    assert clips[1].captions == tuple(f"rain: on a tin roof.wav said {k}" for k in range(5))
    lines = (tmp_path / "clotho.train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["recording"] for row in rows] == [
        "freesound:51",
        "freesound:52",
        f"clotho:train/{names[2]}",
    ]
    same = read_manifest(tmp_path / "clotho.validation.jsonl")[0]
    assert same.audio == audio / "validation" / "same.wav"
    assert "3 of 5 clips without a Freesound number" in said


def _wavcaps(root):
    item = {"duration": 0.2, "audio": "wav_path", "download_link": "https://x"}
    wavcaps(
        root / "json_files" / "AudioSet_SL" / "as_final.json",
        [{"id": f"Y{y}.wav", "caption": f"tube {y}", **item} for y in YOUTUBE],
    )
    for source, name in (("FreeSound", "fsd"), ("SoundBible", "sb"), ("BBC_Sound_Effects", "bbc")):
        wavcaps(
            root / "json_files" / source / f"{name}_final.json",
            [{"id": str(n), "caption": f"{source} {n}", **item} for n in (11, 12)],
        )
        for n in (11, 12):
            sound(root / "waveforms" / source / f"{n}.flac")
    for youtube in YOUTUBE:
        sound(root / "waveforms" / "AudioSet_SL" / f"Y{youtube}.flac")


def test_wavcaps_sources_with_equal_numbers_stay_apart(tmp_path):
    _wavcaps(tmp_path)
    out = tmp_path / "wc.csv"
    words = ("wavcaps", tmp_path / "json_files", "--audio", tmp_path / "waveforms", "-o", out)
    said = prepared(*words)
    for row in manifest(out):
        source, _, number = row["id"].partition("/")
        assert f"waveforms/{source}/{number}.flac" in row["audio"]
        assert row["source"] == f"wavcaps/{source}"
        assert row["caption_1"].split()[-1] == number.removeprefix("Y") or source != "AudioSet_SL"
    assert report(out)["clips_written"] == 10
    assert "wavcaps: clips found 10; WavCaps 403,050; difference -403,040" in said


def test_wavcaps_without_source_folders_is_refused(tmp_path):
    _wavcaps(tmp_path)
    flat = sound(tmp_path / "flat" / "11.flac").parent
    said = refused("wavcaps", tmp_path / "json_files", "--audio", flat, "-o", tmp_path / "wc.csv")
    assert "no folder named AudioSet_SL" in said


def test_black_lists_of_every_form_drop_the_clips_of_test_sets(tmp_path):
    _wavcaps(tmp_path)
    lists = tmp_path / "lists"
    audiocaps(lists / "test.csv", [(11, YOUTUBE[0], 30, "x")])
    (lists / "eval_segments.csv").write_text(
        "# Segments csv created Sun Mar 5\n# num_ytids=20371, num_segs=20371\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        f'{YOUTUBE[1]}, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    )
    (lists / "blacklist.json").write_text(
        json.dumps({"AudioSet": [f"Y{YOUTUBE[2]}.wav"], "FreeSound": ["99"]})
    )
    clotho(lists / "clotho_captions_evaluation.csv", ["a.wav", "b.wav"])
    clotho_metadata(lists / "clotho_metadata_evaluation.csv", {"a.wav": "11", "b.wav": "Not found"})
    (lists / "bbc.txt").write_text("BBC_Sound_Effects/12\n")
    out, names = tmp_path / "wc.csv", ["test.csv", "eval_segments.csv", "blacklist.json"]
    names += ["clotho_captions_evaluation.csv", "bbc.txt"]
    given = [word for name in names for word in ("--exclude", lists / name)]
    said = prepared(
        *("wavcaps", tmp_path / "json_files", "--audio", tmp_path / "waveforms", "-o", out, *given)
    )
    assert {row["id"] for row in manifest(out)} == {
        *(f"AudioSet_SL/Y{YOUTUBE[3]}", "FreeSound/12", "BBC_Sound_Effects/11"),
        *("SoundBible/11", "SoundBible/12"),
    }
    assert list(report(out)["excluded_by_file"].values()) == [1, 1, 1, 1, 1]
    assert "1 of 2 Clotho clips without a Freesound number" in said
    assert set(problems(out).values()) == {"excluded"}


def test_manifest_of_another_preparation_is_a_black_list(tmp_path):
    _wavcaps(tmp_path)
    table = audiocaps(tmp_path / "val.csv", ROWS[:2])
    audio = tmp_path / "waveforms"
    prepared("audiocaps", table, "--audio", audio, "-o", tmp_path / "val_manifest.csv")
    out = tmp_path / "wc.csv"
    prepared(
        *("wavcaps", tmp_path / "json_files", "--audio", audio, "-o", out),
        *("--exclude", tmp_path / "val_manifest.csv"),
    )
    assert report(out)["excluded_by_file"] == {str(tmp_path / "val_manifest.csv"): 2}


def test_macs_sentences_stay_texts_and_places_stay_together(tmp_path):
    names = [f"airport-lisbon-{1000 + n // 3}-{4000 + n}-a.wav" for n in range(12)]
    lines = ["files:"]
    for n, name in enumerate(names):
        lines += [f"- filename: {name}", "  annotations:"]
        for annotator in range(2):
            text = "No" if annotator else f"people walk {n}"
            lines += [f"  - sentence: {text}", "    tags:", "    - footsteps"]
            lines += [f"    annotator_id: {annotator}"]
        sound(tmp_path / "audio" / name)
    (tmp_path / "MACS.yaml").write_text("\n".join(lines) + "\n")
    out = tmp_path / "macs.csv"
    prepared(
        *("macs", tmp_path / "MACS.yaml", "--audio", tmp_path / "audio", "-o", out),
        *("--random-split", 0.25),
    )
    train, held = manifest(tmp_path / "macs.train.csv"), manifest(tmp_path / "macs.validation.csv")
    assert (len(train), len(held)) == (9, 3)
    assert {r["caption_2"] for r in train + held} == {"No"}
    assert not {r["recording"] for r in train} & {r["recording"] for r in held}


def test_folder_with_sidecars_and_clips_without_caption(tmp_path):
    root = tmp_path / "rec"
    for name in ("dog.wav", "in/rain.flac", "in/none.ogg"):
        sound(root / name)
    (root / "dog.txt").write_text("A dog barks.\r\n\r\nBarking\r\n")
    (root / "in" / "rain.json").write_text('{"captions": ["It rains.", "Rain\\nfalls"]}')
    out = tmp_path / "m.parquet"
    said = prepared("folder", root, "-o", out)
    clips = {clip.id: clip.captions for clip in read_manifest(out)}
    assert clips == {
        "dog.wav": ("A dog barks.", "Barking"),
        "in/rain.flac": ("It rains.", "Rain falls"),
        "in/none.ogg": (),
    }
    assert "1 of 3 clips have no caption" in said


def test_folder_names_give_the_splits(tmp_path):
    for split in ("train", "val"):
        sound(tmp_path / "rec" / split / "1.wav")
        (tmp_path / "rec" / split / "1.txt").write_text(split)
    prepared("folder", tmp_path / "rec", "-o", tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.validation.csv")[0].captions == ("val",)


def test_random_split_keeps_recordings_whole_and_repeats(tmp_path):
    rows = [[f"{tape}_{cut}.wav", f"tape {tape}", tape] for tape in range(10) for cut in range(4)]
    for name, _, _ in rows:
        sound(tmp_path / "wavs" / name, 0.02)
    table = write_csv(tmp_path / "list.csv", ["file_name", "text", "tape"], rows)
    words = ("csv", table, "--audio", tmp_path / "wavs", "--group-column", "tape")
    drawn = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        out = tmp_path / f"{name}.csv"
        prepared(*words, "-o", out, "--random-split", 0.2, "--seed", seed)
        held = manifest(tmp_path / f"{name}.validation.csv")
        train = manifest(tmp_path / f"{name}.train.csv")
        assert (len(held), len(train)) == (8, 32)
        assert not {r["recording"] for r in held} & {r["recording"] for r in train}
        drawn.append([r["id"] for r in held])
    assert drawn[0] == drawn[1] != drawn[2]


def test_csv_one_row_a_caption_equals_several_captions_a_row(tmp_path):
    for name in ("a", "b"):
        sound(tmp_path / f"{name}.wav")
    long = write_csv(
        tmp_path / "long.tsv.csv",
        ["path", "caption", "subset"],
        [["a.wav", "x", "dev"], ["b.wav", "y", "val"], ["a.wav", "z", "dev"]],
    )
    wide = write_csv(
        tmp_path / "wide.csv",
        ["audio", "caption_1", "caption_2", "split"],
        [["a.wav", "x", "z", "train"], ["b.wav", "y", "", "validation"]],
    )
    for table, out in ((long, tmp_path / "l.csv"), (wide, tmp_path / "w.csv")):
        said = prepared("csv", table, "-o", out)
        assert "columns: sound" in said
    for split in ("train", "validation"):
        left, right = (read_manifest(tmp_path / f"{n}.{split}.csv") for n in "lw")
        assert left == right


def test_manifest_of_audiocaps_holds_the_published_captions(shared_data, tmp_path):
    source = shared_data / "captions" / "audiocaps_val.csv"
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = list(dict.fromkeys(row["youtube_id"] for row in rows))[:5]
    for youtube in wanted:
        sound(tmp_path / "clips" / f"Y{youtube}.wav", 0.02)
    out = tmp_path / "m.csv"
    said = prepared("audiocaps", source, "--audio", tmp_path / "clips", "-o", out)
    assert "captions in the files 2,475; AudioCaps 1.0 and 2.0 2,475; difference +0" in said
    clips = {clip.id.rpartition("_")[0]: set(clip.captions) for clip in read_manifest(out)}
    assert clips == {
        y: {" ".join(r["caption"].split()) for r in rows if r["youtube_id"] == y} for y in wanted
    }


def test_clotho_counts_are_the_published_ones(shared_data, tmp_path):
    source = shared_data / "captions" / "clotho_val.csv"
    with source.open(newline="", encoding="utf-8") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    name = next(name for name in rows if name != " ".join(name.split()))
    sound(tmp_path / "clips" / name, 0.02)
    out = tmp_path / "m.csv"
    said = prepared("clotho", source, "--audio", tmp_path / "clips", "-o", out)
    assert "clotho validation: captions in the files 5,225; Clotho 2.1 5,225; diff" in said
    (clip,) = read_manifest(out)
    assert clip.captions == tuple(
        " ".join(rows[name][f"caption_{number}"].split()) for number in range(1, 6)
    )


def test_simplified_names_agree_whatever_copying_did():
    assert simplified("caf\xe9: a  b") == simplified("cafe\u0301_ a b")
