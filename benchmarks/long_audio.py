"""Time and peak memory of captioning one long sound, and whether its segments cover every second.

    python benchmarks/long_audio.py [--hours 3] [--model pocket-lamb] [--threads 2] [--video]

Writes a sound of that length (band noise, tones and silences in turn, 44.1 kHz FLAC; with --video
an MP4 that holds it as AAC), captions it in a process of its own and prints one line of JSON. The
times include loading the model; the peak is that of the captioning process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100


def write_long(path: Path, hours: float) -> float:
    """Writes the sound, one minute at a time; its length in seconds."""
    rng = np.random.default_rng(0)
    times = np.arange(60 * RATE) / RATE
    minutes = round(60 * hours)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(minutes):
            sound = 0.02 * rng.standard_normal(len(times))
            sound += 0.2 * np.sin(2 * np.pi * rng.uniform(100, 4000) * times) * (times % 20 < 7)
            sound[(times > 40) & (times < 52)] = 0.0
            file.write(sound.astype(np.float32))
    return 60.0 * minutes


def as_video(sound: Path) -> Path:
    """An MP4 with the sound as AAC and a black picture."""
    video = sound.with_suffix(".mp4")
    picture = ["-f", "lavfi", "-i", "color=s=64x64:r=1"]
    command = ["ffmpeg", "-v", "error", "-i", str(sound), *picture, "-shortest", str(video)]
    subprocess.run(command, check=True)
    return video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--video", action="store_true")
    parser.add_argument("--json", type=Path, help="file to write the line to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "long.flac")
        seconds = write_long(sound, options.hours)
        source = as_video(sound) if options.video else sound
        command = [sys.executable, "-m", "earwitness", "caption", str(source), "--json", "-q"]
        command += ["--model", options.model, "--timed"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        passed = time.perf_counter() - started
    record = json.loads(done.stdout)
    segments = record["segments"]
    gaps = sum(left["end"] != right["start"] for left, right in pairwise(segments))
    result = {
        "hours": options.hours,
        "source": source.suffix,
        "model": record["model"],
        "threads": options.threads,
        "wall_seconds": round(passed, 1),
        "times_real_time": round(seconds / passed, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "segments": len(segments),
        "silent": sum(segment.get("gate") == "silence" for segment in segments),
        "gaps": gaps,
        "covered_seconds": round(segments[-1]["end"] - segments[0]["start"], 2),
    }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
