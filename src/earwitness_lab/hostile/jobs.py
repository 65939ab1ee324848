"""Captioning jobs killed at random times, and file names of random bytes: is each result there?"""

import csv
import io
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from earwitness_lab.hostile.campaign import Attempt, Outcome, Section, ended, run
from earwitness_lab.hostile.folders import KINDS

_CLIPS = 60
_KILLS_PER_JOB = 12
# The share of a job's captioning within which it is killed, so that a job survives several kills.
_KILLED_WITHIN = 0.3
_LIMIT_S = 300.0
_KINDS = ("jsonl", "csv", "text", "json", "parquet")
_CSV_AND_JSON = ("jsonl", "csv", "json")


class _Undisturbed(NamedTuple):
    """A job that nobody kills: its output, and the seconds before its first sound and after."""

    output: bytes
    loading: float
    captioning: float

    def faster(self) -> "_Undisturbed":
        """The same job on a machine that has become less busy."""
        return self._replace(loading=0.7 * self.loading, captioning=0.7 * self.captioning)


def kills(place: Path, numbers: range, seed: int) -> Section:
    """The row `killed jobs`: as many kills as `numbers` has, of jobs that are started again until
    they end.

    A kill counts as captioned if its job ended with each sound in its output exactly once, in order
    and with the caption of an undisturbed job. Most kills fall while results are being written.
    """
    # Once for all jobs, which are forks of this process.
    import_module("pyarrow.parquet")

    rng = random.Random(f"{seed} {numbers.start}")
    model = tiny_model(place)
    clips = _clips(place / "kills", [b"%03d.wav" % number for number in range(_CLIPS)])
    one = _clips(place / "one", [b"0.wav"])
    with Section("killed jobs").timed() as section:
        whole = {kind: _undisturbed(model, one, clips, place, kind) for kind in _KINDS}
        for job in count():
            if section.number >= len(numbers):
                break
            kind = rng.choice(_KINDS)
            out = place / f"job{job}.{kind}"
            killed, fault = _until_done(model, clips, out, kind, rng, whole[kind])
            if killed == 0:  # It runs faster than when it was timed.
                whole[kind] = whole[kind].faster()
            same = out.exists() and out.read_bytes() == whole[kind].output
            outcome: Outcome = fault or ("captioned" if same else "lost")
            for _ in range(min(killed, len(numbers) - section.number)):
                section.add(f"job {job}, {kind}", outcome)
    return section


def _undisturbed(model: str, one: Path, clips: Path, place: Path, kind: str) -> _Undisturbed:
    took = []
    for folder in (one, clips):
        out, begun = place / f"{folder.name}-whole.{kind}", time.monotonic()
        if fault := _end(_start(model, folder, out, kind)):
            raise RuntimeError(f"an undisturbed job: {fault}")
        took.append(time.monotonic() - begun)
    return _Undisturbed(out.read_bytes(), took[0], max(0.0, took[1] - took[0]))


def names(place: Path, numbers: range, seed: int) -> Section:
    """The row `file names`: folders of ten sounds with names of random bytes, a job for each.

    A job counts as captioned if each name is in its output exactly once, byte for byte.
    """
    model = tiny_model(place)

    def attempts() -> Iterator[Attempt]:
        for number in numbers:
            rng = random.Random(seed * 1_000_003 + number)
            kind = _CSV_AND_JSON[number % len(_CSV_AND_JSON)]
            wanted = {_name(rng) for _ in range(10)}
            clips = _clips(place / f"names{number}", sorted(wanted))
            out = place / f"names{number}.{kind}"
            yield Attempt(
                f"{kind} {sorted(wanted)!r}",
                partial(_named, model, clips, out, kind, wanted),
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
    model: str, clips: Path, out: Path, kind: str, rng: random.Random, whole: _Undisturbed
) -> tuple[int, Outcome | None]:
    """How often the job was killed until it ended, and what was wrong with its end."""
    for killed in range(_KILLS_PER_JOB):
        child = _start(model, clips, out, kind)
        status = ended(
            child,
            whole.loading * rng.uniform(0.7, 1) + whole.captioning * rng.uniform(0, _KILLED_WITHIN),
        )
        if status != signal.SIGKILL:
            return killed, "traceback" if status else None
    return _KILLS_PER_JOB, _end(_start(model, clips, out, kind))


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


def _end(child: int) -> Outcome | None:
    """Waits for a job: "lost" if it hangs, "traceback" if it does not end with 0."""
    status = ended(child, _LIMIT_S)
    return "lost" if status == signal.SIGKILL else "traceback" if status else None
