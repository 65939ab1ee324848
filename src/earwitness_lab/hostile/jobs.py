"""Captioning jobs killed at random times, and file names of random bytes: is each result there?"""

import contextlib
import csv
import io
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from earwitness_lab.hostile.campaign import Attempt, Outcome, Section, run
from earwitness_lab.hostile.folders import KINDS

_CLIPS = 6
_KILLS_PER_JOB = 3
_LIMIT_S = 120.0
_KINDS = ("jsonl", "csv", "text", "json", "parquet")
_CSV_AND_JSON = ("jsonl", "csv", "json")


def kills(place: Path, inputs: int, seed: int) -> Section:
    """The row `killed jobs`: `inputs` kills of jobs that are started again until they end.

    A kill counts as captioned if its job ended with each sound in its output exactly once, in order
    and with the caption of an undisturbed job.
    """
    rng = random.Random(seed)
    section, start = Section("killed jobs"), time.monotonic()
    model = tiny_model(place)
    names = [f"{number:02}.wav" for number in range(_CLIPS)]
    clips = _clips(place / "kills", [os.fsencode(name) for name in names])
    took = {}
    for kind in _KINDS:
        begun = time.monotonic()
        _end(_start(model, clips, place / f"whole.{kind}", kind))
        took[kind] = time.monotonic() - begun
    job = 0
    while sum(section.counts.values()) < inputs:
        kind = _KINDS[rng.randrange(len(_KINDS))]
        out = place / f"job{job}.{kind}"
        killed, fault = _until_done(model, clips, out, kind, rng, took[kind])
        expected = (place / f"whole.{kind}").read_bytes()
        found = out.read_bytes() if out.exists() else b""
        outcome: Outcome = "traceback" if fault else "captioned" if found == expected else "lost"
        for _ in range(killed):
            section.add(f"job {job}, {kind}", outcome, fault)
        job += 1
    section.seconds = time.monotonic() - start
    return section


def names(place: Path, inputs: int, seed: int) -> Section:
    """The row `file names`: folders of ten sounds with names of random bytes, a job for each.

    A job counts as captioned if each name is in its output exactly once, byte for byte.
    """
    rng = random.Random(seed)
    model = tiny_model(place)

    def attempts() -> Iterator[Attempt]:
        for number in range(inputs):
            kind = _CSV_AND_JSON[number % len(_CSV_AND_JSON)]
            wanted = {_name(rng) for _ in range(10)}
            clips = _clips(place / f"names{number}", sorted(wanted))
            out = place / f"names{number}.{kind}"
            yield Attempt(
                f"{kind} {sorted(wanted)!r}",
                lambda c=clips, o=out, k=kind, w=wanted: _named(model, c, o, k, w),
            )

    return run("file names", attempts(), _LIMIT_S)


def _named(model: str, clips: Path, out: Path, kind: str, wanted: set[bytes]) -> Outcome:
    failed = _caption(model, clips, out, kind)
    counts = Counter(os.path.basename(os.fsencode(name)) for name in _files(out, kind))
    return "captioned" if not failed and counts == Counter(wanted) else "lost"


def _files(out: Path, kind: str) -> list[str]:
    text = out.read_bytes().decode("utf-8", "surrogateescape")
    if kind == "csv":
        return [row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    if kind == "json":
        return [row["file"] for row in json.loads(text)]
    return [json.loads(line)["file"] for line in text.splitlines()]


def _name(rng: random.Random) -> bytes:
    odd = (
        b"\n",
        b"\t",
        b"\r",
        b"\x1b[2J",
        b"\x9b",
        b"\xff",
        b"\xe9",
        b'"',
        b",",
        b"#",
        b"\\",
        b" ",
    )
    parts = [rng.choice(odd) if rng.random() < 0.5 else rng.randbytes(1) for _ in range(8)]
    raw = b"".join(parts).replace(b"/", b"_").replace(b"\0", b"_")
    return b"x" + raw + b".wav"


def tiny_model(place: Path) -> str:
    """The folder of a tiny captioner below `place`."""
    folder = place / "captioner"
    if not folder.exists():
        KINDS["runtime"].make(folder)
    return str(folder)


def _clips(folder: Path, file_names: list[bytes]) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(file_names):
        file = io.BytesIO()
        noise = 0.1 * rng.standard_normal(4_000 + 400 * number)
        soundfile.write(file, noise, 16_000, format="WAV")
        (folder / os.fsdecode(name)).write_bytes(file.getvalue())
    return folder


def _caption(model: str, clips: Path, out: Path, kind: str) -> int:
    """What `earwitness caption CLIPS -o OUT` does; the number of sounds that failed."""
    from earwitness.captioning.choice import ModelChoice
    from earwitness.cli.caption_job import Input, Output, OutputFormat
    from earwitness.cli.caption_job import run as run_job

    chosen = ModelChoice(model, device="cpu", batch_size=2)
    return run_job(chosen, Input((str(clips),)), Output(out, OutputFormat(kind)), quiet=True)


def _until_done(
    model: str, clips: Path, out: Path, kind: str, rng: random.Random, seconds: float
) -> tuple[int, str]:
    """How often the job was killed until it ended, and what was wrong with its end."""
    killed = 0
    for _ in range(_KILLS_PER_JOB):
        child = _start(model, clips, out, kind)
        time.sleep(rng.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            return killed, f"exit status {status}" if status else ""
        killed += 1
    status = os.waitpid(_start(model, clips, out, kind), 0)[1]
    return killed, f"exit status {status}" if status else ""


def _start(model: str, clips: Path, out: Path, kind: str) -> int:
    """The process that captions; it ends with 0 if all went well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_RDWR)
            os.dup2(silent, 2)
            code = int(_caption(model, clips, out, kind) > 0)
        finally:
            os._exit(code)
    return child


def _end(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    if status:
        raise RuntimeError(f"an undisturbed job ended with status {status}")
