"""The campaigns of killed jobs and odd names notice what they are there to notice."""

from pathlib import Path

import pytest

from earwitness_lab.hostile import jobs


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
    section = jobs.kills(tmp_path, 2, 0)
    assert sum(section.counts.values()) >= 2
    assert section.counts["captioned"] == sum(section.counts.values())
    assert section.bad == []
