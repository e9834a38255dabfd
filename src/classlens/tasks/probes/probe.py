"""Training probes on one data set and measuring their scores on another, into a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Positive, Seed
from classlens.core.path_arguments import checked_with_home
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model, ModelSource
from classlens.engine.progress import MeasureResult, Report, Tracker, no_report
from classlens.engine.ram import parse_ram
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError
from classlens.extras import require_extras
from classlens.forward.isolation import isolated
from classlens.lens.tuned_lens import TunedLens
from classlens.store.lock import only_writer
from classlens.store.metadata import SHARD
from classlens.store.probe_folder import ProbeFolder
from classlens.store.provenance import require_same
from classlens.store.store import find_store
from classlens.tasks.probes.plan import TokenChoice, all_probe_tokens, choose_sites, token_range
from classlens.tasks.probes.training import Kind, ProbeTrainer
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.decoders import Decoders
from classlens.tasks.tokens.measure import measure_session

CONDITION_OF: Mapping[str, str] = {"ridge": "probe", "pooled": "probe_pooled", "logistic": "probe_logistic"}
"""The condition that measures probes of each kind; also their folder."""
STORE = "probes.zarr"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Trained probes and their scores.

    Args:
        run: summary of the run that wrote the store.
        condition: condition of the store that holds the scores of the probes.
        folder: the probes.
        trained: number of probes that this run trained.
        passes: forward passes over the training images, leave-one-out included.
        seconds: time of training.
    """

    run: MeasureResult
    condition: str
    folder: ProbeFolder
    trained: int
    passes: int
    seconds: float


@isolated
@checked_with_home
def probe(
    model: Model,
    train: str | Dataset,
    test: str | Dataset,
    out: AnyPath,
    *,
    sites: str | Collection[str] = ("attn_out", "mlp_out", "resid_post"),
    kind: Kind = "ridge",
    alpha: Positive | Literal["loo"] = 1.0,
    tokens: TokenChoice | None = None,
    ram: int | str = "8GB",
    tuned_lens: TunedLens | AnyPath | None = None,
    train_split: str | None = None,
    train_per_class: AtLeast1 | None = None,
    train_limit: AtLeast1 | None = None,
    test_split: str | None = None,
    test_per_class: AtLeast1 | None = None,
    test_limit: AtLeast1 | None = None,
    test_masks: AnyPath | None = None,
    mask_values: str | None = None,
    label_column: str | None = None,
    shuffle: bool = False,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    workers: AtLeast0 | None = None,
    skip_bad: bool = False,
    engine: Engine = "local",
    cluster: Cluster | None = None,
    report: Report = no_report,
    **options: Any,
) -> ProbeResult:
    """Train linear probes of every token, site and block, and measure their scores beside the class projection.

    Ridge probes (targets ±1, with an intercept) need one pass over the training images where their sums fit the RAM,
    else ``⌈need / ram⌉`` passes. A stopped run resumes within its pass. The store ``out/probes.zarr`` is one of
    ``classlens.measure`` with the conditions ``clean``, that of the probes and, with a tuned lens, ``tuned_lens``.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        train: training images, as for ``classlens.measure``; they need labels.
        test: test images, likewise.
        out: a folder; each kind of probes has a folder of its own in it, float32, 4 × width × classes bytes per probe.
        sites: some of ``embed, attn_out, resid_mid, mlp_out, resid_post``, or ``"all"``.
        kind: ``"ridge"``, one probe per token (the paper's); ``"pooled"``, one for all image tokens of a site and
            block; ``"logistic"``, scikit-learn's logistic regression per token, for comparison.
        alpha: ridge penalty, 1 in the paper; ``"loo"`` chooses it for each probe by leave-one-out in closed form, with
            a second pass. For logistic probes the inverse of scikit-learn's ``C``.
        tokens: ``"all"``, ``"prefix"``, ``"image"`` or ``"cls"``; by default all tokens, for pooled probes the image
            tokens.
        ram: RAM for the sums and features of one pass, such as ``"8GB"``, beside the model.
        tuned_lens: file of ``classlens tune``, measured as well.
        train_split: split of the training data.
        train_per_class: maximum number of training images per class; ten in the paper.
        train_limit: maximum number of training images, spread evenly over the classes.
        test_split: split of the test data.
        test_per_class: maximum number of test images per class.
        test_limit: maximum number of test images, likewise.
        test_masks: folder of masks of the test images that show where the class is (see ``open_dataset``).
        mask_values: what the values of ``test_masks`` mean, such as ``"object=1,3 ignore=255"``.
        label_column: column of both tables that has the classes (see ``open_dataset``).
        shuffle: draw images with ``seed``; the first images are taken otherwise.
        seed: random seed of drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and skip unreadable images in place of stopping.
        engine: ``"local"``, or ``"ray"`` to run the model on a cluster; sums and solutions are made on this machine.
        cluster: where Ray runs.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        A ``ProbeResult``.

    Raises:
        ClasslensError: data without labels, the same images for training and test, unknown sites or tokens, too little
            RAM, a folder with probes of other images or settings, and everything that ``classlens.measure`` raises.

    Source: Vilas et al., NeurIPS 2023, section 4 and appendix.

    Examples:
        >>> import classlens
        >>> result = classlens.probe(
        ...     "builtin:cifar10", "cifar10:/data", "cifar10:/data", "probes", train_split="train", train_per_class=100
        ... )  # doctest: +SKIP
        >>> classlens.open_store(result.run.store)["probe"]["rank"].sel(site="resid_post")  # doctest: +SKIP
    """
    if kind == "logistic":
        require_extras("probes", "kind 'logistic'")
    penalty = _check_alpha(alpha, kind)
    available = parse_ram(ram)
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    both: dict[str, Any] = {"label_column": label_column, "shuffle": shuffle}
    learned = Selection(split=train_split, per_class=train_per_class, limit=train_limit, **both)
    tested = Selection(
        split=test_split,
        masks=test_masks,
        mask_values=mask_values,
        per_class=test_per_class,
        limit=test_limit,
        **both,
    )
    train_data, test_data = learned.open(train, seed), tested.open(test, seed)
    _check_apart(train_data, test_data)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ClasslensError(f"output {str(folder)!r} is a file: expected a folder; give another --out")
    probes = ProbeFolder(folder / CONDITION_OF[kind])
    source = ModelSource(model, options)
    decoders = Decoders.open(tuned_lens, folder, source.lens)
    session = Session(source, train_data, run, probes.record)
    session.require_labels("probes learn")
    test_run = replace(run, batch_size=_test_batch_size(batch_size, session))
    begun = find_store(str(folder / STORE))
    test_session = Session(source, test_data, test_run, None if begun is None else begun.attributes)
    view = source.lens.view
    chosen = choose_sites(sites, view)
    token_choice = tokens or ("image" if kind == "pooled" else "all")
    positions = token_range(token_choice, view, session.tokens)
    if kind == "pooled" and token_choice != "image":
        raise ClasslensError(f"pooled probes share all image tokens, not tokens {token_choice!r}: leave tokens out")
    settings = session.training_settings(
        data=train_data.spec,
        kind=kind,
        alpha=penalty,
        sites=list(chosen),
        tokens=[positions.start, positions.stop],
    )
    with only_writer(str(probes.folder), local=True):
        record = probes.record
        if record is not None:
            require_same(str(probes.folder), record, settings)
        trainer = ProbeTrainer(session, kind, penalty, probes)
        plan = trainer.plan(all_probe_tokens(view, chosen, positions), available)
        if record is None:
            probes.begin({**settings, "model": view.name})
        probes.clear_leftovers()
        passes = len(trainer.passes(plan)) * (2 if penalty == "loo" else 1)
        train_images = passes * len(train_data)
        total = train_images + len(test_data)
        tracker = Tracker(report, total, doing="training images")
        trainer.train(plan, tracker)
        seconds = tracker.seconds
    test_session.options = replace(
        test_session.options,
        report=lambda now: report(
            replace(now, done=now.done + train_images, images=total, before=now.before + train_images)
        ),
    )
    conditions = [CLEAN, *(["tuned_lens"] if tuned_lens is not None else []), CONDITION_OF[kind]]
    result = measure_session(test_session, str(folder / STORE), conditions, chosen, decoders)
    return ProbeResult(result, CONDITION_OF[kind], probes, trainer.trained, passes, seconds)


def _check_alpha(alpha: float | str, kind: str) -> float | Literal["loo"]:
    if alpha == "loo":
        if kind == "logistic":
            raise ClasslensError("alpha 'loo' is for ridge probes: give logistic probes a number")
        return "loo"
    return float(alpha)


def _test_batch_size(batch_size: int | Literal["auto"], session: Session) -> int | Literal["auto"]:
    """A whole shard on the CPU: every batch passes the weights of all probes."""
    return SHARD if batch_size == "auto" and session.lens.view.device.type == "cpu" else batch_size


def _check_apart(train: Dataset, test: Dataset) -> None:
    """Raises ClasslensError for images that are both for training and test."""
    same = (train.spec, train.split) == (test.spec, test.split)
    shared = set(train.names) & set(test.names) if same else set()
    if shared:
        raise ClasslensError(
            f"{len(shared)} images of data {test.spec!r} are both for training and test, such as {min(shared)!r}: give "
            "other splits"
        )
