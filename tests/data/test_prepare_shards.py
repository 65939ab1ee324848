"""Shards: the same clips as the files, for the manifest, for training, and for other readers."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data_sets import prepared, refused, sound
from manifests import write_manifest

from earwitness import audio
from earwitness.captioning import sources
from earwitness.captioning.sources import Source, find
from earwitness.data.manifest import Clip, read_manifest
from earwitness.errors import AudioError, DataError
from earwitness.training.source import Opening
from earwitness.training.sources import ManifestSource, Recordings

KINDS = ("webdataset", "parquet")
ENDINGS = ("wav", "flac", "ogg", "wav", "flac")


def _packed(tmp_path: Path, kind: str) -> tuple[Path, Path]:
    """Five sounds as files and in shards of two; the manifest and the shard folder."""
    for number, ending in enumerate(ENDINGS):
        path = sound(tmp_path / "rec" / f"s{number}.x.{ending}", 0.1 + 0.05 * number)
        path.with_suffix(".txt").write_text(f"sound {number}\nno. {number}")
    prepared(
        *("folder", tmp_path / "rec", "-o", tmp_path / "m.csv", "--shards", tmp_path / "shards"),
        *("--shard-size", 2, "--shard-format", kind),
    )
    return tmp_path / "m.csv", tmp_path / "shards" / "train"


@pytest.mark.parametrize("kind", KINDS)
def test_shards_give_the_clips_of_the_files(tmp_path, kind):
    files, shards = _packed(tmp_path, kind)
    left, right = read_manifest(files), read_manifest(shards)
    assert len(list(shards.glob("shard-*"))) == 3
    assert [(c.id, c.captions) for c in left] == [(c.id, c.captions) for c in right]
    for _ in range(2):
        for one, other in zip(left, right, strict=True):
            assert np.array_equal(audio.load(one.audio, 16000), audio.load(other.audio, 16000))


@pytest.mark.parametrize("kind", KINDS)
def test_shards_without_their_manifest_are_read_too(tmp_path, kind):
    _, shards = _packed(tmp_path, kind)
    told = read_manifest(shards)
    (shards / "manifest.csv").unlink()
    found = read_manifest(shards)
    assert [(c.id, c.captions) for c in told] == [(c.id, c.captions) for c in found]
    assert [c.audio.read() for c in told] == [c.audio.read() for c in found]


@pytest.mark.parametrize("kind", KINDS)
def test_training_hears_the_same_from_shards(tmp_path, kind):
    files, shards = _packed(tmp_path, kind)
    heard = []
    for path in (files, shards):
        source = ManifestSource(kind="manifest", train=path, validation=path, seconds=0.1)
        splits = source.open(Opening(None, 16000, tmp_path, seed=1))
        heard.append([splits.train[(index, 2)] for index in range(len(ENDINGS))])
    for one, other in zip(*heard, strict=True):
        assert one["text"] == other["text"]
        assert np.array_equal(one["waveform"], other["waveform"])


def test_tar_is_read_by_webdataset_conventions(tmp_path):
    files, shards = _packed(tmp_path, "webdataset")
    with tarfile.open(shards / "shard-000001.tar") as tar:
        names = tar.getnames()
        assert names == ["000000002.ogg", "000000002.json", "000000003.wav", "000000003.json"]
        told = json.load(tar.extractfile("000000003.json"))
        contents = tar.extractfile("000000003.wav").read()
    assert (told["id"], told["captions"]) == ("s3.x.wav", ["sound 3", "no. 3"])
    assert contents == (tmp_path / "rec" / "s3.x.wav").read_bytes()


def test_parquet_holds_the_files_in_a_column(tmp_path):
    _, shards = _packed(tmp_path, "parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(shards / "shard-000002.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["s4.x.flac"]
    assert soundfile.info(io.BytesIO(rows[0]["bytes"])).duration == pytest.approx(0.3)


def test_foreign_webdataset_with_text_captions(tmp_path):
    wav = sound(tmp_path / "a.wav").read_bytes()
    (tmp_path / "s").mkdir()
    with tarfile.open(tmp_path / "s" / "x.tar", "w") as tar:
        for name, contents in (
            *(("in/k1.txt", b"rain\nfalls"), ("in/k1.wav", wav)),
            *(("k2.wav", wav), ("k2.json", b'{"text": "a bell", "tag": 1}'), ("k3.json", b"{}")),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    clips = read_manifest(tmp_path / "s")
    assert [(c.id, c.captions) for c in clips] == [
        ("in/k1", ("rain", "falls")),
        ("k2", ("a bell",)),
    ]
    assert len(audio.load(clips[1].audio, 16000)) == 3200


def test_every_split_has_its_own_folder(tmp_path):
    for split in ("train", "val"):
        sound(tmp_path / "rec" / split / f"{split}.wav")
    prepared(
        *("folder", tmp_path / "rec", "-o", tmp_path / "m.csv", "--shards", tmp_path / "shards")
    )
    for split, name in (("train", "train"), ("validation", "val")):
        assert [c.id for c in read_manifest(tmp_path / "shards" / split)] == [f"{name}/{name}.wav"]


def test_same_clips_give_the_same_bytes(tmp_path):
    _, shards = _packed(tmp_path, "webdataset")
    again = tmp_path / "again"
    prepared(
        *("folder", tmp_path / "rec", "-o", tmp_path / "n.csv", "--shards", again),
        *("--shard-size", 2),
    )
    for path in sorted(shards.iterdir()):
        assert path.read_bytes() == (again / "train" / path.name).read_bytes()


def test_full_folder_is_not_written_over(tmp_path):
    _, shards = _packed(tmp_path, "webdataset")
    before = sorted(shards.iterdir())
    said = refused(
        *("folder", tmp_path / "rec", "-o", tmp_path / "m.csv", "--shards", shards.parent)
    )
    assert "is not empty; shards go into a new or empty folder" in said
    assert sorted(shards.iterdir()) == before


@pytest.mark.parametrize("kind", KINDS)
def test_cut_or_lost_shard_is_an_error_and_no_sound(tmp_path, kind):
    _, shards = _packed(tmp_path, kind)
    clips = read_manifest(shards)
    first = next(iter(sorted(shards.glob("shard-000000.*"))))
    first.write_bytes(first.read_bytes()[:1000])
    with pytest.raises(AudioError, match="cannot be read"):
        audio.load(clips[0].audio, 16000)
    first.unlink()
    with pytest.raises(AudioError, match="No such file"):
        audio.load(clips[0].audio, 16000)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.tar#a.wav", "x.tar: no such shard"),
        ("x.parquet#a", "expected a row number, got 'a'"),
        ("y.tar#a.wav", "not a readable, uncompressed tar"),
    ],
)
def test_bad_place_in_a_shard_is_one_sentence(tmp_path, row, message):
    (tmp_path / "y.tar").write_bytes(b"no tar " * 200)
    (tmp_path / "m.csv").write_text(f"audio,caption\n{row},x\n")
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "m.csv")


def test_folder_without_shards_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"holds no manifest\.csv and no shards"):
        read_manifest(tmp_path)


def test_packed_clips_go_to_worker_processes_and_into_manifests(tmp_path):
    _, shards = _packed(tmp_path, "webdataset")
    clips = read_manifest(shards)
    assert pickle.loads(pickle.dumps(clips)) == clips
    write_manifest(tmp_path / "copy.jsonl", [Clip(c.id, c.place, c.captions) for c in clips])
    copy = read_manifest(tmp_path / "copy.jsonl")
    assert [c.audio.read() for c in copy] == [c.audio.read() for c in clips]


def test_file_in_a_shard_answers_as_a_path_does(tmp_path):
    files, shards = _packed(tmp_path, "webdataset")
    path, packed = read_manifest(files)[1].audio, read_manifest(shards)[1].audio
    assert packed.read() == path.read_bytes()
    assert packed.read(4) == b""
    with packed.open("rb") as stream:
        assert b"".join(iter(lambda: stream.read(7), b"")) == path.read_bytes()
    shard = (shards / "shard-000000.tar").resolve()
    assert str(packed.resolve()) == f"{shard}#000000001.flac"
    assert packed.stat().st_size == shard.stat().st_size


def test_manifests_tell_the_seconds(tmp_path):
    files, shards = _packed(tmp_path, "parquet")
    for clips in (read_manifest(files), read_manifest(shards)):
        assert [c.seconds for c in clips] == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])


def test_clips_of_shards_need_captions_for_training_too(tmp_path):
    sound(tmp_path / "rec" / "a.wav")
    prepared("folder", tmp_path / "rec", "-o", tmp_path / "m.csv", "--shards", tmp_path / "s")
    clips = read_manifest(tmp_path / "s" / "train")
    with pytest.raises(DataError, match="has no caption"):
        Recordings(clips, 1.0, 16000, 0, tmp_path / "s")


def _said(sources: list[Source]) -> list[bytes]:
    """What a listing would hand to the reader."""
    assert all(source.problem is None for source in sources)
    return [source.audio.read() for source in sources]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_captioning_hears_the_same_from_shards(tmp_path, kind):
    files, shards = _packed(tmp_path, kind)
    expected = [clip.audio.read_bytes() for clip in read_manifest(files)]  # type: ignore[union-attr]
    listed = find([str(path) for path in sorted(shards.glob("shard-*"))])
    told = sources.read_manifest(str(shards / "manifest.csv"))
    assert _said(listed) == _said(told) == expected
    assert listed[0].name == f"{shards}/{told[0].name}"
    if kind == "webdataset":
        assert _said(find([str(tmp_path / "shards")])) == expected


def test_a_manifest_without_offsets_names_sounds_in_shards(tmp_path):
    _, shards = _packed(tmp_path, "webdataset")
    (tmp_path / "list.txt").write_text("shards/train/shard-000001.tar#000000003.wav\n")
    (found,) = sources.read_manifest(str(tmp_path / "list.txt"))
    assert _said([found]) == [(tmp_path / "rec" / "s3.x.wav").read_bytes()]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("none.tar", "no such shard"),
        ("junk.tar", "not a readable, uncompressed tar"),
        ("junk.parquet", "not a readable parquet file"),
        ("texts.tar", "holds no sound"),
    ],
)
def test_a_shard_that_gives_nothing_is_one_problem(tmp_path, argument, words):
    for name in ("junk.tar", "junk.parquet", "text.txt"):
        (tmp_path / name).write_text("junk")
    with tarfile.open(tmp_path / "texts.tar", "w") as tar:
        tar.add(tmp_path / "text.txt", "text.txt")
    (found,) = find([str(tmp_path / argument)])
    assert words in (found.problem or "")


def test_a_place_in_a_shard_that_is_not_there_is_a_problem_of_its_own(tmp_path):
    _, shards = _packed(tmp_path, "webdataset")
    rows = ["file", "shard-000000.tar#no.wav", "none.tar#a.wav", "shard-000000.tar#000000000.wav"]
    (shards / "list.csv").write_text("\n".join(rows) + "\n")
    found = sources.read_manifest(str(shards / "list.csv"))
    assert [source.problem is None for source in found] == [False, False, True]
    assert "holds no 'no.wav'" in str(found[0].problem)
