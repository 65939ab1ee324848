"""Reading and matching predictions and references; every misfit is named."""

import json
from pathlib import Path

import pytest

from earwitness.errors import DataError
from earwitness.evaluation.files import match, read_predictions, read_references


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_csv_cells_keep_their_newlines(tmp_path: Path):
    path = write(
        tmp_path / "p.csv", 'file,caption\r\na.wav,"a dog\nbarks, twice"\r\nb.wav,rain\r\n'
    )
    assert read_predictions(path) == {"a.wav": "a dog\nbarks, twice", "b.wav": "rain"}


def test_csv_with_byte_order_mark_and_spaces_in_the_header_is_read(tmp_path: Path):
    path = write(tmp_path / "p.csv", "\ufefffile, caption\na.wav,rain\n")
    assert read_predictions(path) == {"a.wav": "rain"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"id": "a", "caption": "rain"}\n\n{"id": "b", "text": "a dog"}\n'),
        ("p.json", '{"a": "rain", "b": "a dog"}'),
        ("p.json", '[{"clip": "a", "prediction": "rain"}, {"clip": "b", "prediction": "a dog"}]'),
        ("p.tsv", "fname\tcandidate\na\train\nb\ta dog\n"),
    ],
)
def test_every_prediction_format_gives_the_same_captions(tmp_path: Path, name: str, text: str):
    assert read_predictions(write(tmp_path / name, text)) == {"a": "rain", "b": "a dog"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "file,caption_1,caption_2\na,rain,it rains\nb,a dog,\n"),
        ("r.csv", "youtube_id,caption\na,rain\na,it rains\nb,a dog\n"),
        (
            "r.jsonl",
            '{"id": "a", "references": ["rain", "it rains"]}\n{"id": "b", "caption": "a dog"}',
        ),
        ("r.json", '{"a": ["rain", "it rains"], "b": "a dog"}'),
    ],
)
def test_every_reference_format_gives_the_same_references(tmp_path: Path, name: str, text: str):
    expected = {"a": ["rain", "it rains"], "b": ["a dog"]}
    assert read_references(write(tmp_path / name, text)) == expected


def test_folder_of_a_captioning_run_is_read(tmp_path: Path):
    write(tmp_path / "captions.jsonl", '{"path": "x/a.wav", "text": "rain", "score": -0.4}\n')
    assert read_predictions(tmp_path) == {"x/a.wav": "rain"}


def test_failed_clip_of_a_run_counts_as_missing(tmp_path: Path):
    lines = [{"file": "a.wav", "caption": "rain"}, {"file": "b.wav", "error": "unreadable"}]
    path = write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"1 of 2 clips have no prediction: 'b\.wav'"):
        match(read_predictions(path), {"a.wav": ["rain"], "b.wav": ["a dog"]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "id,caption\na,x\nb,y\na,z\n", "more than one caption for 'a'"),
        ("p.csv", "id,words\na,x\n", "line 2: no caption column among id, words"),
        ("p.csv", "key,caption\na,x\n", "no id column among key, caption"),
        ("p.csv", "id,caption\na,x,y\n", "line 2: 3 cells, but the header has 2"),
        ("p.csv", "id,caption\n", "holds no captions"),
        ("p.jsonl", '{"id": "a", "caption": 3}', "expected text in column 'caption', got '3'"),
        ("p.jsonl", '{"id": "a"\n', "line 1: not JSON"),
        ("p.jsonl", "[1]\n", "expected an object"),
        ("p.jsonl", '{"id": [1], "caption": "x"}', r"number as the id in column 'id', got \[1\]"),
        ("p.xml", "", "unknown format '.xml'"),
        ("p.json", "3", "expected a list of objects"),
    ],
)
def test_bad_predictions_are_refused_with_a_sentence(tmp_path, name: str, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read_predictions(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,caption_1\na,x\na,y\n", "more than one row of references for 'a'"),
        ("file,caption_1,caption_2\na,x,y\nb,,\n", "no reference for 'b'"),
        ("file,words\na,x\n", "no references column"),
        ("file,caption_1\n", "holds no references"),
    ],
)
def test_bad_references_are_refused_with_a_sentence(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read_references(write(tmp_path / "r.csv", text))


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere.csv: no such file"):
        read_predictions(tmp_path / "nowhere.csv")


def test_binary_file_is_refused(tmp_path: Path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\r")
    with pytest.raises(DataError, match="not a readable file"):
        read_predictions(path)


def test_missing_and_extra_ids_are_named():
    references = {f"clip{n}": ["x"] for n in range(8)}
    with pytest.raises(DataError) as caught:
        match({"clip0": "x", "other": "y"}, references)
    message = str(caught.value)
    assert "7 of 8 clips have no prediction: 'clip1', 'clip2'" in message
    assert "and 2 more" in message
    assert "1 prediction has no references: 'other'" in message


def test_partial_keeps_the_common_clips_and_names_the_rest():
    found = match({"a": "x", "c": "z"}, {"b": ["r"], "a": ["q"]}, partial=True)
    assert (found.ids, found.candidates, found.references) == (["a"], ["x"], [["q"]])
    assert len(found.notes) == 2


def test_no_common_id_is_an_error_even_with_partial():
    with pytest.raises(DataError, match="no prediction"):
        match({"a": "x"}, {"b": ["r"]}, partial=True)


def test_ids_match_by_file_name_and_then_without_the_audio_suffix():
    by_name = match({"clips/a.wav": "x"}, {"a.wav": ["r"]})
    by_stem = match({"clips\\a.wav": "x"}, {"a.flac": ["r"]})
    assert by_name.ids == ["a.wav"]
    assert by_name.notes == ["ids matched by file name"]
    assert by_stem.ids == ["a.flac"]


def test_file_names_that_collide_are_not_matched_by_name():
    with pytest.raises(DataError, match="no prediction"):
        match({"x/a.wav": "x", "y/a.wav": "y"}, {"a.wav": ["r"]})


def test_dots_in_an_id_are_no_suffix():
    found = match({"x/clip.v1": "one", "x/clip.v2": "two"}, {"clip.v2": ["r"], "clip.v1": ["s"]})
    assert found.candidates == ["two", "one"]
