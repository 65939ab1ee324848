"""A table is the same for every command, however spreadsheets and people wrote it."""

import csv
import threading
import unicodedata
from pathlib import Path

import pytest

from earwitness.captioning.sources import read_manifest as read_sources
from earwitness.data.captions import read_audiocaps
from earwitness.data.manifest import read_manifest
from earwitness.errors import DataError
from earwitness.evaluation.files import match, read_predictions, read_references
from earwitness.gap import load_captions
from earwitness.io.tables import open_table, read_table
from earwitness.io.text_files import decode, url_in
from earwitness_lab.cli.scenes import read_captions

TABLE = 'file_name,caption\ncafé.wav,"a dog barks, twice"\nb.wav,"rain\nfalls"\n'
ROWS = [
    {"file_name": "café.wav", "caption": "a dog barks, twice"},
    {"file_name": "b.wav", "caption": "rain\nfalls"},
]
FORMS = {
    "utf-8": TABLE.encode(),
    "byte order mark": TABLE.encode("utf-8-sig"),
    "utf-16": TABLE.encode("utf-16"),
    "utf-16 big end": b"\xfe\xff" + TABLE.encode("utf-16-be"),
    "utf-16 without mark": TABLE.encode("utf-16-le"),
    "utf-32": TABLE.encode("utf-32"),
    "cp1252": TABLE.encode("cp1252"),
    "semicolons": TABLE.replace(",", ";", 1).replace("wav,", "wav;").encode(),
    "tabs": TABLE.replace(",", "\t", 1).replace("wav,", "wav\t").encode(),
    "sep=": b"sep=;\r\n" + TABLE.replace(",", ";", 1).replace("wav,", "wav;").encode(),
    "comments": b"# made by hand\n" + TABLE.encode(),
    "blank lines": b"\n\n" + TABLE.encode() + b"\n\n",
    "empty columns": TABLE.replace("caption\n", "caption,\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_csv_is_the_same_table(tmp_path: Path, form: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(FORMS[form])
    wanted = [{name: row[name] for name in ("file_name", "caption")} for row in ROWS]
    found = read_table(path).rows
    assert [{name: row[name] for name in ("file_name", "caption")} for row in found] == wanted


@pytest.mark.parametrize("form", [f for f in FORMS if f not in ("comments", "empty columns")])
def test_every_command_reads_every_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(FORMS[form])
    assert [clip.id for clip in read_manifest(path)] == ["café.wav", "b.wav"]
    assert [source.name for source in read_sources(str(path))] == ["café.wav", "b.wav"]
    assert list(read_predictions(path)) == ["café.wav", "b.wav"]
    assert read_references(path)["b.wav"] == ["rain\nfalls"]
    assert load_captions(path)[0] == ["a dog barks, twice", "rain\nfalls"]
    assert read_captions(path) == ["a dog barks, twice", "rain falls"]
    other = tmp_path / "audiocaps.csv"
    other.write_bytes(TABLE.replace("file_name", "youtube_id").encode("utf-16"))
    assert read_audiocaps(other)[1].caption == "rain falls"


def test_composed_and_decomposed_names_are_one_clip(tmp_path: Path) -> None:
    predictions, references = tmp_path / "p.csv", tmp_path / "r.csv"
    predictions.write_text("file_name,caption\ncafe\u0301.wav,a dog barks\nb.wav,rain falls\n")
    references.write_text("file_name,caption_1\ncaf\u00e9.wav,a dog barks\nb.wav,rain falls\n")
    found = match(read_predictions(predictions), read_references(references))
    assert found.ids == ["caf\u00e9.wav", "b.wav"]
    assert found.notes == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_manifest_finds_the_file_whose_name_is_in_another_form(tmp_path: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (tmp_path / unicodedata.normalize(form, "café.wav")).touch()
    (tmp_path / "m.csv").write_text("audio\n" + unicodedata.normalize(other, "café.wav") + "\n")
    (clip,) = read_manifest(tmp_path / "m.csv")
    assert isinstance(clip.audio, Path)
    assert clip.audio.exists()
    (source,) = read_sources(str(tmp_path / "m.csv"))
    assert isinstance(source.audio, Path)
    assert source.audio.exists()


def test_coco_results_and_references_match_by_image(tmp_path: Path) -> None:
    results, references = tmp_path / "coco_res.json", tmp_path / "coco_ref.json"
    results.write_text('[{"image_id":1,"caption":"a dog"},{"image_id":2,"caption":"rain"}]')
    references.write_text(
        '{"images":[{"id":1},{"id":2}],"annotations":[{"image_id":1,"id":5,"caption":"a dog"},'
        '{"image_id":2,"id":6,"caption":"rain"},{"image_id":2,"id":7,"caption":"it rains"}]}'
    )
    found = match(read_predictions(results), read_references(references))
    assert found.ids == ["1", "2"]
    assert found.candidates == ["a dog", "rain"]
    assert found.references == [["a dog"], ["rain", "it rains"]]


def test_coco_references_go_by_file_name_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    path.write_text(
        '{"images":[{"id":1,"file_name":"a.wav"}],"annotations":[{"image_id":1,"caption":"rain"}]}'
    )
    assert read_references(path, id_column="file_name") == {"a.wav": ["rain"]}


def test_coco_image_without_annotation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    path.write_text('{"images":[{"id":1},{"id":9}],"annotations":[{"image_id":1,"caption":"x"}]}')
    with pytest.raises(DataError, match="no reference for '9'"):
        read_references(path)


def test_huge_cell_is_read_and_the_limit_of_the_csv_module_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "t.csv"
    path.write_text(f"file,caption\na.wav,{'x' * (before + 1)}\nb.wav,y\n")
    limits = []
    for _, row in open_table(path).rows:
        limits.append(csv.field_size_limit())
        assert row["file"] in ("a.wav", "b.wav")
    assert limits == [before, before]
    threads = [threading.Thread(target=read_table, args=(path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert csv.field_size_limit() == before


def test_list_of_utf8_names_with_one_that_is_not_keeps_the_others() -> None:
    found = decode("aé.wav\ncafé.wav\nñandú.wav\n".encode() + b"caf\xe9.wav\n")
    assert found.encoding == "utf-8"
    assert found.text.split("\n")[:3] == ["aé.wav", "café.wav", "ñandú.wav"]
    assert found.text.encode("utf-8", "surrogateescape").endswith(b"caf\xe9.wav\n")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone/t.csv", None, "there is no folder .*gone; expected a table as .csv"),
        ("t.csv", None, "t.csv: no such file; expected a table as .csv"),
        ("t.xlsx", b"PK", "unknown format '.xlsx'; a table is .csv, .tsv"),
        ("t.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "not a readable table .it is not text"),
        ("t.csv", b"a,b\n1,2,3\n", "line 2: 3 cells, but the header has 2"),
        ("t.csv", b'a,b\n1,"never closed\n', "not a readable table .unexpected end of data"),
        ("t.jsonl", b'{"a": 1}\n{"a":\n', "line 2: not JSON"),
        ("t.jsonl", b"\n3\n", "line 2: expected an object, got 3"),
        ("t.json", b"{", "not readable as JSON"),
        ("t.json", b"3", "expected a list of objects"),
        ("t.parquet", b"PAR", "not a readable parquet file"),
    ],
)
def test_what_is_no_table_is_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_folder_is_called_a_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    for path in (tmp_path / "t.csv", tmp_path):
        with pytest.raises(DataError, match="is a folder; expected a table"):
            read_table(path)


@pytest.mark.parametrize("url", ["https://example.org/refs.csv", "s3://bucket/refs.csv"])
def test_url_is_refused_as_a_url(tmp_path: Path, url: str) -> None:
    for read in (read_table, read_manifest, read_sources, lambda u: read_predictions(Path(u))):
        with pytest.raises(DataError, match=f"{url}: is a URL; expected a file"):
            read(url)
    (tmp_path / "m.csv").write_text(f"audio\n{url}\n")
    with pytest.raises(DataError, match=f"row 1: {url} is a URL"):
        read_manifest(tmp_path / "m.csv")
    (source,) = read_sources(str(tmp_path / "m.csv"))
    assert source.problem == f"{url} is a URL; expected a file on this computer"


@pytest.mark.parametrize("name", ["C:/clips/a.wav", "a.wav", "clips://", "x/http://y", "b:c"])
def test_paths_are_no_urls(name: str) -> None:
    assert url_in(name) is None
