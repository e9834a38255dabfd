"""From a name, a checkpoint or a module to a model that classlens can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from classlens.errors import ClasslensError, suggestion
from classlens.models import families
from classlens.models.classes import Classes, classes_of
from classlens.models.families import Created, Request
from classlens.models.transforms import Preprocessing, Transform, preprocessing
from classlens.models.view import ModelView


@dataclass(frozen=True)
class Loaded:
    """A model with all that belongs to it."""

    view: ModelView
    preprocessing: Preprocessing
    classes: Classes


def load_model(
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
) -> Loaded:
    """See ``classlens.load``, which also runs the self-check."""
    if isinstance(model, Path):
        model = str(model)
    if not isinstance(model, str | nn.Module | ModelView):
        raise ClasslensError(
            f"a {type(model).__name__} was given as the model: give a model name, a folder, a module or a ModelView"
        )
    request = Request(checkpoint, num_classes, pretrained, options, class_names)
    if isinstance(model, nn.Module | ModelView):
        if not request.plain:
            raise ClasslensError(
                "checkpoint, num_classes and model options go with a model name: a module is taken as it is; load its "
                "weights before handing it over"
            )
        created = _held(model)
        name = model.name if isinstance(model, ModelView) else type(model).__name__
    else:
        name = model
        created = _create(model, request if head is None else replace(request, num_classes=0))
    if head is not None:
        if num_classes is not None or created.view is not None:
            raise ClasslensError(
                f"model {name!r} was given head= beside num_classes= or a description: the head alone says what its "
                "classes are"
            )
        from classlens.models.linear_head import with_head

        created = with_head(created, head, name)
    if device is not None and created.view is not None:
        raise ClasslensError(f"model {name!r} stays where its description found it: move it before describing it")
    if device is not None:
        try:
            created.module.to(torch.device(device))
        except (RuntimeError, AssertionError, NotImplementedError, ImportError):
            raise ClasslensError(f"device {str(device)!r} is not available here: give cpu, cuda or mps") from None
    if dtype is not None:
        if created.view is not None:
            raise ClasslensError(f"model {name!r} stays as its description found it: convert it before describing it")
        created.module.to(_dtype(dtype))
    view = created.view or families.of(created.module, name).view(created.module, name)
    prepared = preprocessing(created.transform, view.input_size, transform, name=name)
    names = created.class_names if class_names is None else class_names
    return Loaded(view, prepared, classes_of(view.num_classes, names))


def _dtype(given: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, given, None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ClasslensError(f"dtype {str(given)!r} is not known: give float32, bfloat16, float16 or float64")
    return found


def _held(model: nn.Module | ModelView) -> Created:
    """A model that the user holds, with what its library or its description knows about it."""
    if isinstance(model, ModelView):
        return Created(model.module, model.class_names, model.transform, model)
    return families.of(model, type(model).__name__).known_as(model)


def _create(name: str, request: Request) -> Created:
    adapter = families.named(name)
    if adapter is None:
        hint = suggestion(name, (known.name for known in families.known()))
        raise ClasslensError(
            f"model {name!r} is neither built in nor known to timm, torchvision, OpenCLIP or transformers"
            f"{hint or '; see the names with `classlens models`'}"
        )
    return adapter.create(name, request)
