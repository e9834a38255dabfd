"""The object a user holds: a model, seen through its own class embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from classlens.core.arguments import AnyPath, AtLeast1, checked
from classlens.errors import ClasslensError, cause
from classlens.explain.batching import slices
from classlens.explain.method import Method, MethodLike
from classlens.explain.queries import token_position
from classlens.explain.registry import default_method, method_of
from classlens.forward.active_edits import active_edits
from classlens.forward.edits.edit import Edit, editing
from classlens.forward.edits.selection import Indices
from classlens.forward.isolation import exclusive, isolated_methods
from classlens.forward.model_state import ModelState
from classlens.forward.recorder import Queries, pooled_queries, record
from classlens.forward.recording import Recording
from classlens.forward.streaming import reduce_tokens
from classlens.forward.sweep_parts import ChosenParts, PatchedSite
from classlens.lens.coords import array, method_attrs, state_coords, target_coords
from classlens.lens.facts import FactsTable, check_sites, site_blocks
from classlens.lens.images import Images, prepare_images
from classlens.lens.inspection import InspectingLens
from classlens.lens.sweep import CorruptImages, Direction, SweepRequest, corrupted, swept
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.lens.trace import Trace
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.lens.verify import check_laws
from classlens.models.classes import Classes
from classlens.models.load import LoadedModel
from classlens.models.self_check import Checks, require_laws
from classlens.models.transforms import Preprocessing
from classlens.models.view import ModelView, Site, Tokens


@isolated_methods
@checked
class Lens(InspectingLens):
    """A model with its class embedding, classes and preprocessing, from ``classlens.load``.

    Attributes:
        view: blocks, tokens and class space of the model.
        classes: names of the classes, and the index of a name.
        preprocessing: from pictures to pixels and back.
        checks: errors of laws 1 to 3, measured by the self-check.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.view: ModelView = loaded.view
        self.classes: Classes = loaded.classes
        self.preprocessing: Preprocessing = loaded.preprocessing
        self.told_options = loaded.options
        self._parameters = _parameter_identities(self.view.module)
        try:
            self.checks: Checks = require_laws(self.view, check_laws(self.view))
        except (RuntimeError, AssertionError) as error:
            height, width = self.view.input_size
            raise ClasslensError(
                f"model {self.view.name!r} cannot run on an image of {height}×{width} pixels ({cause(error)}): "
                "check the options of the model"
            ) from None
        self._state = ModelState.of(self.view.module)

    def __repr__(self) -> str:
        view = self.view
        return (
            f"Lens({view.name!r}: {len(view.blocks)} blocks, {view.blocks[0].heads} heads, {view.num_classes} classes, "
            f"pooling {view.pooling})"
        )

    def check(self, pixels: Tensor | None = None) -> Checks:
        """Measure laws 1 (residual sums), 2 (class space) and 3 (attribution), and the class gradient's closed form.

        Args:
            pixels: preprocessed images ``[image, channel, height, width]``; one random image when left out.

        Returns:
            The errors of all of them, with their tolerances. Law 3 and the gradient are measured on a few tokens.

        Raises:
            ClasslensError: a law does not hold.

        Examples:
            >>> import classlens
            >>> classlens.load("builtin:cifar10").check().law2 < 1e-4
            True
        """
        self._check_model()
        if pixels is not None:
            _, pixels = prepare_images(pixels, self.view, self.preprocessing)
        return require_laws(self.view, check_laws(self.view, pixels))

    def trace(self, images: Images, *, batch_size: AtLeast1 = 32) -> Trace:
        """Run the model over some images and keep the states that results are computed from.

        Args:
            images: one or many paths, PIL images or arrays (``[height, width, 3]``, uint8 or floats in 0…1), which go
                through the model's transform; or a tensor ``[image, channel, height, width]`` of preprocessed pixels.
            batch_size: images in one forward pass.

        Returns:
            A ``Trace``. It holds the embeddings, two sublayer outputs and the queries, keys and values of each block:
            about 5 × blocks × tokens × width numbers per image (36 MB for ViT-B/16 in float32).

        Raises:
            ClasslensError: an image that cannot be loaded, pixels of a size that the model does not take, or logits
                that are not finite.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> trace.rank("resid_post", target="cat").dims
            ('image', 'block', 'token')
        """
        names, pixels = self._inputs(images, batch_size)
        return Trace(self._record(names, pixels, batch_size), self.classes, self.preprocessing, names, pixels)

    def facts(
        self, images: Images, sites: Site | Collection[Site], target: Target, *, batch_size: AtLeast1 = 32
    ) -> xr.Dataset:
        """``Trace.facts`` without a trace: tokens are reduced while the model runs, and their states dropped.

        This is the cheapest way to ranks, logits and top-1 classes of many images.

        Args:
            images: as for ``trace``.
            sites: as for ``Trace.facts``.
            target: a class or one per image. ``"predicted"`` is known only after a pass and needs a trace.
            batch_size: images in one forward pass.

        Returns:
            The result of ``Trace.facts``.

        Raises:
            ClasslensError: as ``trace`` and ``Trace.facts`` do, and for the target ``"predicted"``.

        Examples:
            >>> import classlens, torch
            >>> facts = classlens.load("builtin:cifar10").facts(torch.zeros(2, 3, 32, 32), "mlp_out", "cat")
            >>> dict(facts.sizes)
            {'image': 2, 'site': 1, 'block': 6, 'token': 65}
        """
        if is_predicted(target):
            raise ClasslensError(
                "target 'predicted' is not known while the model runs: give classes, or use trace().facts"
            )
        distinct = check_sites(self.view, sites)
        names, pixels = self._inputs(images, batch_size)
        index = class_indices(self.classes, target, len(names))
        tokens = self.view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
        table = FactsTable(self.view, tokens, distinct, len(names))
        for batch in slices(len(names), batch_size):
            reduce_tokens(self.view, pixels[batch], index[batch], distinct, partial(table.put, batch))
        return table.dataset(names, self.classes, index)

    def explain(
        self,
        images: Images,
        target: Target = "predicted",
        *,
        method: MethodLike | None = None,
        batch_size: AtLeast1 = 32,
        **options: Any,
    ) -> xr.DataArray:
        """``Trace.explain`` without a trace of all images, to explain many.

        A method with a streamed form (``class_gradient``, the cheapest) explains blocks as they pass and drops them
        where the classes are known; any other runs on one batch after another.

        Args:
            images: as for ``trace``.
            target: as for ``Trace.explain``.
            method: as for ``Trace.explain``, ``log_odds`` by default.
            batch_size: images in one forward pass.
            options: as for ``Trace.explain``.

        Returns:
            The result of ``Trace.explain``.

        Raises:
            ClasslensError: as ``trace`` and ``Trace.explain`` do.

        Examples:
            >>> import classlens, torch
            >>> lens = classlens.load("builtin:cifar10")
            >>> dict(lens.explain(torch.zeros(2, 3, 32, 32), "cat").sizes)
            {'image': 2, 'block': 6, 'head': 4, 'token': 64}
        """
        method = default_method(self.view) if method is None else method
        chosen, attrs = method_of(method, options), method_attrs(method, options)
        names, pixels = self._inputs(images, batch_size)
        given: dict[str, Any] = {"target": target}
        if options.get("against") is not None:
            given["against"] = options["against"]
        known = {
            key: class_indices(self.classes, classes, len(names), key)
            for key, classes in given.items()
            if not is_predicted(classes)
        }
        stream = chosen.stream if len(known) == len(given) else None
        tokens = self.view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
        maps, targets = [], []
        for batch in slices(len(names), batch_size):
            indices = {key: index[batch] for key, index in known.items()}
            if stream is not None:
                explain = partial(stream, self.view, pixels[batch])
            else:
                queries = _queries(chosen, options, tokens, self.view)
                recording = self._record(names[batch], pixels[batch], batch_size, queries)
                indices = dict.fromkeys(given, recording.logits.argmax(dim=1).cpu()) | indices
                explain = partial(chosen.run, recording)
            targets.append(indices.pop("target"))
            maps.append(explain(targets[-1], **{**options, **indices}))
            _check_images(names[batch], maps[-1], "gives importance values")
        coords = state_coords(self.view, tokens, names, site_blocks(self.view, "attn_out"), image_only=True)
        coords |= target_coords(self.classes, torch.cat(targets).numpy())
        return array(torch.cat(maps), chosen.dims, coords, name="importance", **attrs)

    @contextmanager
    def edit(self, *edits: Edit) -> Iterator[None]:
        """Run everything in the body with edits of the forward pass; afterwards the model is unchanged (law 4).

        Args:
            edits: some of ``CutAttention``, ``NoCls``, ``SelfOnly``, ``KeepTokens``, ``AblateHeads``,
                ``AblateNeurons``, ``AblateSublayer`` and ``Patch``. At one point they act in the order given; contexts
                nest.

        Raises:
            ClasslensError: blocks, heads, tokens or a point that the model does not have.

        Examples:
            >>> import classlens, torch
            >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
            >>> with lens.edit(classlens.NoCls(), classlens.AblateHeads([0], blocks=[5])):
            ...     edited = lens.facts(pixels, "resid_post", "cat")
        """
        self._check_model()
        with editing(self.view, edits):
            yield

    def sweep(
        self,
        clean: Images,
        corrupt: CorruptImages,
        over: str = "heads",
        *,
        metric: str = "log_odds",
        target: Target = "predicted",
        against: Target | None = None,
        direction: Direction = "denoise",
        site: PatchedSite | None = None,
        blocks: Indices = "all",
        parts: ChosenParts = "all",
        approximate: bool = False,
        steps: AtLeast1 = 1,
        batch_size: AtLeast1 = 32,
    ) -> xr.Dataset:
        """Effect of each part on the decision: the model runs with one part at a time from another image's pass.

        Args:
            clean: images, as for ``trace``.
            corrupt: as many images of the same size, or one for all of them; a ``Corruption``, which makes them;
                ``KeepTokens``: the clean images without the other tokens; or ``Means``: the clean images with means of
                a data set at all parts together (``direction="noise"`` only).
            over: ``"sublayers"``, ``"heads"``, ``"tokens"`` or ``"units"`` (hidden units of the MLP).
            metric: ``"log_odds"``, ``"logit_difference"`` (to ``against``), ``"logit"``, ``"probability"`` or
                ``"rank"``, all of the model's own logits.
            target: as for ``Trace.explain``; ``"predicted"`` is the top class of the clean image.
            against: a second class, given like ``target``; ``"predicted"`` is the top class of the corrupt image.
            direction: ``"denoise"``: the corrupt image runs with a part of the clean one; ``"noise"``: the reverse.
            site: of tokens: ``"resid_pre"`` (default), ``"attn_out"``, ``"mlp_out"`` or ``"resid_post"``.
            blocks: indices of blocks, or ``"all"``.
            parts: which heads or units (indices), tokens (as ``CutAttention.queries``) or sublayers; or ``"all"``.
            approximate: linear estimates, from one backward pass for all parts (attribution patching).
            steps: with ``approximate``: 1 for the gradient at the image that runs; more for the mean of gradients
                between both images (integrated gradients).
            batch_size: images and variants of them in one forward pass.

        Returns:
            ``patched``, the metric with each part patched, and ``effect``, 0 where that is the metric of the image
            that runs and 1 where it is that of the other one; dims ``image, block`` and ``sublayer``, ``head``,
            ``token`` or ``unit``. ``clean`` and ``corrupt``, the metric of both images as they are; dim ``image``.

        Raises:
            ClasslensError: images that do not fit each other, parts that the model does not have, a metric without
                meaning for its outputs or, with ``approximate``, without a gradient, or logits that are not finite.

        Examples:
            >>> import classlens, torch
            >>> lens, clean = classlens.load("builtin:cifar10"), torch.rand(1, 3, 32, 32)
            >>> dict(lens.sweep(clean, classlens.Corruption("blur"), "heads", blocks=[4, 5]).effect.sizes)
            {'image': 1, 'block': 2, 'head': 4}
        """
        names, pixels = self._inputs(clean, batch_size)
        pair = corrupted(corrupt, pixels, self.view, self.preprocessing)
        request = SweepRequest(over, metric, target, against, direction, site, blocks, parts, approximate, steps)
        return swept(self.view, self.classes, request, names, pixels, *pair, batch_size=batch_size)

    def with_tuned_lens(self, tuned_lens: TunedLens | AnyPath) -> Lens:
        """The same model with a tuned lens as decoder: tokens pass the translator of their block before projection.

        Ranks, logits, facts and explanations of the blocks are then those of the translated tokens; the sublayer
        outputs of a block (``attn_out``, ``mlp_out``) pass its translator, too. The model's own logits and their
        attribution do not change.

        Args:
            tuned_lens: a file written by ``classlens tune`` or ``TunedLens.save``, or a ``TunedLens``.

        Returns:
            A new lens; this one does not change.

        Raises:
            ClasslensError: a file that is no tuned lens, or one of other weights or another shape.

        Examples:
            >>> import classlens
            >>> lens = classlens.load("builtin:cifar10")
            >>> lens.with_tuned_lens(classlens.TunedLens.identity(lens.view))
            Lens('builtin:cifar10': 6 blocks, 4 heads, 10 classes, pooling cls)
        """
        if not isinstance(tuned_lens, TunedLens):
            tuned_lens, _ = read_tuned_lens(tuned_lens, self.view)
        tuned = copy(self)
        tuned.view = replace(self.view, tuned_lens=tuned_lens.projections(self.view))
        return tuned

    def _check_model(self) -> None:
        """Measure the laws again where weights or hooks have changed since they were measured.

        Raises ClasslensError where a law no longer holds, and where parameters were replaced: the view holds the
        tensors of the loaded model.
        """
        with exclusive(self.view.module):
            if active_edits(self.view.module).edits:  # they were measured on entering
                return
            state = ModelState.of(self.view.module)
            if state.same(self._state):
                return
            parameters = _parameter_identities(self.view.module)
            if parameters != self._parameters:
                names = [*self._parameters, *parameters]
                changed = next(name for name in names if parameters.get(name) != self._parameters.get(name))
                raise ClasslensError(
                    f"model {self.view.name!r} was changed after it was loaded: parameter {changed!r} is another "
                    "tensor now; load the model again"
                )
            self.checks = require_laws(self.view, check_laws(self.view), changed=True)
            self._state = state

    def _record(self, names: Sequence[str], pixels: Tensor, batch_size: int, queries: Queries = "all") -> Recording:
        """Run the model; raises ClasslensError for an image whose logits are not finite."""
        recording = record(self.view, pixels, batch_size=batch_size, queries=queries)
        _check_images(names, recording.logits, "gives logits")
        return recording

    def _inputs(self, images: Images, batch_size: int) -> tuple[list[str], Float[Tensor, "image channel height width"]]:
        """Names and pixels of images, for a model that the laws hold for."""
        self._check_model()
        return prepare_images(images, self.view, self.preprocessing)


def _queries(method: Method, options: Mapping[str, Any], tokens: Tokens, view: ModelView) -> Queries:
    """The queries whose attention weights a method reads from the recorded pass."""
    if "attention weights" not in method.needs or "gradients" in method.needs:
        return "none"
    if method.every_query:
        return "all"
    query = options.get("query")
    return pooled_queries(view, tokens.count) if query is None else torch.tensor([token_position(tokens, query, view)])


def _check_images(names: Sequence[str], values: Tensor, what: str) -> None:
    """Raises ClasslensError for an image with values that are not finite."""
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ClasslensError(
            f"image {names[int((~finite).nonzero()[0])]!r} {what} that are not finite: expected finite weights and "
            "pixels; check the image and the checkpoint for NaN"
        )


def _parameter_identities(module: nn.Module) -> dict[str, tuple[int, torch.dtype, torch.device]]:
    """Address, dtype and device of each parameter: training in place keeps them, replacing a parameter does not."""
    return {name: (value.data_ptr(), value.dtype, value.device) for name, value in module.named_parameters()}
