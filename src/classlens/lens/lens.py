"""The object a user holds: a model, seen through its own class embedding."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from classlens.core.attention import Loss
from classlens.errors import ClasslensError, cause
from classlens.explain.queries import Query
from classlens.explain.streaming import explain_streamed
from classlens.forward.edits.edits import Edit, editing
from classlens.forward.recording import record
from classlens.forward.streaming import reduce
from classlens.lens.facts import FactsTable, check_sites
from classlens.lens.labels import Coordinates, array, image_names, method_attrs, target_coords, token_coords
from classlens.lens.target import Target, indices
from classlens.lens.trace import Trace
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.lens.verify import check_laws
from classlens.models.classes import Classes
from classlens.models.images import ImageLike, read_pictures
from classlens.models.load import LoadedModel, load_model
from classlens.models.self_check import Checks, require_laws
from classlens.models.transforms import Preprocessing, Transform
from classlens.models.view import ModelView, Site

Images = ImageLike | Tensor | Iterable[ImageLike]


def load(
    model: str | Path | nn.Module | ModelView,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    head: nn.Linear | str | Path | None = None,
    class_names: Sequence[str] | None = None,
    transform: Transform | Literal["paper"] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    pretrained: bool = True,
    **options: Any,
) -> Lens:
    """Load a Vision Transformer classifier and check that classlens reads it right.

    >>> import classlens
    >>> lens = classlens.load("builtin:cifar10")
    >>> lens.classes.names[3]
    'cat'

    Args:
        model: ``"builtin:cifar10"``; a timm model name such as ``"vit_base_patch32_224.augreg_in21k_ft_in1k"``;
            ``"torchvision:vit_b_16"``; ``"owner/name"`` of the Hugging Face hub or a folder that transformers wrote;
            ``"open_clip:ViT-B-32/laion2b_s34b_b79k"`` with ``class_names`` as prompts; a module of one of these
            libraries that you hold; or a ``ModelView`` that describes a model of your own (also
            ``"file.py:function"`` that returns one). Pretrained weights come from where the library keeps them.
        checkpoint: weights for a timm model name, safetensors or a torch state dict (never unpickled beyond tensors).
        num_classes: rows of the head; read from the checkpoint when left out.
        head: a linear layer, or a file with its weight and bias, for a backbone of timm such as DINOv2 or DINOv3: it
            reads what the backbone pools, or ``[cls ; mean(patch)]`` where it is twice as wide.
        class_names: one name for each row of the head, in order.
        transform: a function from a picture to ``[channel, height, width]`` pixels, or ``"paper"`` (resize without a
            crop, bilinear, mean = std = 0.5); the model's own eval transform when left out.
        device: where the model runs, such as ``"cuda"``; left where it is when not given.
        dtype: what the model runs in, such as ``"bfloat16"``; left as it is when not given. Projection is in float32 at
            least.
        pretrained: False builds a timm model with random weights.
        options: passed to ``timm.create_model``, such as ``img_size=384``.

    Returns:
        A ``Lens``. The model's modules and parameters are used as they are.

    Raises:
        ClasslensError: an unknown or unsupported model, a checkpoint that does not fit, weights that cannot be
            fetched, weights that are not finite, or a model for which law 1 or 2 does not hold on a random image.
    """
    return Lens(
        load_model(
            model,
            checkpoint=checkpoint,
            num_classes=num_classes,
            head=head,
            class_names=class_names,
            transform=transform,
            device=device,
            dtype=dtype,
            pretrained=pretrained,
            **options,
        )
    )


class Lens:
    """A model with its class embedding, classes and preprocessing; made by ``classlens.load``.

    Attributes:
        view: what classlens knows of the model: blocks, tokens, class space.
        classes: names of the classes, and the index of a name.
        preprocessing: from pictures to pixels and back.
        checks: the errors of laws 1 and 2 that the self-check measured.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.view: ModelView = loaded.view
        self.classes: Classes = loaded.classes
        self.preprocessing: Preprocessing = loaded.preprocessing
        self._parameters = _places(self.view.module)
        try:
            self.checks: Checks = self.check()
        except (RuntimeError, AssertionError) as error:
            height, width = self.view.input_size
            raise ClasslensError(
                f"model {self.view.name!r} cannot run on an image of {height}×{width} pixels ({cause(error)}): "
                "check the options it was made with"
            ) from None

    def __repr__(self) -> str:
        view = self.view
        return (
            f"Lens({view.name!r}: {len(view.blocks)} blocks, {view.blocks[0].heads} heads, {view.num_classes} classes, "
            f"pooling {view.pooling})"
        )

    def check(self, pixels: Tensor | None = None) -> Checks:
        """Measure laws 1 and 2 on ``pixels``, or on one random image; raises ClasslensError when one fails."""
        self._same_parameters()
        return require_laws(self.view, check_laws(self.view, pixels))

    def trace(self, images: Images, *, batch_size: int = 32) -> Trace:
        """Run the model over some images and keep what its classes are built of.

        >>> import classlens, torch
        >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
        >>> trace.rank("resid_post", target="cat").dims
        ('image', 'block', 'token')

        Args:
            images: one or many paths, PIL images or arrays (``[height, width, 3]``, uint8 or floats in 0…1), which go
                through the model's transform; or a tensor ``[image, channel, height, width]`` of pixels that already
                have.
            batch_size: images in one forward pass.

        Returns:
            A ``Trace``. It holds the embeddings, two sublayer outputs and the values of each block: about
            3 × blocks × tokens × width numbers an image (21 MB for ViT-B/16 in float32).

        Raises:
            ClasslensError: an image that cannot be read, pixels of a size the model does not take, or logits that are
                not finite.
        """
        self._same_parameters()
        _at_least_one(batch_size)
        names, pixels = self._pixels(images)
        recording = record(self.view, pixels, batch_size=batch_size)
        finite = torch.isfinite(recording.logits).all(dim=1)
        if not bool(finite.all()):
            raise ClasslensError(
                f"image {names[int((~finite).nonzero()[0])]!r} gives logits that are not finite: expected finite "
                "weights and pixels; check the image and the checkpoint for NaN"
            )
        return Trace(recording, self.classes, self.preprocessing, names, pixels)

    def facts(
        self, images: Images, sites: Site | Collection[Site], target: Target, *, batch_size: int = 32
    ) -> xr.Dataset:
        """``Trace.facts`` without a trace: tokens are reduced while the model runs, and their states dropped.

        >>> import classlens, torch
        >>> facts = classlens.load("builtin:cifar10").facts(torch.zeros(2, 3, 32, 32), "mlp_out", "cat")
        >>> dict(facts.sizes)
        {'image': 2, 'site': 1, 'block': 6, 'token': 65}

        The cheapest way to ranks, logits and top-1 classes of many images. ``target`` is one class or one an image;
        ``"predicted"`` is known only at the end of a pass, so it is for a trace.
        """
        if isinstance(target, str) and target == "predicted":
            raise ClasslensError(
                "target 'predicted' is not known while the model runs: give classes, or use trace().facts"
            )
        self._same_parameters()
        _at_least_one(batch_size)
        wanted = check_sites(self.view, sites)
        names, pixels = self._pixels(images)
        index = indices(self.classes, target, len(names))
        tokens = self.view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
        table = FactsTable(self.view, tokens, wanted, len(names))
        for start in range(0, len(names), batch_size):
            part = slice(start, min(start + batch_size, len(names)))
            reduce(self.view, pixels[part], index[part], wanted, partial(table.put, part))
        return table.dataset(names, self.classes, index)

    def explain(
        self,
        images: Images,
        target: Target,
        *,
        loss: Loss | None = None,
        against: Target | None = None,
        query: Query = None,
        batch_size: int = 32,
    ) -> xr.DataArray:
        """The class gradient of ``Trace.explain`` without a trace: blocks are explained as they pass, and dropped.

        >>> import classlens, torch
        >>> lens = classlens.load("builtin:cifar10")
        >>> dict(lens.explain(torch.zeros(2, 3, 32, 32), "cat").sizes)
        {'image': 2, 'block': 6, 'head': 4, 'token': 64}

        The cheapest way to maps of every block and head of many images; options and result as for ``Trace.explain``.
        ``"predicted"`` is known only at the end of a pass, so it is for a trace.
        """
        for one in (target, against):
            if isinstance(one, str) and one == "predicted":
                raise ClasslensError(
                    "target 'predicted' is not known while the model runs: give classes, or use trace().explain"
                )
        self._same_parameters()
        _at_least_one(batch_size)
        names, pixels = self._pixels(images)
        index = indices(self.classes, target, len(names))
        other = None if against is None else indices(self.classes, against, len(names))
        options = {"loss": loss, "against": against, "query": query}
        told = method_attrs("class_gradient", {key: value for key, value in options.items() if value is not None})
        maps = []
        for start in range(0, len(names), batch_size):
            part = slice(start, start + batch_size)
            rivals = None if other is None else other[part]
            maps.append(explain_streamed(self.view, pixels[part], index[part], loss=loss, against=rivals, query=query))
        tokens = self.view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
        coords: Coordinates = {
            "image": image_names(names),
            "block": np.arange(len(self.view.blocks)),
            "head": np.arange(self.view.blocks[0].heads),
            **token_coords(tokens, image_only=True),
            **target_coords(self.classes, index.numpy()),
        }
        dims = ("image", "block", "head", "token")
        return array(torch.cat(maps), dims, coords, name="importance", **told)

    @contextmanager
    def edit(self, *edits: Edit) -> Iterator[None]:
        """Run everything in the body with edits of the forward pass; afterwards the model is as it was (law 4).

        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.NoCls(), classlens.AblateHeads([0], blocks=[5])):
        ...     edited = lens.facts(pixels, "resid_post", "cat")

        Args:
            edits: some of ``CutAttention``, ``NoCls``, ``SelfOnly``, ``KeepTokens``, ``AblateHeads``,
                ``AblateNeurons``, ``AblateSublayer`` and ``Patch``. At one place they act in the order given; contexts
                nest.

        Raises:
            ClasslensError: blocks, heads or tokens that the model does not have, or a point that it does not show.
        """
        self._same_parameters()
        with editing(self.view, edits):
            yield

    def with_tuned_lens(self, tuned_lens: str | os.PathLike[str] | TunedLens) -> Lens:
        """The same model read through a tuned lens: tokens of a block pass its translator before every projection.

            tuned = lens.with_tuned_lens("lens.safetensors")
            tuned.trace("cat.png").rank("resid_post", "cat")      # beside lens.trace("cat.png").rank(…)

        Ranks, logits, facts and explanations of the blocks are then those of the translated tokens; what is added at
        a block (``attn_out``, ``mlp_out``) passes the translator of that block, too. The model's own logits, and what
        they are the sum of, stay as they are. ``tuned_lens`` is a file that ``classlens tune`` wrote, or what
        ``classlens.tune`` returned.

        Raises:
            ClasslensError: a file that is no tuned lens, or one of other weights or another shape.
        """
        if not isinstance(tuned_lens, TunedLens):
            tuned_lens, _ = read_tuned_lens(tuned_lens, self.view)
        made = copy(self)
        made.view = replace(self.view, tuned_lens=tuned_lens.maps(self.view))
        return made

    def _same_parameters(self) -> None:
        """The class embedding and the outputs of the view are the model's own tensors, as long as these are."""
        now = _places(self.view.module)
        if now != self._parameters:
            names = [*self._parameters, *now]
            changed = next(name for name in names if now.get(name) != self._parameters.get(name))
            raise ClasslensError(
                f"model {self.view.name!r} was changed after it was loaded: parameter {changed!r} is another tensor "
                "now; load the model again"
            )

    def _pixels(self, images: Images) -> tuple[list[str], Tensor]:
        """Names and the pixels ``[image, channel, height, width]`` of whatever was given."""
        if isinstance(images, Tensor):
            pixels = images if images.ndim == 4 else images[None]
            if pixels.ndim != 4 or pixels.shape[1] != self.view.channels or not len(pixels):
                raise ClasslensError(
                    f"a tensor of shape {list(images.shape)} was given as images: expected preprocessed pixels "
                    f"[image, {self.view.channels}, height, width]"
                )
            if not pixels.is_floating_point():
                raise ClasslensError(
                    f"a tensor of type {images.dtype} was given as images: tensors are taken as preprocessed pixels; "
                    "give pictures as arrays, PIL images or paths"
                )
            return [f"image {number}" for number in range(len(pixels))], pixels.detach()
        pictures = read_pictures(images, smallest=self.view.grid(self.view.input_size))
        prepared = [self.preprocessing(picture.image, picture.name) for picture in pictures]
        for picture, pixels in zip(pictures, prepared, strict=True):
            if pixels.shape[0] != self.view.channels:
                raise ClasslensError(
                    f"the transform makes {pixels.shape[0]} channels of image {picture.name!r}, but model "
                    f"{self.view.name!r} takes {self.view.channels}: give another transform="
                )
            if pixels.shape != prepared[0].shape:
                raise ClasslensError(
                    f"the transform makes {list(pixels.shape)} of image {picture.name!r} and "
                    f"{list(prepared[0].shape)} of {pictures[0].name!r}: images traced together need one size"
                )
        return [picture.name for picture in pictures], torch.stack(prepared)


def _places(module: nn.Module) -> dict[str, tuple[int, torch.dtype, torch.device]]:
    """Where each parameter lies: changing its numbers leaves that as it is, replacing it does not."""
    return {name: (value.data_ptr(), value.dtype, value.device) for name, value in module.named_parameters()}


def _at_least_one(batch_size: int) -> None:
    if batch_size < 1:
        raise ClasslensError(f"batch_size is {batch_size}: expected at least 1 image")
