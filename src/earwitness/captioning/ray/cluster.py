"""The engine behind `earwitness caption --engine ray`: outcomes from a cluster, or from a local one
started for the job.
"""

import logging
import math
import os
import random
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earwitness import errors
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.columns import outcome_of
from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.ray.dataset import MOST_ROWS, captioned, listing, need_ray
from earwitness.captioning.ray.worker import Extras, Work
from earwitness.captioning.sources import Source
from earwitness.errors import ConfigError, EarwitnessError, one_line

if TYPE_CHECKING:
    import pyarrow

_TRIES = 3
_BLOCKS_PER_WORKER = 8
_STORE_BYTES = 200 * 2**20
_OWN_ERROR = re.compile(r"earwitness\.errors\.(\w+): (.+)")


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs, and the resources of each actor.

    `address` None: RAY_ADDRESS, or a cluster on this computer only that ends with the job.
    `workers` None: as many actors as fit.
    """

    address: str | None = None
    workers: int | None = None
    num_cpus: float | int = 1
    num_gpus: float | int = 0
    extras: Extras = Extras()


def outcomes(
    cluster: Cluster,
    choice: ModelChoice,
    sources: Sequence[Source],
    timed: bool,
    *,
    on_ready: Callable[[], None],
    on_seconds: Callable[[float], None],
) -> Generator[list[Outcome], None, None]:
    """The outcome of each source, as blocks of them are finished.

    A lost worker or machine may end a pass over the sounds: another pass then takes the remaining
    sounds, shuffled and in smaller blocks, so that a sound that kills its worker is soon isolated.
    The remaining sounds count as failed after three passes in a row without a result.

    Raises:
        MissingDependencyError: ray is not installed.
        ConfigError: no cluster at the address, or a value is out of range.
        CheckpointError: the model cannot be loaded.
    """
    with _connected(cluster):
        on_ready()
        left = {source.name: source for source in sources}
        passes = idle = 0
        while left and idle < _TRIES:
            before, waiting = len(left), [*left.values()]
            if passes:
                random.Random(passes).shuffle(waiting)
            for table in _tables(cluster, choice, waiting, timed, passes > 0):
                found = [outcome_of(row) for row in table.to_pylist()]
                # A block that was finished twice counts once.
                found = [one for one in found if left.pop(one.name, None) is not None]
                for one in found:
                    on_seconds(one.record["seconds"] if one.record else 0.0)
                yield found
            passes += 1
            idle = 0 if len(left) < before else idle + 1
        said = f"ended its worker {_TRIES} times, or the cluster lost the workers that had it"
        yield [Outcome(name, None, f"{name}: {said}") for name in left]


def _tables(
    cluster: Cluster, choice: ModelChoice, sources: Sequence[Source], timed: bool, again: bool
) -> "Generator[pyarrow.Table, None, None]":
    """Rows of outcomes as they arrive; fewer than the sources if a worker is lost."""
    from ray.exceptions import RayError

    workers = cluster.workers or _room(cluster)
    rows = min(MOST_ROWS, math.ceil(len(sources) / (workers * _BLOCKS_PER_WORKER)))
    workers = min(workers, math.ceil(len(sources) / rows))
    pool = workers if cluster.workers else (workers, None)
    work = Work(choice, timed, cluster.extras)
    resources = cluster.num_cpus, cluster.num_gpus
    # Blocks queued at a worker are lost with it.
    in_flight = 1 if again else 2
    # Do not wait for a dead actor: its machine may never come back.
    ds = captioned(listing(sources, rows), work, pool, *resources, in_flight, max_restarts=0)
    ds.context.max_errored_blocks = -1
    ds.context.enable_progress_bars = False
    ds.context.print_on_execution_start = False
    try:
        yield from ds.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as error:
        own = _own_error(error)
        if own is not None:
            raise own from None


def _room(cluster: Cluster) -> int:
    """How many actors fit in the cluster now. Raises ConfigError if not even one does."""
    import ray

    there = ray.cluster_resources()
    shares = [("CPU", cluster.num_cpus), ("GPU", cluster.num_gpus)]
    found = min(int(there.get(kind, 0) / share) for kind, share in shares if share)
    if found < 1:
        has = ", ".join(f"{there.get(kind, 0):g} {kind}" for kind, _ in shares)
        raise ConfigError(
            f"a worker with {cluster.num_cpus:g} CPU and {cluster.num_gpus:g} GPU does not fit in "
            f"the cluster, which has {has}"
        )
    return found


@contextmanager
def _connected(cluster: Cluster) -> Generator[None, None, None]:
    """A connection to the cluster; an existing one is reused and left open."""
    # Ray sends usage statistics unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    need_ray()
    import ray

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        settings |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(address=address or "local", **settings)
    except Exception as error:  # a node that starts too slowly is a plain Exception
        raise ConfigError(
            f"no Ray cluster at {address or 'this computer'} ({one_line(error)[:200]}); expected "
            "an address such as 10.0.0.1:6379, auto, or none for this computer only"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _own_error(error: Exception) -> EarwitnessError | None:
    """The error that an actor raised, with its own class and message; None for a lost actor."""
    found = _OWN_ERROR.search(str(error))
    if found is None:
        return None
    return getattr(errors, found[1], EarwitnessError)(found[2].strip())
