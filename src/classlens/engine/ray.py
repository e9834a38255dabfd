"""The same work on a cluster: Ray Data reads images in tasks and measures them in a pool of actors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from classlens.engine.work import Job
from classlens.errors import ClasslensError, cause


@dataclass(frozen=True)
class Cluster:
    """Where and how work is spread.

    ``address``: None for a Ray of its own on this machine, ``"auto"`` for the cluster that this machine belongs to, or
    ``"ray://host:10001"``. ``actors``: copies of the model; one a GPU (or share of one), or one for two CPUs, when left
    out. ``gpus``: GPUs of each, such as 0.5; 1 where the cluster has any.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None


def run_on_cluster(job: Job, units: Sequence[range], cluster: Cluster) -> Iterator[tuple[range, dict[int, str]]]:
    """Measure the units in any order; yields each with its skipped images when it is written.

    An actor that dies is started again and its unit measured anew: a unit is written whole, the same by whomever.
    """
    try:
        import ray
    except ImportError:
        raise ClasslensError("the engine ray needs Ray, which is not installed: pip install 'classlens[ray]'") from None
    if not units:
        return
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # no such cluster, another version of Ray: not bounded
            raise ClasslensError(
                f"the cluster {cluster.address or 'on this machine'!r} cannot be reached ({cause(error)}): check "
                "its address and that it runs the same Ray"
            ) from None
    try:
        yield from _measured(ray, job, units, cluster)
    finally:
        if started:
            ray.shutdown()


def _measured(ray: Any, job: Job, units: Sequence[range], cluster: Cluster) -> Iterator[tuple[range, dict[int, str]]]:
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    there = ray.cluster_resources()
    gpus = cluster.gpus if cluster.gpus is not None else (1.0 if there.get("GPU") else 0.0)
    actors = cluster.actors or max(1, int(there["GPU"] / gpus) if gpus else int(there.get("CPU", 1)) // 2)
    shared = ray.put(job)
    rows = [{"start": unit.start, "stop": unit.stop} for unit in units]
    # One row a block, so that each unit is a task of its own; Ray Data starts actors that die again, and their tasks.
    found = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(
            _Measure,
            fn_constructor_args=([shared],),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(actors, len(rows))),
            num_gpus=gpus or None,
            num_cpus=None if gpus else 1,
        )
        .iter_rows()
    )
    try:
        for row in found:
            if row["error"]:
                raise ClasslensError(row["error"])
            unit = range(int(row["start"]), int(row["stop"]))
            yield unit, dict(zip(map(int, row["images"]), map(str, row["reasons"]), strict=True))
    except ray.exceptions.RayError as error:
        raise ClasslensError(
            f"the cluster stopped ({cause(error)}): run the same command again to go on where it stopped"
        ) from error


class _Measure:
    """An actor: one copy of the model."""

    def __init__(self, job: list[Any]) -> None:
        import ray

        self._worker = ray.get(job[0]).worker()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        unit = range(int(rows["start"][0]), int(rows["stop"][0]))
        error, problems = "", {}
        try:
            problems = self._worker.measure_alone(unit)
        except ClasslensError as failure:  # an input of the user's, which trying again does not change
            error = str(failure)
        return {
            "start": [unit.start],
            "stop": [unit.stop],
            "images": [list(problems)],
            "reasons": [list(problems.values())],
            "error": [error],
        }
