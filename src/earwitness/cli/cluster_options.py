"""The engine of a captioning job, from its options."""

from enum import StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from earwitness.captioning.ray import Cluster


class Engine(StrEnum):
    """What runs a captioning job."""

    local = "local"
    ray = "ray"


def cluster_of(
    engine: Engine,
    address: str | None,
    workers: int | None,
    cpus: float,
    gpus: float,
    events: bool,
    duplicates: bool,
) -> "Cluster | None":
    """The cluster that the options describe; None for this machine only.

    Raises BadParameter for cluster options without a cluster, and MissingDependencyError.
    """
    if engine is Engine.local:
        given = {"address": address, "workers": workers, "gpus": gpus, "duplicates": duplicates}
        for name, value in given.items():
            if value:
                raise typer.BadParameter("needs --engine ray", param_hint=f"--{name}")
        return None
    from earwitness.captioning.ray import Cluster, Extras
    from earwitness.captioning.ray.dataset import need_ray

    need_ray()
    return Cluster(address, workers, cpus, gpus, Extras(events, duplicates))
