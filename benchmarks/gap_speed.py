"""Seconds and peak memory of the whole gap report on random pairs of unit vectors.

    python benchmarks/gap_speed.py [--pairs 50000] [--width 512] [--bridged]

Prints one line of JSON. Set OMP_NUM_THREADS to the number of cores before starting.
"""

import argparse
import json
import os
import resource
import time

import numpy as np

from earwitness import gap


def paired_clouds(pairs: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sounds that share most of their direction with their caption, with an offset between."""
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((pairs, width), dtype=np.float32)
    audio = 0.35 * text + rng.standard_normal((pairs, width), dtype=np.float32)
    return audio + 0.3, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--bridged", action="store_true", help="measure after a bridge, too")
    options = parser.parse_args()
    audio, text = paired_clouds(options.pairs, options.width)
    bridged = audio - audio.mean(axis=0) + text.mean(axis=0) if options.bridged else None
    started, worked = time.perf_counter(), time.process_time()
    report = gap.measure(audio, text, bridged=bridged)
    seconds = time.perf_counter() - started
    result = {
        "pairs": report.clips,
        "width": report.width,
        "bridged": options.bridged,
        "quantities": len(report.rows),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
