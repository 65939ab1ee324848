"""Requests per second and response times of `earwitness serve` at 1, 4, 16 and 64 clients, with 1
and 2 workers.

    OMP_NUM_THREADS=1 python benchmarks/service_load.py --seconds 15

Starts the service as a process of its own, sends it clips of noise over HTTP from threads that each
wait for their answer, and prints a table in Markdown: under three minutes at 15 s for each row. A
last row has more clients than the service has places: every answer must be 200, 429 or 503. The
clients share the machine with the service.
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

import httpx
import numpy as np
import soundfile

RATE = 16000


def clips(seconds: float, count: int = 8) -> list[bytes]:
    """Clips of noise as FLAC files."""
    made = []
    for seed in range(count):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
        target = io.BytesIO()
        soundfile.write(target, samples, RATE, format="FLAC")
        made.append(target.getvalue())
    return made


def client(
    http: httpx.Client, sounds: list[bytes], end: float, latencies: list[float], codes: Counter[str]
) -> None:
    """One client: request after request until `end`; a refused one waits as it is told."""
    number = 0
    while time.perf_counter() < end:
        started = time.perf_counter()
        file = {"file": ("clip.flac", sounds[number % len(sounds)])}
        try:
            answer = http.post("/v1/audio/captions", files=file)
        except httpx.HTTPError as error:
            codes[type(error).__name__] += 1
            continue
        codes[str(answer.status_code)] += 1
        number += 1
        if answer.status_code == 200:
            latencies.append(time.perf_counter() - started)
        elif "retry-after" in answer.headers:
            time.sleep(float(answer.headers["retry-after"]))


def measure(url: str, sounds: list[bytes], clients: int, seconds: float) -> str:
    """A row of the table, from the number of clients on."""
    latencies: list[float] = []
    codes: Counter[str] = Counter()
    # Made before the clock runs: each takes some hundredths of a second.
    made = [httpx.Client(base_url=url, timeout=600, verify=False) for _ in range(clients)]
    started = time.perf_counter()
    told = (sounds, started + seconds, latencies, codes)
    threads = [threading.Thread(target=client, args=(one, *told)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    for one in made:
        one.close()
    answers = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    p50, p95 = np.percentile(latencies, [50, 95]) if latencies else (float("nan"),) * 2
    rate = len(latencies) / took
    return f"{clients} | {rate:.2f} | {p50:.2f} | {p95:.2f} | {answers} |"


class Served:
    """`earwitness serve` for the time of a `with`."""

    def __init__(self, *arguments: str, page: bool = False) -> None:
        argv = [sys.executable, "-m", "earwitness", "serve", "--port", "0", *arguments]
        argv += [] if page else ["--no-demo"]
        # Not a pipe: nobody would read it.
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(argv, stderr=self.log)

    def said(self) -> str:
        """What the service has written to its log so far."""
        self.log.seek(0)
        return self.log.read()

    def __enter__(self) -> str:
        while (found := re.search(r"http://\S+", self.said())) is None:
            if self.process.poll() is not None:
                raise SystemExit(f"the service did not start: {self.said()}")
            time.sleep(0.1)
        while httpx.get(f"{found.group()}/ready", timeout=600).status_code != 200:
            time.sleep(0.1)
        return found.group()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def rows(url: str, sounds: list[bytes], first: str, clients: list[int], seconds: float) -> None:
    """Prints a row for each number of clients, after a second that is not counted."""
    measure(url, sounds, 1, 1.0)
    for count in clients:
        print(f"| {first} | {measure(url, sounds, count, seconds)}", flush=True)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--precision", default="fp32", help="as of earwitness serve")
    parser.add_argument("--seconds", type=float, default=15.0, help="time for each row")
    parser.add_argument("--clip", type=float, default=10.0, help="seconds of a clip")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="rows for each")
    parser.add_argument("--overload", type=int, default=64, help="clients of the last row")
    parser.add_argument("--places", type=int, default=8, help="places of the service for them")
    args = parser.parse_args()
    sounds = clips(args.clip)
    model = ("--model", args.model, "--precision", args.precision)
    print(f"{args.clip:g} s clips, {args.seconds:g} s per row, {args.precision}\n")
    print("| workers | clients | requests/s | p50 s | p95 s | answers |\n|---|---|---|---|---|---|")
    for workers in args.workers:
        options = (*model, "--queue", str(max(args.clients)))
        with Served(*options, "--workers", str(workers)) as url:
            rows(url, sounds, str(workers), args.clients, args.seconds)
    with Served(*model, "--queue", str(args.places)) as url:
        rows(url, sounds, f"1, {args.places} places", [args.overload], args.seconds)


if __name__ == "__main__":
    main()
