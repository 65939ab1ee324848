"""What a Ray worker does, without Ray: places of sounds, rows in and out, file systems."""

import contextlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.columns import outcome_of, row_of, schema
from earwitness.captioning.local import outcomes
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.ray.listing import find_anywhere, manifest_anywhere
from earwitness.captioning.ray.places import source_of, sources_in, table_of
from earwitness.captioning.ray.remote import as_fsspec
from earwitness.captioning.ray.worker import Extras, Work, Worker
from earwitness.captioning.sources import Source, find
from earwitness.errors import ConfigError, DataError
from earwitness.models.sound_events import events_in
from earwitness.runtime import RuntimeCaptioner

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
FAST = CaptionOptions(beam=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A folder, a tar and a parquet file with the examples, a manifest, and a broken file."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "clips").mkdir()
    for name in ("siren", "clock"):
        shutil.copy(EXAMPLES / f"{name}.flac", folder / "clips")
    (folder / "clips" / "broken.wav").write_bytes(b"RIFF but no more")
    with tarfile.open(folder / "shard.tar", "w") as tar:
        tar.add(EXAMPLES / "storm.flac", "storm.flac")
        tar.add(EXAMPLES / "synthesize.py", "storm.txt")
    sounds = [(EXAMPLES / f"{name}.flac").read_bytes() for name in ("alarm", "clock")]
    pq.write_table(pa.table({"bytes": sounds}), folder / "rows.parquet", row_group_size=1)
    (folder / "list.csv").write_text("file\nclips/siren.flac\nshard.tar#storm.flac\n")
    return folder


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(Work(ModelChoice("pocket-lamb", FAST, "cpu")))


def inputs(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("clips", "shard.tar", "rows.parquet")]


def local(sources: list[Source]) -> list[Outcome]:
    told = {"on_ready": lambda: None, "on_seconds": lambda _: None}
    choice = ModelChoice("pocket-lamb", FAST, "cpu")
    return [one for some in outcomes(choice, sources, False, **told) for one in some]


def test_rows_are_the_records_of_the_local_engine_byte_for_byte(corpus, worker):
    found = [outcome_of(row) for row in worker(table_of(find(inputs(corpus)))).to_pylist()]
    expected = local(find(inputs(corpus)))
    assert [one.name for one in found] == [one.name for one in expected]
    assert sum(one.record is not None for one in found) == 5
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.error == theirs.error
        plain = {k: v for k, v in (mine.record or {}).items() if k != "events"}
        assert json.dumps(plain) == json.dumps(theirs.record or {})


def test_events_are_those_of_the_events_command(corpus, worker):
    siren = corpus / "clips" / "siren.flac"
    [row] = worker(table_of([Source("siren", str(siren))])).to_pylist()
    expected = events_in(RuntimeCaptioner.load().classes, siren, 0.5)
    assert [(e["start"], e["event"]) for e in row["events"]] == [
        (round(e.start_s, 3), e.name) for e in expected
    ]


def test_cut_sounds_and_candidates_come_back_as_they_went():
    part = {"start": 0.0, "end": 1.0, "caption": "rain", "score": None, "gate": "silence"}
    several = [{"caption": "rain", "score": 0.5}, {"caption": "hail", "score": 0.4, "rerank": 0.1}]
    record = {"file": "a", "caption": "rain", "score": None, "model": "m", "seconds": 2.0}
    record |= {"notes": ["odd"], "segments": [part, part | {"captions": several}]}
    outcome = Outcome("a", record, None, ("odd",))
    [row] = pa.Table.from_pylist([row_of(outcome)], schema=schema()).to_pylist()
    assert outcome_of(row) == outcome
    assert json.dumps(outcome_of(row).record) == json.dumps(record)


def test_name_that_is_not_utf8_comes_back(tmp_path):
    name = b"\xe9t\xe9.wav".decode(errors="surrogateescape")
    [row] = table_of([Source(name, tmp_path / name)]).to_pylist()
    assert source_of(row) == Source(name, str(tmp_path / name))
    [row] = pa.Table.from_pylist([row_of(Outcome(name, None, "x"))], schema=schema()).to_pylist()
    assert row["file"] == "\\xe9t\\xe9.wav"
    assert outcome_of(row).name == name


def test_urls_give_the_sounds_of_the_folder(corpus):
    url = f"file://{corpus}"
    found = find_anywhere([url], include=["*.flac", "*.tar", "*.parquet"])
    here = find([str(corpus)], include=["*.flac", "*.tar", "*.parquet"])
    found.sort(key=lambda one: one.name)
    here.sort(key=lambda one: one.name)
    assert [one.name for one in found] == [f"file://{one.name}" for one in here]
    again = [source_of(row) for row in table_of(found).to_pylist()]
    for mine, theirs in zip(again, here, strict=True):
        content = theirs.audio.read() if hasattr(theirs.audio, "read") else None
        assert mine.audio.read() == (content or Path(theirs.audio).read_bytes())


def test_filesystem_of_pyarrow_holds_the_sounds(corpus, worker):
    files = SubTreeFileSystem(str(corpus), LocalFileSystem())
    found = find_anywhere(["clips"], exclude=["broken.wav"], files=files)
    assert [one.name for one in found] == ["clips/clock.flac", "clips/siren.flac"]
    rows = table_of(found, own_files=True).to_pylist()
    sound = source_of(rows[1], as_fsspec(files)).audio
    assert sound.read() == (EXAMPLES / "siren.flac").read_bytes()


def test_manifest_by_url_names_files_beside_it(corpus):
    found = manifest_anywhere(f"file://{corpus}/list.csv")
    assert [one.name for one in found] == ["clips/siren.flac", "shard.tar#storm.flac"]
    for one, name in zip(found, ("siren", "storm"), strict=True):
        assert one.audio.read() == (EXAMPLES / f"{name}.flac").read_bytes()


def test_manifest_of_urls_is_read(corpus, tmp_path):
    (tmp_path / "list.txt").write_text(f"file://{corpus}/clips/siren.flac\n")
    [one] = manifest_anywhere(str(tmp_path / "list.txt"))
    assert one.audio.read() == (EXAMPLES / "siren.flac").read_bytes()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nowhere://bucket/x", "unknown file system 'nowhere'"),
        ("file:///nowhere/at/all", "cannot be read"),
    ],
)
def test_place_that_cannot_be_reached_is_one_sentence(url, sentence):
    problems = []
    with contextlib.suppress(DataError):
        problems = [one.problem for one in find_anywhere([url])]
    if not problems:
        with pytest.raises(DataError) as caught:
            find_anywhere([url])
        problems = [str(caught.value)]
    assert sentence in problems[0]


def test_standard_input_is_refused():
    with pytest.raises(ConfigError, match="workers cannot read standard input"):
        table_of([Source("-", io.BytesIO(b"RIFF"))])


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"bytes": [b"x"], "path": ["a.flac"], "label": [1]}, "a.flac"),
        ({"audio": [{"bytes": b"x", "path": "b.flac"}], "label": [1]}, "b.flac"),
        ({"flac": [b"x"], "__key__": ["c"], "label": [1]}, "c"),
        ({"audio": [b"x"], "label": [1]}, "row 0"),
    ],
)
def test_columns_of_other_readers_are_known(columns, name):
    [source], kept = sources_in(pa.table(columns))
    assert source == Source(name, b"x")
    assert "label" in kept
    assert not {"bytes", "audio", "flac"} & set(kept)


def test_dataset_of_paths_is_known():
    [first, second], kept = sources_in(pa.table({"file": ["a.wav", "file:///b.wav"]}))
    assert first == Source("a.wav", "a.wav")
    assert second.audio.path == "/b.wav"
    assert kept == ["file"]


def test_dataset_without_sounds_is_refused_by_its_columns():
    with pytest.raises(DataError, match="has the columns x, y; expected one with the files"):
        sources_in(pa.table({"x": [1], "y": [2]}))


def test_sound_that_does_not_fit_is_a_row_and_the_others_are_captioned(corpus, monkeypatch):
    worker = Worker(Work(ModelChoice("pocket-lamb", FAST, "cpu"), extras=Extras(events=False)))
    own = worker._captioner.caption_waveforms

    def too_large(waveforms, decoding=None):
        if any(len(one) > 9 * worker._captioner.sample_rate for one in waveforms):
            raise ConfigError("10 s of sound do not fit in memory at once")
        return own(waveforms, decoding)

    monkeypatch.setattr(worker._captioner, "caption_waveforms", too_large)
    found = worker(table_of(find([str(EXAMPLES)]))).to_pylist()
    good = [row["file"] for row in found if row["error"] is None]
    assert [Path(name).name for name in good] == ["alarm.flac"]
    assert {row["error"] for row in found[1:]} == {"10 s of sound do not fit in memory at once"}
    assert np.all([row["caption"] is None for row in found[1:]])


def test_recipe_for_hugging_face_datasets_gives_the_captions_of_the_captioner(monkeypatch, capsys):
    pytest.importorskip("datasets", reason="needs the extra hub")
    page = (EXAMPLES.parent / "docs" / "corpus.md").read_text("utf-8")
    [block] = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "from datasets" in b]
    monkeypatch.chdir(EXAMPLES.parent)
    names = {}
    exec(compile(block, "corpus.md", "exec"), names)
    expected = [names["captioner"].caption(EXAMPLES / f"{n}.flac") for n in ("siren", "clock")]
    assert names["clips"]["caption"][:] == [one.text for one in expected]
    assert names["clips"]["score"][:] == [one.score for one in expected]
    assert expected[0].text in capsys.readouterr().out
