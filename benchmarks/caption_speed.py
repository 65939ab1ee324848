"""Seconds to a first caption, for a 10 s clip once loaded, and clips per second from a folder.

    python benchmarks/caption_speed.py [--model pocket-lamb] [--clips 64] [--threads 2]

Prints one line of JSON. `cold_seconds` is the wall time of `earwitness caption clip.wav` in a fresh
process (also its CPU time and memory), `warm_seconds` the median of a `Captioner.caption` call,
`clips_per_second` that of a folder job for each batch size, decoding included, and
`cpu_seconds_per_clip` the CPU time of that, which other work on the machine hardly changes.
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


def cold(model: str, clip: Path) -> dict[str, float]:
    """Wall and CPU seconds and peak memory of the command on one clip; the best of two runs."""
    command = [sys.executable, "-m", "earwitness", "caption", str(clip), "--model", model]
    runs = []
    for _ in range(2):
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the command failed with {process.returncode}")
        passed = time.perf_counter() - started
        runs.append((passed, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    names = ("cold_seconds", "cold_cpu_seconds", "cold_peak_mib")
    best = [min(column) for column in zip(*runs, strict=True)]
    return {name: round(value, 2) for name, value in zip(names, best, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--json", type=Path, help="file to write the line to")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    from earwitness import Captioner
    from earwitness.captioning.local import caption_files
    from earwitness.captioning.sources import find

    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), options.clips)
        result: dict[str, object] = {"model": options.model, "threads": options.threads}
        result |= cold(options.model, clips[0])
        captioner = Captioner.load(options.model)
        warm = []
        for clip in clips[:10]:
            started = time.perf_counter()
            captioner.caption(clip)
            warm.append(time.perf_counter() - started)
        result["warm_seconds"] = round(statistics.median(warm), 3)
        rates, cpu = {}, {}
        for size in options.batch:
            started, worked = time.perf_counter(), time.process_time()
            for _ in caption_files(captioner, find([folder]), batch_size=size):
                pass
            rates[str(size)] = round(options.clips / (time.perf_counter() - started), 2)
            cpu[str(size)] = round((time.process_time() - worked) / options.clips, 4)
        result["clips_per_second"], result["cpu_seconds_per_clip"] = rates, cpu
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
