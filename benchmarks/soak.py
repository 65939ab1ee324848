"""Memory of `earwitness serve` under half an hour of mixed requests, good and bad.

    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 30 --requests 10000 --rate 8

It ends when both the time and the number of requests are reached. One client sends sounds of 1 to
16 s to every endpoint, in every format and as streams, and between them broken files, misspelled
fields, uploads that break off and uploads to the page. Prints Markdown: the memory (resident set of
the process, MiB) every so many requests, and how that after the last one compares with that after
the first 1,000. Writes the curve to docs/images/soak.svg. Linux only. Exit status 1 when a request
gets a different answer than it should, or when the memory grew by more than 5 %.
"""

import argparse
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from service_load import Served, clips

WARM = 1000
"""requests after which the memory is taken for the comparison"""
EVERY = 500
GROWTH = 0.05

Request = Callable[[httpx.Client], tuple[str, bool]]
"""sends one request; (its kind, whether the answer is the right one)"""


def sounds() -> list[bytes]:
    """Clips of several lengths, so that sounds are whole and cut in windows."""
    return [*clips(1, 4), *clips(4, 2), *clips(16, 1)]


def good(sound: bytes, path: str, expected: str, **fields: str) -> Request:
    """A request that must succeed with `expected` in its answer."""

    def send(http: httpx.Client) -> tuple[str, bool]:
        answer = http.post(path, files={"file": ("clip.flac", sound)}, data=fields)
        kind = "stream" if "stream" in fields else fields.get("response_format", "json")
        return f"{path} {kind}", answer.status_code == 200 and expected in answer.text

    return send


def bad(contents: bytes, status: int, **fields: str) -> Request:
    """A request that must be refused with `status`."""

    def send(http: httpx.Client) -> tuple[str, bool]:
        file = {"file": ("clip.flac", contents)}
        answer = http.post("/v1/audio/captions", files=file, data=fields)
        return f"refused {status}", answer.status_code == status

    return send


def page(sound: bytes) -> Request:
    """An upload to the web page."""

    def send(http: httpx.Client) -> tuple[str, bool]:
        answer = http.post("/demo/gradio_api/upload", files={"files": ("clip.flac", sound)})
        return "page upload", answer.status_code == 200

    return send


def broken_off(path: str) -> Request:
    """An upload whose client goes away in the middle."""

    def send(http: httpx.Client) -> tuple[str, bool]:
        place = urlsplit(str(http.base_url))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 500000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        with socket.create_connection((place.hostname or "", place.port or 80)) as connection:
            connection.sendall(head.encode() + bytes(50_000))
        return "broken off", True

    return send


def requests() -> list[Request]:
    """What the client sends, again and again."""
    short, medium, long = (found := sounds())[0], found[4], found[6]
    captions, transcriptions = "/v1/audio/captions", "/v1/audio/transcriptions"
    model = {"model": "whisper-1"}
    return [
        *(good(sound, captions, "caption", beam="1") for sound in found[:4]),
        *(good(sound, captions, "caption", beam="2") for sound in found[:4]),
        good(medium, captions, "caption", n_best="3", rerank="consensus"),
        good(medium, captions, "WEBVTT", response_format="vtt"),
        good(short, captions, "caption", sample="true", seed="1"),
        good(short, captions, "event: done", stream="true"),
        good(short, transcriptions, "duration", response_format="verbose_json", **model),
        good(medium, transcriptions, "text", **model),
        good(short, transcriptions, "[DONE]", stream="true", **model),
        good(long, captions, "segments", timed="true"),
        bad(b"no sound", 415),
        bad(medium[: len(medium) // 2], 415),
        bad(short, 422, beem="4"),
        bad(short, 404, model="other"),
        page(short),
        broken_off(captions),
        broken_off("/demo/gradio_api/upload"),
        good(short, captions, "caption"),
        *(good(sound, captions, "no distinct", silence="0") for sound in found[:4]),
    ]


def memory(process: int) -> float:
    """MiB that the process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the service has gone")


def soak(
    served: Served, url: str, seconds: float, least: int, rate: float
) -> list[tuple[int, float, float]]:
    """(requests, minutes, MiB) along the way; exits with 1 at a wrong answer."""
    curve, counts = [], Counter[str]()
    kinds, started, number = requests(), time.monotonic(), 0
    with httpx.Client(base_url=url, timeout=300) as http:
        while (passed := time.monotonic() - started) < seconds or number < least:
            kind, right = kinds[number % len(kinds)](http)
            if not right:
                raise SystemExit(f"request {number}, {kind}: not the expected answer")
            counts[kind] += 1
            number += 1
            if number in (1, 100) or number % EVERY == 0:
                curve.append((number, passed / 60, memory(served.process.pid)))
                print("| {} | {:.1f} | {:.0f} |".format(*curve[-1]), flush=True)
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
    print("\n" + ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items())) + "\n")
    return curve


def draw(curve: list[tuple[int, float, float]], target: Path) -> None:
    """The memory over the requests as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot([row[0] for row in curve], [row[2] for row in curve], color="#4f46e5")
    axes.set(xlabel="requests", ylabel="resident memory, MiB", ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target)


def main() -> int:
    """Prints the table; 1 when the memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--requests", type=int, default=10_000, help="requests, at least")
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/images/soak.svg"))
    args = parser.parse_args()
    served = Served("--threads", "1", page=True)
    with served as url:
        print("| requests | minutes | MiB |\n|---|---|---|")
        curve = soak(served, url, args.minutes * 60, args.requests, args.rate)
        if "Traceback" in served.said():
            raise SystemExit(f"the service has tracebacks in its log:\n{served.said()[-2000:]}")
    draw(curve, args.out)
    warm = next((row for row in curve if row[0] >= WARM), curve[0])
    growth = curve[-1][2] / warm[2] - 1
    print(
        f"{warm[2]:.0f} MiB after {warm[0]} requests, {curve[-1][2]:.0f} MiB after "
        f"{curve[-1][0]}: {growth:+.1%}"
    )
    return int(growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
