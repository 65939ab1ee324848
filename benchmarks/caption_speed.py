"""Seconds to a first caption, for a 10 s clip once loaded, and clips a second from a folder.

    python benchmarks/caption_speed.py [--model pocket-lamb] [--clips 64] [--threads 2]

Prints one line of JSON. `cold_seconds` is the wall time of `earwitness caption clip.wav` in a fresh
process, `warm_seconds` the median of a `Captioner.caption` call, `clips_per_second` that of a
folder job for each batch size, decoding included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100


def write_clips(folder: Path, count: int) -> list[Path]:
    """Clips of 10 s: a tone that comes and goes in noise."""
    rng = np.random.default_rng(0)
    times = np.arange(10 * RATE) / RATE
    paths = [folder / f"{number:04}.wav" for number in range(count)]
    for path in paths:
        sound = 0.02 * rng.standard_normal(len(times))
        sound += 0.2 * np.sin(2 * np.pi * rng.uniform(100, 4000) * times) * (times % 2 < 1)
        soundfile.write(path, sound, RATE)
    return paths


def cold(model: str, clip: Path) -> float:
    """Wall seconds of the command on one clip; the better of two runs."""
    command = [sys.executable, "-m", "earwitness", "caption", str(clip), "--model", model]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    from earwitness import Captioner
    from earwitness.captioning.local import caption_files
    from earwitness.captioning.sources import find

    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), options.clips)
        result: dict[str, object] = {"model": options.model, "threads": options.threads}
        result["cold_seconds"] = round(cold(options.model, clips[0]), 2)
        captioner = Captioner.load(options.model)
        warm = []
        for clip in clips[:10]:
            started = time.perf_counter()
            captioner.caption(clip)
            warm.append(time.perf_counter() - started)
        result["warm_seconds"] = round(statistics.median(warm), 3)
        rates = {}
        for size in (1, 4, 8, 16, 32):
            started = time.perf_counter()
            for _ in caption_files(captioner, find([folder]), batch_size=size):
                pass
            rates[str(size)] = round(options.clips / (time.perf_counter() - started), 2)
        result["clips_per_second"] = rates
    print(json.dumps(result))


if __name__ == "__main__":
    main()
