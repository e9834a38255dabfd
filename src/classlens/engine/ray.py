"""The Ray engine: a pool of actors, each with a copy of the model, on this machine or a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from classlens.core.arguments import AtLeast1, NonNegative, checked
from classlens.engine.runner import BatchResult, Runner
from classlens.engine.task import Job, Partition, Step, Steps
from classlens.errors import ClasslensError, cause
from classlens.store.store import Store


@checked
@dataclass(frozen=True)
class Cluster:
    """The Ray cluster of a run, and its share of it.

    Args:
        address: None for a Ray of this process, which listens on the loopback interface alone; ``"auto"`` for the
            cluster of this machine, or ``"ray://host:10001"``.
        actors: copies of the model; by default one per GPU (or share of one), or one per two CPUs.
        gpus: GPUs per actor, such as 0.5; 1 by default where the cluster has any.
    """

    address: str | None = None
    actors: AtLeast1 | None = None
    gpus: NonNegative | None = None


def fill(job: Job, partitions: Sequence[Partition], store: Store, cluster: Cluster) -> Steps:
    """Measure and write partitions in any order, each of which is a step.

    An actor that dies is restarted and its partition measured again; a partition has the same values whoever writes it.
    """
    for steps in _run(job, partitions, cluster, store.url):
        totals = tuple(part for step in steps for part in step.totals)
        yield Step(sum(step.images for step in steps), sum(step.skipped for step in steps), totals=totals)


def stream(job: Job, partitions: Sequence[Partition], cluster: Cluster) -> Generator[BatchResult, None, None]:
    """The results of partitions in order."""
    for results in _run(job, partitions, cluster, None):
        yield from results


def _missing() -> ClasslensError:
    return ClasslensError("the engine ray needs Ray, which is not installed: pip install 'classlens[ray]'")


def require_ray() -> None:
    """Raises ClasslensError where Ray is not installed, without importing it: ``connected`` prepares its import."""
    if "ray" not in sys.modules and find_spec("ray") is None:
        raise _missing()


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """The library ``ray``, connected to the cluster; disconnected at the end unless it was connected before."""
    if cluster.address is None:
        # Nobody else can reach a Ray that is started here, and it reports to nobody. Ray reads these on import; the
        # first, whatever its name, keeps it on the loopback interface on Linux, too.
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        import ray
    except ImportError:
        raise _missing() from None
    starts = not ray.is_initialized()
    if starts:
        options: dict[str, Any] = {"address": cluster.address}
        if cluster.address is None:
            options = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # no such cluster, another version of Ray: not bounded
            raise ClasslensError(
                f"the cluster {cluster.address or 'on this machine'!r} cannot be reached ({cause(error)}): check "
                "its address and that it runs the same Ray"
            ) from None
    try:
        yield ray
    finally:
        if starts:
            ray.shutdown()


def _run(job: Job, partitions: Sequence[Partition], cluster: Cluster, store: str | None) -> Generator[Any, None, None]:
    if partitions:
        with connected(cluster) as ray:
            yield from _results(ray, job, partitions, cluster, store)


def _results(
    ray: Any, job: Job, partitions: Sequence[Partition], cluster: Cluster, store: str | None
) -> Generator[Any, None, None]:
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    actors, gpus = pool_size(cluster, ray.cluster_resources())
    shared = ray.put(job)
    # One row per block makes each partition a task of its own; Ray Data restarts actors that die, and their tasks.
    rows = ray.data.from_items(
        [{"partition": pickle.dumps(partition)} for partition in partitions], override_num_blocks=len(partitions)
    )
    rows.context.enable_progress_bars = False
    rows.context.execution_options.preserve_order = store is None
    outcomes = rows.map_batches(
        _Actor,
        fn_constructor_args=([shared], store),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(actors, len(partitions))),
        num_gpus=gpus or None,
        num_cpus=None if gpus else 1,
    ).iter_rows()
    try:
        for outcome in outcomes:
            if outcome["error"]:
                raise ClasslensError(outcome["error"])
            yield pickle.loads(outcome["result"])
    except ray.exceptions.RayError as error:
        raise ClasslensError(f"the cluster stopped ({cause(error)}): run the same command again to resume") from error


def pool_size(cluster: Cluster, resources: Mapping[str, float]) -> tuple[int, float]:
    """Number of actors and GPUs of each; raises ClasslensError for more GPUs than ``resources`` of the cluster hold."""
    available = resources.get("GPU", 0.0)
    gpus = min(available, 1.0) if cluster.gpus is None else cluster.gpus
    if gpus > available:
        raise ClasslensError(
            f"gpus is {gpus:g}, but the cluster has {available:g} GPUs: give fewer, or 0 to run on CPUs"
        )
    return cluster.actors or max(1, int(available / gpus if gpus else resources.get("CPU", 1.0) // 2)), gpus


class _Actor:
    """One copy of the model, which fills a store or returns the results of its partitions."""

    def __init__(self, job: list[Any], store: str | None) -> None:
        import ray

        self._job: Job = ray.get(job[0])
        self._url = store

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self._job)

    @cached_property
    def _store(self) -> Store | None:
        return None if self._url is None else Store(self._url)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        error, result = "", None
        try:
            result = self._measure(pickle.loads(rows["partition"][0]))
        except ClasslensError as failure:  # an input error, which a retry does not change
            error = str(failure)
        return {"result": [pickle.dumps(result)], "error": [error]}

    def _measure(self, partition: Partition) -> Any:
        batches = self._runner.read(partition)
        if self._store is not None:
            return list(self._runner.fill(partition, batches, self._store))
        return list(self._runner.measure(partition, batches))
