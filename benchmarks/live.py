"""Latency and memory of listening: a day simulated at full speed, and the command in real time.

    python benchmarks/live.py [--hours 24] [--model pocket-lamb] [--real-time 60]

The day: hiss at -68 dB, and every `--every` seconds one of the example sounds, cut to 2 to 6 s, fed
to `LiveCaptioner` in pieces of 0.1 s. Latency is counted from the end of each sound to its report:
the sound that had to arrive by then, and the time that the computation took, on the clock and of
processors, which does not depend on what else the machine does. Memory is that of the process,
asked each simulated hour. `--real-time` writes such a stream into a FIFO at its own pace
for so many seconds and takes the times at which `earwitness listen` prints.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from earwitness import Captioner
from earwitness.live.captioner import LiveCaptioner
from earwitness.live.filters import class_head

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RATE = 16_000
PIECE = 1600
HISS = 0.0004


class Day:
    """A stream of pieces of 0.1 s, made as it is needed."""

    def __init__(self, every: int, seed: int = 0) -> None:
        self._random, self._every = np.random.default_rng(seed), every
        names = ("clock", "siren", "storm", "alarm")
        self._sounds = [soundfile.read(EXAMPLES / f"{n}.flac", dtype="float32")[0] for n in names]

    def cycle(self) -> tuple[np.ndarray, float, float]:
        """`every` seconds of the day, and where their sound begins and ends."""
        cycle = HISS * self._random.standard_normal(self._every * RATE).astype(np.float32)
        sound = self._sounds[self._random.integers(len(self._sounds))]
        length = round(self._random.uniform(2, 6) * RATE)
        start = round(self._random.uniform(2, self._every - 12) * RATE)
        cycle[start : start + length] += sound[:length]
        return cycle, start / RATE, (start + length) / RATE


def simulated(hours: float, every: int, model: str) -> dict[str, object]:
    """A day at full speed."""
    captioner = Captioner.load(model)
    live = LiveCaptioner(captioner, class_head(captioner))
    process, day = psutil.Process(), Day(every)
    memory, late, computed, spent, begun, missed = [], [], [], [], [], 0
    started, used = time.perf_counter(), time.process_time()
    for number in range(round(hours * 3600 / every)):
        sound, start, end = day.cycle()
        base, caught = live.seconds, False
        for at in range(0, len(sound), PIECE):
            before, cpu = time.perf_counter(), time.process_time()
            reports = live.feed(sound[at : at + PIECE])
            took, cpu = time.perf_counter() - before, time.process_time() - cpu
            now = live.seconds - base
            for one in reports:
                if one.kind == "start":
                    begun.append(now + took - (one.start - base))
                elif one.kind == "caption" and one.end is not None:
                    caught = True
                    late.append(now - end)
                    computed.append(took)
                    spent.append(cpu)
        missed += not caught
        if number % max(1, 3600 // every) == 0:
            memory.append(process.memory_info().rss / 2**20)
            print(f"hour {len(memory) - 1}: {memory[-1]:.0f} MiB", file=sys.stderr, flush=True)
    passed = time.perf_counter() - started
    total = [wait + took for wait, took in zip(late, computed, strict=True)]
    return {
        "model": model,
        "hours": hours,
        "sounds": round(hours * 3600 / every),
        "without_caption": missed,
        "wall_seconds": round(passed, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "times_real_time": round(3600 * hours / passed),
        "caption_after_end_s": _spread(total),
        "of_that_computing_s": _spread(computed),
        "computing_cpu_s": _spread(spent),
        "event_after_start_s": _spread(begun),
        "memory_mib_each_hour": [round(one) for one in memory],
    }


def real_time(seconds: float, model: str) -> dict[str, object]:
    """The command on a FIFO, in real time."""
    with tempfile.TemporaryDirectory() as folder:
        fifo = Path(folder, "microphone")
        os.mkfifo(fifo)
        ends: list[tuple[float, float]] = []

        def write() -> None:
            day, base = Day(20), 0.0
            with fifo.open("wb", buffering=0) as file:
                began = time.monotonic()
                while base < seconds:
                    sound, _, end = day.cycle()
                    data = (32767 * sound).clip(-32768, 32767).astype("<i2")
                    for at in range(0, len(data), PIECE):
                        file.write(data[at : at + PIECE].tobytes())
                        due = began + base + (at + PIECE) / RATE
                        time.sleep(max(0.0, due - time.monotonic()))
                    ends.append((base + end, began + base + end))
                    base += len(data) / RATE

        argv = [sys.executable, "-m", "earwitness", "listen", "-i", str(fifo), "--json"]
        argv += ["--only", "captions", "--model", model]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            threading.Thread(target=write, daemon=True).start()
            assert process.stdout is not None
            came = [(json.loads(line)["end"], time.monotonic()) for line in process.stdout]
    waits = []
    for end, when in came:
        place, wall = min(ends, key=lambda one: abs(one[0] - end))
        if abs(place - end) < 1:
            waits.append(when - wall)
    return {"real_time_s": seconds, "sounds": len(ends), "caption_after_end_s": _spread(waits)}


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {
        "n": len(values),
        "p50": round(float(p50), 3),
        "p95": round(float(p95), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--every", type=int, default=60, help="seconds from sound to sound")
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--real-time", type=float, default=0.0, help="seconds; 0 skips it")
    options = parser.parse_args()
    if options.hours:
        print(json.dumps(simulated(options.hours, options.every, options.model)))
    if options.real_time:
        print(json.dumps(real_time(options.real_time, options.model)))


if __name__ == "__main__":
    main()
