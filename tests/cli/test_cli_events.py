"""`earwitness events`: names and borders of sounds, in four forms."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from muxing import Track, mux
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.models.sound_events import SoundEvent, events_in, joined

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16000


class Loud:
    """Finds one event from the first to the last loud sample."""

    sample_rate = RATE

    def events(self, waveform: np.ndarray, threshold: float = 0.5) -> list[SoundEvent]:
        loud = np.flatnonzero(np.abs(waveform) > threshold)
        if not len(loud):
            return []
        return [SoundEvent("Bang", "bang", loud[0] / RATE, (loud[-1] + 1) / RATE, 0.9)]


def test_event_over_the_edge_of_two_blocks_is_one() -> None:
    sound = np.zeros(70 * RATE, np.float32)
    sound[25 * RATE : 40 * RATE] = 0.8
    (event,) = events_in(Loud(), (sound, RATE), 0.5)
    assert (event.start_s, event.end_s) == pytest.approx((25.0, 40.0), abs=0.01)


def test_events_of_other_classes_and_apart_stay_apart() -> None:
    a, b = SoundEvent("A", "a", 0.0, 1.0, 0.6), SoundEvent("B", "b", 1.0, 2.0, 0.7)
    later = SoundEvent("A", "a", 1.5, 2.0, 0.8)
    assert joined([b, later, a]) == [a, b, later]


@pytest.fixture(scope="module")
def clock_then_siren(tmp_path_factory) -> Path:
    clock, _ = soundfile.read(EXAMPLES / "clock.flac", dtype="float32")
    siren, _ = soundfile.read(EXAMPLES / "siren.flac", dtype="float32")
    path = tmp_path_factory.mktemp("events") / "both.wav"
    soundfile.write(path, np.concatenate([clock[: 10 * RATE], siren[: 10 * RATE]]), RATE)
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["events", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_names_and_times(clock_then_siren) -> None:
    record = json.loads(run(clock_then_siren))
    clock = [one for one in record["events"] if one["event"] == "Tick-tock"]
    siren = [one for one in record["events"] if one["event"] == "Siren"]
    assert max(one["end"] for one in clock) <= 10.6
    assert min(one["start"] for one in siren) >= 9.4
    assert all(0.5 <= one["probability"] <= 1 for one in record["events"])


def test_csv_labels_and_subtitles_hold_the_same_events(clock_then_siren, tmp_path) -> None:
    count = len(json.loads(run(clock_then_siren))["events"])
    for name in ("e.csv", "e.txt", "e.srt"):
        run(clock_then_siren, "-o", tmp_path / name)
    with (tmp_path / "e.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    assert {"file", "start", "end", "event", "probability"} == set(rows[0])
    labels = [line.split("\t") for line in (tmp_path / "e.txt").read_text().splitlines()]
    assert len(labels) == count
    assert all(float(start) < float(end) for start, end, _ in labels)
    assert (tmp_path / "e.srt").read_text().count("-->") == count


def test_labels_of_two_files_are_refused_and_a_bad_file_does_not_stop_the_others(tmp_path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not a sound")
    good = EXAMPLES / "clock.flac"
    result = CliRunner().invoke(app, ["events", str(tmp_path / "bad.wav"), str(good)])
    assert result.exit_code == 1
    assert "bad.wav" in result.stderr
    assert json.loads(result.stdout)["file"] == str(good)
    many = ["events", str(good), str(EXAMPLES / "siren.flac"), "--format", "labels"]
    refused = CliRunner().invoke(app, many)
    assert "holds the events of one file, got 2 files" in str(refused.exception)


def test_events_are_those_of_the_track(tmp_path) -> None:
    siren, rate = soundfile.read(EXAMPLES / "siren.flac", dtype="float32")
    tracks = [Track(siren[: 5 * rate], rate), Track(np.zeros(5 * rate, np.float32), rate)]
    film = str(mux(tmp_path / "film.mkv", *tracks))
    found = CliRunner().invoke(app, ["events", film])
    assert "Siren" in found.stdout
    assert "track 1 of 2 audio tracks" in found.stderr
    assert [one["event"] for one in json.loads(run(film, "--track", "2"))["events"]] == ["Silence"]
