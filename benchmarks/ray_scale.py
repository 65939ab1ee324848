"""Captioning on Ray: cost per clip from 1,000 to 100,000 clips, and a node killed in the middle.

    python benchmarks/ray_scale.py scale --rows 1000,10000,100000
    python benchmarks/ray_scale.py nodes --rows 2000
    python benchmarks/ray_scale.py restart --rows 2000
    python benchmarks/ray_scale.py cost

Clips are half a second of noise, written once as webdataset tars of 1,000 each. The first three
start a cluster of two nodes of one CPU each with `ray start` and count the rows that the parts
hold. `scale` takes the time of the whole command at each size, and the CPU seconds of the command
and both nodes. `nodes` kills the second node in the middle. `restart` kills the command in the
middle and starts it again. `cost` counts the CPU seconds of one worker on the example recordings,
without Ray. Prints a JSON object per run.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import soundfile

_SHARD = 1000
_RATE = 16_000


def make_shards(folder: Path, rows: int, seconds: float) -> Path:
    """Tars that hold `rows` clips of noise of different colors; made again where they are not."""
    place = folder / f"clips-{rows}-{seconds:g}"
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for first in range(0, rows, _SHARD):
        with tarfile.open(place / f"{first // _SHARD:05}.tar", "w") as tar:
            for number in range(first, min(first + _SHARD, rows)):
                noise = np.convolve(rng.standard_normal(round(seconds * _RATE)), [1, rng.random()])
                file = io.BytesIO()
                soundfile.write(file, 0.05 * noise, _RATE, format="WAV")
                info = tarfile.TarInfo(f"{number:07}.wav")
                info.size = file.tell()
                file.seek(0)
                tar.addfile(info, file)
    (place / "done").touch()
    return place


def command(clips: Path, out: Path, args: argparse.Namespace, *more: str) -> list[str]:
    """The command line of the job."""
    line = [sys.executable, "-m", "earwitness", "caption", str(clips), "-o", str(out)]
    line += ["--model", args.model, "--beam", str(args.beam or 1), "--no-events", "-q"]
    line += ["--engine", "ray", "--address", f"127.0.0.1:{args.port}"]
    return [*line, "--workers", str(args.workers), *more]


def counted(out: Path) -> dict[str, int]:
    """How many rows, different files and failures the parts hold."""
    import pyarrow.parquet as pq

    table = pq.read_table(out, columns=["file", "error"])
    files = table.column("file").to_pylist()
    failed = len(table) - table.column("error").null_count
    return {"rows": len(files), "files": len(set(files)), "failed": failed}


def scale(args: argparse.Namespace, folder: Path) -> None:
    """Takes the time of the whole command at each size, on a cluster of its own each."""
    for rows in args.rows:
        clips, out = make_shards(folder, rows, args.seconds), folder / f"out-{rows}"
        shutil.rmtree(out, ignore_errors=True)
        with two_nodes(args) as nodes:
            start, before = time.monotonic(), _cpu_seconds(*nodes)
            job = subprocess.Popen(command(clips, out, args))
            used: dict[int, float] = {}
            while job.poll() is None:
                used |= _cpu_seconds(job, *nodes)
                time.sleep(1.0)
            wall = time.monotonic() - start
        cpu = sum(used.values()) - sum(before.values())
        found = counted(out) | {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}
        found |= {"wall_ms_per_clip": round(1e3 * wall / rows, 2)}
        found |= {"cpu_ms_per_clip": round(1e3 * cpu / rows, 2), "exit_code": job.returncode}
        print(json.dumps({"rows_asked": rows, **found}), flush=True)


def _cpu_seconds(*roots: subprocess.Popen[bytes]) -> dict[int, float]:
    """CPU time so far of these processes and all below them, by process.

    Unlike wall-clock time it does not depend on what else the machine does.
    """
    used: dict[int, float] = {}
    for process in _family(*roots):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
    return used


def _family(*roots: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """These processes and all below them that live."""
    found: list[psutil.Process] = []
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(root.pid)
            found += [parent, *parent.children(recursive=True)]
    return found


def cost(args: argparse.Namespace, folder: Path) -> None:
    """CPU seconds of a worker per hour of sound: captions alone, with events, with duplicates."""
    from earwitness.captioning.choice import ModelChoice
    from earwitness.captioning.options import CaptionOptions
    from earwitness.captioning.ray.places import table_of
    from earwitness.captioning.ray.worker import Extras, Work, Worker
    from earwitness.captioning.sources import find

    options = CaptionOptions.model_validate({"beam": args.beam})
    sources = 4 * [one for one in find(["examples"]) if not one.name.endswith("clock.flac")]
    for events, duplicates in ((False, False), (True, False), (True, True)):
        extras = Extras(events, duplicates)
        worker = Worker(Work(ModelChoice(args.model, options, "cpu"), extras=extras))
        worker(table_of(sources[:2]))
        start = time.process_time()
        rows = worker(table_of(sources)).to_pylist()
        used, seconds = time.process_time() - start, sum(row["seconds"] for row in rows)
        found = {"events": events, "duplicates": duplicates, "clips": len(rows)}
        found |= {"seconds": seconds, "cpu_s": round(used, 2)}
        print(json.dumps(found | {"cpu_s_per_hour": round(3600 * used / seconds, 1)}), flush=True)


def nodes(args: argparse.Namespace, folder: Path) -> None:
    """The second node is killed once a part of the rows is there."""
    clips, out = _fresh(args, folder, "out-nodes")
    with two_nodes(args) as (_, second):
        start = time.monotonic()
        job = subprocess.Popen(command(clips, out, args, "--part-rows", "100"))
        killed = _rows_in_the_middle(job, out, args.rows[0])
        _kill(second)
        found = {"rows_at_kill": killed, "exit_code": job.wait(), **counted(out)}
        print(json.dumps(found | {"wall_s": round(time.monotonic() - start, 1)}), flush=True)


def restart(args: argparse.Namespace, folder: Path) -> None:
    """The command is killed once a part of the rows is there, and started again."""
    clips, out = _fresh(args, folder, "out-restart")
    with two_nodes(args):
        line = command(clips, out, args, "--part-rows", "100")
        job = subprocess.Popen(line)
        _rows_in_the_middle(job, out, args.rows[0])
        _kill(job)
        killed = counted(out)["rows"]
        code = subprocess.run(line, check=False).returncode
        print(json.dumps({"rows_at_kill": killed, "exit_code": code, **counted(out)}), flush=True)


def _fresh(args: argparse.Namespace, folder: Path, name: str) -> tuple[Path, Path]:
    """Clips, and a place for the parts that is empty."""
    shutil.rmtree(folder / name, ignore_errors=True)
    return make_shards(folder, args.rows[0], args.seconds), folder / name


def _rows_in_the_middle(job: subprocess.Popen[bytes], out: Path, rows: int) -> int:
    """How many rows the parts hold once a quarter of them is there."""
    while job.poll() is None and len(list(out.glob("*.parquet"))) < max(1, rows // 400):
        time.sleep(0.2)
    return counted(out)["rows"]


@contextmanager
def two_nodes(args: argparse.Namespace) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two nodes of one CPU each, which end with the block."""
    started = [_start_node("--head", f"--port={args.port}", "--include-dashboard=false")]
    try:
        time.sleep(args.wait)
        started.append(_start_node(f"--address=127.0.0.1:{args.port}"))
        time.sleep(args.wait)
        yield started
    finally:
        for node in reversed(started):
            _kill(node)


def _start_node(*options: str) -> subprocess.Popen[bytes]:
    """A node of one CPU."""
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--block"]
    ray += ["--object-store-memory=100000000", "--disable-usage-stats", *options]
    return subprocess.Popen(ray, stdout=subprocess.DEVNULL)


def _kill(root: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, as a power cut would."""
    for process in _family(root):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    root.wait()


def main() -> None:
    """Runs one of the four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["scale", "nodes", "restart", "cost"])
    parser.add_argument("--rows", type=lambda t: [int(n) for n in t.split(",")], default=[1000])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--beam", type=int, help="default: 1, for cost the model's own")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=6399)
    parser.add_argument("--wait", type=float, default=20.0, help="seconds for nodes to start")
    parser.add_argument("--folder", type=Path, help="where clips and parts go; default: temporary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="earwitness-ray-") as place:
        what = {"scale": scale, "nodes": nodes, "restart": restart, "cost": cost}[args.what]
        what(args, args.folder or Path(place))


if __name__ == "__main__":
    main()
