"""Campaigns of hostile inputs, tried in separate processes and counted."""

import os
import resource
import select
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

from earwitness.errors import EarwitnessError, one_line

Outcome = Literal["refused", "captioned", "lost", "traceback"]
"""one clear sentence; a caption; a result that is gone, a hang or a dead process; anything else"""

_SHOWN = 20
_TOGETHER = 250


class Attempt(NamedTuple):
    """An input, and what `attempt` returns for it: "captioned", or an error of earwitness."""

    name: str
    attempt: Callable[[], Outcome]


@dataclass
class Section:
    """What a section of the benchmark counted."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    """seconds of processor time, those of ended child processes included"""

    def add(self, name: str, outcome: Outcome, detail: str = "") -> None:
        """Counts one input; `detail` is kept for what went wrong."""
        self.counts[outcome] += 1
        if outcome in ("lost", "traceback"):
            self.bad.append(f"{name}: {outcome} {detail}".rstrip())

    @property
    def row(self) -> str:
        """A row of the table."""
        kinds = ("refused", "captioned", "lost", "traceback")
        cells = [str(self.number), *(str(self.counts[kind]) for kind in kinds)]
        return f"| {self.name} | {' | '.join(cells)} | {self.seconds:.0f} s | {self.cpu:.0f} s |"

    @property
    def number(self) -> int:
        """How many inputs were tried."""
        return sum(self.counts.values())

    @contextmanager
    def timed(self) -> "Generator[Section]":
        """The section itself; on exit it records how long it took."""
        start, cpu = time.monotonic(), _cpu_seconds()
        yield self
        self.seconds, self.cpu = time.monotonic() - start, _cpu_seconds() - cpu


HEAD = (
    "| inputs | number | refused | captioned | lost | tracebacks | time | processor time |\n"
    "|---|" + "---|" * 7
)

Campaign = Callable[[Path, range, int], Section]
"""tries the inputs of these numbers, with a working folder and a seed"""


@contextmanager
def workers(number: int) -> Generator[ProcessPoolExecutor]:
    """Processes for several sections, so that imports are paid for once."""
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        yield pool


def side_by_side(
    pool: ProcessPoolExecutor, number: int, campaign: Campaign, place: Path, inputs: int, seed: int
) -> Section:
    """The counts of the inputs 0 to `inputs` - 1 of a section, in `number` parts shared by `pool`.

    Each part has a folder of its own below `place`.
    """
    number = max(1, min(number, inputs))
    start = time.monotonic()
    parts = [
        pool.submit(campaign, place / str(part), range(part, inputs, number), seed)
        for part in range(number)
    ]
    done = [part.result() for part in parts]
    whole = Section(done[0].name, seconds=time.monotonic() - start)
    for part in done:
        whole.counts += part.counts
        whole.bad += part.bad
        whole.cpu += part.cpu
    return whole


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(
    name: str, attempts: Iterable[Attempt], limit_s: float = 300.0, gigabytes: float = 8.0
) -> Section:
    """The counts of `attempts`, each in a process of its own with limits on time and memory."""
    with Section(name).timed() as section:
        for one in attempts:
            outcome, detail = _apart(one.attempt, limit_s, gigabytes)
            section.add(one.name, outcome, detail)
    return section


def together(
    name: str, attempts: Iterable[Attempt], limit_s: float = 300.0, gigabytes: float = 16.0
) -> Section:
    """The counts of `attempts`, hundreds of them in one process; if it dies or hangs, the current
    input is lost and another process continues with the next.
    """
    arriving = iter(attempts)
    with Section(name).timed() as section:
        while group := list(islice(arriving, _TOGETHER)):
            while group:
                found = _in_one(group, limit_s, gigabytes)
                for one, (outcome, detail) in zip(group, found, strict=False):
                    section.add(one.name, outcome, detail)
                group = group[len(found) :]
    return section


def report(sections: Iterable[Section]) -> str:
    """The table, and the first of the inputs that went wrong."""
    sections = list(sections)
    bad = [line for section in sections for line in section.bad]
    more = [f"... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return "\n".join([HEAD, *(section.row for section in sections), *bad[:_SHOWN], *more])


def judged(attempt: Callable[[], Outcome]) -> tuple[Outcome, str]:
    """The outcome of `attempt`: a one-line error of earwitness is a refusal."""
    try:
        return attempt(), ""
    except EarwitnessError as error:
        text = str(error)
        if text.strip() and "\n" not in text:
            return "refused", text
        return "traceback", f"an error of {len(text.splitlines())} lines"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        return (
            "traceback",
            f"{type(error).__name__} at {where}: {one_line(error)[:200]}",
        )


def ended(child: int, limit_s: float) -> int:
    """The status with which the process `child` ends; after `limit_s` seconds it is killed."""
    deadline = time.monotonic() + limit_s
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            break
        time.sleep(0.005)
    return os.waitpid(child, 0)[1]


def _apart(attempt: Callable[[], Outcome], limit_s: float, gigabytes: float) -> tuple[Outcome, str]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _child(attempt, write, gigabytes)
    os.close(write)
    status = ended(child, limit_s)
    with os.fdopen(read, "rb") as answers:
        said = answers.read().decode("utf-8", "replace")
    outcome, _, detail = said.partition("\n")
    if outcome in ("refused", "captioned", "lost", "traceback"):
        return outcome, detail  # type: ignore[return-value]
    return "lost", f"no answer in {limit_s:.0f} s, or killed (status {status})"


def _in_one(group: list[Attempt], limit_s: float, gigabytes: float) -> list[tuple[Outcome, str]]:
    """The outcomes of the first inputs of `group`, to the one that ended the process at most."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _confine(gigabytes)
        for one in group:
            outcome, detail = judged(one.attempt)
            text = one_line(RuntimeError(detail))[:1000] if detail else ""
            os.write(write, f"{outcome}\t{text}\n".encode("utf-8", "replace"))
        os._exit(0)
    os.close(write)
    found: list[tuple[Outcome, str]] = []
    with os.fdopen(read, "rb", buffering=0) as answers:
        held = b""
        while len(found) < len(group) and select.select([answers], [], [], limit_s)[0]:
            if not (part := answers.read(1 << 16)):
                break
            *lines, held = (held + part).split(b"\n")
            for line in lines:
                outcome, _, detail = line.decode().partition("\t")
                found.append((outcome, detail))  # type: ignore[arg-type]
    os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    if len(found) < len(group):
        found.append(("lost", f"no answer in {limit_s:.0f} s, or killed (status {status})"))
    return found


def _child(attempt: Callable[[], Outcome], write: int, gigabytes: float) -> None:
    _confine(gigabytes)
    outcome, detail = judged(attempt)
    os.write(write, f"{outcome}\n{detail}".encode("utf-8", "replace")[:2000])
    os._exit(0)


def _confine(gigabytes: float) -> None:
    """Limits the memory of this process and silences it."""
    memory = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    silent = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silent, number)
