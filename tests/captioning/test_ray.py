"""Captioning on a real Ray cluster of two nodes, one of which is killed at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from earwitness.captioning import ray as on_ray
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.columns import row_of, schema
from earwitness.captioning.local import outcomes as local_outcomes
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.ray.places import source_of
from earwitness.captioning.sources import Source, find
from earwitness.errors import CheckpointError, ConfigError

ray = pytest.importorskip("ray", reason="needs the extra ray")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
FAST = ModelChoice("pocket-lamb", CaptionOptions(beam=1), "cpu")
TOLD = {"on_ready": lambda: None, "on_seconds": lambda _: None}
ONE_CPU = on_ray.Cluster(workers=2, num_cpus=0.5, extras=on_ray.Extras(events=False))


class Echo:
    """A worker without a model; it dies of a sound called killer, and takes its time."""

    def __init__(self, work) -> None:
        pass

    def __call__(self, table):
        names = [source_of(row).name for row in table.to_pylist()]
        if "killer" in names:
            os._exit(1)
        time.sleep(0.02 * len(names))
        record = {"caption": "rain", "score": 0.5, "model": "m", "seconds": 1.0}
        rows = [row_of(Outcome(name, {"file": name, **record})) for name in names]
        return pa.Table.from_pylist(rows, schema=schema())


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes of one CPU each on this machine: (cluster, the second node)."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    limits = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**limits, "include_dashboard": False})
    for attempt in range(3):
        try:
            second = cluster.add_node(**limits)
            break
        except Exception:
            # Ray gives a node 30 s to start, which a busy machine may need more than once.
            if attempt == 2:
                raise
    ray.init(cluster.address, log_to_driver=False, logging_level="CRITICAL")
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def captioned(cluster: on_ray.Cluster, sources: list[Source], choice=FAST) -> list[Outcome]:
    found: Iterator[list[Outcome]] = on_ray.outcomes(cluster, choice, sources, False, **TOLD)
    return [one for some in found for one in some]


def test_captions_are_those_of_the_local_engine_byte_for_byte(nodes, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF but no more")
    sources = [*find([str(EXAMPLES), str(tmp_path)]), *on_ray.find_anywhere([f"file://{EXAMPLES}"])]
    mine = {one.name: one for one in captioned(ONE_CPU, sources)}
    again = [*find([str(EXAMPLES), str(tmp_path)]), *on_ray.find_anywhere([f"file://{EXAMPLES}"])]
    for batch in local_outcomes(FAST, again, False, **TOLD):
        for theirs in batch:
            found = mine.pop(theirs.name)
            assert json.dumps(found.record) == json.dumps(theirs.record)
            assert found.error == theirs.error
    assert mine == {}


def test_dataset_of_ray_keeps_its_columns_and_gets_captions(nodes):
    sounds = [(EXAMPLES / f"{name}.flac").read_bytes() for name in ("siren", "clock")]
    table = pa.table({"bytes": [*sounds, b"no sound"], "path": ["a", "b", "c"], "label": [1, 2, 3]})
    ds = on_ray.caption_dataset(
        ray.data.from_arrow(table), options=FAST.options, workers=1, num_cpus=0.5
    )
    rows = {row["label"]: row for row in ds.take_all()}
    with_siren = {event["event"] for event in rows[1]["events"]}
    assert "Siren" in with_siren
    assert rows[2]["caption"]
    assert rows[2]["path"] == "b"
    assert "is not a sound" in rows[3]["error"]
    assert "bytes" not in rows[1]


def test_python_of_the_page_writes_a_row_per_sound(nodes, tmp_path, monkeypatch):
    page = (EXAMPLES.parent / "docs" / "corpus.md").read_text("utf-8")
    [block] = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "read_sounds" in b]
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "corpus.md", "exec"), {})
    found = pq.read_table(tmp_path / "captions").to_pylist()
    assert {Path(row["file"]).stem for row in found} == {"alarm", "clock", "siren", "storm"}
    assert all(row["caption"] and row["error"] is None for row in found)


def test_model_that_cannot_be_loaded_is_one_sentence(nodes):
    with pytest.raises(CheckpointError, match="nowhere: no such model folder"):
        captioned(ONE_CPU, [Source("a", "a")], ModelChoice("nowhere"))


def test_worker_that_does_not_fit_is_one_sentence(nodes):
    with pytest.raises(ConfigError, match="with 3 CPU and 0 GPU does not fit in the cluster"):
        captioned(on_ray.Cluster(num_cpus=3), [Source("a", "a")])


def test_sound_that_ends_its_worker_is_a_failure_and_the_others_are_captioned(nodes, monkeypatch):
    monkeypatch.setattr("earwitness.captioning.ray.dataset.Worker", Echo)
    sources = [Source(name, name) for name in ("a", "b", "killer", "c")]
    found = {one.name: one.error for one in captioned(ONE_CPU, sources)}
    assert found.pop("killer").startswith("killer: ended its worker 3 times")
    assert found == {"a": None, "b": None, "c": None}


def test_job_goes_on_after_a_kill_without_duplicates(nodes, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(24):
        samples = 0.1 * rng.standard_normal(8000)
        soundfile.write(tmp_path / f"{number:02}.wav", samples, 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF but no more")
    command = [sys.executable, "-m", "earwitness", "caption", str(tmp_path), "--beam", "1"]
    command += ["--engine", "ray", "--address", nodes[0].address, "--workers", "1", "-q"]
    command += ["--cpus", "0.5", "--part-rows", "1", "-o", str(tmp_path / "parts")]
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("parts/part-*.parquet")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = set(pq.read_table(tmp_path / "parts").column("file").to_pylist())
    assert 0 < len(done) < 25
    assert subprocess.run(command, stderr=subprocess.PIPE).returncode == 1
    rows = pq.read_table(tmp_path / "parts").to_pylist()
    assert sorted(Path(row["file"]).name for row in rows) == [
        *(f"{number:02}.wav" for number in range(24)),
        "broken.wav",
    ]
    assert [Path(row["file"]).name for row in rows if row["error"]] == ["broken.wav"]


def test_node_that_is_killed_in_the_middle_loses_nothing(nodes, monkeypatch):
    monkeypatch.setattr("earwitness.captioning.ray.dataset.Worker", Echo)
    cluster, second = nodes
    names = [str(number) for number in range(200)]
    found: list[str] = []
    plan = on_ray.Cluster(workers=2)
    sources = [Source(name, name) for name in names]
    for some in on_ray.outcomes(plan, FAST, sources, False, **TOLD):
        if not found:
            cluster.remove_node(second, allow_graceful=False)
        assert all(one.error is None for one in some)
        found += [one.name for one in some]
    assert sorted(found) == sorted(names)
