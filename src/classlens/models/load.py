"""From a model name, a checkpoint or a module to a described model with its classes and preprocessing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from classlens.core.arguments import AnyPath, AtLeast1, Takes
from classlens.errors import ClasslensError
from classlens.models.adapter import LibraryModel, ModelRequest, adapter_of_module, adapter_of_name, from_user
from classlens.models.binary import as_two_classes, two_names
from classlens.models.classes import Classes, ClassNames, make_classes, ordered_names, read_class_names
from classlens.models.layer_weights import check_floating, evaluated_weights, merge_first, merged_copy
from classlens.models.lora import is_adapter, read_lora
from classlens.models.recipe import Adjustment
from classlens.models.transforms import Preprocessing, Transform, make_preprocessing, paper_transform
from classlens.models.user_file import FileTransform
from classlens.models.view import ModelView
from classlens.models.wrappers import require_values

ModelLike = Annotated[str | Path | nn.Module | ModelView, Takes("a model name, a folder, a module or a ModelView")]


@dataclass(frozen=True)
class LoadedModel:
    """A described model with its preprocessing and classes."""

    view: ModelView
    preprocessing: Preprocessing
    classes: Classes
    notes: tuple[str, ...] = ()
    """Remarks for the user on how the weights were read."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that a file told, with which the library makes the same architecture."""
    named_by: str | None = None
    """The source of the names of the classes, in words; None where they have none."""


def load_model(
    model: ModelLike,
    *,
    checkpoint: AnyPath | None = None,
    num_classes: AtLeast1 | None = None,
    img_size: AtLeast1 | tuple[AtLeast1, AtLeast1] | None = None,
    head: nn.Linear | AnyPath | None = None,
    class_names: ClassNames | Path | None = None,
    transform: Transform | str | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    pretrained: bool = True,
    multi_label: bool | None = None,
    merge_adapters: bool = False,
    **options: Any,
) -> LoadedModel:
    """See ``classlens.load``, which also runs the self-check."""
    if isinstance(model, Path):
        model = str(model)
    adjustment = Adjustment(crop_pct, interpolation, _numbers(mean), _numbers(std))
    given = class_names
    class_names = _names(given)
    if img_size is not None:
        options["img_size"] = img_size
    weights = None if checkpoint is None else os.fspath(checkpoint)
    lora = None if weights is None or not is_adapter(Path(weights)) else read_lora(Path(weights))
    request = ModelRequest(weights if lora is None else None, num_classes, pretrained, options, class_names, lora)
    if merge_adapters:
        if not isinstance(model, nn.Module):
            raise ClasslensError(
                "merge_adapters goes with a module, whose copy is merged: load the adapter with its own library first"
            )
        model = merged_copy(model)
    if isinstance(model, nn.Module | ModelView):
        if not request.is_default:
            raise ClasslensError(
                "checkpoint, num_classes and model options go with a model name: a module is used as it is; load its "
                "weights, or make it of another size, before handing it over"
            )
        library_model = from_user(model)
        name = model.name if isinstance(model, ModelView) else type(library_model.module).__name__
    else:
        name = model
        request = request if head is None else replace(request, num_classes=0)
        library = adapter_of_name(name)
        if lora is not None and not (library.takes_lora and pretrained):
            raise ClasslensError(
                f"adapter {weights!r} does not go with model {name!r}: give the model of timm, torchvision or "
                "transformers that it was trained on, with its weights"
            )
        library_model = library.create(name, request)
    if head is not None:
        if num_classes is not None or library_model.view is not None:
            raise ClasslensError(
                f"model {name!r} was given head= beside num_classes= or a description: the head alone decides the "
                "number of classes; leave the other out"
            )
        from classlens.models.timm_linear_head import with_head

        library_model = with_head(library_model, head if isinstance(head, nn.Linear) else os.fspath(head), name)
    require_values(library_model.module, name)
    _move(library_model, name, device, dtype)
    module = library_model.module
    check_floating(module, name)
    try:
        with evaluated_weights(module):
            view = library_model.view or adapter_of_module(module, name).describe(module, name)
    except ClasslensError as error:
        if merge_first(module) is None:
            raise
        raise ClasslensError(f"{error}; {merge_first(module)}") from None
    problem_type = library_model.problem_type or view.problem_type
    if multi_label is not None:
        problem_type = "multi_label_classification" if multi_label else "single_label_classification"
    if problem_type != view.problem_type:
        view = replace(view, problem_type=problem_type)
    names = library_model.class_names if class_names is None else class_names
    named_by = given.name if isinstance(given, Path) else None if names is None else "you" if given else "the model"
    notes = library_model.notes
    if view.multi_label and view.num_classes == 1:
        view, names = as_two_classes(view), two_names(names)
        notes += (f"one binary logit z: classes {names[0]!r} and {names[-1]!r} with the logits 0 and z",)
    paper = library_model.paper_transform or paper_transform(view.input_size)
    if isinstance(transform, str) and transform != "paper":
        transform = FileTransform(transform)
    preprocessing = make_preprocessing(library_model.transform, transform, paper=paper)
    adjusted = adjustment.of(preprocessing.transform, view.input_size, view.channels)
    if adjusted is not preprocessing.transform:
        preprocessing = make_preprocessing(adjusted, None, paper=paper)
    return LoadedModel(
        view,
        preprocessing,
        make_classes(view.num_classes, names),
        notes,
        library_model.options,
        named_by,
    )


def _numbers(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    return (float(values),) if isinstance(values, int | float) else tuple(map(float, values))


def _names(given: ClassNames | Path | None) -> Sequence[str] | None:
    if isinstance(given, Path):
        return read_class_names(given)
    return None if given is None else ordered_names(given)


def _move(model: LibraryModel, name: str, device: str | torch.device | None, dtype: str | torch.dtype | None) -> None:
    """Move and convert a module in place; raises ClasslensError for a model that a user has described."""
    if device is not None:
        if model.view is not None:
            raise ClasslensError(f"model {name!r} stays where its description found it: move it before describing it")
        try:
            model.module.to(torch.device(device))
        except (RuntimeError, AssertionError, NotImplementedError, ImportError):
            raise ClasslensError(f"device {str(device)!r} is not available here: give cpu, cuda or mps") from None
    if dtype is not None:
        if model.view is not None:
            raise ClasslensError(f"model {name!r} stays as its description found it: convert it before describing it")
        model.module.to(_floating(dtype))


def _floating(dtype: str | torch.dtype) -> torch.dtype:
    torch_dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
        raise ClasslensError(f"dtype {str(dtype)!r} is not known: give float32, bfloat16, float16 or float64")
    return torch_dtype
