"""Maps in the forms that other tools take: an object as captum has them, and a function for Quantus."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from classlens.core.arguments import checked
from classlens.core.arrays import Array
from classlens.core.path_arguments import checked_with_home
from classlens.core.pixel_maps import resize, upsample
from classlens.errors import ClasslensError
from classlens.explain.batching import slices
from classlens.explain.custom import MapMethod
from classlens.explain.method import MethodLike
from classlens.explain.registry import DEFAULT_METHODS, default_method, find_method, method_of
from classlens.forward.isolation import isolated, isolated_methods
from classlens.lens.images import prepared_pixels
from classlens.lens.lens import Lens
from classlens.lens.load import load
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.models.load import ModelLike

_BATCH = 32
# Modules, the options that loaded them, and their lenses; the last ones, as tools alternate between a model and a copy.
_loaded: list[tuple[Module, dict[str, Any], Lens]] = []
_KEPT = 2


@isolated_methods
@checked
class Explainer:
    """A method of a model with captum's ``attribute``, for its metrics and its visualization.

    Args:
        model: a lens, or a model as ``classlens.load`` takes it.
        method: as for ``Trace.explain``; ``log_odds``, or the nearest that the head allows, when left out.
        options: of the method, and for a model those of ``classlens.load``.

    Examples:
        >>> import classlens, torch
        >>> explainer = classlens.Explainer("builtin:cifar10", "class_gradient", loss="logit")
        >>> explainer.attribute(torch.zeros(2, 3, 32, 32), target=3).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, model: ModelLike | Lens, method: MethodLike | None = None, **options: Any) -> None:
        load_options, self._options = ({}, options) if isinstance(model, Lens) else _split(method, options)
        self.lens = model if isinstance(model, Lens) else _lens_of(model, load_options)
        self.method: MethodLike = default_method(self.lens.view) if method is None else method
        method_of(self.method, self._options)

    @overload
    def attribute(self, inputs: Tensor, target: Target | None = None) -> Tensor: ...
    @overload
    def attribute(self, inputs: tuple[Tensor, ...], target: Target | None = None) -> tuple[Tensor, ...]: ...
    def attribute(
        self, inputs: Tensor | tuple[Tensor, ...], target: Target | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Importance of each pixel, the same for all channels, as captum has it for features of several values.

        Args:
            inputs: preprocessed pixels ``[image, channel, height, width]``, or a tuple of one such tensor.
            target: class of each image, or of all; the predicted ones when left out.

        Returns:
            The shape, dtype and device of ``inputs``. A map of tokens is interpolated bilinearly between their centers.

        Raises:
            ClasslensError: several tensors, pixels or classes that the model does not take, and as ``Trace.explain``
                does.

        Examples:
            >>> import classlens, torch
            >>> explainer = classlens.Explainer(classlens.load("builtin:cifar10"))
            >>> explainer.attribute(torch.zeros(1, 3, 32, 32)).shape
            torch.Size([1, 3, 32, 32])
        """
        if not isinstance(inputs, Tensor):
            if len(inputs) != 1:
                raise ClasslensError(f"{len(inputs)} tensors were given as inputs: a model of images takes one")
            (pixels,) = inputs
            return (self._attribute(pixels, target),)
        return self._attribute(inputs, target)

    def _attribute(self, pixels: Tensor, target: Target | None) -> Tensor:
        target = "predicted" if target is None else target
        maps = pixel_maps(self.lens, pixels, target, self.method, self._options)[:, None].to(pixels)
        return maps.repeat(1, pixels.shape[-3], 1, 1).reshape(pixels.shape)


@isolated
@checked_with_home
def explain_func(
    model: ModelLike | Lens,
    inputs: Tensor | NDArray[Any],
    targets: Target,
    *,
    method: MethodLike | None = None,
    **options: Any,
) -> Array:
    """Maps as Quantus asks for them: ``metric(…, explain_func=classlens.explain_func, explain_func_kwargs={…})``.

    A module is loaded once; where its weights have changed since, the laws are measured again.

    Args:
        model: a module, or a lens.
        inputs: preprocessed pixels ``[image, channel, height, width]``.
        targets: class of each image.
        method: as for ``Trace.explain``; ``log_odds``, or the nearest that the head allows, when left out.
        options: of the method, and those of ``classlens.load``, such as ``device``.

    Returns:
        Maps ``[image, 1, height, width]`` of float32. A map of tokens is interpolated bilinearly between their centers.

    Raises:
        ClasslensError: as ``classlens.load`` and ``Trace.explain`` do.

    Examples:
        >>> import classlens, numpy as np
        >>> lens = classlens.load("builtin:cifar10")
        >>> classlens.explain_func(lens, np.zeros((2, 3, 32, 32), dtype=np.float32), [3, 5]).shape
        (2, 1, 32, 32)
    """
    if isinstance(model, Lens):
        options.pop("device", None)  # of the lens: Quantus adds its own
    explainer = Explainer(model, method, **options)
    try:
        pixels = torch.as_tensor(inputs).float()
    except TypeError:  # an array of texts or objects
        raise ClasslensError(f"inputs of type {np.asarray(inputs).dtype} were given: expected numbers") from None
    maps = pixel_maps(explainer.lens, pixels, targets, explainer.method, explainer._options)
    values: Float[ndarray, "image channel height width"] = maps[:, None].numpy().astype(np.float32)
    return values


def pixel_maps(
    lens: Lens, pixels: Tensor, target: Target, method: MethodLike, options: Mapping[str, Any]
) -> Float[Tensor, "image height width"]:
    """Maps at the resolution of the pixels, summed over blocks and heads, in float64 on the CPU."""
    pixels = prepared_pixels(pixels, lens.view, "inputs")
    record = find_method(method)
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    if isinstance(record, MapMethod):
        known = None if is_predicted(target) else class_indices(lens.classes, target, len(pixels))
        parts = []
        for images in slices(len(pixels), _BATCH):
            recording = lens.trace(pixels[images], batch_size=_BATCH).recording
            index = recording.logits.argmax(dim=1).cpu() if known is None else known[images]
            parts.append(record.native(recording, index, **options))
        return resize(torch.cat(parts), size)
    importance = lens.explain(pixels, target, method=method, batch_size=_BATCH, **options)
    values = importance.sum([dim for dim in importance.dims if dim in ("block", "head")], skipna=False).values
    return upsample(torch.from_numpy(values), lens.view.tokens(size).grid, size)


def _split(method: MethodLike | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of ``load`` and of the method."""
    of_load = inspect.signature(load).parameters
    of_method = set(find_method(DEFAULT_METHODS[0] if method is None else method).options) - of_load.keys()
    return (
        {name: value for name, value in options.items() if name not in of_method},
        {name: value for name, value in options.items() if name in of_method},
    )


def _lens_of(model: ModelLike, options: dict[str, Any]) -> Lens:
    """The lens of a model; one of the last modules is not loaded again, unless its parameters were replaced."""
    for module, before, lens in _loaded:
        if module is model and repr(before) == repr(options):
            with suppress(ClasslensError):
                lens._check_model()
                return lens
    lens = load(model, **options)
    if isinstance(model, Module):
        others = [entry for entry in _loaded if entry[0] is not model]
        _loaded[:] = [(model, options, lens), *others][:_KEPT]
    return lens
