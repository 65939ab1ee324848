"""`earwitness listen`: a stream of samples in, lines, files and exit codes out."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from earwitness.captioning.subtitles import parse
from earwitness.cli import app

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16000


@pytest.fixture(scope="module")
def clock() -> np.ndarray:
    """2 s of silence, 6 s of a clock, 4 s of silence."""
    sound, _ = soundfile.read(EXAMPLES / "clock.flac", dtype="float32")
    nothing = np.zeros(4 * RATE, np.float32)
    return np.concatenate([nothing[: 2 * RATE], sound[: 6 * RATE], nothing])


def test_file_of_samples_gives_captions_events_and_both_files(clock, tmp_path: Path) -> None:
    raw = tmp_path / "clock.raw"
    raw.write_bytes((clock * 32767).astype("<i2").tobytes())
    outputs = ["-o", str(tmp_path / "a.vtt"), "-o", str(tmp_path / "a.jsonl")]
    result = CliRunner().invoke(app, ["listen", "-i", str(raw), "--json", *outputs])
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records == [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert any("clock" in one["caption"] for one in records if one["type"] == "caption")
    starts = [one for one in records if one["type"] == "start" and one["event"] == "Tick-tock"]
    assert starts
    assert all(1.5 <= one["start"] <= 8.5 for one in records)
    cues = parse((tmp_path / "a.vtt").read_text()).cues
    assert len(cues) == sum(one["type"] != "start" for one in records)
    assert "listening to" in result.stderr


def test_filter_and_cool_down_pass_one_event_to_a_program(clock, tmp_path: Path) -> None:
    raw = tmp_path / "clock.raw"
    raw.write_bytes((clock * 32767).astype("<i2").tobytes())
    out = tmp_path / "out.txt"
    code = f"import sys; open({str(out)!r}, 'a').write(sys.argv[1] + '\\n')"
    program = f'{sys.executable} -c "{code}" {{text}}'
    arguments = ["--on", "clock ticking", "--cool-down", "60", "--only", "events", "--run", program]
    result = CliRunner().invoke(app, ["listen", "-i", str(raw), *arguments])
    assert result.exit_code == 0, result.output
    assert set(out.read_text().split()) == {"Tick-tock"}
    assert sum("over after" not in line for line in result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-i", "no/such"], "--input no/such: does not exist"),
        (["-i", "-", "--on", "quasar"], "the model knows no sound 'quasar'"),
        (["-i", "-", "-o", "a.srt"], "--output a.srt: expected a file ending in .jsonl, .vtt"),
        (["-i", "-", "--webhook", "x"], "--webhook 'x': expected an address"),
        (["-i", "-", "--run", "no-such-xyz"], "--run 'no-such-xyz': no such program"),
        (["-i", "-", "--mqtt", "x"], "--mqtt x: expected mqtt://"),
        (["-i", "rtsp://127.0.0.1:1/x", "--retries", "0"], "rtsp://127.0.0.1:1/x cannot be opened"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, monkeypatch) -> None:
    result = CliRunner().invoke(app, ["listen", *arguments])
    assert result.exit_code == 1
    assert sentence in str(result.exception)


def test_home_assistant_needs_mqtt() -> None:
    result = CliRunner().invoke(app, ["listen", "-i", "-", "--home-assistant"])
    assert result.exit_code == 2
    assert "needs --mqtt" in result.stderr


def test_signal_ends_it_in_order_and_without_torch(clock, tmp_path: Path) -> None:
    """The real command on a FIFO in real time, whose writer stays on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from earwitness.cli import app\n"
        f"app(['listen', '-i', {str(fifo)!r}, '--json', '--only', 'captions'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def write() -> None:
        data = (clock * 32767).astype("<i2")
        with contextlib.suppress(OSError), fifo.open("wb", buffering=0) as file:
            for start in range(0, len(data), 1600):
                file.write(data[start : start + 1600].tobytes())
                time.sleep(0.02)
            time.sleep(60)

    threading.Thread(target=write, daemon=True).start()
    assert process.stdout is not None
    record = json.loads(process.stdout.readline())
    assert record["end"] == pytest.approx(8, abs=0.3)
    assert record["time"][:4] >= "2026"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "False"
