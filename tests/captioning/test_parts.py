"""Folders of parquet parts: what they hold, how a job goes on, and what is refused."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from earwitness.captioning.parts import Parts
from earwitness.errors import DataError


def record(name: str) -> dict:
    return {"file": name, "caption": "rain", "score": 0.5, "model": "m", "seconds": 1.0}


def written(folder: Path, names: list[str], failed: list[str] = (), **options) -> Parts:
    sink = Parts(folder, "abc", **options)
    sink.add([record(name) for name in names if name not in sink.done])
    for name in failed:
        sink.failed(name, f"{name} is not a sound")
    sink.finish()
    sink.close()
    return sink


def rows(folder: Path) -> list[tuple[str, str | None]]:
    return [(row["file"], row["error"]) for row in pq.read_table(folder).to_pylist()]


def test_parts_hold_a_row_per_sound_failed_or_not(tmp_path):
    written(tmp_path / "out", ["a", "b"], ["c"])
    assert rows(tmp_path / "out") == [("a", None), ("b", None), ("c", "c is not a sound")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part-000001.parquet"]


def test_part_is_written_when_it_is_full_without_waiting_for_the_end(tmp_path):
    sink = Parts(tmp_path, "abc", part_rows=2)
    sink.add([record("a"), record("b")])
    assert rows(tmp_path / "part-000001.parquet") == [("a", None), ("b", None)]
    sink.close()


def test_next_run_knows_what_is_done_and_tries_failures_again(tmp_path):
    written(tmp_path, ["a", "b"], ["c"])
    written(tmp_path, ["a", "b", "c", "d"])
    assert sorted(rows(tmp_path)) == [("a", None), ("b", None), ("c", None), ("d", None)]


def test_part_of_failures_alone_goes_when_they_are_tried_again(tmp_path):
    written(tmp_path, [], ["c"])
    written(tmp_path, ["c"])
    assert rows(tmp_path) == [("c", None)]


def test_names_that_are_not_utf8_are_done_too(tmp_path):
    name = b"\xe9.wav".decode(errors="surrogateescape")
    written(tmp_path, [name])
    sink = Parts(tmp_path, "abc")
    assert sink.done == {name}
    sink.close()


def test_earlier_records_are_as_they_were_added(tmp_path):
    written(tmp_path, ["a"], ["b"])
    sink = Parts(tmp_path, "abc")
    assert list(sink.earlier()) == [record("a")]
    sink.close()


def test_overwrite_starts_anew(tmp_path):
    written(tmp_path, ["a"])
    written(tmp_path, ["b"], overwrite=True)
    assert rows(tmp_path) == [("b", None)]


def test_remote_folder_is_written_and_continued():
    folder = Path("memory://test_parts/out")
    written(folder, ["a"])
    written(folder, ["a", "b"])
    sink = Parts(folder, "abc")
    assert sink.done == {"a", "b"}
    assert [one["file"] for one in sink.earlier()] == ["a", "b"]
    sink.close()


def test_url_of_a_file_is_a_folder_here(tmp_path):
    written(Path(f"file://{tmp_path}/out"), ["a"])
    assert rows(tmp_path / "out") == [("a", None)]


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    sink = Parts(tmp_path, "abc")
    with pytest.raises(DataError, match="another run is writing to it"):
        Parts(tmp_path, "abc")
    sink.close()


def test_folder_of_other_settings_other_tables_or_damage_is_refused(tmp_path):
    written(tmp_path, ["a"])
    with pytest.raises(DataError, match="another model or other settings"):
        Parts(tmp_path, "other")
    part = tmp_path / "part-000001.parquet"
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    with pytest.raises(DataError, match="was not written by earwitness caption"):
        Parts(tmp_path, "abc")
    part.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable parquet file"):
        Parts(tmp_path, "abc")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        Parts(part, "abc")


def test_file_system_that_is_unknown_is_one_sentence():
    with pytest.raises(DataError, match="unknown file system 'nowhere'"):
        Parts(Path("nowhere://bucket/out"), "abc")
