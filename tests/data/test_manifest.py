"""Manifests: three formats, one meaning."""

import json

import pytest
from manifests import write_manifest

from earwitness.data.manifest import Clip, read_manifest
from earwitness.errors import DataError


def test_csv_with_newlines_in_cells_and_numbered_captions(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('file,caption_1,caption_2\na.wav,"a dog\nbarks",a dog\nb.wav,rain,\n')
    clips = read_manifest(path)
    assert clips[0] == Clip("a.wav", tmp_path / "a.wav", ("a dog barks", "a dog"))
    assert clips[1].captions == ("rain",)


def test_json_lines_round_trip(tmp_path):
    clips = [Clip("1", (tmp_path / "a b.wav").resolve(), ("x", "y")), Clip("2", tmp_path / "c.wav")]
    write_manifest(tmp_path / "m.jsonl", clips)
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])["audio"] == "a b.wav"
    assert [c.captions for c in read_manifest(tmp_path / "m.jsonl")] == [("x", "y"), ()]


def test_parquet_reads_as_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"audio": ["a.wav"], "caption": ["rain"]}), tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == [Clip("a.wav", tmp_path / "a.wav", ("rain",))]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "name,caption\nx,y\n", "names no audio"),
        ("m.csv", "audio\na.wav\na.wav\n", "is listed twice"),
        ("m.csv", "audio\n", "no rows"),
        ("m.jsonl", "{not json}\n", "line 1: not JSON"),
        ("m.xlsx", "", "a manifest is .csv, .tsv, .jsonl"),
    ],
)
def test_bad_manifest_is_one_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.csv: no such file; expected a manifest as .csv"):
        read_manifest(tmp_path / "nowhere.csv")
