"""Measuring every token of a data set in class space, into a store."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Seed
from classlens.core.arrays import Array
from classlens.core.path_arguments import checked_with_home
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model
from classlens.engine.progress import MeasureResult, Report, no_report
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError, suggestion
from classlens.forward.agreement import BY, SUBLAYERS
from classlens.forward.isolation import isolated
from classlens.lens.coords import image_names, token_coords
from classlens.lens.directions import Directions, read_directions
from classlens.lens.lens import Lens
from classlens.lens.tuned_lens import TunedLens
from classlens.models.label_groups import Groups, LabelGroups
from classlens.store.backend import as_url
from classlens.store.provenance import text_digest
from classlens.store.schema import Coords
from classlens.store.store import Store, find_store
from classlens.tasks.tokens.attribution.parameters import write_head_maps
from classlens.tasks.tokens.attribution.stored import StoredAttribution, attribution_axes_of, require_same_units
from classlens.tasks.tokens.conditions.check import check_conditions
from classlens.tasks.tokens.conditions.registry import CLEAN, CONDITIONS
from classlens.tasks.tokens.decoders import Decoders
from classlens.tasks.tokens.parameters import parameter_facts
from classlens.tasks.tokens.schema import NORM, STORED_SITES, TRAJECTORY, Axes
from classlens.tasks.tokens.task import TokenTask


@isolated
@checked_with_home
def measure(
    model: Model,
    data: str | Dataset,
    out: AnyPath,
    *,
    conditions: str | Collection[str] = (CLEAN,),
    sites: str | Collection[str] = "all",
    memories: bool = False,
    attribution: bool = False,
    units: AtLeast1 | None = None,
    directions: Directions | AnyPath | None = None,
    tuned_lens: TunedLens | AnyPath | None = None,
    probes: AnyPath | None = None,
    label_groups: Groups | None = None,
    split: str | None = None,
    label_column: str | None = None,
    masks: AnyPath | None = None,
    mask_values: str | None = None,
    per_class: AtLeast1 | None = None,
    limit: AtLeast1 | None = None,
    shuffle: bool = False,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    workers: AtLeast0 | None = None,
    skip_bad: bool = False,
    engine: Engine = "local",
    cluster: Cluster | None = None,
    report: Report = no_report,
    **options: Any,
) -> MeasureResult:
    """Measure every token of a data set in class space, into a store.

    Hidden states are reduced inside the forward pass and dropped. A run that is stopped keeps the batches that are
    finished; one that is killed loses the last 15 seconds and the batch under way. It resumes when it is started again,
    and ends with the same values.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: layout and place of the data, such as ``folder:ROOT`` (see ``open_dataset``), or a ``Dataset``. Its
            classes are matched to the model's by name, wnid or index.
        out: local path or fsspec URL of the store, such as ``s3://bucket/run.zarr``.
        conditions: names of conditions, or ``"all"``. More conditions can be added to a store later.
        sites: some of ``embed, attn_out, resid_mid, mlp_out, resid_post``, or ``"all"``.
        memories: also measure key/value memories: agreement of each token, and the group ``parameters``.
        attribution: also measure exact contributions of every head and MLP to the logits of the label and of the
            predicted class, and to the mean of all logits; distance and entropy of the attention of every head; and the
            tokens through which it adds most. They go to the groups ``attribution`` and ``head_tokens``, for
            ``classlens.atlas``, and can be added to a store later.
        units: with this number of MLP units that add most to these logits for each image, and for every unit the tokens
            with the largest coefficients: groups ``units`` and ``unit_tokens``. It includes ``attribution``.
        directions: directions in the place of hidden units, such as a sparse autoencoder: a file as for
            ``read_directions``, or the object. It goes with ``units``.
        tuned_lens: file of ``classlens tune``, for the condition ``tuned_lens``.
        probes: folder of ``classlens probe``, for the conditions ``probe``, ``probe_pooled`` and ``probe_logistic``.
        label_groups: groups of classes whose trajectories are stored beside those of classes: a CSV or TSV file of
            lines ``class,group``, or a dict, as for ``Trace.trajectory``.
        split: split of the data, such as ``"validation"``.
        label_column: column of a table that has the classes, or ``"none"`` (see ``open_dataset``).
        masks: folder of masks that show where the class is, with the paths of the images (see ``open_dataset``).
        mask_values: what the values of ``masks`` mean, such as ``"object=1,3 ignore=255"`` (see ``open_dataset``).
        per_class: maximum number of images per class.
        limit: maximum number of images, spread evenly over the classes.
        shuffle: draw ``per_class`` and ``limit`` with ``seed``; the first images are taken otherwise.
        seed: random seed of the random twin, the control class and drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64. It is recorded and kept on resuming.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and skip unreadable images in place of stopping; images without a mask that fits are left out
            of what needs masks.
        engine: ``"local"``, or ``"ray"`` to spread the work over a cluster.
        cluster: where Ray runs.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``: ``checkpoint``, ``transform="paper"``, ``device``, ``dtype`` and others.

    Returns:
        A ``MeasureResult``; ``classlens.open_store(result.store)`` opens the store.

    Raises:
        ClasslensError: data or classes that do not fit, an unreadable image, a store of other settings or with another
            writer, or a full disk. Measured images stay in the store.

    Examples:
        >>> import classlens
        >>> result = classlens.measure(
        ...     "vit_base_patch32_224.augreg_in21k_ft_in1k", "imagenet-s:/data", "b32.zarr",
        ...     conditions=("clean", "random_init"), memories=True, per_class=5,
        ... )  # doctest: +SKIP
        >>> clean = classlens.open_store(result.store)["clean"]  # doctest: +SKIP
    """
    if directions is not None and units is None:
        raise ClasslensError(
            "directions take the place of units, whose number is missing: give --units (units=), such as 64"
        )
    if directions is not None and not isinstance(directions, Directions):
        directions = read_directions(directions)
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    url = as_url(out)
    begun = find_store(url)
    selection = Selection(
        split=split,
        label_column=label_column,
        masks=masks,
        mask_values=mask_values,
        per_class=per_class,
        limit=limit,
        shuffle=shuffle,
    )
    session = Session.start(model, data, selection, run, options, None if begun is None else begun.attributes)
    decoders = Decoders.open(tuned_lens, probes, session.lens)
    groups = None if label_groups is None else LabelGroups.of(label_groups, session.lens.classes)
    return measure_session(
        session,
        url,
        conditions,
        sites,
        decoders,
        memories=memories,
        groups=groups,
        attribution=attribution or units is not None,
        units=units or 0,
        directions=directions,
    )


def measure_session(
    session: Session,
    url: str,
    conditions: str | Collection[str],
    sites: str | Collection[str],
    decoders: Decoders,
    *,
    memories: bool = False,
    groups: LabelGroups | None = None,
    attribution: bool = False,
    units: int = 0,
    directions: Directions | None = None,
) -> MeasureResult:
    """``measure`` for a model and data at hand."""
    lens, dataset, seed = session.lens, session.dataset, session.options.seed
    chosen = check_conditions(
        conditions, lens.view, masks=dataset.has_masks, data=dataset.spec, decoders=decoders.names
    )
    decoders.check(chosen, lens)
    if any(CONDITIONS[name].model == "random_twin" for name in chosen):
        session.source.random_twin(seed)  # a model without one is refused before anything is written
    axes = replace(_axes(session, sites, memories=memories), label_groups=0 if groups is None else len(groups))
    attribution_axes = attribution_axes_of(lens.view, len(dataset), units, directions) if attribution else None
    session.require_masks()
    digest = None if groups is None else text_digest([*groups.names, *map(str, groups.of_class)])
    settings = session.settings(sites=list(axes.all_sites), memories=memories, label_groups=digest)
    with session.writable_store(url, "measure", settings) as (store, renew):
        if attribution_axes is not None:
            require_same_units(store, attribution_axes)
        begun_groups = [name for name in store.groups() if name in CONDITIONS]
        axes = replace(  # begun by a version without
            axes,
            trajectory=all(store.has_array(name, f"{TRAJECTORY}_rank") for name in begun_groups),
            norms=all(store.has_array(name, NORM) for name in begun_groups),
        )
        for name in chosen:
            _add_condition(store, name, session, axes, decoders, groups)
        if memories and not store.has_group("parameters"):
            _write_parameters(store, session)
        unknown_is_ignored = not dataset.unknown_is_context
        task = TokenTask(
            chosen, axes, session.tokens, decoders, seed, unknown_is_ignored, groups, attribution_axes, directions
        )
        stored = (
            None if attribution_axes is None else StoredAttribution(store, attribution_axes, lens, dataset, directions)
        )
        if attribution_axes is not None:
            write_head_maps(store, lens.view, attribution_axes)
        try:
            job = session.job(task, threads=store.attributes["threads"])
            result = session.fill([job], store, renew, note="" if stored is None else stored.note, totals=stored)
        finally:
            if stored is not None:
                stored.write_groups()
        return replace(result, unmasked=store.unfilled(chosen[0], "class_token") if dataset.has_masks else 0)


def _add_condition(
    store: Store, name: str, session: Session, axes: Axes, decoders: Decoders, groups: LabelGroups | None
) -> None:
    """Make the group of a condition; raises ClasslensError where it holds scores of another decoder."""
    digest = decoders.digest(name)
    attrs = {"condition": name, "note": CONDITIONS[name].about, "decoder": digest}
    store.add_group(name, axes.schema(_coords(session, axes, groups), attrs))
    if digest and store.group_attributes(name).get("decoder") != digest:
        raise ClasslensError(
            f"store {store.url!r} holds condition {name!r} of another tuned lens or other probes: give the same to "
            "resume, or another --out"
        )


def _write_parameters(store: Store, session: Session) -> None:
    """Write the group ``parameters``, of the random twin as well where there is one."""
    lens = session.lens
    views = {"model": lens.view}
    with suppress(ClasslensError):  # where no library makes the model anew
        views["random_init"] = session.source.random_twin(session.options.seed).view
    coords: Coords = {
        "weights": ("weights", np.array(list(views))),
        "sublayer": ("sublayer", np.array(SUBLAYERS)),
        "block": ("block", np.arange(len(lens.view.blocks))),
        **_class_coords(lens),
    }
    facts = parameter_facts(views)
    sizes = {dim: size for dims, values in facts.values() for dim, size in zip(dims, values.shape, strict=True)}
    numbers = {dim: (dim, np.arange(size)) for dim, size in sizes.items() if dim not in coords}
    store.write_group("parameters", facts, {**coords, **numbers})


def _axes(session: Session, sites: str | Collection[str], *, memories: bool) -> Axes:
    view = session.lens.view
    model_sites = [site for site in STORED_SITES if site != "resid_mid" or view.has_mid]
    names = [sites] if isinstance(sites, str) else list(sites)
    chosen = [*model_sites, "embed"] if names == ["all"] else names
    for site in chosen:
        if site not in (*model_sites, "embed"):
            raise ClasslensError(
                f"site {site!r} cannot be measured in model {view.name!r}{suggestion(str(site), model_sites)}; "
                f"give some of embed, {', '.join(model_sites)}"
            )
    if memories and not {"attn_out", "mlp_out"} <= set(chosen):
        raise ClasslensError("memories are set beside the top-1 classes of attn_out and mlp_out: add both to sites")
    points = [f"{sublayer}_coefficients" for sublayer in SUBLAYERS]
    if memories and any(point not in block.points for block in view.blocks for point in points):
        raise ClasslensError(
            f"model {view.name!r} is described without its memory coefficients: add the points "
            f"{' and '.join(points)} to its blocks, or leave out memories"
        )
    if not chosen:
        raise ClasslensError(f"no sites were given: give some of embed, {', '.join(model_sites)}")
    return Axes(
        images=len(session.dataset),
        tokens=session.tokens.count,
        blocks=len(view.blocks),
        classes=view.num_classes,
        sites=tuple(site for site in model_sites if site in chosen),
        embed="embed" in chosen,
        memories=memories,
    )


def _coords(session: Session, axes: Axes, groups: LabelGroups | None) -> Coords:
    coords: dict[str, tuple[str, Array]] = {
        "image": ("image", image_names(session.dataset.names)),
        "site": ("site", np.array(axes.sites, dtype=object)),
        "block": ("block", np.arange(axes.blocks)),
        **_class_coords(session.lens),
    }
    if axes.trajectory:
        coords |= {"depth": ("depth", np.arange(axes.blocks + 1)), "place": ("place", np.arange(axes.places))}
    if groups is not None:
        coords |= {
            "group": ("group", np.arange(len(groups))),
            "group_name": ("group", np.array(groups.names, dtype=object)),
            "class_group": ("category", np.array(groups.of_class)),
            "group_place": ("group_place", np.arange(axes.group_places)),
        }
    for key, value in token_coords(session.tokens).items():
        coords[str(key)] = value if isinstance(value, tuple) else (str(key), np.asarray(value))
    if axes.memories:
        coords |= {"by": ("by", np.array(BY)), "sublayer": ("sublayer", np.array(SUBLAYERS))}
    if not axes.sites:
        del coords["site"]
    return coords


def _class_coords(lens: Lens) -> dict[str, tuple[str, Array]]:
    return {
        "category": ("category", np.arange(len(lens.classes))),
        "class_name": ("category", np.array(lens.classes.names, dtype=object)),
    }
