"""Ray datasets of sounds in, Ray datasets of captions out."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from earwitness.captioning.choice import DEFAULTS, ModelChoice
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.ray.listing import find_anywhere, manifest_anywhere
from earwitness.captioning.ray.places import table_of
from earwitness.captioning.ray.worker import Extras, Work, Worker
from earwitness.captioning.sources import Source
from earwitness.errors import DataError, MissingDependencyError, pip_install

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem as ArrowFileSystem
    from ray.data import Dataset

    Files = AbstractFileSystem | ArrowFileSystem

MOST_ROWS = 256
"""sounds per block: how many are redone if a worker is lost"""


def read_sounds(
    arguments: Sequence[str] = (),
    *,
    manifest: str | None = None,
    column: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    filesystem: "Files | None" = None,
    rows_per_block: int = MOST_ROWS,
) -> "Dataset":
    """A listing of sounds for `caption_dataset`: one row per sound, no audio.

    `arguments` are files, folders, globs and shards (tar, parquet) as for `earwitness caption`, or
    URLs of any fsspec file system; with `filesystem` (from fsspec or pyarrow) they are paths on it.
    `manifest` and `column` name a table of sounds instead.

    Raises:
        DataError: nothing is found, or a manifest or file system cannot be read.
    """
    if manifest is not None:
        sources = manifest_anywhere(manifest, column)
    else:
        sources = find_anywhere(arguments, include, exclude, filesystem)
    if not sources:
        raise DataError(f"nothing is left of {', '.join(arguments)} after exclude")
    return listing(sources, rows_per_block, own_files=filesystem is not None)


def listing(sources: Sequence[Source], rows_per_block: int, own_files: bool = False) -> "Dataset":
    """The sources as a dataset in blocks of `rows_per_block`."""
    ray_data = need_ray()
    blocks = range(0, len(sources), rows_per_block)
    return ray_data.from_arrow(
        [table_of(sources[start : start + rows_per_block], own_files) for start in blocks]
    )


def caption_dataset(
    ds: "Dataset",
    model: str = "pocket-lamb",
    options: CaptionOptions | None = None,
    *,
    extras: Extras | None = None,
    device: str = "auto",
    filesystem: "Files | None" = None,
    workers: int | tuple[int, int] | None = None,
    num_cpus: float | int = 1,
    num_gpus: float | int = 0,
    batch_size: int | None = None,
    **actor_options: Any,
) -> "Dataset":
    """The captions of a dataset of sounds: columns file, caption, score, model, seconds, segments,
    events, error, ... (`columns.schema`), and the columns of `ds` that hold no audio.

    `ds` comes from `read_sounds`, or from Ray's readers: the columns of `read_parquet`,
    `read_webdataset` and `read_binary_files(include_paths=True)` are recognized
    (`places.sources_in`). Each of `workers` actors (an exact number, or a minimum and maximum;
    None: as many as fit in the cluster) loads the model once. A sound that cannot be captioned is a
    row with an `error`. Captions are the same as those of the local engine. It is lazy and streams:
    nothing runs until the rows are consumed or written. `actor_options` are passed to
    `map_batches`.

    Raises:
        MissingDependencyError: ray is not installed.
    """
    from earwitness.captioning.ray.remote import as_fsspec

    work = Work(
        ModelChoice(model, options or DEFAULTS, device, batch_size=batch_size),
        extras=extras or Extras(),
        files=None if filesystem is None else as_fsspec(filesystem),
    )
    return captioned(ds, work, workers, num_cpus, num_gpus, **actor_options)


def captioned(
    ds: "Dataset",
    work: Work,
    workers: int | tuple[int, int | None] | None,
    num_cpus: float | int,
    num_gpus: float | int,
    in_flight: int = 2,
    **actor_options: Any,
) -> "Dataset":
    """`ds` mapped by actors that do `work`, each with up to `in_flight` blocks queued."""
    need_ray()
    from ray.data import ActorPoolStrategy

    if not num_gpus and work.choice.device == "auto":
        work = replace(work, choice=replace(work.choice, device="cpu"))
    if isinstance(workers, int):
        pool = ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=in_flight)
    else:
        least, most = workers or (1, None)
        pool = ActorPoolStrategy(
            min_size=least, max_size=most, max_tasks_in_flight_per_actor=in_flight
        )
    with warnings.catch_warnings():
        # Ray has no dedicated parameter for how often an actor is restarted.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return ds.map_batches(
            Worker,
            fn_constructor_args=(work,),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
            **actor_options,
        )


def need_ray() -> Any:
    """The module ray.data. Raises MissingDependencyError."""
    try:
        import ray.data
    except ImportError:
        raise MissingDependencyError(
            f"captioning on Ray needs the package ray: {pip_install('ray')}"
        ) from None
    return ray.data
