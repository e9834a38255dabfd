"""Measuring a whole data set: what is to be done, what is done already, and who does the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.registry import open_dataset
from classlens.engine.batch_size import chosen_batch_size
from classlens.engine.work import (
    Engine,
    MeasureResult,
    Progress,
    Work,
    check_engine,
    elsewhere,
    follow,
    here,
    lacking,
    reading,
)
from classlens.errors import ClasslensError, suggestion
from classlens.forward.agreement import BY, SUBLAYERS, MemoryTables
from classlens.lens.labels import image_names, token_coords
from classlens.lens.lens import Lens, load
from classlens.lens.random_twin import random_twin
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.models.view import ModelView, Tokens
from classlens.store import schema as variables
from classlens.store.lock import only_writer
from classlens.store.provenance import description, identity_of, transform_pixels
from classlens.store.schema import Array, Axes
from classlens.store.store import Coords, Store, as_url, create, existing, is_local, open_store, require_same
from classlens.tasks.tokens.conditions import CONDITIONS, check_conditions
from classlens.tasks.tokens.job import Job, Readings, subjects_of
from classlens.tasks.tokens.parameters import parameter_facts


def measure(
    model: str | Path | nn.Module | ModelView | Lens,
    data: str | Dataset,
    out: str | os.PathLike[str],
    *,
    conditions: str | Collection[str] = ("clean",),
    sites: str | Collection[str] | None = None,
    memories: bool = False,
    split: str | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    shuffle: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    skip_bad: bool = False,
    tuned_lens: str | os.PathLike[str] | TunedLens | None = None,
    probes: str | os.PathLike[str] | None = None,
    engine: Engine = "local",
    cluster: Any = None,
    report: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> MeasureResult:
    """Measure every token of a data set in class space, into a store.

        outcome = classlens.measure(
            "vit_base_patch32_224.augreg_in21k_ft_in1k", "imagenet-s:/data", "b32.zarr",
            conditions=("clean", "random_init"), memories=True, per_class=5,
        )
        clean = classlens.open_store(outcome.store)

    Hidden states are reduced inside the forward pass and dropped. The store is written 64 images at a time; a run that
    was stopped, however it was stopped, goes on where it was when it is started again, and ends with the same values.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` alone).
        data: ``folder:ROOT``, ``list:FILE``, ``imagenet-s:ROOT``, ``cifar10:ROOT``, ``cifar100:ROOT`` or ``hf:NAME``;
            or a ``Dataset``. Its classes are matched to the model's by name, wnid or index.
        out: a local path or a URL of fsspec, such as ``s3://bucket/run.zarr``.
        conditions: some of ``clean, random_init, self_only, no_cls, context_removed, class_removed, tuned`` and the
            kinds of probes ``probe, probe_pooled, probe_logistic``. More may be added to a store later.
        sites: some of ``embed, attn_out, resid_mid, mlp_out, resid_post``; all when left out.
        memories: also key/value memories: agreement of each token, and the group ``parameters``.
        split, per_class, limit: which images; ``shuffle`` draws ``per_class`` and ``limit`` with ``seed`` where
            otherwise the first are taken.
        seed: of the random twin, of the random-class control and of drawn subsets.
        batch_size: images in a forward pass: up to 64, or a multiple of 64. Recorded, and kept on resuming.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and leave out an image that cannot be read, in place of stopping there.
        tuned_lens: for the condition ``tuned``: a file that ``classlens tune`` wrote.
        probes: for ``probe, probe_pooled, probe_logistic``: the folder that ``classlens probe`` wrote.
        engine: ``"ray"`` spreads the work over a cluster, as ``cluster`` (a ``runs.cluster.Cluster``) says.
        report: called with a ``Progress`` as images are written.
        options: passed to ``classlens.load``: ``checkpoint``, ``transform="paper"``, ``device``, ``dtype`` …

    Raises:
        ClasslensError: data or classes that do not fit, an image that cannot be read, a store of something else or
            with another writer, or a full disk; what was measured before stays in the store.
    """
    check_engine(engine)
    url = as_url(out)
    found = existing(url)
    dataset = data
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(str(data), split=split, per_class=per_class, limit=limit, seed=seed if shuffle else None)
    lens = model if isinstance(model, Lens) else load(model, **options)
    if isinstance(model, Lens) and engine != "local":
        raise ClasslensError("a lens was given to measure on a cluster: give the model's name, which each worker loads")
    labels = map_classes(dataset, lens.classes, model_name=lens.view.name)
    names = (conditions,) if isinstance(conditions, str) else tuple(conditions)
    chosen = check_conditions(
        names,
        lens.view,
        masks=dataset.has_masks,
        data=dataset.spec,
        tuned=tuned_lens is not None,
        probes=probes is not None,
    )
    readings = _readings(lens, chosen, tuned_lens, probes)
    pixels = transform_pixels(lens.preprocessing)
    tokens = lens.view.tokens((int(pixels.shape[1]), int(pixels.shape[2])))
    axes = _axes(lens, dataset, tokens, sites, memories=memories)
    size = chosen_batch_size(batch_size, None if found is None else found.identity, lens.view, tokens.count)
    lacks_parameters = memories and (found is None or not found.has_parameters())
    twin = _twin(model, lens, chosen, options, seed, parameters=lacks_parameters)
    identity = {
        **identity_of(lens, dataset, pixels, batch_size=size, seed=seed),
        "sites": [*axes.sites, *(["embed"] if axes.embed else [])],
        "memories": axes.memories,
    }
    with only_writer(url, local=is_local(url)) as renew:
        store = existing(url)
        if store is None:
            about = {"classlens": "measure", "threads": torch.get_num_threads()}
            store = create(url, {**identity, **description(lens, dataset), **about})
        require_same(url, store.identity, identity)
        store.clear_leftovers()
        for name in chosen:
            read_by = readings.digest(name)
            about = {"condition": name, "note": CONDITIONS[name].note, "read_by": read_by}
            store.add_group(name, axes.layout, _coords(lens, dataset, tokens, axes), about)
            _check_read_by(store, name, read_by)
        job = Job(
            model=lens.view if isinstance(model, Lens) else model,
            options=options,
            dataset=dataset,
            labels=labels,
            axes=axes,
            tokens=tokens,
            shape=tuple(pixels.shape),
            seed=seed,
            readings=readings,
            work=Work(url, chosen, size, int(store.identity["threads"]), skip_bad),
        )
        todo = lacking(job.work, store)
        # Images are read from here on, while tables are made.
        batches = reading(job.reader(lens), todo, size, workers) if engine == "local" else iter(())
        wanted = memories and (lacks_parameters or bool(todo and engine == "local"))
        tables = {key: MemoryTables(each.view) for key, each in ((False, lens), (True, twin)) if wanted and each}
        if lacks_parameters:
            _write_parameters(store, lens, twin, tables)
        subjects = subjects_of(chosen, lens, twin, readings, tables)
        made = (
            elsewhere(job, todo, cluster) if engine == "ray" else here(lambda: job.worker_of(subjects), todo, batches)
        )
        seconds = follow(made, len(dataset), sum(map(len, todo)), renew, report)
        problems = {index: why for name in chosen for index, why in store.problems(name).items()}
    return MeasureResult(
        store=url,
        images=len(dataset),
        before=len(dataset) - sum(map(len, todo)),
        skipped={dataset.names[index]: problems[index] for index in sorted(problems)},
        seconds=seconds,
        batch_size=size,
    )


def _readings(
    lens: Lens,
    conditions: Sequence[str],
    tuned_lens: str | os.PathLike[str] | TunedLens | None,
    probes: str | os.PathLike[str] | None,
) -> Readings:
    """What the conditions are read by; raises ClasslensError for what is of another model, or not complete."""
    if tuned_lens is not None and not isinstance(tuned_lens, TunedLens):
        tuned_lens, _ = read_tuned_lens(tuned_lens, lens.view)
    if tuned_lens is not None:
        tuned_lens.maps(lens.view)
    found = Readings(tuned_lens, None if probes is None else Path(probes).absolute())
    for name in conditions:
        if CONDITIONS[name].subject == "probe":
            found.files(name).check(lens.view)
    return found


def _check_read_by(store: Store, condition: str, digest: str) -> None:
    """What is read by other tuned_lens or probes does not meet in one group."""
    if digest and open_store(store.url, condition).attrs.get("read_by") != digest:
        raise ClasslensError(
            f"store {store.url!r} holds condition {condition!r} read by another tuned lens or other probes: give the "
            "same to go on, or another --out"
        )


def _twin(
    model: Any, lens: Lens, conditions: Sequence[str], options: Mapping[str, Any], seed: int, *, parameters: bool
) -> Lens | None:
    """The random twin where a condition or the parameters ask for it; parameters do without where there is none."""
    needed = any(CONDITIONS[name].subject == "twin" for name in conditions)
    if not needed and not parameters:
        return None
    try:
        return random_twin(model, lens, options, seed)
    except ClasslensError:
        if needed:
            raise
        return None


def _write_parameters(store: Store, lens: Lens, twin: Lens | None, tables: Mapping[bool, MemoryTables]) -> None:
    views = {"model": (lens.view, tables[False])}
    if twin is not None:
        views["random_init"] = (twin.view, tables[True])
    facts = parameter_facts(views)
    coords: Coords = {
        "weights": ("weights", np.array(list(views))),
        "sublayer": ("sublayer", np.array(SUBLAYERS)),
        "block": ("block", np.arange(len(lens.view.blocks))),
        **_category(lens),
    }
    store.replace_parameters(facts, coords)


def _axes(lens: Lens, dataset: Dataset, tokens: Tokens, sites: str | Collection[str] | None, *, memories: bool) -> Axes:
    known = [site for site in variables.SITES if site != "resid_mid" or lens.view.has_mid]
    wanted = [*known, "embed"] if sites is None else [sites] if isinstance(sites, str) else list(sites)
    for site in wanted:
        if site not in (*known, "embed"):
            raise ClasslensError(
                f"site {site!r} cannot be measured in model {lens.view.name!r}{suggestion(str(site), known)}; "
                f"give some of embed, {', '.join(known)}"
            )
    if memories and not {"attn_out", "mlp_out"} <= set(wanted):
        raise ClasslensError("memories are set beside the top-1 classes of attn_out and mlp_out: add both to sites")
    shown = [f"{sublayer}_coefficients" for sublayer in SUBLAYERS]
    if memories and any(point not in block.points for block in lens.view.blocks for point in shown):
        raise ClasslensError(
            f"model {lens.view.name!r} is described without its memory coefficients: add the points "
            f"{' and '.join(shown)} to its blocks, or leave out memories"
        )
    if not wanted:
        raise ClasslensError(f"no sites were given: give some of embed, {', '.join(known)}")
    return Axes(
        images=len(dataset),
        tokens=tokens.count,
        blocks=len(lens.view.blocks),
        classes=lens.view.num_classes,
        sites=tuple(site for site in known if site in wanted),
        embed="embed" in wanted,
        memories=memories,
    )


def _coords(lens: Lens, dataset: Dataset, tokens: Tokens, axes: Axes) -> Coords:
    coords: dict[str, tuple[str, Array]] = {
        "image": ("image", image_names(dataset.names)),
        "site": ("site", np.array(axes.sites, dtype=object)),
        "block": ("block", np.arange(axes.blocks)),
        **_category(lens),
    }
    for key, value in token_coords(tokens).items():
        coords[str(key)] = value if isinstance(value, tuple) else (str(key), np.asarray(value))
    if axes.memories:
        coords |= {"by": ("by", np.array(BY)), "sublayer": ("sublayer", np.array(SUBLAYERS))}
    if not axes.sites:
        del coords["site"]
    return coords


def _category(lens: Lens) -> dict[str, tuple[str, Array]]:
    return {
        "category": ("category", np.arange(len(lens.classes))),
        "class_name": ("category", np.array(lens.classes.names, dtype=object)),
    }
