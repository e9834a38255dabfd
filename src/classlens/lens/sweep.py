"""Causal sweeps as labeled arrays: what each part of a model does to its decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.arguments import Takes
from classlens.core.arrays import Array
from classlens.core.steps import compute_dtype
from classlens.core.sweep_metrics import SWEEP_METRICS, Formula
from classlens.errors import ClasslensError
from classlens.forward.attribution_patching import EstimateReceiver, attribution_patching
from classlens.forward.edits.keep_tokens import KeepTokens
from classlens.forward.edits.selection import Indices, block_indices, token_selector
from classlens.forward.means import Means
from classlens.forward.sweep import Part, References, Removal, SweepReceiver, sweep
from classlens.forward.sweep_parts import SWEEP_PARTS, ChosenParts, PatchedSite, means_of_parts
from classlens.lens.coords import Coordinates, array, image_names, target_coords, token_coords
from classlens.lens.images import prepare_images
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.models.classes import Classes
from classlens.models.corruptions import Corruption
from classlens.models.images import ImageLike
from classlens.models.transforms import Preprocessing
from classlens.models.view import ModelView

CorruptImages = Annotated[
    ImageLike | Tensor | Corruption | KeepTokens | Means | Iterable[ImageLike],
    Takes("images as for clean, a Corruption, KeepTokens, or Means"),
]
Direction = Literal["denoise", "noise"]
Pixels = Float[Tensor, "image channel height width"]
Kept = Bool[Tensor, "image token"]


@dataclass(frozen=True, eq=False)
class SweepRequest:
    """The arguments of ``Lens.sweep`` beside images and batch size."""

    over: str
    metric: str
    target: Target
    against: Target | None
    direction: Direction
    site: PatchedSite | None
    blocks: Indices
    parts: ChosenParts
    approximate: bool
    steps: int


def swept(
    view: ModelView,
    classes: Classes,
    request: SweepRequest,
    names: Sequence[str],
    clean: Pixels,
    corrupt_names: Sequence[str],
    corrupt: Pixels | Means,
    keep: Kept | None,
    *,
    batch_size: int,
) -> xr.Dataset:
    """The result of ``Lens.sweep``, from preprocessed pixels of equal shape; corrupt images have tokens ``keep``.

    With means, what is corrupt is the clean image with the means at all parts together.
    """
    _check_approximation(request, removes=keep is not None)
    over, site = request.over, request.site
    kind, tokens = SWEEP_PARTS[over], view.tokens((int(clean.shape[2]), int(clean.shape[3])))
    by_token = kind.dim == "token"
    if site is not None and not by_token:
        raise ClasslensError(f"site {site!r} was given, but over is {over!r}: a site goes with over='tokens'")
    chosen_site: PatchedSite = site or "resid_pre"
    chosen = list(dict.fromkeys(block_indices(view, request.blocks)))
    labels = kind.labels(view, tokens.count, chosen[0], request.parts)
    patches = [kind.part(view, block, label, chosen_site) for block in chosen for label in labels]
    values = _Values(view, classes, request, names, len(patches))
    variants = [(part,) for part in patches]
    if isinstance(corrupt, Means):
        references = _references(view, corrupt, request, patches, clean)
        together = _Together(len(clean), view.num_classes)
        sweep(view, clean, references, [tuple(patches)], together, batch_size=batch_size)
        sweep(view, clean, references, variants, _AgainstThese(values, together.logits), batch_size=batch_size)
    else:
        base, source = (corrupt, clean) if request.direction == "denoise" else (clean, corrupt)
        if request.approximate:
            attribution_patching(view, base, source, patches, values, steps=request.steps, batch_size=batch_size)
        else:
            removal = None if keep is None else Removal(keep, "base" if request.direction == "denoise" else "source")
            sweep(view, base, source, variants, values, batch_size=batch_size, removal=removal)
    coords: Coordinates = {"image": image_names(names), "block": np.array(chosen), kind.dim: np.array(labels)}
    if by_token:
        found = token_coords(tokens)
        coords |= {name: ("token", found[name][1][labels]) for name in ("token_kind", "row", "column")}
    coords["corrupt_image"] = ("image", image_names(corrupt_names))
    for name, index in values.classes().items():
        coords |= target_coords(classes, index, name)
    dims, shape = ("image", "block", kind.dim), (len(names), len(chosen), len(labels))
    attrs: dict[str, object] = {"over": over, "metric": request.metric, "direction": request.direction}
    attrs |= {"site": chosen_site} if by_token else {}
    # A number, as netCDF has no truth values.
    attrs |= {"approximate": int(request.approximate), "steps": request.steps} if request.approximate else {}
    of_parts = {"effect": values.effects(), "patched": values.of_parts}
    of_images = {"clean": values.clean, "corrupt": values.corrupt}
    return xr.Dataset(
        {name: array(value.reshape(shape), dims, coords, name=name) for name, value in of_parts.items()}
        | {name: array(value, ("image",), coords, name=name) for name, value in of_images.items()},
        attrs=attrs,
    )


def _references(
    view: ModelView, means: Means, request: SweepRequest, parts: Sequence[Part], clean: Pixels
) -> References:
    """Means by point and block of the parts; raises ClasslensError where a sweep takes none."""
    if request.direction == "denoise" or request.approximate:
        given = "approximate=True" if request.approximate else "direction='denoise'"
        raise ClasslensError(
            f"{given} was given with means: they take the place of a clean image's parts one at a time; give "
            "direction='noise' and no approximation, or another corrupt image"
        )
    return means_of_parts(view, means, view.tokens((int(clean.shape[2]), int(clean.shape[3]))).count, parts)


def _check_approximation(request: SweepRequest, *, removes: bool) -> None:
    """Raises ClasslensError for a metric without a gradient, removed tokens, and steps of a sweep that takes none."""
    if request.approximate and removes:
        raise ClasslensError(
            "approximate=True was given with KeepTokens: between an image and the same without some tokens nothing is "
            "estimated; leave approximate out, or give another corrupt image"
        )
    if not request.approximate and request.steps != 1:
        raise ClasslensError(
            f"steps={request.steps} was given without approximate=True: an exact sweep takes no gradients; add "
            "approximate=True, or leave steps out"
        )
    if request.approximate and not SWEEP_METRICS[request.metric].differentiable:
        others = [name for name, metric in SWEEP_METRICS.items() if metric.differentiable]
        raise ClasslensError(
            f"metric {request.metric!r} counts classes and has no gradient, which approximate=True needs: give one of "
            f"{', '.join(others)}, or leave approximate out"
        )


class _Values(SweepReceiver, EstimateReceiver):
    """The metric of every pass, as the passes come in."""

    def __init__(
        self, view: ModelView, classes: Classes, request: SweepRequest, names: Sequence[str], parts: int
    ) -> None:
        metric, target, against = request.metric, request.target, request.against
        if SWEEP_METRICS[metric].rival != (against is not None):
            raise ClasslensError(
                f"metric {metric!r} was given {'without' if against is None else 'with'} against=: give a second class "
                "with the metric logit_difference, and with no other"
            )
        self._formula = _formula(view, metric)
        self._names, self._class_names, self._denoise = names, classes.names, request.direction == "denoise"
        self._target = _known(classes, target, len(names), "target")
        self._against = None if against is None else _known(classes, against, len(names), "against")
        self._dtype = compute_dtype(view.dtype)
        self._base, self._source = (torch.empty(len(names), dtype=self._dtype) for _ in range(2))
        self.of_parts = torch.empty(len(names), parts, dtype=self._dtype)

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Take what images and sources give as they are; classes that are predicted are known from here on."""
        assert source is not None, "the source of a sweep of images is images"
        index = list(range(len(self._names)))[images]
        clean, corrupt = (source, base) if self._denoise else (base, source)
        for logits, run in ((clean, "the clean image"), (corrupt, "its corrupt image")):
            self._check(index, logits, f"logits are not finite for {run}")
        for classes, logits in ((self._target, clean), (self._against, corrupt)):
            if classes is not None:
                classes[images] = torch.where(classes[images] < 0, logits.argmax(dim=1).cpu(), classes[images])
        for image in index:
            if self._against is not None and self._target[image] == self._against[image]:
                name = self._class_names[int(self._target[image])]
                raise ClasslensError(
                    f"target and against are both {name!r} for image {self._names[image]!r}, so that their logits do "
                    "not differ: give another class to one of them"
                )
        self._base[images], self._source[images] = self._measure(index, base), self._measure(index, source)

    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        """Take what images with one part patched give."""
        self._check(images, logits, "logits are not finite for a patched pass of the image")
        self.of_parts[torch.tensor(images), torch.tensor(variants)] = self._measure(images, logits)

    def measure(self, images: slice, logits: Tensor) -> Float[Tensor, " image"]:
        """The metric of some images, with its graph."""
        return self._measure(list(range(len(self._names)))[images], logits)

    def estimated(self, images: slice, changes: Float[Tensor, "image part"]) -> None:
        """Take estimates of how each part, patched, changes the metric."""
        self._check(list(range(len(self._names)))[images], changes, "gradients are not finite for the image")
        self.of_parts[images] = self._base[images, None] + changes

    @property
    def clean(self) -> Float[Tensor, " image"]:
        return self._source if self._denoise else self._base

    @property
    def corrupt(self) -> Float[Tensor, " image"]:
        return self._base if self._denoise else self._source

    def effects(self) -> Float[Tensor, "image part"]:
        """How far from the own value to that of the source a part moves the metric: 0 not at all, 1 all the way."""
        distance = self._source - self._base
        return (self.of_parts - self._base[:, None]) / torch.where(distance == 0, torch.nan, distance)[:, None]

    def classes(self) -> dict[str, Array]:
        """Classes of the images by what they are."""
        both = {"target": self._target, "against": self._against}
        return {name: index.numpy() for name, index in both.items() if index is not None}

    def _measure(self, images: Sequence[int], logits: Tensor) -> Float[Tensor, " row"]:
        rows = torch.tensor(images)
        against = self._target if self._against is None else self._against
        return self._formula(logits.cpu().to(self._dtype), self._target[rows], against[rows])

    def _check(self, images: Sequence[int], values: Tensor, what: str) -> None:
        finite = torch.isfinite(values).all(dim=1).cpu()
        if not bool(finite.all()):
            name = self._names[images[int((~finite).nonzero()[0])]]
            raise ClasslensError(
                f"{what} {name!r}: expected finite weights and pixels; check both images and the checkpoint for NaN"
            )


class _Together(SweepReceiver):
    """Logits of images with all parts patched at once."""

    def __init__(self, images: int, classes: int) -> None:
        self.logits = torch.empty(images, classes, dtype=torch.float64)

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Images as they are come in another sweep."""

    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        """Take the logits."""
        self.logits[torch.tensor(images)] = logits.cpu().double()


@dataclass(frozen=True, eq=False)
class _AgainstThese(SweepReceiver):
    """Hands values on, with logits in the place of those of sources."""

    values: _Values
    logits: Float[Tensor, "image category"]

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Images as they are, with the logits given."""
        self.values.unpatched(images, base, self.logits[images].to(base))

    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        """Images with a variant."""
        self.values.patched(images, variants, logits)


def _formula(view: ModelView, metric: str) -> Formula:
    """The formula of a metric for what the model's outputs mean; raises ClasslensError where it has no meaning."""
    found = SWEEP_METRICS[metric]
    formula = found.classes if view.exclusive else found.labels if view.multi_label else found.numbers
    if formula is None:
        what = "labels with a sigmoid each" if view.multi_label else "numbers, not classes,"
        others = [
            name for name, other in SWEEP_METRICS.items() if (other.labels if view.multi_label else other.numbers)
        ]
        raise ClasslensError(
            f"metric {metric!r} has no meaning for model {view.name!r}, which has {what} as outputs: give one of "
            f"{', '.join(others)}"
        )
    return formula


def _known(classes: Classes, given: Target, images: int, name: str) -> Int[Tensor, " image"]:
    """Class of each image; -1 for one that is predicted."""
    return torch.full((images,), -1) if is_predicted(given) else class_indices(classes, given, images, name)


def corrupted(
    corrupt: CorruptImages, clean: Pixels, view: ModelView, preprocessing: Preprocessing
) -> tuple[list[str], Pixels | Means, Kept | None]:
    """Names, pixels and kept tokens of the corrupt image of each clean one; raises ClasslensError for others than
    these take."""
    if isinstance(corrupt, Means):
        return [f"means of {corrupt.data}"] * len(clean), corrupt, None
    if isinstance(corrupt, Corruption):
        return [corrupt.kind] * len(clean), corrupt(clean), None
    if isinstance(corrupt, KeepTokens):
        tokens = view.tokens((int(clean.shape[2]), int(clean.shape[3])))
        keep: Tensor = token_selector(view, corrupt.mask)(torch.empty(len(clean), tokens.count, 1))
        return ["tokens removed"] * len(clean), clean, keep.expand(len(clean), -1)
    try:
        names, pixels = prepare_images(corrupt, view, preprocessing)
    except ClasslensError as error:
        raise ClasslensError(f"the corrupt images cannot be used: {error}") from None
    if pixels.shape[1:] != clean.shape[1:] or len(pixels) not in (1, len(clean)):
        raise ClasslensError(
            f"corrupt images of shape {list(pixels.shape)} were given for clean ones of shape {list(clean.shape)}: "
            "give one image, or one for each, of the same size"
        )
    return names * (len(clean) // len(pixels)), pixels.expand_as(clean), None
