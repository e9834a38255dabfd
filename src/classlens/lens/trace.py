"""One forward pass over some images, projected on the class embedding where and when a result is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from classlens.core.arguments import AtLeast1, checked, whole_number
from classlens.core.arrays import Array
from classlens.core.attention import Loss
from classlens.core.scores import identifiability
from classlens.explain.all_classes import explain_classes, explain_every_class
from classlens.explain.batching import slices
from classlens.explain.method import MethodLike
from classlens.explain.queries import Query
from classlens.explain.registry import default_method, method_of
from classlens.forward.isolation import isolated_methods
from classlens.forward.recording import Recording
from classlens.lens.attribution import AttributionTrace
from classlens.lens.coords import (
    Coordinates,
    array,
    class_coords,
    image_names,
    method_attrs,
    on_grid,
    state_coords,
    target_coords,
)
from classlens.lens.facts import check_sites, recorded_facts, site_blocks
from classlens.lens.projections import recorded_logits, recorded_top
from classlens.lens.target import Target
from classlens.models.classes import Classes
from classlens.models.geometry import Window, input_window
from classlens.models.transforms import Preprocessing
from classlens.models.view import Site
from classlens.renderers import Shown


@isolated_methods
@checked
class Trace(Shown, AttributionTrace):
    """A recorded forward pass over some images; every result is an ``xarray.DataArray`` or ``Dataset`` with labels.

    Dims: ``image, block, head, token, category``; coordinates ``token_kind`` (``cls``, ``reg0``, ``image``), ``row``
    and ``column`` of the grid (-1 for prefix tokens) and ``class_name``. Blocks count from 0. A ``site`` is ``embed``,
    ``resid_pre``, ``attn_out``, ``resid_mid``, ``mlp_out`` or ``resid_post``. A ``target``, the class of interest, is
    an index, a name, a list with one of them per image, or ``"predicted"``. A notebook shows the first images of a
    trace, their likeliest classes, and the standing of the prediction after each block.

    Examples:
        >>> import classlens, torch
        >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
        >>> trace
        Trace(2 images, 6 blocks, 65 tokens of 'builtin:cifar10')
    """

    _renderer: ClassVar[str] = "trace"

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

    @property
    def pixels(self) -> Tensor:
        """Preprocessed pixels ``[image, channel, height, width]``, such as for the source of a ``Patch``."""
        return self._pixels

    def picture(self, image: int) -> Image.Image:
        """An image as the model saw it, after resizing and cropping.

        Args:
            image: position among the images of the trace, from 0.
        """
        return self._preprocessing.picture(self._pixels[whole_number("image", image, 0, len(self) - 1)])

    def window(self, photo: Image.Image) -> Window | None:
        """The part of a photo that the model sees, in pixels of the photo.

        Returns:
            A window whose ``seen`` is the visible box; None where the transform has other steps than torchvision's
            resizes and center crops.
        """
        size, transform = (photo.height, photo.width), self._preprocessing.transform
        return None if transform is None else input_window(size, transform)

    @property
    def model_logits(self) -> xr.DataArray:
        """The model's own logits, dims ``image, category``."""
        return array(
            self.recording.logits.to(self.recording.dtype),
            ("image", "category"),
            self._class_coords,
            name="model_logits",
        )

    @property
    def predictions(self) -> xr.DataArray:
        """Predicted class index of each image, dims ``image``, with its ``class_name``."""
        index = self.recording.logits.argmax(dim=1).cpu().numpy()
        names = np.array([self.classes.names[i] for i in index], dtype=object)
        coords: Coordinates = {"image": image_names(self.names), "class_name": ("image", names)}
        return array(index, ("image",), coords, name="prediction")

    def logits(self, site: Site = "resid_post") -> xr.DataArray:
        """Class logits of every token at a site.

        Args:
            site: see ``Trace``; ``embed`` has block 0 alone.

        Returns:
            Dims ``image, block, token, category``; float32, 4 bytes × blocks × tokens × classes per image. Computing it
            takes little more RAM than the result.

        Raises:
            ClasslensError: a site that the model does not have, or logits that are not finite.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.logits("mlp_out").sel(block=3).sizes)
            {'image': 2, 'token': 65, 'category': 10}
        """
        coords = self._state_coords(site_blocks(self.recording.view, site)) | self._class_coords
        values = recorded_logits(self.recording, site)
        return array(values, ("image", "block", "token", "category"), coords, name="logit")

    def facts(self, sites: Site | Collection[Site] = "resid_post", target: Target = "predicted") -> xr.Dataset:
        """Rank and logit of the class of interest and the top-1 class, for several sites at the cost of two.

        Args:
            sites: one or several sites, see ``Trace``; ``embed`` only alone.
            target: class of interest, see ``Trace``.

        Returns:
            ``rank`` (classes with a strictly larger logit, 0 is best; among labels with a sigmoid each, the number of
            labels that are likelier), ``logit`` and ``top1`` (index of the class with the largest logit), dims ``image,
            site, block, token``.

        Raises:
            ClasslensError: a site or class that the model does not have, or logits that are not finite.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.facts(["attn_out", "mlp_out"], "cat").sizes)
            {'image': 2, 'site': 2, 'block': 6, 'token': 65}
        """
        distinct = check_sites(self.recording.view, sites)
        index = self._indices(target)
        return recorded_facts(self.recording, distinct, index).dataset(self.names, self.classes, index)

    def rank(self, site: Site = "resid_post", target: Target = "predicted") -> xr.DataArray:
        """Number of classes with a strictly larger logit than the class of interest.

        Args:
            site: see ``Trace``.
            target: class of interest, see ``Trace``.

        Returns:
            Dims ``image, block, token``, from 0 (the class of interest is on top) to ``num_classes - 1``.

        Raises:
            ClasslensError: as ``facts`` does.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> trace.rank().sel(block=5, token=0).values
            array([0, 0])
        """
        return self.facts(site, target)["rank"].isel(site=0, drop=True)

    def identifiability(self, site: Site = "resid_post", target: Target = "predicted") -> xr.DataArray:
        """Class identifiability ``1 - rank / num_classes``; 1 where the class of interest is on top.

        Labels with a sigmoid each do not compete: there it is 1 where the token's logit is above 0, a probability above
        0.5, and 0 elsewhere, so that its mean is a share of tokens. Arguments, dims and errors are those of ``rank``.
        Source: Vilas, Schaumlöffel and Roig, NeurIPS 2023.
        """
        facts = self.facts(site, target).isel(site=0, drop=True)
        if self.recording.view.multi_label:
            values = torch.from_numpy(facts["logit"].values > 0).float()
        else:
            values = identifiability(torch.from_numpy(facts["rank"].values), len(self.classes))
        return array(values, ("image", "block", "token"), facts["rank"].coords, name="identifiability")

    def top(self, site: Site = "resid_post", k: int = 5) -> xr.DataArray:
        """The k classes with the largest logits of each token.

        Args:
            site: see ``Trace``.
            k: number of classes, from 1 to all.

        Returns:
            Class indices, dims ``image, block, token, place`` with the best at place 0; coordinates ``logit`` and
            ``class_name`` of each.

        Raises:
            ClasslensError: a ``k`` or site that the model does not have, or logits that are not finite.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> trace.top(k=3).class_name.sel(block=5, token=0).shape
            (2, 3)
        """
        k = whole_number("k", k, 1, len(self.classes), hint=", the number of classes")
        blocks = site_blocks(self.recording.view, site)
        index, logit = recorded_top(self.recording, site, k)
        dims = ("image", "block", "token", "place")
        names = np.array(self.classes.names, dtype=object)[index.numpy()]
        order = {"place": np.arange(k), "logit": (dims, logit.numpy()), "class_name": (dims, names)}
        return array(index, dims, self._state_coords(blocks) | order, name="top")

    def explain(
        self, target: Target = "predicted", *, method: MethodLike | None = None, **options: Any
    ) -> xr.DataArray:
        """How much each image token speaks for a class.

        Args:
            target: class of interest, see ``Trace``.
            method: name of a method in ``classlens.METHODS``; when left out ``log_odds``, the most faithful, or
                the nearest that the head allows. Or a map of another tool: a function of model, pixels and target that
                returns ``[image, row, column]`` at any resolution, also ``"file.py:function"``; the value of a token is
                the mean over its cell. Its option is ``sign``: ``"signed"``, ``"absolute"`` or ``"positive"``.
            options: of the method, named by ``classlens.METHODS[method].options``. ``against``: another class; why the
                target rather than this one. ``query``: the token whose attention is explained, ``"cls"`` or ``(row,
                column)``; the tokens that the head pools when left out.

        Returns:
            Importance, higher is more important: dims ``image, token`` of image tokens, with ``block`` and ``head``
            where the method has them. Its sum over blocks and heads is the map of the image.

        Raises:
            ClasslensError: an unknown method, class or token, an option that the method does not have, or a function
                that raises, returns something else, or leaves hooks or other weights on the model.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.explain("cat", against="dog").sum("head").sizes)
            {'image': 2, 'block': 6, 'token': 64}
        """
        method = default_method(self.recording.view) if method is None else method
        chosen, attrs = method_of(method, options), method_attrs(method, options)
        index = self._indices(target)
        if options.get("against") is not None:
            options["against"] = self._indices(options["against"], "against")
        values = chosen.run(self.recording, index, **options)
        coords = self._image_token_coords | target_coords(self.classes, index.numpy())
        return array(values, chosen.dims, coords, name="importance", **attrs)

    def explain_every_class(self, *, loss: Loss = "logit", query: Query = None) -> xr.DataArray:
        """The class gradient of every class at once, summed over blocks and heads.

        Args:
            loss: ``logit``, or ``cross_entropy``, which differs from it by a term that all classes share.
            query: whose attention: ``"cls"``, ``(row, column)``, or None for the tokens that the head pools.

        Returns:
            Importance of image tokens, dims ``image, category, token``. Beside it, RAM holds some MiB.

        Raises:
            ClasslensError: a loss without a form for all classes, or an unknown token.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.explain_every_class().sizes)
            {'image': 2, 'category': 10, 'token': 64}
        """
        values = explain_every_class(self.recording, loss=loss, query=query)
        coords = self._image_token_coords | self._class_coords
        attrs = method_attrs("class_gradient", {"loss": loss, "query": query})
        return array(values, ("image", "category", "token"), coords, name="importance", **attrs)

    def explain_classes(
        self, step: AtLeast1 = 32, *, loss: Loss = "logit", query: Query = None
    ) -> Iterator[xr.DataArray]:
        """The class gradient of every class for every block and head, some classes at a time to bound RAM.

        Args:
            step: classes per array, at least 1.
            loss: as for ``explain_every_class``.
            query: as for ``explain_every_class``.

        Returns:
            An iterator of arrays of ``step`` classes, dims ``image, category, block, head, token``.

        Raises:
            ClasslensError: a step that is no whole number of at least 1, and as ``explain_every_class`` does.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> [part.sizes["category"] for part in trace.explain_classes(step=4)]
            [4, 4, 2]
        """
        dims = ("image", "category", "block", "head", "token")
        coords, attrs = self._image_token_coords, method_attrs("class_gradient", {"loss": loss, "query": query})
        for classes in slices(len(self.classes), step):
            values = explain_classes(self.recording, classes, loss=loss, query=query)
            yield array(values, dims, coords | class_coords(self.classes, classes), name="importance", **attrs)

    def map(self, target: Target = "predicted", *, method: MethodLike | None = None, **options: Any) -> xr.DataArray:
        """``explain`` summed over blocks and heads, on the grid of image tokens.

        Arguments and errors are those of ``explain``.

        Returns:
            Importance, dims ``image, row, column``.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> trace.map("cat", method="rollout").shape
            (2, 8, 8)
        """
        return on_grid(self.explain(target, method=method, **options), self.recording.tokens.grid)

    def _state_coords(self, blocks: Array, *, image_only: bool = False) -> Coordinates:
        return state_coords(self.recording.view, self.recording.tokens, self.names, blocks, image_only=image_only)

    @property
    def _image_token_coords(self) -> Coordinates:
        return self._state_coords(site_blocks(self.recording.view, "attn_out"), image_only=True)

    @property
    def _class_coords(self) -> Coordinates:
        return {"image": image_names(self.names), **class_coords(self.classes)}
