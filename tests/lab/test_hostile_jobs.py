"""The campaigns of killed jobs and odd names notice what they are there to notice."""

from pathlib import Path

import pytest

from earwitness_lab.hostile import campaign, jobs


@pytest.mark.parametrize("found", [["a.wav"], ["a.wav", "b.wav", "b.wav"], ["a.wav", "c.wav"]])
def test_missing_doubled_and_changed_names_are_lost(tmp_path, monkeypatch, found):
    def caption(model, clips, out, kind):
        out.write_text("file\n" + "".join(f"n/{name}\n" for name in found))
        return 0

    monkeypatch.setattr(jobs, "_caption", caption)
    out = tmp_path / "x.csv"
    assert jobs._named("m", Path("n"), out, "csv", {b"a.wav", b"b.wav"}) == "lost"
    found[:] = ["b.wav", "a.wav"]
    assert jobs._named("m", Path("n"), out, "csv", {b"a.wav", b"b.wav"}) == "captioned"


def test_kills_are_counted_and_nothing_is_lost(tmp_path):
    section = jobs.kills(tmp_path, range(2), 0)
    assert section.counts == {"captioned": 2}
    assert section.bad == []


def test_a_job_that_lost_a_row_to_a_kill_is_noticed(tmp_path, monkeypatch):
    real = jobs._caption

    def careless(model, clips, out, kind):
        failed = real(model, clips, out, kind)
        if clips.name == "kills" and "whole" not in out.name and kind != "parquet":
            out.write_bytes(out.read_bytes()[:-1])
        return failed

    monkeypatch.setattr(jobs, "_caption", careless)
    monkeypatch.setattr(jobs, "_KINDS", ("csv",))
    assert jobs.kills(tmp_path, range(1), 0).counts == {"lost": 1}


def test_workers_share_the_numbers_and_their_counts_add_up(tmp_path):
    with campaign.workers(2) as pool:
        section = campaign.side_by_side(pool, 2, _counted, tmp_path, 7, 3)
    assert section.counts == {"captioned": 4, "refused": 3}
    assert section.number == 7


def _counted(place: Path, numbers: range, seed: int) -> campaign.Section:
    with campaign.Section("counted").timed() as section:
        for number in numbers:
            section.add(f"{place} {seed}", "refused" if number % 2 else "captioned")
    return section
