"""One forward pass over some images, projected on the class embedding where and when it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.core.maps import compute_dtype
from classlens.core.scores import BlockFacts, Facts
from classlens.core.scores import identifiability as identifiability_of
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError, not_finite
from classlens.explain.all_classes import explain_classes, explain_every_class
from classlens.explain.attribution import attribute
from classlens.explain.registry import method_of
from classlens.forward.recording import Recording
from classlens.lens.facts import FactsTable, Integers, check_sites, site_blocks
from classlens.lens.labels import (
    Coordinates,
    array,
    class_coords,
    image_names,
    method_attrs,
    target_coords,
    token_coords,
)
from classlens.lens.target import Target, indices
from classlens.models.classes import Classes
from classlens.models.geometry import Window, input_window
from classlens.models.transforms import Preprocessing
from classlens.models.view import Site

# Logits held beside a result while it is made: 4 MiB in float32, small enough to stay in the cache.
_SCRATCH = 2**20


class Trace:
    """Made by ``Lens.trace``; every result is an ``xarray.DataArray`` with named dims and coordinates.

    Dims: ``image, block, head, token, category``; coordinates ``token_kind`` (``cls``, ``reg0``, ``image``), ``row``
    and ``column`` of the grid (-1 for prefix tokens) and ``class_name``. Blocks count from 0. ``target``, the class of
    interest, is an index, a name, a list with one of them for each image, or ``"predicted"``.
    """

    def __init__(
        self, recording: Recording, classes: Classes, preprocessing: Preprocessing, names: list[str], pixels: Tensor
    ) -> None:
        self.recording = recording
        self.classes = classes
        self.names = names
        self._preprocessing = preprocessing
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        view, tokens = self.recording.view, self.recording.tokens
        return f"Trace({len(self)} images, {len(view.blocks)} blocks, {tokens.count} tokens of {view.name!r})"

    def picture(self, image: int) -> Image.Image:
        """An image as the model saw it, after resizing and cropping."""
        return self._preprocessing.picture(self._pixels[image])

    def window(self, photo: Image.Image) -> Window | None:
        """Where in a photo lies what the model saw of it, in pixels of the photo.

        ``trace.window(photo).visible``; None for a transform with other steps than torchvision's resizes and crops.
        """
        size, transform = (photo.height, photo.width), self._preprocessing.transform
        return None if transform is None else input_window(size, transform)

    @property
    def model_logits(self) -> xr.DataArray:
        """The model's own logits, dims ``image, category``."""
        return array(self._logits, ("image", "category"), self._coords(classes=True), name="model_logits")

    @property
    def predictions(self) -> xr.DataArray:
        """Predicted class index of each image, dims ``image``, with its ``class_name``."""
        index = self.recording.logits.argmax(dim=1).cpu().numpy()
        names = np.array([self.classes.names[i] for i in index], dtype=object)
        return array(index, ("image",), {**self._coords(), "class_name": ("image", names)}, name="prediction")

    def logits(self, site: Site) -> xr.DataArray:
        """Class logits of every token at a site, dims ``image, block, token, category``.

        ``trace.logits("mlp_out").sel(block=3)``. ``embed`` has block 0 alone. float32, 4 bytes × blocks × tokens ×
        classes an image; little more than the result is needed while it is made.
        """
        view, tokens = self.recording.view, self.recording.tokens
        blocks = self._blocks(site)
        dtype = compute_dtype(view.dtype)
        result = torch.empty(len(self), len(blocks), tokens.count, view.num_classes, dtype=dtype)
        spaces = self._spaces()
        for part in self._parts():
            for block, states in self.recording.walk(site, part):
                for space, rows in spaces:
                    result[part, block, rows] = view.space_at(space, site, block).project(states[:, rows]).cpu()
        _finite(result)
        return array(result, ("image", "block", "token", "category"), self._coords(blocks, classes=True), name="logit")

    def facts(self, sites: Site | Collection[Site], target: Target) -> xr.Dataset:
        """Rank and logit of the class of interest and the top-1 class, for several sites at the price of two.

        Dims ``image, site, block, token``. ``rank``: classes with a strictly larger logit, 0 is best; ``top1``: the
        class on top. Where both sublayer outputs are asked for, the sums they make up need no product of their own.
        """
        wanted = check_sites(self.recording.view, sites)
        index = self._target(target)
        table = FactsTable(self.recording.view, self.recording.tokens, wanted, len(self))
        for part in self._parts():
            for space, group in self._spaces():
                for site, block, found in self._block_facts(space, group, part, index, wanted):
                    table.put(part, site, block, group, found)
        return table.dataset(self.names, self.classes, index)

    def rank(self, site: Site, target: Target) -> xr.DataArray:
        """Number of classes with a strictly larger logit than the class of interest, dims ``image, block, token``.

        ``trace.rank("resid_post", "cat")``: 0 where ``cat`` is on top, up to ``num_classes - 1``.
        """
        return self.facts(site, target)["rank"].isel(site=0, drop=True)

    def identifiability(self, site: Site, target: Target) -> xr.DataArray:
        """``1 - rank / num_classes``, dims ``image, block, token``; 1 where the class of interest is on top."""
        rank = self.rank(site, target)
        values = identifiability_of(torch.from_numpy(rank.values), len(self.classes))
        return array(values, ("image", "block", "token"), rank.coords, name="identifiability")

    def top(self, site: Site, k: int = 5) -> xr.DataArray:
        """The k classes with the largest logits, dims ``image, block, token, place``.

        ``trace.top("resid_post", 3).class_name.sel(block=5)``; the coordinate ``logit`` holds their logits.
        """
        if not 1 <= k <= len(self.classes):
            raise ClasslensError(f"k is {k}: expected 1 to {len(self.classes)}, the number of classes")
        tokens, blocks = self.recording.tokens, self._blocks(site)
        shape = (len(self), len(blocks), tokens.count, k)
        index = torch.empty(shape, dtype=torch.int64)
        logit = torch.empty(shape, dtype=compute_dtype(self.recording.view.dtype))
        for part in self._parts():
            for block, states in self.recording.walk(site, part):
                for space, rows in self._spaces():
                    read = self.recording.view.space_at(space, site, block)
                    found = read.project(states[:, rows]).topk(k, dim=-1)
                    index[part, block, rows], logit[part, block, rows] = (
                        found.indices.cpu(),
                        found.values.cpu().to(logit),
                    )
        _finite(logit)
        dims = ("image", "block", "token", "place")
        names = np.array(self.classes.names, dtype=object)[index.numpy()]
        coords = {
            **self._coords(blocks),
            "place": np.arange(k),
            "logit": (dims, logit.numpy()),
            "class_name": (dims, names),
        }
        return array(index, dims, coords, name="top")

    def explain(self, target: Target = "predicted", *, method: str = "class_gradient", **options: Any) -> xr.DataArray:
        """How much each image token speaks for a class: dims ``image, block, head, token``, or what a method has of
        them.

        ``trace.explain("cat").sum("head")``, ``trace.explain("cat", against="dog")``, ``trace.explain("all")``.

        Args:
            target: a class, one for each image, or ``"predicted"``. ``"all"``: every class at once by the class
                gradient, summed over blocks and heads, dims ``image, category, token``; single blocks and heads of many
                classes are streamed by ``explain_classes``.
            method: ``class_gradient`` (the paper; closed form, no autograd): ``-∂ℓ/∂A`` of the attention of
                ``[CLS]``, or the mean over the tokens that the head pools, ℓ a loss of the class on the projection of
                that block's attention output. ``attention``, ``rollout``, ``chefer``, ``grad_cam``, ``random``:
                ``image, token``. ``legrad``, ``logit_attribution``, ``log_odds``: by block and head. ``class_rank``:
                ``image, block, token``. Sums over block and head are the map of the image; higher is more important.
            options: of the method. ``loss`` (class_gradient): ``"cross_entropy"`` (the paper), ``"logit"``, or
                ``"double_softmax"`` (the published code). ``against`` (class_gradient): another class; why the one
                rather than the other. ``query`` (class_gradient, attention, rollout, chefer): whose attention,
                ``"cls"`` or ``(row, column)``. ``block`` (grad_cam), ``pool`` (legrad), ``seed`` (random).

        Raises:
            ClasslensError: an unknown method, class or token, or an option that the method does not take.

        Source: Vilas, Schaumlöffel and Roig, NeurIPS 2023, section 4.1 (class_gradient); of each method its own
        docstring in ``classlens.explain``.
        """
        if isinstance(target, str) and target == "all":
            if method != "class_gradient":
                raise ClasslensError(f"method {method!r} explains one class at a time: give a class, not 'all'")
            options.setdefault("loss", "logit")
            found = explain_every_class(self.recording, **_checked(options))
            coords = self._coords(self._blocks("attn_out"), classes=True, image_only=True)
            return array(
                found, ("image", "category", "token"), coords, name="importance", **method_attrs(method, options)
            )
        chosen = method_of(method, options)
        told = method_attrs(method, options)
        index = self._target(target)
        if options.get("against") is not None:
            options["against"] = self._target(options["against"])
        values = chosen.run(self.recording, index, **options)
        coords = {
            **self._coords(self._blocks("attn_out"), image_only=True),
            **target_coords(self.classes, index.numpy()),
        }
        return array(values, chosen.dims, coords, name="importance", **told)

    def explain_classes(self, step: int = 32, **options: Any) -> Iterator[xr.DataArray]:
        """The class gradient of every class for every block and head, some classes at a time, to keep memory bounded.

        ``for some in trace.explain_classes(): some.sel(block=11).max("head")``, dims ``image, category, block, head,
        token`` of ``step`` classes each. ``loss`` is ``"logit"`` when left out, or ``"cross_entropy"``; ``query`` as in
        ``explain``. Source: design, section 4.
        """
        step = whole_number("step", step, 1)
        options.setdefault("loss", "logit")
        chosen, told = _checked(options), method_attrs("class_gradient", options)
        coords = self._coords(self._blocks("attn_out"), classes=True, image_only=True)
        names = ("image", "category", "block", "head", "token")
        for start in range(0, len(self.classes), step):
            some = slice(start, min(start + step, len(self.classes)))
            own = coords | class_coords(self.classes, some)
            found = explain_classes(self.recording, some, **chosen)
            yield array(found, names, own, name="importance", **told)

    def map(self, target: Target = "predicted", *, method: str = "class_gradient", **options: Any) -> xr.DataArray:
        """The explanation summed over blocks and heads, on the grid: dims ``image, row, column``.

        ``trace.map("cat", method="rollout")``; with ``category`` in between for ``"all"``.
        """
        values = self.explain(target, method=method, **options)
        rows, columns = self.recording.tokens.grid
        coords: Coordinates = {
            **{str(key): one for key, one in values.coords.items() if set(one.dims) <= {"image", "category"}},
            "row": np.arange(rows),
            "column": np.arange(columns),
        }
        summed = values.sum([dim for dim in values.dims if dim in ("block", "head")], skipna=False)
        dims = tuple(str(dim) for dim in summed.dims[:-1])
        shaped = summed.values.reshape(*summed.shape[:-1], rows, columns)
        return array(shaped, (*dims, "row", "column"), coords, name="importance", **values.attrs)

    def attribution(self, target: Target = "predicted") -> xr.Dataset:
        """A class logit as the exact sum of what each part adds to it (law 3).

        ``embed + attention.sum() + mlp.sum() + bias = logit`` for every image, with

        - ``embed`` (``image``): the tokens that the head pools, before the first block;
        - ``attention`` (``image, block, head``), and ``attention_token`` (``image, block, head, token``), the same by
          the token attended to;
        - ``mlp`` (``image, block``), without its output bias;
        - ``bias`` (``image``): of every output projection, norm and the head;
        - ``logit`` (``image``): the model's own logit of the class.

        The scale of every norm is frozen at its value; see the design, section 1.
        """
        index = self._target(target)
        found = attribute(self.recording, index.to(self.recording.view.device))
        coords = {**self._coords(self._blocks("attn_out")), **target_coords(self.classes, index.numpy())}
        coords["head"] = np.arange(found.attention.shape[2])
        own = self._logits.cpu().gather(1, index[:, None])[:, 0]
        return xr.Dataset(
            {
                "embed": array(found.embed, ("image",), coords, name="embed"),
                "attention": array(found.attention.sum(dim=-1), ("image", "block", "head"), coords, name="attention"),
                "mlp": array(found.mlp, ("image", "block"), coords, name="mlp"),
                "bias": array(found.bias, ("image",), coords, name="bias"),
                "logit": array(own, ("image",), coords, name="logit"),
                "attention_token": array(
                    found.attention, ("image", "block", "head", "token"), coords, name="attention_token"
                ),
            }
        )

    def _spaces(self) -> list[tuple[ClassSpace, Tensor | slice]]:
        return self.recording.view.spaces(self.recording.tokens.count)

    def _block_facts(
        self, space: ClassSpace, group: Tensor | slice, part: slice, target: Tensor, sites: Collection[Site]
    ) -> Iterator[tuple[str, int, Facts]]:
        """Facts of the tokens of one class space, as rows image by image."""
        embed = self.recording.states("embed", 0)[part, group]
        rows = target[part].repeat_interleave(embed.shape[1]).to(embed.device)
        made = BlockFacts(space, rows, sites, self.recording.view.space_by_site(space))
        yield from made.feed("embed", embed.flatten(0, 1))
        for attn, mlp in self.recording.sublayers(part):
            yield from made.feed("attn_out", attn[:, group].flatten(0, 1))
            yield from made.feed("mlp_out", mlp[:, group].flatten(0, 1))

    @property
    def _logits(self) -> Tensor:
        """The model's own logits in the precision of every other result."""
        return self.recording.logits.to(compute_dtype(self.recording.logits.dtype))

    def _target(self, target: Target) -> Tensor:
        """Class indices, one an image, on the CPU."""
        if isinstance(target, str) and target == "predicted":
            return self.recording.logits.argmax(dim=1).cpu()
        return indices(self.classes, target, len(self))

    def _blocks(self, site: str) -> Integers:
        return site_blocks(self.recording.view, site)

    def _parts(self) -> Iterator[slice]:
        """Images in groups whose logits fit the scratch space; at least one image each."""
        step = max(1, _SCRATCH // (self.recording.tokens.count * self.recording.view.num_classes))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    def _coords(
        self,
        blocks: np.ndarray[tuple[int], np.dtype[np.integer]] | None = None,
        *,
        classes: bool = False,
        image_only: bool = False,
    ) -> Coordinates:
        coords: Coordinates = {"image": image_names(self.names)}
        if blocks is not None:
            coords["block"] = blocks
            coords["head"] = np.arange(self.recording.view.blocks[0].heads)
            coords |= token_coords(self.recording.tokens, image_only=image_only)
        return coords | (class_coords(self.classes) if classes else {})


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options of all classes at once; raises ClasslensError for others."""
    for option in options:
        if option not in ("loss", "query"):
            raise ClasslensError(f"all classes at once have no option {option!r}: they take loss and query")
    return options


def _finite(logits: Tensor) -> None:
    # The extremes are NaN or infinite when any logit is; neither a mask nor a float64 copy as large as the logits.
    if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(logits)):
        raise not_finite()
